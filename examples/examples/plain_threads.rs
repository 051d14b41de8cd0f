//! Checkpoints without the rest of Cutwater: `cutwater-barrier` and `cutwater-coordinator` on plain threads and channels.
//!
//! ```text
//! source left  ──┐
//!                ├──> count ──> sink
//! source right ──┘
//! ```
//!
//! Two sources send words, one stage counts them, a sink publishes each word with its running count. While they run, a
//! checkpoint is taken every few milliseconds. In the middle of the third one everything "crashes": all threads end
//! where they are and what they held is lost. A second start goes on from the newest checkpoint, and at the end every
//! count has been published exactly once.
//!
//! The two crates are state machines. They start no thread, read no clock and touch no store: all of that is here, so
//! that it could be anything else. Run it with `cargo run -p cutwater-examples --example plain_threads`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cutwater_barrier::{Action as Aligned, Aligner, Mode};
use cutwater_coordinator::{
    Action, CompletedCheckpoint, Coordinator, CreateOutcome, Job, Outcome, Phases, Plan, PlanInput, RestoreFrom,
    Settings, SubtaskSnapshot, TaskPlan,
};
use cutwater_core::{Attempt, Barrier, ChannelId, CheckpointId, MaxParallelism, Moment, SubtaskId, TaskId};

const WORDS: [&str; 5] = ["bank", "bridge", "pier", "river", "stream"];
/// How many words each source sends.
const RECORDS: u64 = 15_000;
/// How many of them at once, and how long it takes until there are as many again.
const BURST: u64 = 100;
const PACE: Duration = Duration::from_millis(1);

// The graph. Each task runs as one thread here, so that a subtask is told by its task.
const LEFT: TaskId = TaskId(0);
const RIGHT: TaskId = TaskId(1);
const COUNT: TaskId = TaskId(2);
const SINK: TaskId = TaskId(3);

/// What goes from thread to thread. Barriers travel between the records: that is the whole idea.
enum Element<T> {
    Record(T),
    Barrier(Barrier),
    Cancel(CheckpointId),
    End,
}

/// What the coordinator tells a thread.
#[derive(Clone, Copy)]
enum Command {
    Trigger(Barrier),
    Completed(CheckpointId),
    Aborted(CheckpointId),
}

/// The one inbox of a thread, so that it waits in one place.
enum Mail<T> {
    Element(ChannelId, Element<T>),
    Command(Command),
}

/// What a thread tells the coordinator.
enum Report {
    Snapshot(CheckpointId, SubtaskSnapshot),
    Declined(CheckpointId, SubtaskId, String),
    EndOfData(SubtaskId),
}

type Row = (String, u64);

/// What survives a crash: the checkpoints, and what the world has seen.
#[derive(Default)]
struct Durable {
    store: Mutex<BTreeMap<String, Vec<u8>>>,
    /// By checkpoint, so that publishing the same once more changes nothing.
    published: Mutex<BTreeMap<CheckpointId, Vec<Row>>>,
}

pub(crate) fn main() {
    let durable = Arc::new(Durable::default());
    assert!(!start(&durable, 1, Some(CheckpointId(3))), "the first start crashes");
    let seen: usize = lock(&durable.published).values().map(Vec::len).sum();
    println!("         the world has seen {seen} rows; what came after is lost, and so is all state in memory\n");
    assert!(start(&durable, 2, None), "the second one finishes");

    // Every word with every count from 1 to the last, none twice, none missing.
    let published = lock(&durable.published);
    let mut rows: Vec<Row> = published.values().flatten().cloned().collect();
    rows.sort();
    let each = 2 * RECORDS / WORDS.len() as u64;
    let expected: Vec<Row> = WORDS.iter().flat_map(|word| (1..=each).map(|n| (word.to_string(), n))).collect();
    assert_eq!(rows.len(), expected.len());
    assert!(rows == expected, "a count was lost or published twice");
    println!("\nevery one of {} counts was published exactly once, in {} checkpoints", rows.len(), published.len());
}

/// One start of the program. Returns whether the job finished; with `crash_in`, everything ends as soon as that
/// checkpoint is under way.
fn start(durable: &Arc<Durable>, nonce: u64, crash_in: Option<CheckpointId>) -> bool {
    let clock = Clock::start();
    let settings = Settings { interval: Some(Duration::from_millis(20)), ..Settings::default() };
    let job = Job { name: "words".to_owned(), max_parallelism: MaxParallelism::default() };
    // The nonce tells the records of this start from those of all others. A real program draws it at random.
    let mut coordinator = Coordinator::new(settings, job, nonce);
    let (report, reports) = channel();
    let mut threads: Option<Threads> = None;

    // Reads the log in the store, finds the newest checkpoint, and claims the job, so that whoever still runs it stops.
    coordinator.handle_open(clock.now(), RestoreFrom::Latest);
    loop {
        // First do all that the coordinator wants done, in its order.
        while let Some(action) = coordinator.poll_action() {
            let now = clock.now();
            match action {
                // The store. This one answers at once; the answers may as well come much later, from other threads.
                Action::Create { token, name, bytes } => {
                    let mut store = lock(&durable.store);
                    let outcome =
                        if store.contains_key(&name) { CreateOutcome::Exists } else { CreateOutcome::Created };
                    store.entry(name).or_insert(bytes);
                    drop(store);
                    coordinator.handle_created(now, token, outcome);
                }
                Action::Read { token, name, limit: _ } => {
                    let bytes = lock(&durable.store).get(&name).cloned();
                    coordinator.handle_read(now, token, Ok(bytes));
                }
                Action::Delete { token, names } => {
                    let mut store = lock(&durable.store);
                    for name in names {
                        store.remove(&name);
                    }
                    drop(store);
                    coordinator.handle_deleted(now, token, Ok(()));
                }
                Action::List { token, prefix } => {
                    let names = lock(&durable.store).keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
                    coordinator.handle_listed(now, token, Ok(names));
                }

                // The job is ours. All threads run before the first checkpoint can be asked for.
                Action::Opened { epoch, restore, discarded: _ } => {
                    match &restore {
                        None => println!("start {nonce}: epoch {epoch}, from nothing"),
                        Some(from) => println!("start {nonce}: epoch {epoch}, from checkpoint {}", from.checkpoint),
                    }
                    threads = Some(Threads::start(durable, &clock, restore.as_deref(), &report));
                    coordinator.handle_running(now, Attempt(1), plan());
                }

                // The way of a barrier begins: it goes to the sources, which put it into their output.
                Action::Trigger { barrier, subtasks, .. } => {
                    let threads = threads.as_ref().expect("checkpoints are taken of what runs");
                    for subtask in subtasks {
                        threads.tell(subtask.task, Command::Trigger(barrier));
                    }
                    if crash_in == Some(barrier.checkpoint) {
                        println!("         checkpoint {} is under way ... crash!", barrier.checkpoint);
                        threads.crashed.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                // And ends: all parts are in, and the record is in the log. Only now may anything be published.
                Action::NotifyCompleted { checkpoint, .. } => {
                    let id = checkpoint.checkpoint;
                    let (kind, bytes) = (if checkpoint.is_final() { "last " } else { "" }, checkpoint.state_bytes());
                    println!("         {kind}checkpoint {id} completed in {:?}, {bytes} bytes", checkpoint.duration);
                    if let Some(threads) = &threads {
                        threads.tell_all(Command::Completed(id));
                    }
                }
                Action::NotifyAborted { checkpoint, reason, .. } => {
                    println!("         checkpoint {checkpoint} given up: {reason}");
                    if let Some(threads) = &threads {
                        threads.tell_all(Command::Aborted(checkpoint));
                    }
                }

                Action::Drain => panic!("nobody asks for it here"),
                Action::AllDone => coordinator.handle_end(now, Outcome::Finished),
                Action::Closed { unrecorded } => {
                    assert_eq!(unrecorded, None);
                    threads.take().expect("the job ran").join();
                    return true;
                }
                // We fail no attempt, make no request, and nobody else uses this store.
                other @ (Action::AlreadyFinished { .. }
                | Action::Refused(_)
                | Action::RequestFailed { .. }
                | Action::Restore { .. }
                | Action::FailJob(_)
                | Action::FellBack { .. }
                | Action::Superseded { .. }) => panic!("not expected here: {other:?}"),
            }
        }
        if let Some(threads) = threads.take_if(|threads| threads.crashed.load(Ordering::Relaxed)) {
            threads.join();
            return false;
        }

        // Then wait for a report, or for the moment at which the coordinator wants to be called.
        let deadline = coordinator.next_deadline().unwrap_or(Moment::MAX);
        match reports.recv_timeout(deadline.since(clock.now())) {
            Ok(Report::Snapshot(id, snapshot)) => coordinator.handle_ack(clock.now(), Attempt(1), id, snapshot),
            Ok(Report::Declined(id, subtask, why)) => {
                coordinator.handle_decline(clock.now(), Attempt(1), id, subtask, why, false);
            }
            Ok(Report::EndOfData(subtask)) => coordinator.handle_end_of_data(clock.now(), Attempt(1), subtask),
            Err(_) => coordinator.handle_timeout(clock.now()),
        }
    }
}

/// What the coordinator must know of the graph: whom to trigger, and whose snapshots make a checkpoint.
fn plan() -> Plan {
    let task = |task, name: &str, from: &[TaskId]| TaskPlan {
        task,
        name: name.to_owned(),
        operators: vec![],
        parallelism: 1,
        inputs: from.iter().map(|from| PlanInput { from: *from, pointwise: false }).collect(),
    };
    Plan {
        tasks: vec![
            task(LEFT, "left", &[]),
            task(RIGHT, "right", &[]),
            task(COUNT, "count", &[LEFT, RIGHT]),
            task(SINK, "sink", &[COUNT]),
        ],
    }
}

/// The threads of one start, and how to reach them.
struct Threads {
    crashed: Arc<AtomicBool>,
    left: Sender<Command>,
    right: Sender<Command>,
    count: SyncSender<Mail<String>>,
    sink: SyncSender<Mail<Row>>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(
        durable: &Arc<Durable>,
        clock: &Clock,
        from: Option<&CompletedCheckpoint>,
        report: &Sender<Report>,
    ) -> Self {
        let crashed = Arc::new(AtomicBool::new(false));
        let task = |task| Task {
            subtask: SubtaskId { task, index: 0 },
            clock: clock.clone(),
            crashed: Arc::clone(&crashed),
            report: report.clone(),
        };
        let restored = |task: TaskId| {
            let part = from.and_then(|checkpoint| checkpoint.tasks.iter().find(|part| part.task == task));
            part.map(|part| String::from_utf8(part.subtasks[0].inline.clone()).expect("we wrote text"))
        };
        // Bounded: whoever is faster than the next waits for it.
        let ((count, count_mail), (sink, sink_mail)) = (sync_channel(256), sync_channel(256));
        let ((left, left_commands), (right, right_commands)) = (channel(), channel());
        let mut threads = Vec::new();
        for (id, commands, input) in [(LEFT, left_commands, ChannelId(0)), (RIGHT, right_commands, ChannelId(1))] {
            let (task, out, position) = (task(id), count.clone(), restored(id));
            let position = position.map_or(0, |text| text.parse().expect("we wrote a number"));
            threads.push(thread::spawn(move || run_source(&task, position, &commands, input, &out)));
        }
        let (task_of_count, counts, to_sink) = (task(COUNT), restored(COUNT), sink.clone());
        let counts = counts.map_or_else(BTreeMap::new, |text| rows_of(&text).into_iter().collect());
        threads.push(thread::spawn(move || run_count(&task_of_count, counts, count_mail, &to_sink)));
        // Whether the rows of the restored checkpoint were published nobody knows: so they are, once more.
        if let (Some(from), Some(rows)) = (from, restored(SINK)) {
            durable.publish(from.checkpoint, rows_of(&rows));
        }
        let (task_of_sink, durable) = (task(SINK), Arc::clone(durable));
        threads.push(thread::spawn(move || run_sink(&task_of_sink, sink_mail, &durable)));
        Self { crashed, left, right, count, sink, threads }
    }

    /// That nobody listens any more is no error: the thread has crashed.
    fn tell(&self, task: TaskId, command: Command) {
        match task {
            LEFT => drop(self.left.send(command)),
            RIGHT => drop(self.right.send(command)),
            COUNT => drop(self.count.send(Mail::Command(command))),
            _ => drop(self.sink.send(Mail::Command(command))),
        }
    }

    fn tell_all(&self, command: Command) {
        for task in [LEFT, RIGHT, COUNT, SINK] {
            self.tell(task, command);
        }
    }

    /// A thread ends when nobody is left who could send it anything; we let go first.
    fn join(self) {
        let Self { left, right, count, sink, threads, crashed: _ } = self;
        drop((left, right, count, sink));
        for thread in threads {
            thread.join().expect("no thread panics");
        }
    }
}

/// What every thread has.
struct Task {
    subtask: SubtaskId,
    clock: Clock,
    crashed: Arc<AtomicBool>,
    report: Sender<Report>,
}

/// The other end is gone: the thread ends.
struct Gone;

impl Task {
    /// Acknowledges. The state is small, so that it goes along; large state goes into files that `files` names.
    fn acknowledge(&self, checkpoint: CheckpointId, aligned_for: Duration, state: String) {
        let phases = Phases { alignment: aligned_for, ..Phases::default() };
        let (state_bytes, inline) = (state.len() as u64, state.into_bytes());
        let snapshot = SubtaskSnapshot { subtask: self.subtask, files: vec![], inline, phases, state_bytes };
        self.tell(Report::Snapshot(checkpoint, snapshot));
    }

    fn tell(&self, report: Report) {
        drop(self.report.send(report)); // after a crash nobody listens
    }

    fn check(&self) -> Result<(), Gone> {
        if self.crashed.load(Ordering::Relaxed) { Err(Gone) } else { Ok(()) }
    }
}

/// A source: its whole state is how far it has come.
fn run_source(task: &Task, mut next: u64, commands: &Receiver<Command>, to: ChannelId, out: &SyncSender<Mail<String>>) {
    let emit = |element| out.send(Mail::Element(to, element)).map_err(|_| Gone);
    let mut ended = false;
    let mut run = || -> Result<(), Gone> {
        loop {
            // The time until the next words are there is a good time to listen.
            match commands.recv_timeout(PACE) {
                // After the last word sent and before the next one. Behind an End nothing is sent, also no barrier:
                // the coordinator then triggers the next thread itself.
                Ok(Command::Trigger(barrier)) => {
                    task.acknowledge(barrier.checkpoint, Duration::ZERO, next.to_string());
                    if !ended {
                        emit(Element::Barrier(barrier))?;
                    }
                }
                Ok(Command::Completed(_) | Command::Aborted(_)) => {} // a source has nothing to publish
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
            for _ in 0..BURST.min(RECORDS - next) {
                task.check()?;
                emit(Element::Record(WORDS[(next % WORDS.len() as u64) as usize].to_owned()))?;
                next += 1;
            }
            if next == RECORDS && !ended {
                ended = true;
                emit(Element::End)?;
                task.tell(Report::EndOfData(task.subtask)); // it stays: the last checkpoint is still to come
            }
        }
    };
    let Err(Gone) = run() else { unreachable!("it ends only when everybody does") };
}

/// A thread with inputs: an aligner says which of them may be read, and when to take the snapshot.
struct Inbox<T> {
    mail: Receiver<Mail<T>>,
    aligner: Aligner,
    /// What came on channels that have to wait.
    waiting: VecDeque<(ChannelId, Element<T>)>,
}

/// What there is to do next.
enum Next<T> {
    Record(T),
    /// Snapshot the state as it is now, then send the barrier on.
    Snapshot(Barrier, Duration),
    /// Send the cancel marker on.
    Cancel(CheckpointId),
    Completed(CheckpointId),
    /// All inputs have ended.
    End,
}

impl<T> Inbox<T> {
    fn new(mail: Receiver<Mail<T>>, channels: u32) -> Self {
        Self { mail, aligner: Aligner::new(Mode::ExactlyOnce, channels, true), waiting: VecDeque::new() }
    }

    fn next(&mut self, task: &Task) -> Result<Next<T>, Gone> {
        loop {
            task.check()?;
            // All that the aligner wants done comes before the next element.
            while let Some(action) = self.aligner.poll_action() {
                match action {
                    Aligned::Snapshot { barrier, aligned_for } => return Ok(Next::Snapshot(barrier, aligned_for)),
                    Aligned::ForwardCancel(checkpoint) => return Ok(Next::Cancel(checkpoint)),
                    Aligned::Decline { checkpoint, reason } => {
                        task.tell(Report::Declined(checkpoint, task.subtask, reason.to_string()));
                    }
                    Aligned::Pause(_) | Aligned::Resume(_) => {} // we ask `is_paused` below
                }
            }
            let ready = self.waiting.iter().position(|(channel, _)| !self.aligner.is_paused(*channel));
            let (channel, element) = match ready.and_then(|at| self.waiting.remove(at)) {
                Some(waited) => waited,
                None => match self.mail.recv().map_err(|_| Gone)? {
                    Mail::Element(channel, element) if self.aligner.is_paused(channel) => {
                        self.waiting.push_back((channel, element)); // behind a barrier that others don't have yet
                        continue;
                    }
                    Mail::Element(channel, element) => (channel, element),
                    Mail::Command(command) => match self.command(task, command) {
                        Some(next) => return Ok(next),
                        None => continue,
                    },
                },
            };
            let now = task.clock.now();
            let done = match element {
                Element::Record(record) => return Ok(Next::Record(record)),
                Element::Barrier(barrier) => self.aligner.handle_barrier(now, channel, barrier),
                Element::Cancel(checkpoint) => self.aligner.handle_cancel(now, channel, checkpoint),
                Element::End => {
                    let done = self.aligner.handle_end(now, channel);
                    if self.aligner.open_channels() == 0 {
                        return Ok(Next::End);
                    }
                    done
                }
            };
            done.expect("our channels are well behaved");
        }
    }

    fn command(&mut self, task: &Task, command: Command) -> Option<Next<T>> {
        match command {
            // Only comes when no barrier can come from upstream any more.
            Command::Trigger(barrier) => self.aligner.handle_trigger(task.clock.now(), barrier),
            Command::Aborted(checkpoint) => self.aligner.handle_abort(checkpoint),
            Command::Completed(checkpoint) => return Some(Next::Completed(checkpoint)),
        }
        None
    }
}

/// The stage that counts. Its state is the counts.
fn run_count(
    task: &Task,
    mut counts: BTreeMap<String, u64>,
    mail: Receiver<Mail<String>>,
    out: &SyncSender<Mail<Row>>,
) {
    let emit = |element| out.send(Mail::Element(ChannelId(0), element)).map_err(|_| Gone);
    let mut inbox = Inbox::new(mail, 2);
    let mut ended = false;
    let mut step = || -> Result<(), Gone> {
        match inbox.next(task)? {
            Next::Record(word) => {
                let count = counts.entry(word.clone()).or_default();
                *count += 1;
                emit(Element::Record((word, *count)))
            }
            Next::Snapshot(barrier, aligned_for) => {
                task.acknowledge(barrier.checkpoint, aligned_for, text_of(&counts));
                if ended { Ok(()) } else { emit(Element::Barrier(barrier)) }
            }
            Next::Cancel(checkpoint) if !ended => emit(Element::Cancel(checkpoint)),
            Next::Cancel(_) | Next::Completed(_) => Ok(()),
            Next::End => {
                ended = true;
                emit(Element::End)?;
                task.tell(Report::EndOfData(task.subtask));
                Ok(())
            }
        }
    };
    while let Ok(()) = step() {}
}

/// The sink. Rows wait until a checkpoint that holds them has completed; only then does the world see them.
fn run_sink(task: &Task, mail: Receiver<Mail<Row>>, durable: &Durable) {
    let mut inbox = Inbox::new(mail, 1);
    let mut rows = Vec::new();
    let mut cuts = BTreeMap::new(); // how many rows each checkpoint holds
    let mut step = || -> Result<(), Gone> {
        match inbox.next(task)? {
            Next::Record(row) => rows.push(row),
            Next::Snapshot(barrier, aligned_for) => {
                cuts.insert(barrier.checkpoint, rows.len());
                task.acknowledge(barrier.checkpoint, aligned_for, text_of(rows.iter().map(|(word, n)| (word, n))));
            }
            Next::Completed(checkpoint) => {
                let held = cuts.remove(&checkpoint).unwrap_or(0);
                durable.publish(checkpoint, rows.drain(..held).collect());
                cuts.clear(); // only those given up are left, and the next one holds their rows
            }
            Next::Cancel(_) => {}
            Next::End => task.tell(Report::EndOfData(task.subtask)),
        }
        Ok(())
    };
    while let Ok(()) = step() {}
}

impl Durable {
    fn publish(&self, checkpoint: CheckpointId, rows: Vec<Row>) {
        lock(&self.published).entry(checkpoint).or_insert(rows);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

fn text_of<'a>(rows: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    rows.into_iter().map(|(word, n)| format!("{word} {n}\n")).collect()
}

fn rows_of(text: &str) -> Vec<Row> {
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    rows.map(|(word, n)| (word.to_owned(), n.parse().expect("we wrote a number"))).collect()
}

/// Where moments come from.
#[derive(Clone)]
struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the clock")]
    fn start() -> Self {
        Self(Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the clock")]
    fn now(&self) -> Moment {
        Moment::ZERO + self.0.elapsed()
    }
}
