use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use cutwater_core::Secret;

/// How a store is reached and how hard it is used. What is not set comes from the environment, as for other programs: see
/// [`ObjectStorage`](crate::ObjectStorage).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the service is, as `http://127.0.0.1:9000`, for stores other than the cloud provider's own. For Azure the account
    /// is a part of it where it is not one of the host's name: `http://127.0.0.1:10000/devstoreaccount1`.
    pub endpoint: Option<String>,
    /// The region of the bucket. This one, the keys and the path style are of S3 alone: others refuse them.
    pub region: Option<String>,
    /// Access key; with [`Self::secret_key`].
    pub access_key: Option<String>,
    /// Secret key.
    pub secret_key: Option<Secret>,
    /// Whether the bucket stands in the path of a URL (the default) or in the name of the host.
    pub path_style: Option<bool>,
    /// Whether an endpoint that is not on this machine may be reached without TLS.
    pub allow_http: Option<bool>,
    /// The longest that one operation may take with all its retries. Default 30 s: a checkpoint then fails with the
    /// reason instead of hanging.
    pub deadline: Duration,
    /// The longest that a single request may take, its body included. Default 20 s.
    pub request_timeout: Duration,
    /// How many requests run at once. Default 16.
    pub parallelism: NonZeroU32,
    /// How many bytes a second are uploaded at the most, by all jobs that share the store; unlimited unless set.
    pub upload_rate: Option<NonZeroU64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
            path_style: None,
            allow_http: None,
            deadline: Duration::from_secs(30),
            request_timeout: Duration::from_secs(20),
            parallelism: NonZeroU32::new(16).expect("16 is not 0"),
            upload_rate: None,
        }
    }
}
