//! What a store answered when it did not do as asked, and what follows from it.

use std::error::Error;
use std::fmt;

use cutwater_storage::StoreErrorKind;
use object_store::client::{HttpError, HttpErrorKind};

/// An answer other than success, as the server gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's own name for it, such as `NoSuchBucket`; empty if it gave none.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// So much of what the server says is kept.
const MESSAGE: usize = 300;

impl Answer {
    /// Takes code and message from the XML that S3 and Azure answer with, or the beginning of any other text.
    pub(crate) fn new(status: u16, body: &str) -> Self {
        let code = element(body, "Code").unwrap_or_default().to_owned();
        let message = element(body, "Message").unwrap_or(if code.is_empty() { body } else { "" });
        Self { status, code, message: message.trim().chars().filter(|it| !it.is_control()).take(MESSAGE).collect() }
    }

    /// Azure's code for it is not the emulator's, and the code of that means something else on Azure.
    fn not_authenticated(&self) -> bool {
        self.code == "AuthenticationFailed" || self.message.starts_with("Server failed to authenticate the request")
    }

    /// What the user can do about it, where the answer alone does not say so.
    fn advice(&self) -> Option<&'static str> {
        match self.code.as_str() {
            "RequestTimeTooSkewed" => Some("the clock of this machine is wrong, or that of the store: set it right"),
            "ExpiredToken" | "TokenRefreshRequired" => {
                Some("the session token has expired: get a new one and give it to this process")
            }
            "InvalidAccessKeyId" => Some("the store does not know this access key: is it one of this store?"),
            "SignatureDoesNotMatch" => Some("the secret key does not belong to the access key"),
            "InvalidToken" => Some("the session token is not one of this store"),
            _ if self.not_authenticated() => {
                Some("the account key does not belong to the account, or a clock is wrong")
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" => {
                Some("the bucket is in another region: set AWS_REGION")
            }
            _ => None,
        }
    }
}

/// The text between the tags of this name.
pub(crate) fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    elements(text, name).next()
}

/// The texts between all such tags.
pub(crate) fn elements<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (value, after) = rest.split_once(&open)?.1.split_once(&close)?;
        rest = after;
        Some(value)
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl Error for Answer {}

/// An answer that can't be what was stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the answer has {found} bytes, {expected} were to come")]
pub(crate) struct Truncated {
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// What the client says of an error in the body of a success, which S3 gives when it has given up half way.
const ERROR_IN_SUCCESS: &str = "Server returned error response";

/// What a failed request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The name is taken, or somebody else is about to take it.
    Taken,
    /// No such object.
    Missing,
    /// The store is not there, or does not let us.
    Refused(StoreErrorKind),
    /// It may go well the next time. `sent`: the server may have done as asked all the same.
    Passing { sent: bool },
}

impl Outcome {
    pub(crate) fn of(error: &object_store::Error) -> Self {
        if no_credentials(error) {
            return Self::Refused(StoreErrorKind::Credentials);
        }
        let mut cause: &(dyn std::error::Error + 'static) = error;
        loop {
            if let Some(answer) = cause.downcast_ref::<Answer>() {
                return Self::of_answer(answer);
            }
            if cause.downcast_ref::<Truncated>().is_some() {
                return Self::Passing { sent: true };
            }
            if let Some(error) = cause.downcast_ref::<HttpError>()
                && error.source().is_none_or(|source| source.downcast_ref::<Answer>().is_none())
            {
                return Self::Passing { sent: error.kind() != HttpErrorKind::Connect };
            }
            match cause.source() {
                Some(source) => cause = source,
                None => break,
            }
        }
        use object_store::Error;
        match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } => return Self::Taken,
            Error::NotFound { .. } => return Self::Missing,
            Error::PermissionDenied { .. } => return Self::Refused(StoreErrorKind::PermissionDenied),
            Error::Unauthenticated { .. } => return Self::Refused(StoreErrorKind::Credentials),
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                return Self::Refused(StoreErrorKind::Unsupported);
            }
            // The enum is the client's, and grows.
            Error::Generic { .. } | _ => {}
        }
        match error.to_string().contains(ERROR_IN_SUCCESS) {
            true => Self::Passing { sent: true },
            false => Self::Refused(StoreErrorKind::Other),
        }
    }

    fn of_answer(answer: &Answer) -> Self {
        let credentials = ["ExpiredToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"];
        let credentials = credentials.contains(&answer.code.as_str())
            || ["InvalidToken", "RequestTimeTooSkewed"].contains(&answer.code.as_str())
            || answer.not_authenticated();
        match (answer.status, answer.code.as_str()) {
            _ if credentials => Self::Refused(StoreErrorKind::Credentials),
            (_, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted") => {
                Self::Refused(StoreErrorKind::NoBucket)
            }
            (_, "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") | (507, _) => {
                Self::Refused(StoreErrorKind::NoSpace)
            }
            // Azure has no uploads, only parts, and knows none of them once they make an object.
            (404, _) | (400, "InvalidBlockList") => Self::Missing,
            (409 | 412, _) => Self::Taken,
            (401, _) => Self::Refused(StoreErrorKind::Credentials),
            (403, _) => Self::Refused(StoreErrorKind::PermissionDenied),
            (501, _) => Self::Refused(StoreErrorKind::Unsupported),
            // S3 says so of a request whose body was too long in coming.
            (400, "RequestTimeout") | (408 | 429, _) => Self::Passing { sent: true },
            (status, _) if status >= 500 => Self::Passing { sent: true },
            _ => Self::Refused(StoreErrorKind::Other),
        }
    }
}

/// Where machines in the cloud ask for the credentials of their role: the last thing that is tried.
const ROLES: [&str; 2] = ["http://169.254.169.254/", "http://metadata.google.internal/"];

/// Whether what failed is not the request, but the search for credentials.
fn no_credentials(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ROLES.iter().any(|url| text.contains(url))
}

/// The innermost thing that the error says, without the wrappers of the client.
pub(crate) fn reason(error: &object_store::Error) -> Box<dyn Error + Send + Sync> {
    if no_credentials(error) {
        let text = error.to_string();
        let set = match () {
            () if text.contains("Azure") => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            () if text.contains("GCS") => "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
            () => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with ~/.aws/credentials",
        };
        return format!("there are no credentials: set {set}; this machine has no role of its own either").into();
    }
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(answer) = cause.downcast_ref::<Answer>() {
            return Box::new(answer.clone());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    // The chain repeats itself: what is outside quotes what is inside.
    cause.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> object_store::Error {
        let error = HttpError::new(HttpErrorKind::Unknown, Answer::new(status, body));
        object_store::Error::Generic { store: "S3", source: Box::new(error) }
    }

    #[test]
    fn an_answer_says_what_to_do_next() {
        use StoreErrorKind::{Credentials, NoBucket, NoSpace, PermissionDenied};
        let code =
            |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        let cases = [
            (403, code("InvalidAccessKeyId"), Outcome::Refused(Credentials), "access key"),
            (403, code("SignatureDoesNotMatch"), Outcome::Refused(Credentials), "secret key"),
            (403, code("RequestTimeTooSkewed"), Outcome::Refused(Credentials), "clock"),
            (400, code("ExpiredToken"), Outcome::Refused(Credentials), "expired"),
            (403, code("AccessDenied"), Outcome::Refused(PermissionDenied), "403 AccessDenied (m)"),
            (404, code("NoSuchBucket"), Outcome::Refused(NoBucket), "NoSuchBucket"),
            (404, code("ContainerNotFound"), Outcome::Refused(NoBucket), "ContainerNotFound"),
            (409, code("ContainerBeingDeleted"), Outcome::Refused(NoBucket), "ContainerBeingDeleted"),
            (409, code("BlobAlreadyExists"), Outcome::Taken, "409"),
            (400, code("InvalidBlockList"), Outcome::Missing, "InvalidBlockList"),
            (403, code("AuthenticationFailed"), Outcome::Refused(Credentials), "account key"),
            (403, code("AuthorizationFailure"), Outcome::Refused(PermissionDenied), "403"),
            (403, "Server failed to authenticate the request.".into(), Outcome::Refused(Credentials), "account key"),
            (404, code("NoSuchKey"), Outcome::Missing, "NoSuchKey"),
            (404, String::new(), Outcome::Missing, "404"),
            (409, code("ConditionalRequestConflict"), Outcome::Taken, "409"),
            (412, code("PreconditionFailed"), Outcome::Taken, "412"),
            (500, code("InternalError"), Outcome::Passing { sent: true }, "500"),
            (503, code("SlowDown"), Outcome::Passing { sent: true }, "SlowDown"),
            (429, "busy".to_owned(), Outcome::Passing { sent: true }, "429 (busy)"),
            (507, code("XMinioStorageFull"), Outcome::Refused(NoSpace), "507"),
        ];
        for (status, body, outcome, text) in cases {
            let error = answered(status, &body);
            assert_eq!(Outcome::of(&error), outcome, "{status} {body}");
            assert!(reason(&error).to_string().contains(text), "{status} {body}: {}", reason(&error));
        }
    }

    #[test]
    fn without_credentials_the_variables_of_the_service_are_named() {
        let cases = [
            ("S3", "AWS_ACCESS_KEY_ID"),
            ("GCS", "GOOGLE_SERVICE_ACCOUNT"),
            ("MicrosoftAzure", "AZURE_STORAGE_ACCOUNT_KEY"),
        ];
        for (store, variable) in cases {
            let source = "error sending request for url (http://169.254.169.254/latest)".into();
            let error = object_store::Error::Generic { store, source };
            assert_eq!(Outcome::of(&error), Outcome::Refused(StoreErrorKind::Credentials), "{store}");
            assert!(reason(&error).to_string().contains(variable), "{store}: {}", reason(&error));
        }
    }

    #[test]
    fn only_what_could_not_connect_was_surely_not_sent() {
        let of = |kind| {
            let source = HttpError::new(kind, std::io::Error::other("gone"));
            Outcome::of(&object_store::Error::Generic { store: "S3", source: Box::new(source) })
        };
        assert_eq!(of(HttpErrorKind::Connect), Outcome::Passing { sent: false });
        for kind in [HttpErrorKind::Timeout, HttpErrorKind::Request, HttpErrorKind::Interrupted, HttpErrorKind::Unknown]
        {
            assert_eq!(of(kind), Outcome::Passing { sent: true });
        }
    }
}
