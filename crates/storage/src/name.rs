use std::fmt;
use std::str::FromStr;

/// The name of an object, relative to its store and the same on every kind of store.
///
/// One or more parts joined by `/`. A part is made of ASCII letters, digits, `.`, `_` and `-`, does not begin with `.`,
/// and has at most 255 bytes; the whole name has at most 512. So a name can't leave the store's folder, can't collide
/// with a temporary file (those begin with `.`), and needs no escaping in URLs. Two names are the same object only if
/// they are byte for byte the same.
///
/// ```
/// use cutwater_storage::ObjectName;
///
/// let name: ObjectName = "flights/log/0000000007".parse()?;
/// assert_eq!(name.as_str(), "flights/log/0000000007");
/// assert!(ObjectName::parse("../passwd").is_err());
/// # Ok::<(), cutwater_storage::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// Longest name, in bytes.
const MAX_NAME: usize = 512;
/// Longest part, in bytes: what common file systems take.
const MAX_PART: usize = 255;

impl ObjectName {
    /// Checks and takes the name.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the name breaks one of the rules above.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let valid = name.len() <= MAX_NAME && name.split('/').all(valid_part);
        if valid { Ok(Self(name.to_owned())) } else { Err(InvalidName { name: name.chars().take(600).collect() }) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes, at least one.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

/// Whether `part` may stand between two slashes of a name.
pub(crate) fn valid_part(part: &str) -> bool {
    (1..=MAX_PART).contains(&part.len())
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::parse(name)
    }
}

/// A text that can't be the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} can't name an object: use parts of letters, digits, '.', '_' and '-' that don't begin with '.', joined by \
     '/', at most 255 bytes each and 512 together"
)]
pub struct InvalidName {
    /// The text as given, cut at 600 characters.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_a_safe_relative_path() {
        for good in ["a", "job-1/log/00000007", "a.b_c-D9", "7", &"x".repeat(255), "a/b/c/d/e/f/g"] {
            assert_eq!(ObjectName::parse(good).unwrap().as_str(), good);
        }
        let long_part = "x".repeat(256);
        let long_name = ["x".repeat(255), "y".repeat(255), "z".to_owned()].join("/");
        let bad = [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/.hidden",
            ".tmp",
            "a b",
            "a\\b",
            "a:b",
            "ä",
            "a\0b",
            "a\n",
            "%2e%2e/a",
            "C:\\x",
            "~root",
            &long_part,
            &long_name,
        ];
        for bad in bad {
            assert_eq!(ObjectName::parse(bad), Err(InvalidName { name: bad.to_owned() }));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below_its_folder(text in "[a./_-]{0,24}") {
            if let Ok(name) = ObjectName::parse(&text) {
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), name.parts().count());
            }
        }
    }
}
