use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};

use super::{BUCKET, REGION, Server, options};

/// An upload in parts that is neither complete nor aborted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upload {
    /// The name that the object would get.
    pub key: String,
    /// The server's own id.
    pub id: String,
}

/// Requests that the client crate does not have, for tests that look at what is left.
impl Server {
    /// Creates a bucket besides [`BUCKET`].
    ///
    /// # Panics
    ///
    /// If it can't, as all the functions here.
    pub fn create_bucket(&self, name: &str) {
        self.try_create_bucket(name).unwrap_or_else(|error| panic!("{}: {error}", self.kind()));
    }

    /// Removes a bucket that is empty.
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    pub fn remove_bucket(&self, name: &str) {
        self.send(Method::DELETE, &format!("/{name}"), Bytes::new())
            .unwrap_or_else(|error| panic!("{}: {error}", self.kind()));
    }

    /// The names of all objects in [`BUCKET`], sorted.
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.list(&format!("/{BUCKET}?list-type=2&start-after={}", escaped(&after)));
            names.extend(tags(&page, "Key").map(plain));
            let last = names.iter().max().cloned();
            if !page.contains("<IsTruncated>true</IsTruncated>") || last.as_ref() <= Some(&after) {
                break;
            }
            after = last.unwrap_or_default();
        }
        names.sort();
        names
    }

    /// Deletes an object of [`BUCKET`].
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    pub fn delete_object(&self, name: &str) {
        self.send(Method::DELETE, &path_of(name), Bytes::new())
            .unwrap_or_else(|error| panic!("{}: {error}", self.kind()));
    }

    /// The unfinished uploads in parts of [`BUCKET`], sorted: those that the server names, which MinIO only does since
    /// its start.
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    #[must_use]
    pub fn uploads(&self) -> Vec<Upload> {
        self.uploads_below("")
    }

    /// The same, asked only for names that begin so.
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    #[must_use]
    pub fn uploads_below(&self, prefix: &str) -> Vec<Upload> {
        // A key without value is signed as one with an empty value.
        let prefix = if prefix.is_empty() { String::new() } else { format!("prefix={}&", escaped(prefix)) };
        let page = self.list(&format!("/{BUCKET}?{prefix}uploads="));
        assert!(!page.contains("<IsTruncated>true</IsTruncated>"), "more uploads than one page holds: {page}");
        let upload = |text| {
            let one = |tag| tags(text, tag).next().map(plain).unwrap_or_else(|| panic!("no {tag} in {page}"));
            Upload { key: one("Key"), id: one("UploadId") }
        };
        let mut uploads: Vec<_> = tags(&page, "Upload").map(upload).collect();
        uploads.sort();
        uploads
    }

    /// The bytes of the parts that the server has of an unfinished upload; `None` if it has ended meanwhile.
    ///
    /// # Panics
    ///
    /// As [`Self::create_bucket`].
    #[must_use]
    pub fn parts(&self, upload: &Upload) -> Option<Vec<u64>> {
        let path = format!("{}?uploadId={}", path_of(&upload.key), escaped(&upload.id));
        let page = match self.send(Method::GET, &path, Bytes::new()) {
            Err(error) if error.contains("NoSuchUpload") => return None,
            answer => answer.unwrap_or_else(|error| panic!("{}: {error}", self.kind())),
        };
        Some(tags(&page, "Size").map(|size| size.parse().unwrap_or_else(|_| panic!("no size: {page}"))).collect())
    }

    /// Whether the bucket is there, or can be made, and takes objects.
    pub(super) fn try_bucket(&self) -> Result<(), String> {
        self.try_create_bucket(BUCKET)?;
        let path = format!("/{BUCKET}/.ready");
        self.send(Method::PUT, &path, Bytes::from_static(b"ready"))?;
        self.send(Method::DELETE, &path, Bytes::new())?;
        Ok(())
    }

    fn try_create_bucket(&self, name: &str) -> Result<(), String> {
        match self.send(Method::PUT, &format!("/{name}"), Bytes::new()) {
            Err(error) if error.contains("BucketAlreadyOwnedByYou") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn list(&self, path: &str) -> String {
        self.send(Method::GET, path, Bytes::new()).unwrap_or_else(|error| panic!("{}: {error}", self.kind()))
    }

    /// Signs and sends a request; the text of its answer, or what went wrong. The query must be sorted by name.
    fn send(&self, method: Method, path: &str, body: Bytes) -> Result<String, String> {
        let credential =
            AwsCredential { key_id: self.keys.id.clone(), secret_key: self.keys.secret.clone(), token: None };
        let uri = format!("{}{path}", self.endpoint());
        let request = Request::builder().method(method).uri(uri).body(HttpRequestBody::from(body));
        let mut request = request.expect("the names are ours");
        AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None).expect("our keys can sign");
        answer(request, Duration::from_secs(10))
    }
}

/// Sends a request that is signed; the text of its answer, or what went wrong.
pub(super) fn answer(request: Request<HttpRequestBody>, limit: Duration) -> Result<String, String> {
    let what = format!("{} {}", request.method(), request.uri());
    let answer: Result<(StatusCode, Bytes), String> = blocking(async {
        let client = ReqwestConnector::default().connect(&options(limit)).map_err(|error| error.to_string())?;
        let answer = client.execute(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    });
    let (status, body) = answer.map_err(|error| format!("{what}: {error}"))?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() { Ok(text) } else { Err(format!("{what}: {status} {text}")) }
}

/// Runs it to its end in a thread of its own, so that tests may call it inside a runtime too.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(work)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What stands between each `<tag>` and `</tag>`.
pub(super) fn tags<'a>(text: &'a str, tag: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (inside, after) = after.split_once(&close)?;
        rest = after;
        Some(inside)
    })
}

/// Without the escapes of XML.
pub(super) fn plain(text: &str) -> String {
    let text = text.replace("&#34;", "\"").replace("&#39;", "'").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// The path of an object in [`BUCKET`].
fn path_of(name: &str) -> String {
    let parts: Vec<_> = name.split('/').map(escaped).collect();
    format!("/{BUCKET}/{}", parts.join("/"))
}

/// As a value in a query.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
