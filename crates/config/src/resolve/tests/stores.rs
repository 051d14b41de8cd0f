//! Object stores: which key sets what, whose word counts, what is refused, and that secrets stay secret.

use std::num::{NonZeroU32, NonZeroU64};

use cutwater_core::Secret;

use super::{file, flags, refusal};
use crate::*;

const SECRET: &str = "hunter2hunter2";
/// Keys come in pairs.
const PAIR: [(&str, &str); 2] = [("s3.access-key", "minio"), ("s3.secret-key", SECRET)];

fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

#[test]
fn each_key_and_each_spelling_of_it_sets_its_field() {
    type Set = fn(&mut ObjectStores);
    let cases: [(&[&str], &str, Set); 8] = [
        (&["s3.endpoint"], "http://127.0.0.1:9000", |it| it.endpoint = Some("http://127.0.0.1:9000".into())),
        (&["s3.region", "s3.endpoint.region"], "eu-west-1", |it| it.region = Some("eu-west-1".into())),
        (&["s3.path-style-access", "s3.path.style.access", "s3.path-style"], "false", |it| it.path_style = Some(false)),
        (&["s3.allow-http"], "true", |it| it.allow_http = Some(true)),
        (&["cutwater.object-store.deadline"], "1 min", |it| it.deadline = seconds(60)),
        (&["cutwater.object-store.request-timeout"], "7 s", |it| it.request_timeout = seconds(7)),
        (&["cutwater.object-store.parallelism"], "7", |it| it.parallelism = NonZeroU32::new(7).unwrap()),
        (&["cutwater.object-store.upload-rate"], "7 kb", |it| it.upload_rate = NonZeroU64::new(7 << 10)),
    ];
    assert_eq!(flags(&[]).unwrap().object_stores, ObjectStores::default());
    for (names, value, set) in cases {
        let mut expected = ObjectStores::default();
        set(&mut expected);
        assert_ne!(expected, ObjectStores::default(), "{names:?}");
        for (place, name) in names.iter().enumerate() {
            let resolved = flags(&[(name, value)]).unwrap();
            assert_eq!(resolved.object_stores, expected, "`{name}`");
            assert_eq!(resolved.setting(names[0]).unwrap().value.as_deref(), Some(value), "`{name}`");
            assert_eq!(resolved.warnings.len(), place.min(1), "another spelling is told of: {:?}", resolved.warnings);
        }
    }
    for pair in [PAIR, [("s3.access.key", "minio"), ("s3.secret.key", SECRET)]] {
        let stores = flags(&pair).unwrap().object_stores;
        assert_eq!((stores.access_key.as_deref(), stores.secret_key), (Some("minio"), Some(Secret::new(SECRET))));
    }
}

#[test]
fn the_higher_level_says_how_a_store_is_reached() {
    let base = || file("flink-conf.yaml", "s3.endpoint: http://file\ns3.access-key: minio\n");
    let variables = [("CUTWATER_S3_SECRET_KEY", SECRET), ("CUTWATER_S3_ENDPOINT", "http://environment")];
    let cases = [
        ("the environment over a file", base(), "http://environment"),
        ("a flag over both", base().flag("s3.endpoint", "http://flag"), "http://flag"),
    ];
    for (name, config, endpoint) in cases {
        let stores = config.environment(variables).resolve().unwrap().object_stores;
        assert_eq!(stores.endpoint.as_deref(), Some(endpoint), "{name}");
        // The two halves of a key need not stand in one place: a secret belongs into no file.
        assert_eq!((stores.access_key.as_deref(), stores.secret_key), (Some("minio"), Some(Secret::new(SECRET))));
    }
    let unlimited = |text| flags(&[("cutwater.object-store.deadline", text)]).unwrap();
    assert_eq!(unlimited("800 d").object_stores.deadline, seconds(365 * 86_400));
    assert_eq!((unlimited("800 d").warnings.len(), unlimited("365 d").warnings.len()), (1, 0));
}

#[test]
fn what_can_not_be_is_refused_without_showing_a_secret() {
    let cases = [
        (vec![PAIR[0]], "flag: `s3.access-key` is `minio`, set `s3.secret-key` too"),
        (vec![PAIR[1]], "flag: `s3.secret-key` is `***`, set `s3.access-key` too"),
        (
            vec![("s3.secret.key", SECRET)],
            "flag: `s3.secret.key` (now `s3.secret-key`) is `***`, set `s3.access-key` too",
        ),
        (vec![("s3.allow-http", "yes")], "flag: `s3.allow-http` is `yes`, give `true` or `false`"),
        (
            vec![("cutwater.object-store.request-timeout", "9 ms")],
            "flag: `cutwater.object-store.request-timeout` is `9 ms`, give at least 10 ms",
        ),
        (
            vec![("cutwater.object-store.parallelism", "0")],
            "flag: `cutwater.object-store.parallelism` is `0`, give 1 to 2147483647",
        ),
        (
            vec![("cutwater.object-store.upload-rate", "0 mb")],
            "flag: `cutwater.object-store.upload-rate` is `0 mb`, give at least 1 byte, or leave it out for no limit",
        ),
        (vec![("s3.secret-kee", SECRET)], "flag: there is no key `s3.secret-kee`, did you mean `s3.secret-key`?"),
    ];
    for (pairs, expected) in cases {
        let result = flags(&pairs);
        assert!(!format!("{result:?}").contains(SECRET), "{result:?}");
        assert_eq!(refusal(result), expected);
    }
    let list = file("cutwater.yaml", &format!("s3.secret-key: [{SECRET}]\n")).resolve();
    assert!(list.is_err() && !format!("{list:?} {}", list.as_ref().unwrap_err()).contains(SECRET), "{list:?}");
}

#[test]
fn a_secret_is_nowhere_but_where_it_is_asked_for() {
    // Mistyped, it is not yet known to be one; so it is hidden as long as nobody has judged the name.
    let settings = Settings::new().set("s3.secret-key", SECRET).set("s3.sekret-key", SECRET).job_name("flights");
    assert_eq!(
        format!("{settings:?}"),
        r#"{"pipeline.name": "flights", "s3.secret-key": "***", "s3.sekret-key": "***"}"#
    );
    assert_eq!(settings.value("s3.secret-key"), Some(SECRET));

    let text = format!("s3.access-key: minio\ns3.secret-key: {SECRET}-0\nfs.azure.account.key: {SECRET}-1\n");
    let config = file("flink-conf.yaml", &text)
        .code(Settings::new().set("s3.secret.key", format!("{SECRET}-2")))
        .environment([("CUTWATER_S3_SECRET_KEY", format!("{SECRET}-3"))])
        .flag("s3.secret-key", format!("{SECRET}-4"))
        .flag("s3.secret-key", format!("{SECRET}-5"));
    assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
    let resolved = config.resolve().unwrap();
    assert!(!format!("{resolved:?}").contains(SECRET), "{resolved:?}");
    assert!(resolved.warnings.iter().all(|warning| !warning.to_string().contains(SECRET)));
    let setting = resolved.setting("s3.secret-key").unwrap();
    assert_eq!((setting.value.as_deref(), setting.overridden.len()), (Some("***"), 4));
    assert!(setting.overridden.iter().all(|said| said.value == "***"), "{setting:?}");
    assert_eq!(resolved.object_stores.secret_key.unwrap().reveal(), format!("{SECRET}-5"));
}

#[test]
fn rocksdb_is_a_backend_with_keys_of_its_own() {
    let default = flags(&[("state.backend.type", "RocksDB")]).unwrap();
    assert_eq!((default.backend, default.rocksdb), (BackendKind::RocksDb, RocksDb::default()));
    let all = [
        ("state.backend", "rocksdb"),
        ("state.backend.rocksdb.localdir", "/var/lib/state"),
        ("cutwater.rocksdb.overlay", "1 mb"),
        ("cutwater.rocksdb.block-cache", "1 gb"),
        ("cutwater.rocksdb.write-buffers", "32 mb"),
    ];
    let expected = RocksDb {
        local_dir: Some("/var/lib/state".to_owned()),
        overlay_bytes: 1 << 20,
        block_cache_bytes: 1 << 30,
        write_buffer_bytes: 32 << 20,
    };
    assert_eq!(flags(&all).unwrap().rocksdb, expected);
    for key in ["overlay", "block-cache", "write-buffers"] {
        let key = format!("cutwater.rocksdb.{key}");
        let refused = refusal(flags(&[(&key, "1023 kb")]));
        assert!(refused.contains(&key) && refused.contains("give at least 1 mb"), "{refused}");
    }
}
