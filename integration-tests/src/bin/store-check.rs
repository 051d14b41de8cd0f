//! Tries out what an object store must do for checkpoints, on a real one: `store-check URL`, with credentials and endpoint in
//! the environment. The folder should be empty, and is at the end.

use std::process::ExitCode;
use std::sync::Barrier;
use std::{env, thread};

use anyhow::{Context, bail, ensure};
use cutwater_integration_tests::Rng;
use cutwater_object_store::{ObjectStorage, Settings};
use cutwater_storage::{CreateError, ObjectName, Store, StoreErrorKind};

/// Two whole parts and a rest.
const LARGE: usize = (16 << 20) + 12_345;
/// So many parts that one has arrived for certain: four are under way at once.
const BEGUN: usize = 41 << 20;
const RACERS: usize = 8;
const SEED: u64 = 20_130_301;

type Check = fn(&ObjectStorage) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let Some(url) = env::args().nth(1) else {
        eprintln!("give the URL of an empty folder, such as az://container/folder");
        return ExitCode::from(2);
    };
    let store = match ObjectStorage::open(&url, &Settings::default()) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            return ExitCode::from(2);
        }
    };
    let checks: [(&str, Check); 7] = [
        ("an object is created once", created_once),
        ("of many that create it one wins", one_wins),
        ("small objects come back", small),
        ("a large object comes back, whole and in ranges", large),
        ("a listing has names and sizes", listed),
        ("an unfinished upload is not there, and is swept", swept),
        ("what is deleted is gone", deleted),
    ];
    for (what, check) in checks {
        match check(&store) {
            Ok(()) => println!("ok      {what}"),
            Err(error) => {
                println!("FAILED  {what}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).expect("our names are names")
}

fn read(store: &ObjectStorage, text: &str) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(store.read(&name(text), 1 << 20)?)
}

/// As [`CreateError`] says, but that a name that was taken is no error.
fn create(store: &ObjectStorage, text: &str, bytes: &[u8]) -> anyhow::Result<bool> {
    match store.create(&name(text), bytes) {
        Ok(()) => Ok(true),
        Err(CreateError::Exists) => Ok(false),
        Err(error) => Err(error).context("create"),
    }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(SEED);
    (0..bytes).map(|_| (rng.fraction() * 256.0) as u8).collect()
}

fn created_once(store: &ObjectStorage) -> anyhow::Result<()> {
    ensure!(store.list("")?.is_empty(), "the folder is not empty");
    store.probe()?; // as at the start of each job
    ensure!(create(store, "log/1", b"first")?, "the first create found the name taken");
    ensure!(!create(store, "log/1", b"second")?, "a second create went well");
    // As after an answer that got lost: for the store it is somebody else's.
    ensure!(!create(store, "log/1", b"first")?, "the same once more went well");
    let found = read(store, "log/1")?;
    ensure!(found.as_deref() == Some(b"first"), "{found:?} is there");
    Ok(())
}

fn one_wins(store: &ObjectStorage) -> anyhow::Result<()> {
    for race in 0..3 {
        let text = format!("log/race-{race}");
        let start = Barrier::new(RACERS);
        let race = |racer: usize| {
            start.wait();
            create(store, &text, racer.to_string().as_bytes()).map(|won| won.then_some(racer))
        };
        let ended: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer does not panic")).collect()
        });
        let winners: Vec<_> = ended.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
        let found = read(store, &text)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(winners.len() == 1 && found == Some(winners[0].to_string()), "{winners:?} won, {found:?} is there");
    }
    Ok(())
}

fn small(store: &ObjectStorage) -> anyhow::Result<()> {
    for (text, bytes) in [("small/empty", &b""[..]), ("small/one", b"1"), ("small/with.dots_and-more", b"named")] {
        let mut writer = store.writer(&name(text))?;
        writer.write(bytes)?;
        let written = writer.finish()?;
        ensure!(written.bytes == bytes.len() as u64, "{written:?} of {text}");
        ensure!(read(store, text)?.as_deref() == Some(bytes), "{text} came back changed");
        let reader = store.open(&name(text))?.context("it is not there")?;
        let mut found = vec![0; 10];
        let count = reader.read_at(0, &mut found)?;
        ensure!(reader.len() == bytes.len() as u64 && &found[..count] == bytes, "{text} is read as {found:?}");
    }
    Ok(())
}

fn large(store: &ObjectStorage) -> anyhow::Result<()> {
    let bytes = random(LARGE);
    let mut writer = store.writer(&name("large/object"))?;
    for part in bytes.chunks(1 << 20) {
        writer.write(part)?;
    }
    ensure!(store.open(&name("large/object"))?.is_none(), "it is there before its end");
    let written = writer.finish()?;
    ensure!(written.bytes == LARGE as u64 && written.crc32c == crc32c::crc32c(&bytes), "{written:?}");

    let reader = store.open(&name("large/object"))?.context("it is not there")?;
    ensure!(reader.len() == LARGE as u64, "it has {} bytes", reader.len());
    let mut found = vec![0; LARGE];
    ensure!(reader.read_at(0, &mut found)? == LARGE && found == bytes, "it came back changed");
    let mut rng = Rng::new(SEED);
    for _ in 0..20 {
        let from = (rng.fraction() * LARGE as f64) as usize;
        let until = LARGE.min(from + (rng.fraction() * 6e6) as usize);
        let mut range = vec![0; until - from];
        let count = reader.read_at(from as u64, &mut range)?;
        ensure!(count == range.len() && range == bytes[from..until], "bytes {from}..{until} came back changed");
    }
    let mut beyond = [0; 10];
    ensure!(reader.read_at(LARGE as u64 - 3, &mut beyond)? == 3, "the end is not where it should be");
    match store.writer(&name("large/object")).map_err(anyhow::Error::from).and_then(|mut writer| {
        writer.write(&bytes)?;
        Ok(writer.finish())
    })? {
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => Ok(()),
        other => bail!("another of its name ended with {other:?}"),
    }
}

fn listed(store: &ObjectStorage) -> anyhow::Result<()> {
    for number in 0..30 {
        create(store, &format!("list/a/{number:02}"), &vec![0; number])?;
    }
    create(store, "list/ab", b"beside")?;
    let found: Vec<_> = store.list("list/a/")?.into_iter().map(|it| (it.name.to_string(), it.bytes)).collect();
    let expected: Vec<_> = (0..30).map(|number| (format!("list/a/{number:02}"), number)).collect();
    ensure!(found == expected, "{found:?}");
    ensure!(store.list("list/a")?.len() == 31 && store.list("list/a/0")?.len() == 10, "a part of a name is no folder");
    ensure!(store.list("nothing/")?.is_empty(), "something is listed where nothing is");
    Ok(())
}

fn swept(store: &ObjectStorage) -> anyhow::Result<()> {
    let mut writer = store.writer(&name("swept/object"))?;
    writer.write(&random(BEGUN))?;
    std::mem::forget(writer); // as a process that is killed leaves it
    ensure!(store.open(&name("swept/object"))?.is_none(), "it is there before its end");
    ensure!(store.list("swept/")?.is_empty(), "it is listed before its end");
    ensure!(store.sweep_leftovers("elsewhere")? == 0, "what lies elsewhere was swept");
    let counts = (store.sweep_leftovers("swept")?, store.sweep_leftovers("swept")?);
    ensure!(counts == (1, 0), "{counts:?} were swept");
    Ok(())
}

fn deleted(store: &ObjectStorage) -> anyhow::Result<()> {
    for listed in store.list("")? {
        store.delete(&listed.name)?;
        store.delete(&listed.name)?; // one that is not there is fine
        ensure!(store.open(&listed.name)?.is_none(), "{} is there", listed.name);
    }
    let left = store.list("")?;
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}
