//! The object stores that other tests rely on: what they do with conditional writes, uploads in parts and restarts, with
//! and without the proxy before them.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use cutwater_integration_tests::{Fault, Kind, LIMIT, Process, Proxy, Rates, Server, sleep};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use tokio::task::JoinSet;

/// The least that S3 takes for a part that is not the last.
const PART: usize = 5 << 20;
const RACERS: usize = 16;

/// A server, a proxy without faults before it, and a client for each of the two ways.
fn both_ways(kind: Kind) -> (Server, Proxy, [(String, AmazonS3); 2]) {
    let server = Server::start(kind);
    let proxy = Proxy::start(server.address(), 1);
    let ways = [
        (format!("{kind}"), server.store()),
        (format!("{kind} through the proxy"), server.store_at(&proxy.endpoint())),
    ];
    (server, proxy, ways)
}

async fn create(store: &AmazonS3, name: &str, text: &str) -> object_store::Result<()> {
    store.put_opts(&Path::from(name), text.to_owned().into(), PutMode::Create.into()).await.map(|_| ())
}

async fn read(store: &AmazonS3, name: &str) -> Vec<u8> {
    let object = store.get(&Path::from(name)).await.expect("it is there");
    object.bytes().await.expect("it is there whole").to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_created_once() {
    for kind in Kind::ALL {
        let (_server, proxy, ways) = both_ways(kind);
        for (way, store) in ways {
            create(&store, &way, "first").await.unwrap();
            let second = create(&store, &way, "second").await;
            assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{way}: {second:?}");
            assert_eq!(read(&store, &way).await, b"first", "{way}");
            // On SeaweedFS, the one that waits for another looks again once a second.
            for race in 0..if kind == Kind::MinIo { 20 } else { 1 } {
                one_wins(&store, &format!("{way} {race}")).await;
            }
        }
        assert_eq!(proxy.counts().injected(), 0);
        assert_eq!(proxy.counts().requests, proxy.counts().delivered);
    }
}

/// Many create the same object at once: it holds what the one wrote who was told that it did.
async fn one_wins(store: &AmazonS3, name: &str) {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (store, name) = (store.clone(), name.to_owned());
        racers.spawn(async move { (racer, create(&store, &name, &racer.to_string()).await) });
    }
    let mut winners = Vec::new();
    for (racer, result) in racers.join_all().await {
        match result {
            Ok(()) => winners.push(racer.to_string().into_bytes()),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert_eq!(winners, [read(store, name).await], "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_replaced_only_by_who_has_seen_it() {
    for kind in Kind::ALL {
        let (_server, _proxy, ways) = both_ways(kind);
        for (way, store) in ways {
            let path = Path::from("object");
            let first = store.put(&path, "first".into()).await.unwrap();
            let seen = PutMode::Update(UpdateVersion { e_tag: first.e_tag, version: None });
            store.put_opts(&path, "second".into(), seen.clone().into()).await.unwrap();
            let stale = store.put_opts(&path, "third".into(), seen.into()).await;
            assert!(matches!(stale, Err(Error::Precondition { .. })), "{way}: {stale:?}");
            assert_eq!(read(&store, "object").await, b"second", "{way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_there_whole_or_not_at_all() {
    for kind in Kind::ALL {
        let (server, _proxy, ways) = both_ways(kind);
        for (way, store) in ways {
            let mut upload = store.put_multipart(&Path::from("folder/parts")).await.unwrap();
            upload.put_part(vec![1; PART].into()).await.unwrap();
            upload.put_part(vec![2; 3].into()).await.unwrap();
            assert_eq!(server.objects(), [""; 0], "{way}: nothing is there before the end");
            let listed: Vec<_> = server.uploads().into_iter().map(|upload| upload.key).collect();
            assert_eq!(listed, ["folder/parts"], "{way}");
            // MinIO wants the whole name. So whoever cleans up must remember what it began.
            let by_folder = server.uploads_below("folder/").len();
            assert_eq!(by_folder, if kind == Kind::MinIo { 0 } else { 1 }, "{way}");
            assert_eq!(server.uploads_below("folder/parts").len(), 1, "{way}");
            upload.abort().await.unwrap();
            assert_eq!(server.uploads(), [], "{way}: an aborted upload");

            let mut upload = store.put_multipart(&Path::from("folder/parts")).await.unwrap();
            upload.put_part(vec![1; PART].into()).await.unwrap();
            upload.put_part(vec![2; 3].into()).await.unwrap();
            upload.complete().await.unwrap();
            assert_eq!(read(&store, "folder/parts").await, [vec![1; PART], vec![2; 3]].concat(), "{way}");
            assert_eq!((server.objects(), server.uploads()), (vec!["folder/parts".to_owned()], vec![]), "{way}");
            store.delete(&Path::from("folder/parts")).await.unwrap();
            assert_eq!(server.objects(), [""; 0], "{way}");

            let mut upload = store.put_multipart(&Path::from("small")).await.unwrap();
            upload.put_part(vec![1; PART - 1].into()).await.unwrap();
            upload.put_part(vec![2; 3].into()).await.unwrap();
            let small = format!("{:?}", upload.complete().await);
            assert!(small.contains("EntityTooSmall"), "{way}: {small}");
            upload.abort().await.unwrap();
            assert_eq!((server.objects(), server.uploads()), (vec![], vec![]), "{way}: parts that are too small");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_its_data() {
    for kind in Kind::ALL {
        let mut server = Server::start(kind);
        let store = server.store();
        create(&store, "before", "before").await.unwrap();
        let mut upload = store.put_multipart(&Path::from("parts")).await.unwrap();
        upload.put_part(vec![1; PART].into()).await.unwrap();
        server.stop();
        assert!(TcpStream::connect(server.address()).is_err(), "{kind} still listens");
        server.start_again();
        assert_eq!(server.objects(), ["before"], "{kind}");
        assert_eq!(read(&store, "before").await, b"before", "{kind}");
        let again = create(&store, "before", "after").await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{kind}: {again:?}");
        // MinIO lists uploads of before only to who knows their whole name.
        assert_eq!(server.uploads().len(), if kind == Kind::MinIo { 0 } else { 1 }, "{kind}");
        assert_eq!(server.uploads_below("parts").len(), 1, "{kind}");
        upload.put_part(vec![2; 3].into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(read(&store, "parts").await.len(), PART + 3, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_also_a_folder_is_no_good() {
    // S3 itself has no folders and takes both.
    let server = Server::start(Kind::MinIo);
    let store = server.store();
    create(&store, "a/b", "below").await.unwrap();
    create(&store, "a", "above").await.unwrap();
    assert_eq!(read(&store, "a/b").await, b"below");
    assert_eq!(server.objects(), ["a"], "MinIO no longer lists what is below");
    let server = Server::start(Kind::SeaweedFs);
    let store = server.store();
    create(&store, "a/b", "below").await.unwrap();
    let above = create(&store, "a", "above").await;
    assert!(matches!(above, Err(Error::AlreadyExists { .. })), "SeaweedFS: {above:?}");
    assert_eq!(server.objects(), ["a/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_one_page_are_all_listed() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let store = server.store();
        let names: BTreeSet<String> = (0..1005).map(|number| format!("folder {}/a&b {number}", number % 7)).collect();
        let mut puts = JoinSet::new();
        for name in &names {
            let (store, path) = (store.clone(), Path::from(name.as_str()));
            puts.spawn(async move { store.put(&path, "x".into()).await.unwrap() });
        }
        puts.join_all().await;
        assert_eq!(server.objects(), names.into_iter().collect::<Vec<_>>(), "{kind}");
    }
}

/// What the client crate makes of faults. A store on top of it has to look who wrote the object, and whether it is there.
#[tokio::test(flavor = "multi_thread")]
async fn already_there_can_mean_our_own_or_not_there_at_all() {
    let cases = [
        ("its own retry finds it", Fault::AnswerLost, false, true),
        ("its own retry finds it", Fault::ErrorAfter, false, true),
        ("the network's second try finds it", Fault::Twice, false, true),
        ("its own retry was faster", Fault::Late, true, true),
        ("409 is no 412", Fault::Conflict, false, false),
        ("its own retry makes it", Fault::Error, true, true),
        ("its own retry makes it", Fault::SlowDown, true, true),
    ];
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let proxy = Proxy::start(server.address(), 1);
        let store = server.store_at(&proxy.endpoint());
        for (name, fault, made, there) in cases {
            proxy.once(fault, fault.name());
            let created = create(&store, fault.name(), "ours").await;
            proxy.settle().await;
            let already = matches!(created, Err(Error::AlreadyExists { .. }));
            assert!(if made { created.is_ok() } else { already }, "{kind}, {}: {name}: {created:?}", fault.name());
            let objects = server.objects();
            assert_eq!(objects.iter().any(|name| name == fault.name()), there, "{kind}, {}: {objects:?}", fault.name());
            assert_eq!(proxy.counts().of(fault), 1, "{kind}, {}", fault.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_can_tell_a_store_that_ignores_preconditions() {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), 1);
    proxy.set(Rates::none().with(Fault::PreconditionIgnored, 1.0));
    let store = server.store_at(&proxy.endpoint());
    create(&store, "probe", "first").await.unwrap();
    create(&store, "probe", "second").await.expect("this store does not refuse the second");
}

#[test]
fn it_listens_on_this_machine_only() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let listening = listening(server.id().unwrap());
        assert!(!listening.is_empty(), "{kind} listens nowhere, if the search is right");
        for address in listening {
            // 127.0.0.1 and ::1, in the kernel's byte order.
            let local = ["0100007F:", "00000000000000000000000001000000:"];
            assert!(local.iter().any(|local| address.starts_with(local)), "{kind} listens on {address}");
        }
    }
}

/// The addresses of a process's listening sockets, as the kernel writes them.
fn listening(id: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{id}/net/{table}")).expect("it runs"));
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let listening = lines.filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours = fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9]));
        ours.then(|| fields[1].to_owned())
    });
    listening.collect()
}

/// Names the file in which the test, run by itself as a process that will be killed, writes where its server listens.
const VICTIM: &str = "SERVER_OF_A_KILLED_TEST";

#[test]
fn a_server_does_not_outlive_a_killed_test() {
    if let Some(file) = std::env::var_os(VICTIM) {
        let server = Server::start(Kind::MinIo);
        fs::write(file, server.address().to_string()).unwrap();
        sleep(LIMIT);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_server_does_not_outlive_a_killed_test"]).env(VICTIM, &file);
    command.env("TMPDIR", folder.path()); // what its server leaves there goes with it
    let mut test = Process::start(&mut command, folder.path());
    let address = || fs::read_to_string(&file).ok().filter(|text| !text.is_empty());
    test.wait_until("its server runs", |_| address().is_some());
    let address = address().unwrap();
    assert!(TcpStream::connect(&address).is_ok(), "its server listens");
    test.kill();
    let killed = Instant::now();
    while TcpStream::connect(&address).is_ok() {
        assert!(killed.elapsed() < LIMIT, "the server outlives the test that started it");
        sleep(Duration::from_millis(1));
    }
}
