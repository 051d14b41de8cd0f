use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Keys;

/// One for requests and one for its peers, of each part.
pub(super) const PORTS: usize = 8;

pub(super) fn configure(command: &mut Command, folder: &Path, ports: &[u16], keys: &Keys) {
    let identity = json!({
        "name": "tests",
        "credentials": [{ "accessKey": keys.id, "secretKey": keys.secret }],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    });
    let identities = json!({ "identities": [identity] }).to_string();
    fs::create_dir_all(folder.join("data")).expect("the folder is ours");
    fs::write(folder.join("s3.json"), identities).expect("the folder is ours");
    command.args(["-logtostderr=true", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
    // By default it reports to its makers.
    command.arg("-master.telemetry=false");
    // After a restart it would wait 20 s for other masters.
    command.arg("-master.electionTimeout=1s");
    // Small volumes that are made as needed: the default ones would fill the disk.
    command.args(["-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=0"]);
    command.args(["-filer", "-filer.localSocket=filer.sock", "-s3", "-s3.config=s3.json", "-s3.localSocket=s3.sock"]);
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]);
    for (part, ports) in ["s3", "master", "volume", "filer"].iter().zip(ports.chunks_exact(2)) {
        command.arg(format!("-{part}.port={}", ports[0])).arg(format!("-{part}.port.grpc={}", ports[1]));
    }
}

/// Its parts also talk over sockets whose place can't be chosen, and which stay when it is killed.
pub(super) fn remove_sockets(ports: &[u16]) {
    for (part, ports) in ["s3", "master", "volume", "filer"].iter().zip(ports.chunks_exact(2)) {
        drop(fs::remove_file(format!("/tmp/seaweedfs-{part}-grpc-{}.sock", ports[1]))); // it may not have come so far
    }
}
