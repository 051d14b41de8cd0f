//! From a URL and the environment to a client.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::HttpConnector as _;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::http::Connector;
use crate::location::{Location, Route, Scheme};
use crate::parts::Parts;
use crate::profile::{FileCredentials, Files};
use crate::{ConnectError, Settings};

/// The two sides of a client.
pub(crate) struct Client {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) uploads: Arc<dyn MultipartStore>,
    /// Whether it can give the last bytes of an object of which the length is not known.
    pub(crate) suffixes: bool,
    /// Asks for the parts of unfinished uploads, where that is built.
    pub(crate) parts: Option<Arc<Parts>>,
}

impl Client {
    fn new<S: ObjectStore + MultipartStore>(store: S, suffixes: bool) -> Self {
        let store = Arc::new(store);
        Self { objects: Arc::clone(&store) as Arc<dyn ObjectStore>, uploads: store, suffixes, parts: None }
    }

    /// A store in memory, for tests.
    #[cfg(test)]
    pub(crate) fn memory() -> Self {
        Self::new(object_store::memory::InMemory::new(), true)
    }
}

const CONNECT: Duration = Duration::from_secs(5);

pub(crate) fn client(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    match location.scheme {
        Scheme::S3 => s3(location, settings),
        Scheme::Gcs => gcs(location, settings),
        Scheme::Azure => azure(location, settings),
    }
}

fn options(settings: &Settings, allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(settings.request_timeout)
        .with_connect_timeout(CONNECT.min(settings.request_timeout))
        .with_allow_http(allow_http)
}

/// Requests are tried again one level up, with one deadline over all of them.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn s3(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    use AmazonS3ConfigKey as Key;
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&location.bucket);
    let files = Files::of(&variable);
    let profile = files.read();
    let known = |builder: &AmazonS3Builder, key: Key| builder.get_config_value(&key);

    let region = settings.region.clone().or_else(|| known(&builder, Key::Region));
    let region = region.or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| profile.get("region").cloned());
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());

    let endpoint = settings.endpoint.clone().or_else(|| known(&builder, Key::S3Endpoint));
    let endpoint = endpoint.or_else(|| known(&builder, Key::Endpoint)).or_else(|| profile.get("endpoint_url").cloned());
    let allowed = settings.allow_http.unwrap_or_else(|| {
        variable("AWS_ALLOW_HTTP").is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    });
    let route = endpoint.as_deref().map_or(Ok(Route::Encrypted), Route::of)?;
    if route == Route::Open && !allowed {
        return Err(ConnectError::NotEncrypted { endpoint: endpoint.unwrap_or_default() });
    }

    // A bucket with dots in its name has no certificate of its own.
    let in_path = settings.path_style.unwrap_or(endpoint.is_some() || location.bucket.contains('.'));
    let bucket = &location.bucket;
    let mut base = match in_path {
        true => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        false => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    };
    builder = builder.with_region(&region).with_virtual_hosted_style_request(!in_path);
    if let Some(endpoint) = endpoint {
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if !in_path => format!("{scheme}://{bucket}.{host}"),
            _ => endpoint,
        };
        base = endpoint.trim_end_matches('/').to_owned();
        if in_path {
            base = format!("{base}/{bucket}");
        }
        // Both, for one of them may be in the environment.
        builder = builder.with_config(Key::S3Endpoint, &endpoint).with_endpoint(endpoint);
    }

    match (&settings.access_key, &settings.secret_key) {
        (Some(access), Some(secret)) => {
            builder = builder.with_access_key_id(access).with_secret_access_key(secret.reveal());
        }
        (None, None) => {
            let given = known(&builder, Key::AccessKeyId).or_else(|| known(&builder, Key::WebIdentityTokenFile));
            let given = given.or_else(|| known(&builder, Key::ContainerCredentialsRelativeUri));
            let given = given.or_else(|| known(&builder, Key::ContainerCredentialsFullUri));
            if given.is_none()
                && let Some(credentials) = FileCredentials::new(files)
            {
                builder = builder.with_credentials(Arc::new(credentials));
            }
        }
        _ => {
            let reason = "there is an access key without a secret key, or the reverse; give both".to_owned();
            return Err(ConnectError::Setting { url: location.to_string(), reason });
        }
    }

    let options = options(settings, route != Route::Encrypted);
    let http = Connector.connect(&options).map_err(|error| setting(location, &error))?;
    let builder = builder
        .with_client_options(options)
        .with_http_connector(Connector)
        .with_retry(once())
        // Signing a payload means to hash it: not where TLS, or nobody, is in between. Our own checksum goes with each file.
        .with_unsigned_payload(route != Route::Open)
        .with_disable_bulk_delete(true);
    let store = builder.build().map_err(|error| setting(location, &error))?;
    let parts = Parts { http, credentials: Arc::clone(store.credentials()), region, bucket: base };
    Ok(Client { parts: Some(Arc::new(parts)), ..Client::new(store, true) })
}

fn setting(location: &Location, error: &object_store::Error) -> ConnectError {
    ConnectError::Setting { url: location.to_string(), reason: error.to_string() }
}

#[cfg(feature = "gcs")]
fn gcs(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&location.bucket)
        .with_client_options(options(settings, false))
        .with_http_connector(Connector)
        .with_retry(once());
    builder.build().map(|store| Client::new(store, true)).map_err(|error| setting(location, &error))
}

#[cfg(not(feature = "gcs"))]
fn gcs(_: &Location, _: &Settings) -> Result<Client, ConnectError> {
    Err(ConnectError::Feature { scheme: "gs", feature: "gcs" })
}

#[cfg(feature = "azure")]
fn azure(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    let emulated = variable("AZURE_STORAGE_USE_EMULATOR").is_some();
    let builder = object_store::azure::MicrosoftAzureBuilder::from_env()
        .with_container_name(&location.bucket)
        .with_client_options(options(settings, emulated))
        .with_http_connector(Connector)
        .with_retry(once());
    // It has no ranges from the end.
    builder.build().map(|store| Client::new(store, false)).map_err(|error| setting(location, &error))
}

#[cfg(not(feature = "azure"))]
fn azure(_: &Location, _: &Settings) -> Result<Client, ConnectError> {
    Err(ConnectError::Feature { scheme: "az", feature: "azure" })
}
