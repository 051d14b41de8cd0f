use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, Request};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequestBody;
use tempfile::TempDir;

use super::requests::{answer, plain, tags};
use super::{BUCKET, READY, TICK, installed, ports, random_hex};
use crate::process::{Process, bound, sleep};

const ACCOUNT: &str = "cutwatertests";
const LIMIT: Duration = Duration::from_secs(10);

/// Azurite, the emulator of Azure Blob Storage that Microsoft makes: on this machine only, with an account of its own and an
/// empty container, [`BUCKET`]. It is killed when dropped, and by the kernel if the test itself is killed.
#[derive(Debug)]
pub struct Azurite {
    port: u16,
    key: String,
    _process: Process,
    _folder: TempDir,
}

impl Azurite {
    /// Starts one and waits until it takes objects.
    ///
    /// # Panics
    ///
    /// If it can't be started: a test without its server is no test.
    #[must_use]
    pub fn start() -> Self {
        let key = random_hex(32); // which is Base64 too
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let port = ports::free(1)[0];
            match try_start(folder.path(), port, &key) {
                Ok(process) => return Self { port, key, _process: process, _folder: folder },
                // Between the look and the start, another process took it.
                Err(said) if said.contains("EADDRINUSE") => {}
                Err(said) => panic!("{said}"),
            }
        }
        panic!("Azurite found its port taken three times in a row");
    }

    /// The environment of a process that uses it as it would use Azure, at an endpoint of its own.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let endpoint = format!("http://{}/{ACCOUNT}", address(self.port));
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", self.key.clone()),
            ("AZURE_STORAGE_ENDPOINT", endpoint),
        ]
    }

    /// The environment of a process that knows that it is the emulator.
    #[must_use]
    pub fn env_of_emulator(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", self.key.clone()),
            ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
            ("AZURITE_BLOB_STORAGE_URL", format!("http://{}", address(self.port))),
        ]
    }

    /// The names of all objects in [`BUCKET`], sorted; also those that have only parts that were never made one.
    ///
    /// # Panics
    ///
    /// If it does not say.
    #[must_use]
    pub fn objects(&self, unfinished: bool) -> Vec<String> {
        let include = if unfinished { "&include=uncommittedblobs" } else { "" };
        let path = format!("{BUCKET}?restype=container&comp=list{include}");
        let page = send(self.port, &self.key, Method::GET, &path).unwrap_or_else(|error| panic!("{error}"));
        assert!(page.contains("<NextMarker/>"), "more objects than one page holds: {page}");
        let mut names: Vec<_> = tags(&page, "Name").map(plain).collect();
        names.sort();
        names
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn try_start(folder: &Path, port: u16, key: &str) -> Result<Process, String> {
    let mut command = bound(&installed("azurite"));
    // Nothing else that the environment says may reach it.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", folder).env("TMPDIR", folder).current_dir(folder);
    command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"));
    command.args(["--silent", "--disableTelemetry", "--location", "data", "--blobHost", "127.0.0.1"]);
    command.args(["--blobPort", &port.to_string()]);
    let started = Instant::now();
    let mut process = Process::start_bound(command, folder);
    loop {
        let status = process.ended();
        let made = if status.is_none() { make_container(port, key) } else { Ok(()) };
        match (status, made) {
            (None, Ok(())) => return Ok(process),
            (None, Err(_)) if started.elapsed() < READY => sleep(TICK),
            (status, made) => {
                process.kill();
                let (stdout, stderr, after) = (process.stdout(), process.stderr(), started.elapsed());
                return Err(format!(
                    "Azurite takes no objects after {after:?}: {made:?}, status {status:?}\n{stdout}\n{stderr}"
                ));
            }
        }
    }
}

fn make_container(port: u16, key: &str) -> Result<(), String> {
    match send(port, key, Method::PUT, &format!("{BUCKET}?restype=container")) {
        Err(error) if error.contains("ContainerAlreadyExists") => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Signs and sends a request; the text of its answer, or what went wrong.
fn send(port: u16, key: &str, method: Method, path: &str) -> Result<String, String> {
    let key = AzureAccessKey::try_new(key).expect("our key is one");
    let uri = format!("http://{}/{ACCOUNT}/{path}", address(port));
    let request = Request::builder().method(method).uri(uri).header("content-length", "0");
    let mut request = request.body(HttpRequestBody::from(Bytes::new())).expect("the names are ours");
    let credential = AzureCredential::AccessKey(key);
    AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).expect("our key can sign");
    answer(request, LIMIT)
}
