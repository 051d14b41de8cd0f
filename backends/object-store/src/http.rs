//! The HTTP client below: answers other than success become errors that say what they were.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::answer::Answer;

/// Makes clients whose errors hold an [`Answer`].
#[derive(Debug, Default)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service(Arc::new(client))))
    }
}

#[derive(Debug)]
struct Service(Arc<HttpClient>);

/// Beyond this an error is cut off.
const LONGEST_ERROR: usize = 64 << 10;

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        let status = response.status();
        // Not modified is a success to whoever asked for that.
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let body = response.into_body().bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST_ERROR)]);
        Err(HttpError::new(HttpErrorKind::Unknown, Answer::new(status.as_u16(), &text)))
    }
}
