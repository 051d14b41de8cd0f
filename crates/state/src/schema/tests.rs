#![allow(dead_code)] // the types are only traced

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::*;

#[derive(Deserialize)]
struct Delay {
    flights: u32,
    mean: Option<f64>,
    tags: Vec<String>,
    by_day: BTreeMap<u16, (i64, bool)>,
}

#[derive(Deserialize)]
struct Metres(f32);

#[derive(Deserialize)]
enum Shape {
    Empty,
    Circle(Metres),
    Line(u8, u8),
    Box { width: Metres, inner: Option<Paint> },
}

#[derive(Deserialize)]
enum Paint {
    Red,
    Mixed(Vec<u8>),
}

#[derive(Deserialize)]
struct Node {
    value: i32,
    next: Option<Box<Node>>,
}

#[derive(Deserialize)]
enum Expression {
    Sum(Box<Expression>, Box<Expression>),
    Number(i64),
    Not(Box<Expression>),
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Picky;

impl TryFrom<String> for Picky {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > 10 { Ok(Self) } else { Err("too short".to_owned()) }
    }
}

#[derive(Deserialize)]
struct Holder {
    first: u8,
    picky: Picky,
    last: u8,
}

fn shown<T: DeserializeOwned>() -> String {
    Schema::of::<T>().to_string()
}

#[test]
fn types_are_traced_as_far_as_they_let() {
    let cases = [
        ("an integer", shown::<u64>(), "u64"),
        ("unit", shown::<()>(), "()"),
        ("text", shown::<String>(), "string"),
        ("a type that rejects 0", shown::<NonZeroU32>(), "u32"),
        ("a tuple with an array", shown::<(u8, [i16; 2])>(), "(u8, (i16, i16))"),
        (
            "a struct",
            shown::<Delay>(),
            "Delay { flights: u32, mean: option of f64, tags: list of string, by_day: map from u16 to (i64, bool) }",
        ),
        ("a newtype", shown::<Metres>(), "Metres(f32)"),
        (
            "an enum with every kind of variant, and an enum in one of them",
            shown::<Shape>(),
            "Shape Empty | Circle: Metres(f32) | Line: (u8, u8) | Box: Box { width: Metres(f32), \
             inner: option of Paint Red | Mixed: list of u8 }",
        ),
        ("a type that contains itself", shown::<Node>(), "Node { value: i32, next: option of opaque Node }"),
        (
            "an enum that contains itself",
            shown::<Expression>(),
            "Expression Sum: (opaque Expression, opaque Expression) | Number: i64 | Not: opaque Expression",
        ),
        (
            "what comes after a type that rejects the samples is unknown",
            shown::<Holder>(),
            "Holder { first: u8, picky: string, last: opaque untraced }",
        ),
        ("a type of two occurrences is traced in both", shown::<(Metres, Metres)>(), "(Metres(f32), Metres(f32))"),
    ];
    for (name, found, expected) in cases {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_schema_survives_json_however_deep() {
    type Deep<T> = Option<Option<Option<Option<Option<T>>>>>;
    type Deeper = Vec<Deep<Vec<Deep<Vec<Deep<Vec<Deep<Vec<Deep<Shape>>>>>>>>>>;
    for schema in [Schema::of::<Shape>(), Schema::of::<Delay>(), Schema::of::<Deeper>(), Schema::of::<Expression>()] {
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
    }
}

#[test]
fn differences_are_told_field_by_field() {
    mod then {
        #[derive(serde::Deserialize)]
        pub(super) struct Delay {
            flights: u64,
            worst: i32,
            tags: Vec<Option<String>>,
            by_day: super::BTreeMap<u16, (i64, u8)>,
        }
        #[derive(serde::Deserialize)]
        pub(super) enum Paint {
            Mixed(Vec<u8>),
            Red,
        }
        #[derive(serde::Deserialize)]
        pub(super) struct Length(f32);
    }
    let differences = |now: Schema, written: Schema| match now.compare(&written) {
        Ok(()) => Vec::new(),
        Err(mismatch) => mismatch.differences,
    };
    assert_eq!(
        differences(Schema::of::<Delay>(), Schema::of::<then::Delay>()),
        [
            "flights: written as u64, now u32",
            "field worst (i32) is gone",
            "tags[]: written as option of string, now string",
            "by_day{}.1: written as u8, now bool",
            "field mean (option of f64) is new",
        ]
    );
    let order = ["variants were in the order Mixed, Red"];
    assert_eq!(differences(Schema::of::<Paint>(), Schema::of::<then::Paint>()), order);
    assert!(differences(Schema::of::<Metres>(), Schema::of::<then::Length>()).is_empty(), "names of types");
    assert_eq!(differences(Schema::of::<u8>(), Schema::of::<u16>()).len(), 1);
    assert!(differences(Schema::of::<Shape>(), Schema::of::<Shape>()).is_empty());
}
