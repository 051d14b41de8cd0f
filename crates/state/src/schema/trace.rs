use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Field, Schema, Variant};

/// Deeper than this nothing is told: a schema is stored as JSON, whose readers limit the depth too.
const MAX_DEPTH: usize = 20;
/// A type deserializes once for each variant of its enums, at most so often.
const MAX_ROUNDS: usize = 512;

pub(super) fn trace<T: DeserializeOwned>() -> Schema {
    let mut state = State::default();
    for _ in 0..MAX_ROUNDS {
        state.incomplete = false;
        round::<T>(&mut state);
        if !state.incomplete {
            break;
        }
    }
    // By now every enum knows all its variants: this round's picture is whole.
    state.depth = 0;
    round::<T>(&mut state)
}

fn round<T: DeserializeOwned>(state: &mut State) -> Schema {
    let mut schema = Schema::Opaque("untraced".to_owned());
    // What failed stands as opaque in the schema.
    let _ = T::deserialize(Tracer { state, schema: &mut schema });
    schema
}

#[derive(Default)]
struct State {
    /// What was found out about the enum at each place of the type.
    enums: BTreeMap<String, Vec<Known>>,
    /// The variant that was the first to work out of an enum within itself: it leads out.
    exits: BTreeMap<&'static str, usize>,
    /// Some enum of this round has variants that were not tried.
    incomplete: bool,
    /// Where in the type the tracing is, and the names of the types on the way.
    path: Vec<String>,
    names: Vec<&'static str>,
    depth: usize,
    /// Inside a type that contains itself: take the shortest way out.
    hurry: bool,
}

struct Known {
    variant: Variant,
    done: bool,
    failed: bool,
}

/// Hands samples to a visitor and notes in `schema` what was asked for.
struct Tracer<'a> {
    state: &'a mut State,
    schema: &'a mut Schema,
}

impl Tracer<'_> {
    /// Traces something within the present type.
    fn within<T>(
        state: &mut State,
        step: &str,
        schema: &mut Schema,
        run: impl FnOnce(Tracer<'_>) -> Result<T, Untraceable>,
    ) -> Result<T, Untraceable> {
        if state.depth >= MAX_DEPTH {
            return Err(Untraceable);
        }
        state.depth += 1;
        state.path.push(step.to_owned());
        let result = run(Tracer { state, schema });
        state.path.pop();
        state.depth -= 1;
        result
    }

    fn seed<'de, S: DeserializeSeed<'de>>(
        state: &mut State,
        step: &str,
        schema: &mut Schema,
        seed: S,
    ) -> Result<S::Value, Untraceable> {
        Self::within(state, step, schema, |tracer| seed.deserialize(tracer))
    }

    /// Enters a named type. Within itself it is opaque, and everything in it takes the shortest way out.
    fn named<T>(
        self,
        name: &'static str,
        run: impl FnOnce(&mut State, &mut Schema) -> Result<T, Untraceable>,
    ) -> Result<T, Untraceable> {
        let Self { state, schema } = self;
        let recursive = state.names.contains(&name);
        let hurry = state.hurry;
        state.names.push(name);
        state.hurry |= recursive;
        let result = run(state, schema);
        state.names.pop();
        state.hurry = hurry;
        if recursive {
            *schema = Schema::Opaque(name.to_owned());
        }
        result
    }
}

fn unknown() -> Schema {
    Schema::Opaque("untraced".to_owned())
}

macro_rules! primitives {
    ($($method:ident $visit:ident $name:literal $sample:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
            *self.schema = Schema::Primitive($name.to_owned());
            visitor.$visit($sample)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Untraceable;

    // Samples are 1, not 0, since more types accept it.
    primitives! {
        deserialize_bool visit_bool "bool" true;
        deserialize_i8 visit_i8 "i8" 1;
        deserialize_i16 visit_i16 "i16" 1;
        deserialize_i32 visit_i32 "i32" 1;
        deserialize_i64 visit_i64 "i64" 1;
        deserialize_i128 visit_i128 "i128" 1;
        deserialize_u8 visit_u8 "u8" 1;
        deserialize_u16 visit_u16 "u16" 1;
        deserialize_u32 visit_u32 "u32" 1;
        deserialize_u64 visit_u64 "u64" 1;
        deserialize_u128 visit_u128 "u128" 1;
        deserialize_f32 visit_f32 "f32" 1.0;
        deserialize_f64 visit_f64 "f64" 1.0;
        deserialize_char visit_char "char" 'a';
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        *self.schema = Schema::String;
        visitor.visit_str("a")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        *self.schema = Schema::String;
        visitor.visit_string("a".to_owned())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        *self.schema = Schema::Bytes;
        visitor.visit_bytes(b"a")
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        *self.schema = Schema::Bytes;
        visitor.visit_byte_buf(b"a".to_vec())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        if self.state.hurry {
            return visitor.visit_none();
        }
        let mut inner = unknown();
        let result = Self::within(self.state, "option", &mut inner, |tracer| visitor.visit_some(tracer));
        *self.schema = Schema::Option(Box::new(inner));
        result
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        *self.schema = Schema::Unit;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Untraceable> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Untraceable> {
        self.named(name, |state, schema| {
            let mut inner = unknown();
            let result = Self::within(state, name, &mut inner, |tracer| visitor.visit_newtype_struct(tracer));
            *schema = Schema::Newtype { name: name.to_owned(), inner: Box::new(inner) };
            result
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        let mut items = vec![unknown()];
        let left = if self.state.hurry { 0 } else { 1 };
        let result = visitor.visit_seq(Items { state: self.state, schemas: &mut items, next: 1 - left });
        *self.schema = Schema::Seq(Box::new(items.remove(0)));
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Untraceable> {
        let mut items = vec![unknown(); length.min(1 << 16)];
        let result = visitor.visit_seq(Items { state: self.state, schemas: &mut items, next: 0 });
        *self.schema = Schema::Tuple(items);
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Untraceable> {
        self.named(name, |state, schema| Tracer { state, schema }.deserialize_tuple(length, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        let (mut key, mut value) = (unknown(), unknown());
        let done = self.state.hurry;
        let result = visitor.visit_map(Pairs { state: self.state, key: &mut key, value: &mut value, done });
        *self.schema = Schema::Map(Box::new(key), Box::new(value));
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Untraceable> {
        self.named(name, |state, schema| {
            let mut items = vec![unknown(); fields.len()];
            let result = visitor.visit_seq(Items { state, schemas: &mut items, next: 0 });
            let field = |(name, schema): (&&str, Schema)| Field { name: (*name).to_owned(), schema };
            *schema = Schema::Struct { name: name.to_owned(), fields: fields.iter().zip(items).map(field).collect() };
            result
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Untraceable> {
        self.named(name, |state, schema| trace_enum(state, schema, name, variants, visitor))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Untraceable> {
        Err(Untraceable)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Untraceable> {
        // A type that takes what comes, which no compact encoding can store.
        *self.schema = Schema::Opaque("any".to_owned());
        Err(Untraceable)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Untraceable> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Tries one variant: the first that was not tried whole, then one that worked.
fn trace_enum<'de, V: Visitor<'de>>(
    state: &mut State,
    schema: &mut Schema,
    name: &'static str,
    variants: &'static [&'static str],
    visitor: V,
) -> Result<V::Value, Untraceable> {
    // All occurrences of a type within itself share what is known, so that the search ends.
    let place = if state.hurry { format!("~{name}") } else { state.path.join("/") };
    let fresh = |name: &&str| Known {
        variant: Variant { name: (*name).to_owned(), schema: unknown() },
        done: false,
        failed: false,
    };
    let known = state.enums.entry(place.clone()).or_insert_with(|| variants.iter().map(fresh).collect());
    let exit = state.exits.get(name).copied().filter(|_| state.hurry);
    let untried = exit.or_else(|| known.iter().position(|known| !known.done));
    let Some(chosen) = untried.or_else(|| known.iter().position(|known| !known.failed)) else {
        *schema = Schema::Opaque(name.to_owned());
        return Err(Untraceable);
    };
    if let Some(known) = known.get_mut(chosen).filter(|_| state.hurry) {
        known.done = true; // so that the next one within it takes another
    }
    let outer = std::mem::take(&mut state.incomplete);
    let mut content = Schema::Unit;
    let choice = Choice { state: &mut *state, chosen, name: variants[chosen], schema: &mut content };
    let result = visitor.visit_enum(choice);
    if result.is_ok() && state.hurry {
        state.exits.entry(name).or_insert(chosen);
    }
    let whole = !state.incomplete || result.is_err() || state.hurry;
    if let Some(known) = state.enums.get_mut(&place) {
        known[chosen].variant.schema = content;
        known[chosen].done = whole;
        known[chosen].failed = result.is_err();
        state.incomplete = outer || (!state.hurry && known.iter().any(|known| !known.done));
        *schema =
            Schema::Enum { name: name.to_owned(), variants: known.iter().map(|known| known.variant.clone()).collect() };
    }
    result
}

struct Items<'a> {
    state: &'a mut State,
    schemas: &'a mut [Schema],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Untraceable;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Untraceable> {
        let Some(schema) = self.schemas.get_mut(self.next) else { return Ok(None) };
        let step = self.next.to_string();
        self.next += 1;
        Tracer::seed(self.state, &step, schema, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.schemas.len().saturating_sub(self.next))
    }
}

struct Pairs<'a> {
    state: &'a mut State,
    key: &'a mut Schema,
    value: &'a mut Schema,
    done: bool,
}

impl<'de> de::MapAccess<'de> for Pairs<'_> {
    type Error = Untraceable;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Untraceable> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        Tracer::seed(self.state, "key", self.key, seed).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Untraceable> {
        Tracer::seed(self.state, "value", self.value, seed)
    }
}

struct Choice<'a> {
    state: &'a mut State,
    chosen: usize,
    name: &'static str,
    schema: &'a mut Schema,
}

impl<'a, 'de> de::EnumAccess<'de> for Choice<'a> {
    type Error = Untraceable;
    type Variant = Content<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content<'a>), Untraceable> {
        let index = u32::try_from(self.chosen).map_err(|_| Untraceable)?;
        let value = seed.deserialize(IntoDeserializer::<Untraceable>::into_deserializer(index))?;
        Ok((value, Content { state: self.state, name: self.name, schema: self.schema }))
    }
}

struct Content<'a> {
    state: &'a mut State,
    name: &'static str,
    schema: &'a mut Schema,
}

impl<'de> de::VariantAccess<'de> for Content<'_> {
    type Error = Untraceable;

    fn unit_variant(self) -> Result<(), Untraceable> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Untraceable> {
        *self.schema = unknown();
        Tracer::seed(self.state, self.name, self.schema, seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Untraceable> {
        Tracer::within(self.state, self.name, self.schema, |tracer| {
            de::Deserializer::deserialize_tuple(tracer, length, visitor)
        })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Untraceable> {
        let name = self.name;
        Tracer::within(self.state, name, self.schema, |Tracer { state, schema }| {
            let mut items = vec![unknown(); fields.len()];
            let result = visitor.visit_seq(Items { state, schemas: &mut items, next: 0 });
            let field = |(name, schema): (&&str, Schema)| Field { name: (*name).to_owned(), schema };
            *schema = Schema::Struct { name: name.to_owned(), fields: fields.iter().zip(items).map(field).collect() };
            result
        })
    }
}

/// Tracing ended here; the schema says where.
#[derive(Debug)]
struct Untraceable;

impl fmt::Display for Untraceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type rejects sample values")
    }
}

impl std::error::Error for Untraceable {}

impl de::Error for Untraceable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}
