//! A MinIO of the run, and what plain requests get out of it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use cutwater::object_store::{ObjectStorage, Secret, Settings};
use cutwater::storage::Store;
use cutwater_integration_tests::{BUCKET, Kind, Server};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::{ObjectStoreExt as _, PutPayload};
use tokio::runtime::{Builder, Runtime};

use crate::blobs::noise;
use crate::clock;
use crate::job::Folder;

/// Bytes of a plain object.
const OBJECT: u64 = 64_000_000;

/// The bucket of a server that ends with the run.
pub(crate) struct Bucket {
    server: Server,
    folder: Folder,
    client: AmazonS3,
    runtime: Runtime,
    in_flight: usize,
    block: Bytes,
    /// How many plain objects are there, all full but the last.
    plain: AtomicUsize,
}

impl Bucket {
    pub(crate) fn start(folder: Folder, in_flight: NonZeroUsize) -> anyhow::Result<Self> {
        let server = Server::start_below(Kind::MinIo, folder.path());
        let client = server.builder_at(&server.endpoint()).with_unsigned_payload(true).build()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let block = Bytes::from(noise(0, OBJECT as usize));
        Ok(Self { server, folder, client, runtime, in_flight: in_flight.get(), block, plain: AtomicUsize::new(0) })
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.path().parent()
    }

    pub(crate) fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        let env = self.server.env();
        let of = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let settings = Settings {
            endpoint: of("AWS_ENDPOINT_URL"),
            region: of("AWS_REGION"),
            access_key: of("AWS_ACCESS_KEY_ID"),
            secret_key: of("AWS_SECRET_ACCESS_KEY").map(Secret::new),
            ..Settings::default()
        };
        Ok(Arc::new(ObjectStorage::open(&format!("s3://{BUCKET}/jobs"), &settings)?))
    }

    /// Whether there is something to get.
    pub(crate) fn holds_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed) > 0
    }

    /// Puts so many bytes as objects.
    pub(crate) fn put(&self, bytes: u64) -> anyhow::Result<Duration> {
        let start = clock::now();
        let objects = bytes.div_ceil(OBJECT);
        let puts = (0..objects).map(|at| {
            let piece = (bytes - at * OBJECT).min(OBJECT) as usize;
            let payload = PutPayload::from_bytes(self.block.slice(..piece));
            async move { self.client.put(&plain(at as usize), payload).await.map(drop) }
        });
        let all = stream::iter(puts).buffer_unordered(self.in_flight).try_collect::<()>();
        self.runtime.block_on(all).context("a plain put failed")?;
        self.plain.store(objects as usize, Ordering::Relaxed);
        Ok(clock::since(start))
    }

    /// Gets them all.
    pub(crate) fn get(&self) -> anyhow::Result<Duration> {
        let start = clock::now();
        let gets = (0..self.plain.load(Ordering::Relaxed)).map(|at| async move {
            let mut pieces = self.client.get(&plain(at)).await?.into_stream();
            while pieces.try_next().await?.is_some() {}
            Ok::<_, object_store::Error>(())
        });
        let all = stream::iter(gets).buffer_unordered(self.in_flight).try_collect::<()>();
        self.runtime.block_on(all).context("a plain get failed")?;
        Ok(clock::since(start))
    }

    /// Removes them.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        for at in 0..self.plain.swap(0, Ordering::Relaxed) {
            self.runtime.block_on(self.client.delete(&plain(at)))?;
        }
        Ok(())
    }
}

fn plain(at: usize) -> object_store::path::Path {
    format!("plain/{at:05}").into()
}
