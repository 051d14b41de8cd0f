/// Why a store can't even be asked. No text repeats what may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A kind of URL that this crate does not know.
    #[error("{scheme} is no object store; there are s3, gs and az")]
    Scheme {
        /// The scheme as given.
        scheme: String,
    },
    /// A service that this build has not got.
    #[error("{scheme}:// needs the feature `{feature}`, which this program was built without")]
    Feature {
        /// The scheme as given.
        scheme: &'static str,
        /// The feature of the crate `cutwater`.
        feature: &'static str,
    },
    /// The URL of the store can't be used.
    #[error("the URL of the store can't be used: {reason}")]
    Url {
        /// Why, and what to give instead.
        reason: String,
    },
    /// The endpoint can't be used.
    #[error("the endpoint of the store can't be used: {reason}")]
    Endpoint {
        /// Why, and what to give instead.
        reason: String,
    },
    /// Without TLS, everybody on the way could read and change the state.
    #[error(
        "the endpoint {endpoint} is reached without TLS and is not on this machine: use https://, or allow it \
         ({variable}=true; for S3 also the key s3.allow-http) on a network that you trust"
    )]
    NotEncrypted {
        /// The endpoint.
        endpoint: String,
        /// What of the environment allows it.
        variable: &'static str,
    },
    /// What the environment or the settings say does not fit together.
    #[error("{url} can't be used: {reason}")]
    Setting {
        /// The store.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl ConnectError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Scheme { .. } => "STO0004",
            Self::Feature { .. } => "STO0005",
            Self::Url { .. } => "STO0006",
            Self::Endpoint { .. } => "STO0007",
            Self::NotEncrypted { .. } => "STO0008",
            Self::Setting { .. } => "STO0009",
        }
    }
}
