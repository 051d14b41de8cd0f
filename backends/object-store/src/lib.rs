//! Checkpoints and savepoints on S3, Google Cloud Storage and Azure, or on anything that speaks S3's protocol.
//!
//! [`ObjectStorage`] is a [`Store`](cutwater_storage::Store): a folder in a bucket. Users of `cutwater` get it by the feature
//! `s3` (also called `object-store`; `gcs` and `azure` add the other two) and by giving a URL, `s3://bucket/folder`, wherever a
//! folder for checkpoints or savepoints is asked for.
//!
//! ```
//! use cutwater_object_store::{ConnectError, ObjectStorage, Settings};
//! use cutwater_storage::Store;
//!
//! let mut settings = Settings::default();
//! settings.endpoint = Some("http://127.0.0.1:9000".to_owned()); // a MinIO of your own
//! settings.access_key = Some("minio".to_owned());
//! settings.secret_key = Some(cutwater_object_store::Secret::new("minio-secret"));
//! let store = ObjectStorage::open("s3://checkpoints/flights", &settings)?;
//! assert_eq!(store.url(), "s3://checkpoints/flights");
//!
//! settings.endpoint = Some("http://minio.example:9000".to_owned());
//! let error = ObjectStorage::open("s3://checkpoints/flights", &settings).unwrap_err();
//! assert!(matches!(error, ConnectError::NotEncrypted { .. })); // unless `allow_http` says so
//! # Ok::<(), ConnectError>(())
//! ```
//!
//! # What is guaranteed
//!
//! As of every store; in particular:
//!
//! - A create is one conditional request (`If-None-Match: *`). If its answer is lost it is sent again, and if the name is taken
//!   then, the object is read and compared: ours, somebody else's, or nobody knows.
//! - What was sent and not answered is never taken for a failure: [`CreateError::Unknown`](cutwater_storage::CreateError).
//! - An answer of the wrong length is not taken; what the bytes are is checked by those who read them, against checksums.
//! - One deadline is over each operation with all its tries ([`Settings::deadline`]).
//! - Uploads in parts are noted below `.uploads` in the folder before the first part is sent, so that those of a killed process
//!   are found and aborted at the next start, on every store: not all of them can list unfinished uploads.
//!
//! # What it costs
//!
//! A small object is one request. Objects of 8 MiB and more go in parts of that size, four at a time, while the next is being
//! filled: 40 MiB of memory for each object under way. Reading fetches ranges of 4 MiB, four ahead. Two threads serve all
//! stores of the process.
//!
//! # What is not here
//!
//! A condition on large objects: no store has one for uploads in parts in its common protocol, so their names must be used
//! once (those of snapshots are). Encryption with keys of your own; set it up at the bucket.

mod answer;
mod connect;
mod error;
mod http;
mod location;
mod parts;
mod profile;
mod reader;
mod request;
mod settings;
mod steps;
mod storage;
mod writer;

pub use cutwater_core::Secret;
pub use error::ConnectError;
pub use settings::Settings;
pub use steps::{Step, StepHook};
pub use storage::ObjectStorage;
