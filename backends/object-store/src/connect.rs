//! From a URL and the environment to a client.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::client::HttpConnector as _;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};

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

fn options(settings: &Settings, route: Route) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(settings.request_timeout)
        .with_connect_timeout(CONNECT.min(settings.request_timeout))
        .with_allow_http(route != Route::Encrypted)
}

/// The way to the endpoint, or to the provider's own; the variable `allow` permits one that others could read.
fn route(endpoint: Option<&str>, settings: &Settings, allow: &'static str) -> Result<Route, ConnectError> {
    let Some(endpoint) = endpoint else { return Ok(Route::Encrypted) };
    let route = Route::of(endpoint)?;
    if route == Route::Open && !settings.allow_http.unwrap_or_else(|| is_true(variable(allow))) {
        return Err(ConnectError::NotEncrypted { endpoint: endpoint.to_owned(), variable: allow });
    }
    Ok(route)
}

/// By the rules of the client.
fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str()))
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
    let route = route(endpoint.as_deref(), settings, "AWS_ALLOW_HTTP")?;

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
            // A session token in the environment belongs to another pair.
            let (key_id, secret_key) = (access.clone(), secret.reveal().to_owned());
            let credentials = AwsCredential { key_id, secret_key, token: None };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credentials)));
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

    let options = options(settings, route);
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

/// What only S3 has must not seem to have been read.
#[cfg(any(feature = "gcs", feature = "azure"))]
fn refuse_keys_of_s3(location: &Location, settings: &Settings) -> Result<(), ConnectError> {
    let Settings { region, access_key, secret_key, path_style, .. } = settings;
    if region.is_none() && access_key.is_none() && secret_key.is_none() && path_style.is_none() {
        return Ok(());
    }
    let reason =
        "region, keys and path style are settings of S3; for this store the environment says who asks".to_owned();
    Err(ConnectError::Setting { url: location.to_string(), reason })
}

#[cfg(feature = "gcs")]
fn gcs(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};
    refuse_keys_of_s3(location, settings)?;
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&location.bucket);
    let endpoint = settings.endpoint.clone().or_else(|| builder.get_config_value(&Key::BaseUrl));
    let route = route(endpoint.as_deref(), settings, "GOOGLE_ALLOW_HTTP")?;
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(&endpoint);
    }
    let builder =
        builder.with_client_options(options(settings, route)).with_http_connector(Connector).with_retry(once());
    builder.build().map(|store| Client::new(store, true)).map_err(|error| setting(location, &error))
}

#[cfg(not(feature = "gcs"))]
fn gcs(_: &Location, _: &Settings) -> Result<Client, ConnectError> {
    Err(ConnectError::Feature { scheme: "gs", feature: "gcs" })
}

#[cfg(feature = "azure")]
fn azure(location: &Location, settings: &Settings) -> Result<Client, ConnectError> {
    use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
    refuse_keys_of_s3(location, settings)?;
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&location.bucket);
    let emulated = settings.endpoint.is_none() && is_true(builder.get_config_value(&Key::UseEmulator));
    let endpoint = match &settings.endpoint {
        Some(endpoint) => {
            builder = builder.with_use_emulator(false).with_endpoint(endpoint.clone());
            Some(endpoint.clone())
        }
        None if emulated => variable("AZURITE_BLOB_STORAGE_URL").or_else(|| Some(AZURITE.to_owned())),
        None => builder.get_config_value(&Key::Endpoint),
    };
    let route = route(endpoint.as_deref(), settings, "AZURE_ALLOW_HTTP")?;
    if !emulated && builder.get_config_value(&Key::AccountName).is_none() {
        let reason = "the account is not known: set AZURE_STORAGE_ACCOUNT_NAME".to_owned();
        return Err(ConnectError::Setting { url: location.to_string(), reason });
    }
    let builder =
        builder.with_client_options(options(settings, route)).with_http_connector(Connector).with_retry(once());
    // It has no ranges from the end.
    builder.build().map(|store| Client::new(store, false)).map_err(|error| setting(location, &error))
}

/// Where Azurite, the emulator, listens unless told otherwise.
#[cfg(feature = "azure")]
const AZURITE: &str = "http://127.0.0.1:10000";

#[cfg(not(feature = "azure"))]
fn azure(_: &Location, _: &Settings) -> Result<Client, ConnectError> {
    Err(ConnectError::Feature { scheme: "az", feature: "azure" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the environment of the tests says, what is set counts.
    fn opened(url: &str, endpoint: &str, allow_http: Option<bool>) -> Result<(), ConnectError> {
        let endpoint = Some(endpoint.to_owned());
        let settings = Settings { endpoint, allow_http, ..Settings::default() };
        client(&Location::parse(url)?, &settings).map(|_| ())
    }

    #[test]
    fn without_tls_only_this_machine_is_asked_unless_allowed() {
        let mut services = vec![("s3://bucket", "AWS_ALLOW_HTTP")];
        if cfg!(feature = "gcs") {
            services.push(("gs://bucket", "GOOGLE_ALLOW_HTTP"));
        }
        if cfg!(feature = "azure") {
            services.push(("az://container", "AZURE_ALLOW_HTTP"));
        }
        let refused = |result| matches!(result, Err(ConnectError::NotEncrypted { .. }));
        for (url, variable) in services {
            let error = opened(url, "http://192.0.2.1:9000", Some(false)).unwrap_err();
            assert!(error.to_string().contains(variable), "{url}: {error}");
            for (endpoint, allow_http) in [
                ("http://192.0.2.1:9000", Some(true)),
                ("http://127.0.0.1:9000", Some(false)),
                ("https://192.0.2.1", Some(false)),
            ] {
                // Whether there are credentials is another matter.
                assert!(!refused(opened(url, endpoint, allow_http)), "{url} at {endpoint}");
            }
        }
    }

    #[test]
    #[cfg(any(feature = "gcs", feature = "azure"))]
    fn settings_of_s3_are_refused_for_others() {
        let settings = [
            Settings { region: Some("eu".to_owned()), ..Settings::default() },
            Settings { access_key: Some("key".to_owned()), ..Settings::default() },
            Settings { secret_key: Some(crate::Secret::new("hunter2")), ..Settings::default() },
            Settings { path_style: Some(true), ..Settings::default() },
        ];
        for settings in settings {
            let url = if cfg!(feature = "gcs") { "gs://bucket" } else { "az://container" };
            let error = client(&Location::parse(url).unwrap(), &settings).map(|_| ()).unwrap_err();
            assert!(matches!(error, ConnectError::Setting { .. }) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
