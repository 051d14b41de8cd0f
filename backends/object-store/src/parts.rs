//! The parts of an unfinished upload, which the client crate has no request for.

use std::fmt::Write as _;

use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpRequestBody};
use object_store::path::Path;

use crate::answer::{element, elements};

/// Asks S3 and what speaks its protocol.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) http: HttpClient,
    pub(crate) credentials: AwsCredentialProvider,
    pub(crate) region: String,
    /// Where the bucket is, without a slash at the end.
    pub(crate) bucket: String,
}

/// More pages than an upload can have parts.
const MOST_PAGES: u32 = 10_001;

impl Parts {
    /// How many bytes the parts have together.
    pub(crate) async fn bytes(&self, path: &Path, id: &str) -> object_store::Result<u64> {
        let (mut bytes, mut after) = (0_u64, "0".to_owned());
        for _ in 0..MOST_PAGES {
            let page = self.page(path, id, &after).await?;
            let sizes = elements(&page, "Size").map(|size| size.parse().unwrap_or(0_u64));
            bytes = bytes.saturating_add(sizes.fold(0, u64::saturating_add));
            match element(&page, "NextPartNumberMarker") {
                Some(next) if element(&page, "IsTruncated") == Some("true") && next != after => after = next.to_owned(),
                _ => break,
            }
        }
        Ok(bytes)
    }

    async fn page(&self, path: &Path, id: &str, after: &str) -> object_store::Result<String> {
        // Signed as it stands: sorted by name.
        let (path, after, id) = (escaped(path.as_ref(), "/"), escaped(after, ""), escaped(id, ""));
        let uri = format!("{}/{path}?part-number-marker={after}&uploadId={id}", self.bucket);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = uri.parse().map_err(failed)?;
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let answer = self.http.execute(request).await.map_err(failed::<HttpError>)?;
        let body = answer.into_body().bytes().await.map_err(failed::<HttpError>)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(error) }
}

/// As part of a URL; what is in `plain` stays besides what always does.
fn escaped(text: &str, plain: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let stays = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.as_bytes().contains(&byte);
        match stays {
            true => escaped.push(char::from(byte)),
            false => drop(write!(escaped, "%{byte:02X}")), // a text has room
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_no_character_that_means_something_else() {
        assert_eq!(escaped("jobs/a b+c~ä%", "/"), "jobs/a%20b%2Bc~%C3%A4%25");
        assert_eq!(escaped("aZ9-._~/=&", ""), "aZ9-._~%2F%3D%26");
    }
}
