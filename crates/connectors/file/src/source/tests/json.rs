//! JSON, a text a line.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Click {
    page: String,
    #[serde(default)]
    user: Option<u32>,
}

fn click(page: &str, user: Option<u32>) -> Click {
    Click { page: page.to_owned(), user }
}

#[test]
fn good_lines_give_their_records() {
    let cases: [(&str, &str, Vec<Click>); 7] = [
        ("lines", "{\"page\":\"a\"}\n{\"page\":\"b\",\"user\":7}\n", vec![click("a", None), click("b", Some(7))]),
        ("fields that nobody asked for", "{\"x\":[{}],\"page\":\"a\"}\n", vec![click("a", None)]),
        ("no last line end", "{\"page\":\"a\"}", vec![click("a", None)]),
        ("Windows line ends", "{\"page\":\"a\"}\r\n{\"page\":\"b\"}\r\n", vec![click("a", None), click("b", None)]),
        ("white space around and between", "\n \t\r\n  {\"page\":\"a\"} \n\n\n", vec![click("a", None)]),
        ("a byte order mark", "\u{feff}{\"page\":\"a\"}\n", vec![click("a", None)]),
        ("nothing", "", vec![]),
    ];
    let folder = Folder::new();
    for (name, content, expected) in cases {
        assert_eq!(records(&json_lines::<Click>(folder.put("input", content)), None).unwrap(), expected, "{name}");
    }
}

#[test]
fn bad_lines_are_named_with_line_and_column() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("no JSON", b"{\"page\":\"a\"}\npage\n".to_vec(), &["line 2, column 1", "near \"page\""]),
        (
            "another type",
            b"\n{\"page\":\"a\",\"user\":\"x\"}\n".to_vec(),
            &["line 2, column 22", "expected u32", "user"],
        ),
        ("a missing field", b"{\"user\":7}\n".to_vec(), &["line 1, column 10", "missing field `page`"]),
        ("something behind it", b"{\"page\":\"a\"} {}\n".to_vec(), &["line 1, column 14", "trailing"]),
        ("a text over two lines", b"{\"page\":\n\"a\"}\n".to_vec(), &["line 1, column 8", "EOF while parsing a value"]),
        ("the file ends in it", b"{\"page\":\"a\"}\n{\"pa".to_vec(), &["line 2", "ends in the midst of this record"]),
        ("no UTF-8", b"{\"page\":\"a\"}\n{\"page\":\"\xff\"}\n".to_vec(), &["line 2", "byte 10"]),
        ("a NUL", b"{\"page\":\"a\"}\n\0\0\0\0\n".to_vec(), &["line 2, column 1"]),
        ("a number that is none", b"{\"page\":\"a\",\"user\":01}\n".to_vec(), &["line 1, column 21", "invalid number"]),
    ];
    let folder = Folder::new();
    for (name, content, parts) in cases {
        let result = records(&json_lines::<Click>(folder.put("input", content)), None);
        assert!(result.as_ref().is_err_and(|error| NonRecoverable::is(&**error)), "{name}");
        assert_error(name, result, parts);
    }
    let source = json_lines::<serde_json::Value>(folder.put("input", deep));
    assert_error("too deep", records(&source, None), &["line 1, column 128", "recursion limit"]);
    let source = json_lines::<serde_json::Value>(folder.put("input", "[".repeat(200))).max_record_bytes(100);
    assert_error("a long line", records(&source, None), &["line 1", "100 bytes"]);
}

#[test]
fn the_words_around_a_mistake_are_shown() {
    let folder = Folder::new();
    let line = format!("{{\"page\":\"{}\",\"user\":-1,\"more\":\"{}\"}}\n", "ä".repeat(300), "ö".repeat(300));
    let message = text(&records(&json_lines::<Click>(folder.put("input", line)), None).unwrap_err());
    assert!(message.contains("user") && message.contains("-1") && message.chars().count() < 400, "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn json_can_be_left_and_entered_after_any_record(
        lines in prop::collection::vec(("[a-cäß🛫\\u{feff}\"\\\\\n\r\0]{0,5}", 0usize..5), 0..8),
        cuts in prop::collection::vec(0usize..1000, 0..5),
    ) {
        let text: String = lines
            .iter()
            .map(|(value, end)| serde_json::to_string(value).unwrap() + ["\n", "\r\n", " \n", "\n\n", "\n \n"][*end])
            .collect();
        let expected: Vec<String> = lines.into_iter().map(|(value, _)| value).collect();
        let folder = Folder::new();
        check_all_positions(&json_lines(folder.put("plain", &text)), &text, &expected)?;
        let members = json_lines(folder.put("members", gzip_members(cut(&text, &cuts))));
        check_all_positions(&members, &text, &expected)?;
    }
}
