use std::process::Command;

use super::Keys;

pub(super) const PORTS: usize = 1;

pub(super) fn configure(command: &mut Command, ports: &[u16], keys: &Keys) {
    command.env("MINIO_ROOT_USER", &keys.id).env("MINIO_ROOT_PASSWORD", &keys.secret);
    command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
    command.args([
        "server",
        "--quiet",
        "--certs-dir",
        "certs",
        "--address",
        &format!("127.0.0.1:{}", ports[0]),
        "data",
    ]);
}
