//! YAML 1.2 into flat keys. Untrusted: size, depth, nodes and aliases are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Options, Spanned};

use crate::source::Entry;
use crate::{ConfigError, Origin};

/// The longest of Flink's keys has nine parts.
const MAX_DEPTH: usize = 16;

/// A YAML value as far as a configuration needs it. Scalars are texts: each key has a grammar of its own.
#[derive(Debug)]
enum Node {
    Unset,
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file, equal keys included, so that we can name both.
    Map(Vec<(String, u64, Node)>),
}

/// The keys of the document, nested ones joined by dots.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let syntax = |message| ConfigError::Syntax { path: path.to_owned(), message };
    let root: Option<Node> = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| syntax(first_line(&error.without_snippet().to_string())))?;
    let mut flat = Flat { path, entries: BTreeMap::new() };
    match root {
        None | Some(Node::Unset) => {}
        Some(Node::Map(fields)) => flat.add_all("", fields)?,
        Some(Node::Scalar(_) | Node::List(_)) => {
            return Err(syntax("not a mapping, write `key: value` with a space after the colon".to_owned()));
        }
    }
    Ok(flat.entries.into_values().filter_map(|(_, entry)| entry).collect())
}

fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true, // YAML 1.2: `off` and `no` are texts
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        duplicate_keys: DuplicateKeyPolicy::PassThrough, // found by us, with both lines
        merge_keys: MergeKeyPolicy::Error, // not in YAML 1.2
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: 20_000,
            max_aliases: 1_000,
            max_recorded_anchor_events: 20_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
        },
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

struct Flat<'a> {
    path: &'a Path,
    /// By flat key: the line, and the value unless it is null.
    entries: BTreeMap<String, (u64, Option<Entry>)>,
}

impl Flat<'_> {
    fn add_all(&mut self, prefix: &str, fields: Vec<(String, u64, Node)>) -> Result<(), ConfigError> {
        let mut lines = BTreeMap::new();
        for (name, line, node) in fields {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            // Two mappings under one name are duplicates too, whatever they hold.
            if let Some(first_line) = lines.insert(key.clone(), line) {
                return Err(self.duplicate(key, first_line, line));
            }
            self.add(key, line, node)?;
        }
        Ok(())
    }

    fn add(&mut self, key: String, line: u64, node: Node) -> Result<(), ConfigError> {
        let origin = Origin::File { path: self.path.to_owned(), line };
        let entry = match node {
            Node::Map(fields) => return self.add_all(&key, fields),
            Node::Unset => None,
            Node::Scalar(text) => Some(Entry::new(&key, &text, origin)),
            Node::List(_) => {
                Some(Entry::new(&key, &node.to_string(), origin).with_problem("give one value, not a list"))
            }
        };
        if let Some((first_line, _)) = self.entries.get(&key) {
            return Err(self.duplicate(key, *first_line, line));
        }
        self.entries.insert(key, (line, entry));
        Ok(())
    }

    fn duplicate(&self, key: String, first_line: u64, line: u64) -> ConfigError {
        ConfigError::Duplicate { path: self.path.to_owned(), key, first_line, line }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("null"),
            Self::Scalar(text) => f.write_str(text),
            Self::Map(_) => f.write_str("{...}"),
            Self::List(nodes) => {
                let texts: Vec<String> = nodes.iter().map(Self::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Unset)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Unset)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            fields.push((key.value, key.referenced.line(), map.next_value()?));
        }
        Ok(Node::Map(fields))
    }
}
