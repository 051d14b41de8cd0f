use std::fs;

use proptest::prelude::*;

use super::*;

/// Reads `text` from a file of that name and gives `key=value@line` for each key, and the number of warnings.
fn read_as(name: &str, text: &[u8]) -> Result<(Vec<String>, usize), ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let (entries, warnings) = read(&path)?;
    let describe = |entry: Entry| {
        let Origin::File { line, .. } = entry.origin else { panic!("{:?}", entry.origin) };
        format!("{}={}@{line}", entry.key, entry.value)
    };
    Ok((entries.into_iter().map(describe).collect(), warnings.len()))
}

#[test]
fn yaml_files() {
    let cases: [(&str, &str, &[&str]); 21] = [
        ("an empty file says nothing", "", &[]),
        ("nor does one of comments", "# a comment\n\n# another\n", &[]),
        ("nor a lonely null", "~\n", &[]),
        ("flat keys", "a.b: 1\na.c: two\n", &["a.b=1@1", "a.c=two@2"]),
        ("nested keys", "a:\n  b: 1\n  c:\n    d: two\n", &["a.b=1@2", "a.c.d=two@4"]),
        ("both mixed", "a.b:\n  c: 1\na:\n  d: 2\n  e.f: 3\n", &["a.b.c=1@2", "a.d=2@4", "a.e.f=3@5"]),
        ("flow style", "a: {b: 1, c: {d: x}}\n", &["a.b=1@1", "a.c.d=x@1"]),
        (
            "off, no, on and none are texts",
            "a: off\nb: no\nc: none\nd: on\n",
            &["a=off@1", "b=no@2", "c=none@3", "d=on@4"],
        ),
        ("null is not set", "a: null\nb: ~\nc:\nd: 1\n", &["d=1@4"]),
        ("a quoted null is a text", "a: 'null'\nb: \"\"\n", &["a=null@1", "b=@2"]),
        ("a # after a space begins a comment", "a: 1 # one\nb: x#y\n", &["a=1@1", "b=x#y@2"]),
        ("truth in any case of YAML", "a: true\nb: FALSE\n", &["a=true@1", "b=false@2"]),
        ("numbers keep their value", "a: 1.5\nb: -3\nc: 2147483648\n", &["a=1.5@1", "b=-3@2", "c=2147483648@3"]),
        ("odd numbers stay texts", "a: 007\nb: 1_000\nc: .inf\n", &["a=007@1", "b=1_000@2", "c=.inf@3"]),
        ("durations", "a: 10 s\nb: PT1M\nc: 12:30\n", &["a=10 s@1", "b=PT1M@2", "c=12:30@3"]),
        ("lists become a text that says so", "a: [x, 1, [y], {z: 1}]\n", &["a=[x, 1, [y], {...}]@1"]),
        ("lists in lines", "a:\n  - x\n  - y\n", &["a=[x, y]@1"]),
        ("an empty mapping says nothing", "a: {}\n", &[]),
        ("a key that is a number", "1: x\n", &["1=x@1"]),
        ("an anchor and an alias", "a: &x 10 s\nb: *x\n", &["a=10 s@1", "b=10 s@2"]),
        ("a byte order mark, and lines of Windows", "\u{feff}a: 1\r\nb: 2\r\n", &["a=1@1", "b=2@2"]),
    ];
    for (name, text, expected) in cases {
        for file in ["config.yaml", "cutwater.yaml"] {
            let (entries, warnings) = read_as(file, text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((entries, warnings), (expected.iter().map(ToString::to_string).collect(), 0), "{name}");
        }
    }
}

#[test]
fn yaml_files_that_are_refused() {
    let deep = format!("a: {}1{}\n", "{a: ".repeat(40), "}".repeat(40));
    let deep_lines: String = (0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n\
                f: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let cases = [
        ("a scalar", "hello\n"),
        ("a list", "- a\n- b\n"),
        ("no space after the colon", "a:1\n"),
        ("a line that is none", "a: 1\nb\n"),
        ("a bracket that is not closed", "a: [1, 2\n"),
        ("a bad indent", "a:\n  b: 1\n c: 2\n"),
        ("a tab as indent", "a:\n\tb: 1\n"),
        ("an alias to nothing", "a: *x\n"),
        ("a merge, which YAML 1.2 has not", "a: &a {b: 1}\nc: {<<: *a}\n"),
        ("two documents", "a: 1\n---\nb: 2\n"),
        ("too deep in flow", &deep),
        ("too deep in lines", &deep_lines),
        ("a bomb of aliases", bomb),
    ];
    for (name, text) in cases {
        match read_as("config.yaml", text.as_bytes()) {
            Err(ConfigError::Syntax { message, .. }) => assert!(!message.is_empty(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let bytes = read_as("config.yaml", b"a: \xff\n").unwrap_err().to_string();
    assert!(bytes.ends_with("config.yaml: not UTF-8 from byte 3 on"), "{bytes}");
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    let cases = [
        ("flat", "a.b: 1\na.b: 1\n", "a.b", 1, 2),
        ("nested", "a:\n  b: 1\n  b: 2\n", "a.b", 2, 3),
        ("nested and flat", "a:\n  b: 1\na.b: 2\n", "a.b", 2, 3),
        ("a mapping in two parts", "a:\n  b: 1\na:\n  c: 2\n", "a", 1, 3),
        ("the old scalar beside the mapping", "a: fixed-delay\nb: 1\na:\n  type: none\n", "a", 1, 3),
        ("once null", "a: ~\na: 1\n", "a", 1, 2),
        ("deep", "x:\n  a.b: 1\nx.a:\n  b: 2\n", "x.a.b", 2, 4),
    ];
    for (name, text, expected, first, second) in cases {
        match read_as("cutwater.yaml", text.as_bytes()) {
            Err(ConfigError::Duplicate { key, first_line, line, .. }) => {
                assert_eq!((key.as_str(), first_line, line), (expected, first, second), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn flink_conf_yaml_is_read_line_by_line() {
    let cases: [(&str, &str, &[&str], usize); 11] = [
        ("empty", "", &[], 0),
        ("a key", "a.b: 1\n", &["a.b=1@1"], 0),
        ("space around", "  a.b:   x y  \n", &["a.b=x y@1"], 0),
        ("the last wins", "a: 1\nb: 2\na: 3\n", &["a=3@3", "b=2@2"], 0),
        ("a # anywhere is a comment", "a: x#y\n# b: 1\nc: 2 # d\n", &["a=x@1", "c=2@3"], 0),
        ("no colon", "a\nb: 1\n", &["b=1@2"], 1),
        ("no space after the colon", "a:1\nb: 1\n", &["b=1@2"], 1),
        ("no value", "a:\nb: \nc: #\n", &[], 3),
        ("no key", ": 1\n", &[], 1),
        ("colons in the value", "a: hdfs://x:1/y: z\n", &["a=hdfs://x:1/y: z@1"], 0),
        ("what is no YAML is fine", "a: [1\n", &["a=[1@1"], 0),
    ];
    for (name, text, expected, warnings) in cases {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(read_as("flink-conf.yaml", text.as_bytes()).unwrap(), (expected, warnings), "{name}");
    }
}

#[test]
fn a_file_has_a_limit() {
    let limit = usize::try_from(MAX_BYTES).unwrap();
    let mut text = b"a: 1\n#".to_vec();
    text.resize(limit, b'x');
    assert_eq!(read_as("config.yaml", &text).unwrap().0, ["a=1@1"]);
    text.push(b'x');
    assert!(matches!(read_as("config.yaml", &text), Err(ConfigError::TooLarge { limit: MAX_BYTES, .. })));
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.yaml");
    let error = read(&path).unwrap_err();
    assert!(matches!(&error, ConfigError::Read { path: named, .. } if *named == path), "{error}");
    assert!(matches!(read(folder.path()).unwrap_err(), ConfigError::Read { .. }));
}

#[test]
fn one_file_is_found_in_a_stated_order() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(discover(folder.path()), None);
    for name in ["flink-conf.yaml", "config.yaml", "cutwater.yaml"] {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        assert_eq!(discover(folder.path()), Some(path));
    }
}

proptest! {
    /// Whatever is in a file: keys or an error.
    #[test]
    fn no_text_makes_the_readers_panic(text in "[a-c:.#\\[\\]{}&*!|>~'\" \t\n,-]{0,60}", any in "\\PC{0,40}") {
        let path = Path::new("config.yaml");
        for text in [text, any] {
            let _ = yaml::parse(path, &text);
            let _ = parse_lines(path, &text);
        }
    }

    /// A tree of keys means the same, nested or flat.
    #[test]
    fn flat_and_nested_mean_the_same(
        keys in proptest::collection::btree_map("[a-c]\\.[d-f]\\.[g-i]", "[x-z]{1,4}", 0..9),
    ) {
        let flat: String = keys.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let mut nested = String::new();
        let mut open: [&str; 2] = ["", ""];
        for (key, value) in &keys {
            let parts: Vec<&str> = key.split('.').collect();
            if open[0] != parts[0] {
                nested.push_str(&format!("{}:\n", parts[0]));
                open = [parts[0], ""];
            }
            if open[1] != parts[1] {
                nested.push_str(&format!("  {}:\n", parts[1]));
                open[1] = parts[1];
            }
            nested.push_str(&format!("    {}: {value}\n", parts[2]));
        }
        let read = |text: &str| -> Vec<(String, String)> {
            let entries = yaml::parse(Path::new("config.yaml"), text).unwrap();
            entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
        };
        prop_assert_eq!(read(&flat), read(&nested));
        prop_assert_eq!(read(&flat), keys.into_iter().collect::<Vec<_>>());
    }
}
