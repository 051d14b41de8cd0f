/// A text that names no folder of this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLocation {
    /// There is nothing in it.
    #[error("the location of a store is empty: write a folder, such as file:///var/lib/my-job")]
    Empty,
    /// A URL of another kind of store.
    #[error(
        "{location} is not a folder: stores of kind {scheme:?} are not part of this build, write file:///path or a path"
    )]
    OtherScheme {
        /// The text as given.
        location: String,
        /// What is before the `://`.
        scheme: String,
    },
    /// A `file:` URL whose path does not begin with `/`, or that names another host.
    #[error("{location} names a host or a relative path: write file:///path with three slashes, or a plain path")]
    NotAbsolute {
        /// The text as given.
        location: String,
    },
}

/// The path that a location stands for.
pub(super) fn path(location: &str) -> Result<&str, InvalidLocation> {
    if location.is_empty() {
        return Err(InvalidLocation::Empty);
    }
    let after_file = location.split_at_checked(5).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("file:"));
    if let Some((_, rest)) = after_file {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let path = path.strip_prefix("localhost").unwrap_or(path);
        let absolute = path.starts_with('/');
        return if absolute { Ok(path) } else { Err(InvalidLocation::NotAbsolute { location: location.to_owned() }) };
    }
    match location.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            Err(InvalidLocation::OtherScheme { location: location.to_owned(), scheme: scheme.to_owned() })
        }
        _ => Ok(location),
    }
}
