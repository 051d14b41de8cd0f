#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

mod azurite;
mod minio;
mod ports;
mod requests;
mod seaweedfs;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cutwater::object_store::{ObjectStorage, Secret, Settings};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};
use tempfile::TempDir;

use crate::process::{Process, bound, sleep};

pub use azurite::Azurite;
pub use requests::Upload;

/// The bucket that each server has from its start.
pub const BUCKET: &str = "cutwater-tests";

/// Any region does; it is part of the signatures.
const REGION: &str = "us-east-1";

/// From its start until it takes objects. MinIO needs half a second, SeaweedFS four, on an idle machine.
const READY: Duration = Duration::from_secs(90);

/// The longest that a client of the tests waits for an answer. Where many create one object, SeaweedFS takes seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// Between two looks whether a server takes objects.
const TICK: Duration = Duration::from_millis(50);

/// Which object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// MinIO, with one folder as its disk.
    MinIo,
    /// SeaweedFS: master, volume server, filer and S3 gateway in one process.
    SeaweedFs,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MinIo, Self::SeaweedFs];

    fn program(self) -> &'static str {
        match self {
            Self::MinIo => "minio",
            Self::SeaweedFs => "weed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MinIo => "MinIO",
            Self::SeaweedFs => "SeaweedFS",
        })
    }
}

/// A real object store that listens on this machine only, with ports, credentials and data of its own and an empty
/// bucket, [`BUCKET`]. It is killed when dropped, and by the kernel if the test itself is killed.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    ports: Vec<u16>, // the first one speaks S3
    keys: Keys,
    process: Option<Process>,
    folder: TempDir,
}

/// What requests are signed with.
pub(crate) struct Keys {
    id: String,
    secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts one and waits until it takes objects.
    ///
    /// # Panics
    ///
    /// If it can't be started: a test without its server is no test.
    #[must_use]
    pub fn start(kind: Kind) -> Self {
        Self::start_below(kind, &std::env::temp_dir())
    }

    /// The same with its data in a new folder below this one.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn start_below(kind: Kind, folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a temporary folder can be made");
        let keys = Keys { id: random_hex(10), secret: random_hex(20) };
        let mut server = Self { kind, ports: Vec::new(), keys, process: None, folder };
        for _ in 0..3 {
            server.ports = ports::free(match kind {
                Kind::MinIo => minio::PORTS,
                Kind::SeaweedFs => seaweedfs::PORTS,
            });
            match server.try_start() {
                Ok(()) => return server,
                // Between the look and the start, another process took one of them.
                Err(said) if said.contains("address already in use") => {}
                Err(said) => panic!("{said}"),
            }
        }
        panic!("{kind} found its ports taken three times in a row");
    }

    /// Kills it with SIGKILL. Its data stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            if self.kind == Kind::SeaweedFs {
                seaweedfs::remove_sockets(&self.ports);
            }
        }
    }

    /// Starts it again with the same ports, credentials and data, and waits until it takes objects.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    pub fn start_again(&mut self) {
        self.stop();
        self.try_start().unwrap_or_else(|said| panic!("{said}"));
    }

    fn try_start(&mut self) -> Result<(), String> {
        let program = installed(self.kind.program());
        let mut command = bound(&program);
        // Nothing that the environment says may reach the server, credentials of others least of all.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path()).current_dir(self.folder.path());
        match self.kind {
            Kind::MinIo => minio::configure(&mut command, &self.ports, &self.keys),
            Kind::SeaweedFs => seaweedfs::configure(&mut command, self.folder.path(), &self.ports, &self.keys),
        }
        let started = Instant::now();
        let mut process = Process::start_bound(command, self.folder.path());
        loop {
            let status = process.ended();
            let ready = if status.is_none() { self.try_bucket() } else { Ok(()) };
            match (status, ready) {
                (None, Ok(())) => break,
                (None, Err(_)) if started.elapsed() < READY => sleep(TICK),
                (status, ready) => {
                    process.kill();
                    let (kind, after) = (self.kind, started.elapsed());
                    let (stdout, stderr) = (process.stdout(), process.stderr());
                    return Err(format!(
                        "{kind} takes no objects after {after:?}: {ready:?}, status {status:?}\n{stdout}\n{stderr}"
                    ));
                }
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The id of its process, if it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Where it speaks S3.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[0]).into()
    }

    /// The URL there.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The environment of a process that uses it.
    #[must_use]
    pub fn env(&self) -> [(&'static str, String); 4] {
        self.env_at(&self.endpoint())
    }

    /// The same for a process that reaches it by another URL, such as that of a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn env_at(&self, endpoint: &str) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", self.keys.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.keys.secret.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ]
    }

    /// A folder of its bucket as a job has it.
    ///
    /// # Panics
    ///
    /// If it can't be opened.
    #[must_use]
    pub fn storage(&self, below: &str) -> ObjectStorage {
        self.storage_at(self.endpoint(), below)
    }

    /// The same where the requests go elsewhere, to a proxy say.
    ///
    /// # Panics
    ///
    /// If it can't be opened.
    #[must_use]
    pub fn storage_at(&self, endpoint: String, below: &str) -> ObjectStorage {
        let settings = Settings {
            endpoint: Some(endpoint),
            region: Some(REGION.to_owned()),
            access_key: Some(self.keys.id.clone()),
            secret_key: Some(Secret::new(&self.keys.secret)),
            ..Settings::default()
        };
        ObjectStorage::open(&format!("s3://{BUCKET}/{below}"), &settings).expect("the settings are ours")
    }

    /// A client for its bucket.
    ///
    /// # Panics
    ///
    /// If the client can't be made.
    #[must_use]
    pub fn store(&self) -> AmazonS3 {
        self.store_at(&self.endpoint())
    }

    /// The same by another URL.
    ///
    /// # Panics
    ///
    /// As [`Self::store`].
    #[must_use]
    pub fn store_at(&self, endpoint: &str) -> AmazonS3 {
        self.builder_at(endpoint).build().expect("the configuration is ours")
    }

    /// The same as a builder, for a client with other retries or time-outs than the usual.
    #[must_use]
    pub fn builder_at(&self, endpoint: &str) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_bucket_name(BUCKET)
            .with_region(REGION)
            .with_access_key_id(&self.keys.id)
            .with_secret_access_key(&self.keys.secret)
            .with_client_options(options(ANSWER))
            .with_retry(RetryConfig { max_retries: 3, retry_timeout: ANSWER, ..Default::default() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Of a client without encryption that waits so long for an answer.
fn options(timeout: Duration) -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_timeout(timeout)
}

/// Where `./test.sh` put a server's program.
fn installed(program: &str) -> PathBuf {
    let folder = std::env::var_os("CUTWATER_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME is set");
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty());
        cache.map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from).join("cutwater/servers/bin")
    });
    let path = folder.join(program);
    assert!(
        path.is_file(),
        "{} is not there, so the server can't be started: run ./test.sh, which installs it",
        path.display()
    );
    path
}

/// So many random bytes, in hexadecimal.
fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.expect("the kernel has random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
