mod trace;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a type is made of, as serde sees it. Stands beside the state in every snapshot, so that a program whose types
/// have changed learns it by name, before it decodes nonsense.
///
/// Names of types are kept for the reader but not compared: renaming a struct changes no byte. Names of fields and
/// variants are compared, since two fields that swapped their meaning would go unnoticed.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Delay { flights: u32, mean: Option<f64> }
///
/// assert_eq!(cutwater_state::Schema::of::<Delay>().to_string(), "Delay { flights: u32, mean: option of f64 }");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schema {
    /// `()`, or a struct without fields.
    Unit,
    /// A primitive type by its name in Rust: `bool`, `u64`, `f32`, `char`, ...
    Primitive(String),
    /// Text.
    String,
    /// Bytes that serde knows as such.
    Bytes,
    /// A value or none.
    Option(Box<Schema>),
    /// Any number of values: `Vec`, a set.
    Seq(Box<Schema>),
    /// Keys with values.
    Map(Box<Schema>, Box<Schema>),
    /// A tuple, a tuple struct or an array.
    Tuple(Vec<Schema>),
    /// A struct with named fields.
    Struct {
        /// Name of the type.
        name: String,
        /// The fields in their order.
        fields: Vec<Field>,
    },
    /// A struct around one value.
    Newtype {
        /// Name of the type.
        name: String,
        /// The value.
        inner: Box<Schema>,
    },
    /// An enum.
    Enum {
        /// Name of the type.
        name: String,
        /// The variants in their order.
        variants: Vec<Variant>,
    },
    /// What can't be told: a type that contains itself (its name), or one that rejects sample values.
    Opaque(String),
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub schema: Schema,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub schema: Schema,
}

/// How a type differs from the one that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch {
    /// One sentence for each difference, such as `value.mean: written as f32, now f64`.
    pub differences: Vec<String>,
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.differences.join("; "))
    }
}

impl std::error::Error for SchemaMismatch {}

impl Schema {
    /// Traces the type: lets it deserialize from samples and notes what it asks for.
    ///
    /// Types that contain themselves, and those that accept no sample (1, "a", the first variant, ...), end in
    /// [`Schema::Opaque`] there.
    #[must_use]
    pub fn of<T: DeserializeOwned>() -> Self {
        trace::trace::<T>()
    }

    /// Whether values written as `written` can be read as this.
    ///
    /// # Errors
    ///
    /// All differences, field by field.
    pub fn compare(&self, written: &Self) -> Result<(), SchemaMismatch> {
        let mut differences = Vec::new();
        self.differences(written, "", &mut differences);
        if differences.is_empty() { Ok(()) } else { Err(SchemaMismatch { differences }) }
    }

    /// Adds a sentence for each difference; `path` says where in the type this is.
    pub(crate) fn differences(&self, written: &Self, path: &str, out: &mut Vec<String>) {
        match (self, written) {
            (Self::Option(now), Self::Option(was))
            | (Self::Newtype { inner: now, .. }, Self::Newtype { inner: was, .. }) => {
                now.differences(was, path, out);
            }
            (Self::Seq(now), Self::Seq(was)) => now.differences(was, &format!("{path}[]"), out),
            (Self::Map(now_key, now), Self::Map(was_key, was)) => {
                now_key.differences(was_key, &format!("{path}{{key}}"), out);
                now.differences(was, &format!("{path}{{}}"), out);
            }
            (Self::Tuple(now), Self::Tuple(was)) if now.len() == was.len() => {
                for (at, (now, was)) in now.iter().zip(was).enumerate() {
                    now.differences(was, &format!("{path}.{at}"), out);
                }
            }
            (Self::Struct { fields: now, .. }, Self::Struct { fields: was, .. }) => {
                let part = |field: &Field| (field.name.clone(), field.schema.clone());
                named_differences("field", now.iter().map(part).collect(), was.iter().map(part).collect(), path, out);
            }
            (Self::Enum { variants: now, .. }, Self::Enum { variants: was, .. }) => {
                let part = |variant: &Variant| (variant.name.clone(), variant.schema.clone());
                named_differences("variant", now.iter().map(part).collect(), was.iter().map(part).collect(), path, out);
            }
            _ if self == written => {}
            _ => out.push(format!("{}: written as {written}, now {self}", path.trim_start_matches('.'))),
        }
    }
}

/// Compares fields or variants by name; their order counts, since the encoding has no names.
fn named_differences(
    what: &str,
    now: Vec<(String, Schema)>,
    was: Vec<(String, Schema)>,
    path: &str,
    out: &mut Vec<String>,
) {
    let before = out.len();
    let shown = path.trim_start_matches('.');
    let at = if shown.is_empty() { String::new() } else { format!("{shown}: ") };
    for (name, schema) in &was {
        match now.iter().find(|(other, _)| other == name) {
            Some((_, now)) => now.differences(schema, &format!("{path}.{name}"), out),
            None => out.push(format!("{at}{what} {name} ({schema}) is gone")),
        }
    }
    for (name, schema) in &now {
        if !was.iter().any(|(other, _)| other == name) {
            out.push(format!("{at}{what} {name} ({schema}) is new"));
        }
    }
    let same_order = now.iter().map(|(name, _)| name).eq(was.iter().map(|(name, _)| name));
    if out.len() == before && !same_order {
        let names: Vec<_> = was.iter().map(|(name, _)| name.as_str()).collect();
        out.push(format!("{at}{what}s were in the order {}", names.join(", ")));
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("()"),
            Self::Primitive(name) => f.write_str(name),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Option(inner) => write!(f, "option of {inner}"),
            Self::Seq(inner) => write!(f, "list of {inner}"),
            Self::Map(key, value) => write!(f, "map from {key} to {value}"),
            Self::Tuple(parts) => {
                f.write_str("(")?;
                for (at, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Struct { name, fields } => {
                write!(f, "{name} {{ ")?;
                for (at, field) in fields.iter().enumerate() {
                    write!(f, "{}{}: {}", if at == 0 { "" } else { ", " }, field.name, field.schema)?;
                }
                f.write_str(" }")
            }
            Self::Newtype { name, inner } => write!(f, "{name}({inner})"),
            Self::Enum { name, variants } => {
                write!(f, "{name} ")?;
                for (at, variant) in variants.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { " | " })?;
                    f.write_str(&variant.name)?;
                    if variant.schema != Self::Unit {
                        write!(f, ": {}", variant.schema)?;
                    }
                }
                Ok(())
            }
            Self::Opaque(name) => write!(f, "opaque {name}"),
        }
    }
}

#[cfg(test)]
mod tests;
