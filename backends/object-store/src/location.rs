use std::fmt;
use std::net::IpAddr;

use object_store::path::Path;
use url::{Host, Url};

use crate::ConnectError;

/// Which service a URL means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    S3,
    Gcs,
    Azure,
}

/// A folder in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) scheme: Scheme,
    pub(crate) bucket: String,
    pub(crate) folder: Path,
}

impl Scheme {
    pub(crate) fn parse(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        // What is wrong may be a key in the wrong place: the URL is not repeated.
        let wrong = |reason: &str| ConnectError::Url { reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|_| wrong("it is not a URL; give s3://BUCKET/FOLDER"))?;
        let scheme = Scheme::parse(url.scheme()).ok_or_else(|| ConnectError::Scheme { scheme: url.scheme().into() })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user or a password; credentials go into the environment, never into a URL"));
        }
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(wrong(
                "it has a query, a fragment or a port; region and endpoint are settings of their own \
                 (AWS_REGION, AWS_ENDPOINT_URL)",
            ));
        }
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
        let bucket = bucket.ok_or_else(|| wrong("the bucket is missing; give s3://BUCKET/FOLDER"))?.to_owned();
        let folder = Path::from_url_path(url.path()).map_err(|_| wrong("the folder has a part that can't be one"))?;
        Ok(Self { scheme, bucket, folder })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.bucket)?;
        if self.folder.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", self.folder) }
    }
}

/// Whether what is sent there leaves this machine, and whether it could be read on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Encrypted,
    /// Without TLS, on this machine.
    Loopback,
    Open,
}

impl Route {
    pub(crate) fn of(endpoint: &str) -> Result<Self, ConnectError> {
        let wrong = |reason: &str| ConnectError::Endpoint { reason: reason.to_owned() };
        let url = Url::parse(endpoint).map_err(|_| wrong("it is not a URL; give one like https://HOST:PORT"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user or a password; credentials go into the environment, never into a URL"));
        }
        let loopback = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(wrong("the host is missing; give one like https://HOST:PORT")),
        };
        match url.scheme() {
            "https" => Ok(Self::Encrypted),
            "http" if loopback => Ok(Self::Loopback),
            "http" => Ok(Self::Open),
            _ => Err(wrong("it begins neither with https:// nor with http://")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_service_a_bucket_and_a_folder() {
        let cases = [
            ("s3://bucket/a/b", Scheme::S3, "bucket", "a/b", "s3://bucket/a/b"),
            ("s3://bucket", Scheme::S3, "bucket", "", "s3://bucket"),
            ("s3a://my.bucket/a/", Scheme::S3, "my.bucket", "a", "s3://my.bucket/a"),
            ("gs://bucket/a", Scheme::Gcs, "bucket", "a", "gs://bucket/a"),
            ("az://container/a", Scheme::Azure, "container", "a", "az://container/a"),
        ];
        for (text, scheme, bucket, folder, shown) in cases {
            let location = Location::parse(text).unwrap();
            let found = (location.scheme, location.bucket.as_str(), location.folder.as_ref());
            assert_eq!(found, (scheme, bucket, folder), "{text}");
            assert_eq!(location.to_string(), shown);
        }
    }

    #[test]
    fn a_url_that_can_not_be_used_is_refused_without_showing_what_may_be_secret() {
        for text in
            ["s3://key:hunter2@bucket/a", "s3://hunter2@bucket", "s3:///a", "s3://b?secret=hunter2", "s3://b:9000/a"]
        {
            let error = Location::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(matches!(Location::parse("ftp://bucket").unwrap_err(), ConnectError::Scheme { .. }));
    }

    #[test]
    fn only_what_stays_on_this_machine_may_go_without_tls() {
        let cases = [
            ("https://s3.example.com", Route::Encrypted),
            ("http://127.0.0.1:9000", Route::Loopback),
            ("http://[::1]:9000", Route::Loopback),
            ("http://localhost", Route::Loopback),
            ("http://minio:9000", Route::Open),
            ("http://192.168.0.1", Route::Open),
        ];
        for (endpoint, route) in cases {
            assert_eq!(Route::of(endpoint).unwrap(), route, "{endpoint}");
        }
        for endpoint in ["minio:9000", "ftp://host", "http://key:hunter2@host"] {
            let error = Route::of(endpoint).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
