//! The host under load, panics, aborts and idleness, with cores made of closures.
//!
//! The tests run one at a time: some count the threads of the process and what they use.
#![expect(clippy::disallowed_methods, reason = "what is tested here runs on real threads and real time")]
#![expect(clippy::unwrap_used, reason = "a test may; clippy takes the helpers of tests for something else")]

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use cutwater_core::{ChannelId, EdgeId, Moment, SubtaskId, TaskId};
use cutwater_runtime::host::{
    Core, EdgeLayout, Handles, HostError, Incarnation, Layout, LayoutError, Output, OutputChannel, Progress,
    TaskLayout, WorkerPanic,
};

const SOON: Duration = Duration::from_secs(5);

/// What a core was handed since its last quantum.
enum Given {
    Element(ChannelId, Message),
    Credit(OutputChannel, u64),
    Command(u64),
}

/// An element that says where it comes from and which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    from: SubtaskId,
    edge: EdgeId,
    to: u32,
    number: u64,
    batch: Vec<u64>,
    last: bool,
}

/// What one quantum works with.
struct Quantum<'a> {
    now: Moment,
    given: &'a mut VecDeque<Given>,
    out: &'a mut Vec<Output<Box<Message>>>,
    deadline: &'a mut Option<Moment>,
}

type Work = Box<dyn FnMut(Quantum<'_>) -> Progress + Send>;

/// A core whose quantum is a closure.
struct Scripted {
    subtask: SubtaskId,
    given: VecDeque<Given>,
    deadline: Option<Moment>,
    work: Work,
    panics: Option<Sender<(SubtaskId, String, Option<String>)>>,
    on_drop: Option<Box<dyn FnOnce() + Send>>,
}

impl Scripted {
    fn new(subtask: SubtaskId, work: impl FnMut(Quantum<'_>) -> Progress + Send + 'static) -> Self {
        Self { subtask, given: VecDeque::new(), deadline: None, work: Box::new(work), panics: None, on_drop: None }
    }

    fn reporting(mut self, panics: &Sender<(SubtaskId, String, Option<String>)>) -> Self {
        self.panics = Some(panics.clone());
        self
    }
}

/// A command that makes `handle_command` itself panic.
const BUG: u64 = u64::MAX;

impl Core for Scripted {
    type Element = Box<Message>;
    type Command = u64;

    fn subtask(&self) -> SubtaskId {
        self.subtask
    }

    fn handle_element(&mut self, _: Moment, channel: ChannelId, element: Box<Message>) {
        self.given.push_back(Given::Element(channel, *element));
    }

    fn handle_credit(&mut self, output: OutputChannel, bytes: u64) {
        self.given.push_back(Given::Credit(output, bytes));
    }

    fn handle_command(&mut self, _: Moment, command: u64) {
        assert_ne!(command, BUG, "a bug of ours");
        self.given.push_back(Given::Command(command));
    }

    fn run(&mut self, now: Moment, out: &mut Vec<Output<Box<Message>>>) -> Progress {
        assert!(out.is_empty());
        (self.work)(Quantum { now, given: &mut self.given, out, deadline: &mut self.deadline })
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.deadline
    }

    fn panicked(&mut self, message: String, location: Option<String>) {
        let panics = self.panics.as_ref().expect("a test that panics listens");
        panics.send((self.subtask, message, location)).unwrap();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

fn subtask(task: u32, index: u32) -> SubtaskId {
    SubtaskId { task: TaskId(task), index }
}

/// Tasks with these parallelisms, joined by these edges `(from, to)`, numbered as they come.
fn layout(parallelism: &[u32], edges: &[(u32, u32)]) -> Layout {
    let ends = |task: usize, end: fn(&(u32, u32)) -> u32| {
        let at = |(edge, ends): (usize, &(u32, u32))| (end(ends) == task as u32).then_some(EdgeId(edge as u32));
        edges.iter().enumerate().filter_map(at).collect()
    };
    let task = |(task, &parallelism): (usize, &u32)| TaskLayout {
        task: TaskId(task as u32),
        parallelism,
        inputs: ends(task, |ends| ends.1),
        outputs: ends(task, |ends| ends.0),
    };
    let edge = |(edge, &(from, to)): (usize, &(u32, u32))| EdgeLayout {
        edge: EdgeId(edge as u32),
        from: TaskId(from),
        to: TaskId(to),
    };
    Layout {
        tasks: parallelism.iter().enumerate().map(task).collect(),
        edges: edges.iter().enumerate().map(edge).collect(),
    }
}

fn start(layout: &Layout, workers: usize, cores: Vec<Scripted>) -> (Incarnation, Handles<u64>) {
    let unexpected = |panic: WorkerPanic| eprintln!("unexpected: {panic}");
    start_with(layout, workers, cores, unexpected).expect("the layout is sound")
}

fn start_with(
    layout: &Layout,
    workers: usize,
    cores: Vec<Scripted>,
    on_panic: impl Fn(WorkerPanic) + Send + Sync + 'static,
) -> Result<(Incarnation, Handles<u64>), HostError> {
    let origin = Instant::now();
    let clock = move || Moment(origin.elapsed().as_nanos() as u64);
    Incarnation::start(layout.clone(), NonZeroUsize::new(workers).unwrap(), cores, clock, on_panic)
}

/// Panics that reached the hook which the host found.
static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Only one test at a time, and a hook from before the first incarnation.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            HEARD.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
            previous(info);
        }));
    });
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's ids of the workers' threads alive in this process.
#[cfg(target_os = "linux")]
fn worker_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("cutwater-"))
    };
    tasks.filter(ours).map(|path| path.to_string_lossy().into_owned()).collect()
}

/// A joined thread may be listed for a moment longer.
#[cfg(target_os = "linux")]
fn assert_no_thread_left(when: &str) {
    let given_up = Instant::now() + SOON;
    while !worker_threads().is_empty() {
        assert!(Instant::now() < given_up, "{when}: {} threads left", worker_threads().len());
        std::thread::yield_now();
    }
}

/// A random-looking sequence that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Sends `total` messages of random size to random receivers, then a last one to each.
fn sprayer(from: SubtaskId, outputs: Vec<(EdgeId, u32)>, total: u64, seed: u64) -> Scripted {
    let mut dice = Dice(seed);
    let mut sent = 0;
    let mut numbers = BTreeMap::new();
    let message = move |numbers: &mut BTreeMap<(EdgeId, u32), u64>, edge, to, size: u64, last| {
        let number = numbers.entry((edge, to)).or_insert(0);
        let batch = (*number..*number + size).collect();
        let message = Message { from, edge, to, number: *number, batch, last };
        *number += 1;
        Output::Send { output: OutputChannel { edge, to }, element: Box::new(message) }
    };
    Scripted::new(from, move |quantum| {
        for _ in 0..dice.roll(4) {
            let (edge, receivers) = outputs[dice.roll(outputs.len() as u64) as usize];
            let to = dice.roll(u64::from(receivers)) as u32;
            quantum.out.push(message(&mut numbers, edge, to, dice.roll(20), false));
            sent += 1;
        }
        if sent < total {
            return Progress::Busy;
        }
        for &(edge, receivers) in &outputs {
            for to in 0..receivers {
                quantum.out.push(message(&mut numbers, edge, to, 0, true));
            }
        }
        Progress::Done
    })
}

/// Expects on channel `i` the messages of `senders[i]`, numbered from 0 without a gap, until each has sent its last;
/// then says how many there were.
fn checker(me: SubtaskId, senders: Vec<(SubtaskId, EdgeId)>, report: Sender<Result<u64, String>>) -> Scripted {
    let mut next = vec![0; senders.len()];
    let mut open = senders.len();
    Scripted::new(me, move |quantum| {
        for given in quantum.given.drain(..) {
            let Given::Element(channel, message) = given else { panic!("nothing but elements") };
            let (from, edge) = senders[channel.0 as usize];
            let expected = (from, edge, me.index, next[channel.0 as usize]);
            let found = (message.from, message.edge, message.to, message.number);
            if found != expected || message.batch.iter().enumerate().any(|(i, v)| *v != message.number + i as u64) {
                report.send(Err(format!("{me}, {channel}: expected {expected:?}, got {message:?}"))).unwrap();
            }
            next[channel.0 as usize] += 1;
            open -= usize::from(message.last);
        }
        if open > 0 {
            return Progress::Idle;
        }
        report.send(Ok(next.iter().sum())).unwrap();
        Progress::Done
    })
}

#[test]
fn elements_of_one_pair_arrive_in_order_and_on_the_right_channel() {
    let _alone = alone();
    // Two edges between the same tasks, one task with two inputs, parallelism above, at and below the workers'.
    let edges = [(0, 2), (1, 2), (0, 2), (1, 3)];
    let parallelism = [3, 2, 4, 1];
    let layout = layout(&parallelism, &edges);
    for workers in [1, 2, 3] {
        let (report, reports) = channel();
        let mut cores = Vec::new();
        for (task, count) in parallelism.iter().enumerate() {
            for index in 0..*count {
                let me = subtask(task as u32, index);
                let inputs: Vec<_> = edges.iter().enumerate().filter(|(_, ends)| ends.1 == task as u32).collect();
                let senders = inputs.iter().flat_map(|(edge, ends)| {
                    (0..parallelism[ends.0 as usize]).map(|from| (subtask(ends.0, from), EdgeId(*edge as u32)))
                });
                let outputs = edges.iter().enumerate().filter(|(_, ends)| ends.0 == task as u32);
                let outputs = outputs.map(|(edge, ends)| (EdgeId(edge as u32), parallelism[ends.1 as usize]));
                cores.push(if inputs.is_empty() {
                    sprayer(me, outputs.collect(), 2_000, 77 + u64::from(index) + 10 * task as u64)
                } else {
                    checker(me, senders.collect(), report.clone())
                });
            }
        }
        let (incarnation, _handles) = start(&layout, workers, cores);
        incarnation.join(SOON).unwrap_or_else(|error| panic!("{workers} workers: {error}"));
        drop(report);
        let received: u64 = reports.iter().map(|report| report.unwrap()).sum();
        // Five senders of 2000 messages each, or up to three more, and a last one for each receiver of each edge.
        let lasts = 3 * 4 + 2 * 4 + 3 * 4 + 2;
        let expected = 5 * 2_000 + lasts..=5 * 2_002 + lasts;
        assert!(expected.contains(&received), "{workers} workers: {received} not in {expected:?}");
    }
}

#[test]
fn a_sender_with_credits_keeps_to_its_window_and_sleeps_without() {
    let _alone = alone();
    const WINDOW: u64 = 8 * 100;
    const TOTAL: u64 = 300;
    for workers in [1, 2] {
        let layout = layout(&[1, 1], &[(0, 1)]);
        let output = OutputChannel { edge: EdgeId(0), to: 0 };
        let (report, reports) = channel();
        let (mut left, mut sent, mut idle_quanta) = (WINDOW, 0, 0_u64);
        let sends = report.clone();
        let sender = Scripted::new(subtask(0, 0), move |quantum| {
            idle_quanta += u64::from(quantum.given.is_empty() && sent > 0);
            for given in quantum.given.drain(..) {
                let Given::Credit(of, bytes) = given else { panic!("nothing but credit") };
                assert_eq!(of, output);
                left += bytes;
            }
            while left >= 100 && sent < TOTAL {
                let from = subtask(0, 0);
                let message = Message { from, edge: EdgeId(0), to: 0, number: sent, batch: vec![], last: false };
                quantum.out.push(Output::Send { output, element: Box::new(message) });
                left -= 100;
                sent += 1;
            }
            if left < WINDOW || sent < TOTAL {
                return Progress::Idle; // until all credit is back
            }
            sends.send(("quanta without cause", idle_quanta)).unwrap();
            Progress::Done
        });
        let mut processed = 0;
        let receiver = Scripted::new(subtask(1, 0), move |quantum| {
            let waiting = quantum.given.len() as u64;
            report.send(("bytes waiting", waiting * 100)).unwrap();
            if quantum.given.pop_front().is_some() {
                busy_for(Duration::from_micros(50));
                processed += 1;
                let channel = ChannelId(0);
                // In two parts, which the host adds up, and an empty one, which it leaves out.
                quantum.out.extend([60, 0, 40].map(|bytes| Output::Credit { channel, bytes }));
            }
            match quantum.given.is_empty() {
                _ if processed == TOTAL => Progress::Done,
                true => Progress::Idle,
                false => Progress::Busy,
            }
        });
        let (incarnation, _handles) = start(&layout, workers, vec![sender, receiver]);
        incarnation.join(SOON).unwrap();
        let mut most = BTreeMap::new();
        for (what, amount) in reports {
            let so_far = most.entry(what).or_insert(0);
            *so_far = amount.max(*so_far);
        }
        let waiting = most["bytes waiting"];
        assert!(
            (WINDOW / 2..=WINDOW).contains(&waiting),
            "{workers} workers: {waiting} bytes waiting, not about {WINDOW}"
        );
        assert_eq!(most.get("quanta without cause"), Some(&0), "{workers} workers: all credit came back, and no more");
    }
}

fn busy_for(duration: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Answers each command with itself.
fn echo(me: SubtaskId, answers: &Sender<(SubtaskId, u64)>) -> Scripted {
    let answers = answers.clone();
    Scripted::new(me, move |quantum| {
        for given in quantum.given.drain(..) {
            if let Given::Command(command) = given {
                answers.send((me, command)).unwrap();
            }
        }
        Progress::Idle
    })
}

#[test]
fn a_command_wakes_its_subtask() {
    let _alone = alone();
    let layout = layout(&[3, 2], &[(0, 1)]);
    for workers in [1, 2, 3] {
        let (answer, answers) = channel();
        let all: Vec<_> = (0..3).map(|index| subtask(0, index)).chain((0..2).map(|index| subtask(1, index))).collect();
        let cores = all.iter().map(|me| echo(*me, &answer)).collect();
        let (incarnation, handles) = start(&layout, workers, cores);
        assert_eq!(handles.subtasks().collect::<Vec<_>>(), all);
        let begun = Instant::now();
        for command in 0..40 {
            let to = all[command as usize % all.len()];
            handles.send(to, command).unwrap();
            assert_eq!(answers.recv_timeout(SOON).unwrap(), (to, command), "{workers} workers");
        }
        // Unwoken, a worker looks twice a second: forty commands would take ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(2), "{workers} workers: took {:?}", begun.elapsed());
        let nobody = subtask(0, 3);
        assert!(matches!(handles.send(nobody, 0), Err(HostError::NotRunning { subtask }) if subtask == nobody));
        incarnation.abort();
        incarnation.join(SOON).unwrap();
        assert!(matches!(handles.send(all[0], 0), Err(HostError::NotRunning { .. })), "{workers} workers");
    }
}

#[test]
fn deadlines_fire_in_time_and_a_stale_one_does_not_spin() {
    let _alone = alone();
    let layout = layout(&[2], &[]);
    let (fired, firings) = channel();
    let punctual = Scripted::new(subtask(0, 0), move |quantum| {
        if let Some(deadline) = *quantum.deadline {
            if quantum.now < deadline {
                return Progress::Idle;
            }
            fired.send(quantum.now.since(deadline)).unwrap();
        }
        *quantum.deadline = Some(quantum.now + Duration::from_millis(5));
        Progress::Idle
    });
    let (ran, runs) = channel();
    let stale = Scripted::new(subtask(0, 1), move |quantum| {
        *quantum.deadline = Some(Moment::ZERO);
        ran.send(()).unwrap();
        Progress::Idle
    });
    let begun = Instant::now();
    let (incarnation, _handles) = start(&layout, 1, vec![punctual, stale]);
    let late: Vec<_> = (0..20).map(|_| firings.recv_timeout(SOON).unwrap()).collect();
    incarnation.abort();
    incarnation.join(SOON).unwrap();
    let (median, quanta, most) = (percentile(late, 50), runs.iter().count(), begun.elapsed().as_millis() as usize + 2);
    // A worker that nothing wakes sleeps for half a second.
    assert!(median < Duration::from_millis(100), "late by {median:?}");
    assert!((10..=most).contains(&quanta), "{quanta} quanta, not at most one each millisecond: {most}");
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

#[test]
fn a_panic_in_one_core_is_reported_with_its_place_while_the_others_go_on() {
    let _alone = alone();
    HEARD.lock().unwrap().clear();
    let layout = layout(&[1, 3], &[(0, 1)]);
    for workers in [1, 3] {
        let ((panic, panics), (answer, answers)) = (channel(), channel());
        let source = Scripted::new(subtask(0, 0), |quantum| {
            for given in quantum.given.drain(..) {
                let Given::Command(to) = given else { continue };
                let (from, edge, to) = (subtask(0, 0), EdgeId(0), to as u32);
                let message = Message { from, edge, to, number: 0, batch: vec![], last: true };
                quantum.out.push(Output::Send { output: OutputChannel { edge, to }, element: Box::new(message) });
            }
            Progress::Idle
        });
        let line = line!() + 3;
        let faulty = Scripted::new(subtask(1, 0), |quantum| match quantum.given.pop_front() {
            None => Progress::Idle,
            Some(_) => panic!("cannot parse {:?}", "12x"),
        });
        let resumer = Scripted::new(subtask(1, 1), |quantum| {
            // A panic that user code caught itself must not lend its place to the next one.
            let caught = std::panic::catch_unwind(|| panic!("harmless")).is_err();
            match quantum.given.pop_front() {
                Some(_) if caught => std::panic::resume_unwind(Box::new("resumed")),
                _ => Progress::Idle,
            }
        });
        let cores = vec![source, faulty.reporting(&panic), resumer.reporting(&panic), echo(subtask(1, 2), &answer)];
        let (incarnation, handles) = start(&layout, workers, cores);
        handles.send(subtask(0, 0), 0).unwrap();
        let (who, message, location) = panics.recv_timeout(SOON).unwrap();
        let location = location.expect("a place");
        assert_eq!((who, message.as_str()), (subtask(1, 0), "cannot parse \"12x\""), "{workers} workers");
        assert!(location.contains(&format!("host.rs:{line}:")), "{workers} workers: {location}");
        handles.send(subtask(0, 0), 1).unwrap();
        let resumed = (subtask(1, 1), "resumed".to_owned(), None);
        assert_eq!(panics.recv_timeout(SOON).unwrap(), resumed, "{workers} workers");
        // What comes now is dropped for the dead and reaches the living.
        for to in [0, 1] {
            handles.send(subtask(0, 0), to).unwrap();
            handles.send(subtask(1, to as u32), 5).unwrap();
        }
        handles.send(subtask(1, 2), 6).unwrap();
        assert_eq!(answers.recv_timeout(SOON).unwrap(), (subtask(1, 2), 6), "{workers} workers");
        assert!(!incarnation.has_ended());
        incarnation.abort();
        incarnation.join(SOON).unwrap();
        assert!(panics.try_recv().is_err(), "{workers} workers: each core reports once");
    }
    std::thread::Builder::new().name("other".into()).spawn(|| panic!("expected")).unwrap().join().unwrap_err();
    assert_eq!(*HEARD.lock().unwrap(), ["other"], "only panics of other threads reach the hook there was before");
}

#[test]
fn a_panic_elsewhere_ends_all_workers_and_is_told() {
    let _alone = alone();
    let layout = layout(&[3], &[]);
    for workers in [1, 3] {
        let mut ends = Vec::new();
        for _ in 0..5 {
            let ((answer, _answers), (tell, told)) = (channel(), channel());
            let cores = (0..3).map(|index| echo(subtask(0, index), &answer)).collect();
            let on_panic = move |panic: WorkerPanic| {
                tell.send(panic).unwrap();
                panic!("a callback that panics too");
            };
            let (incarnation, handles) = start_with(&layout, workers, cores, on_panic).unwrap();
            let begun = Instant::now();
            handles.send(subtask(0, 1), BUG).unwrap();
            let panic = told.recv_timeout(SOON).unwrap();
            assert!(panic.message.contains("a bug of ours"), "{panic}");
            assert!(panic.location.as_ref().unwrap().contains("host.rs:"), "{panic}");
            match incarnation.join(SOON) {
                Err(HostError::Panicked(again)) => assert_eq!(again, panic),
                other => panic!("{other:?}"),
            }
            ends.push(begun.elapsed());
        }
        // Workers asleep are woken for it, and do not sleep on for up to half a second.
        let end = percentile(ends, 50);
        assert!(end < Duration::from_millis(100), "{workers} workers: ended after {end:?}");
    }
}

#[test]
fn a_core_that_panics_when_dropped_harms_nobody() {
    let _alone = alone();
    let layout = layout(&[3], &[]);
    for workers in [1, 2] {
        let cores = (0..3).map(|index| {
            let progress = [Progress::Idle, Progress::Done, Progress::Idle][index as usize];
            let mut core = Scripted::new(subtask(0, index), move |_| progress);
            core.on_drop = Some(Box::new(|| panic!("in drop")));
            core
        });
        let (incarnation, _handles) = start(&layout, workers, cores.collect());
        incarnation.abort();
        incarnation.join(SOON).unwrap();
    }
}

/// One round: a source sends, the receivers report the first message, one panics at the second. Returns the times from
/// start to all first messages, and from the panic's report to the end of all threads.
fn panicking_round(layout: &Layout, workers: usize) -> (Duration, Duration) {
    let ((panic, panics), (first, firsts)) = (channel(), channel());
    let source = Scripted::new(subtask(0, 0), |quantum| {
        for to in 0..2 {
            let (from, edge) = (subtask(0, 0), EdgeId(0));
            let message = Message { from, edge, to, number: 0, batch: vec![1; 100], last: false };
            quantum.out.push(Output::Send { output: OutputChannel { edge, to }, element: Box::new(message) });
        }
        *quantum.deadline = Some(quantum.now + Duration::from_micros(50));
        Progress::Idle
    });
    let mut cores = vec![source];
    for index in 0..2 {
        let (first, mut met) = (first.clone(), false);
        let receiver = Scripted::new(subtask(1, index), move |quantum| {
            if quantum.given.drain(..).count() == 0 {
                return Progress::Idle;
            }
            assert!(!met || index == 0, "one is enough");
            if !std::mem::replace(&mut met, true) {
                first.send(index).unwrap();
            }
            Progress::Idle
        });
        cores.push(receiver.reporting(&panic));
    }
    let begun = Instant::now();
    let (incarnation, _handles) = start(layout, workers, cores);
    let mut waiting = vec![0, 1];
    while !waiting.is_empty() {
        let came = firsts.recv_timeout(SOON).unwrap();
        waiting.retain(|index| *index != came);
    }
    let flowing = begun.elapsed();
    let (who, ..) = panics.recv_timeout(SOON).unwrap();
    assert_eq!(who, subtask(1, 1));
    let begun = Instant::now();
    incarnation.abort();
    incarnation.join(SOON).unwrap();
    (flowing, begun.elapsed())
}

#[test]
#[cfg(target_os = "linux")]
fn hundreds_of_incarnations_follow_each_other_in_one_process() {
    let _alone = alone();
    let layout = layout(&[1, 2], &[(0, 1)]);
    let memory =
        || std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    for workers in [1, 2] {
        let mut after_some = 0;
        let mut ends = Vec::new();
        for round in 0..300 {
            ends.push(panicking_round(&layout, workers).1);
            assert_no_thread_left(&format!("{workers} workers, round {round}"));
            if round == 100 {
                after_some = memory();
            }
        }
        let grown = memory().saturating_sub(after_some) * 4;
        assert!(grown < 4_000, "{workers} workers: grown by {grown} KiB in 200 rounds");
        let end = percentile(ends, 50);
        assert!(end < Duration::from_millis(50), "{workers} workers: {end:?} from panic to joined");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_core_that_does_not_return_is_named_in_time_and_leaves_when_it_does() {
    let _alone = alone();
    let layout = layout(&[2, 2], &[(0, 1)]);
    for workers in [1, 2] {
        let ((enter, entered), (release, released)) = (channel(), channel::<()>());
        let (answer, _answers) = channel();
        let stuck = Scripted::new(subtask(1, 1), move |_| {
            enter.send(()).unwrap();
            let _ = released.recv();
            Progress::Idle
        });
        let cores =
            vec![echo(subtask(0, 0), &answer), echo(subtask(0, 1), &answer), echo(subtask(1, 0), &answer), stuck];
        let (incarnation, _handles) = start(&layout, workers, cores);
        entered.recv_timeout(SOON).unwrap();
        let begun = Instant::now();
        incarnation.abort();
        let outcome = incarnation.join(Duration::from_millis(100));
        let worker_of_stuck = workers - 1;
        match outcome {
            Err(HostError::Stuck { worker, subtask: Some(found) }) => {
                assert_eq!((worker, found), (worker_of_stuck, subtask(1, 1)));
            }
            other => panic!("{other:?}"),
        }
        assert!((100..1_000).contains(&begun.elapsed().as_millis()), "took {:?}", begun.elapsed());
        assert_eq!(worker_threads().len(), 1, "only the thread that is stuck is left");
        release.send(()).unwrap();
        assert_no_thread_left("after the release");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_dropped_incarnation_leaves_no_thread() {
    let _alone = alone();
    let (answer, _answers) = channel();
    let cores = (0..3).map(|index| echo(subtask(0, index), &answer)).collect();
    let (incarnation, handles) = start(&layout(&[3], &[]), 3, cores);
    drop(incarnation);
    assert_no_thread_left("after the drop");
    assert!(matches!(handles.send(subtask(0, 0), 0), Err(HostError::NotRunning { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn idle_workers_use_no_processor() {
    let _alone = alone();
    // Nanoseconds on a processor are the first field of schedstat.
    let used = || -> u64 {
        let of = |thread: &String| std::fs::read_to_string(format!("{thread}/schedstat")).unwrap();
        worker_threads().iter().map(|thread| of(thread).split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let (answer, answers) = channel();
    let cores = (0..4).map(|index| echo(subtask(index / 2, index % 2), &answer)).collect();
    let (incarnation, handles) = start(&layout(&[2, 2], &[(0, 1)]), 2, cores);
    for index in 0..4 {
        handles.send(subtask(index / 2, index % 2), 0).unwrap();
        answers.recv_timeout(SOON).unwrap();
    }
    let before = used();
    std::thread::sleep(Duration::from_secs(1));
    let idle = Duration::from_nanos(used() - before);
    incarnation.abort();
    incarnation.join(SOON).unwrap();
    assert!(idle < Duration::from_millis(20), "{idle:?} in a second");
}

#[test]
fn the_driver_may_share_its_ends_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Incarnation>();
    shared::<Handles<std::cell::Cell<u64>>>();
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let _alone = alone();
    let sound = || layout(&[1, 1], &[(0, 1)]);
    let with = |change: fn(&mut Layout)| {
        let mut changed = sound();
        change(&mut changed);
        changed
    };
    let (task, edge) = (TaskId(1), EdgeId(0));
    let cases = [
        ("a task twice", with(|it| it.tasks[0].task = TaskId(1)), LayoutError::RepeatedTask { task }),
        ("an edge twice", with(|it| it.edges.push(it.edges[0])), LayoutError::RepeatedEdge { edge }),
        ("an input twice", with(|it| it.tasks[1].inputs.push(EdgeId(0))), LayoutError::RepeatedEdge { edge }),
        ("no parallelism", with(|it| it.tasks[1].parallelism = 0), LayoutError::NoSubtask { task }),
        ("an edge to nowhere", with(|it| it.edges[0].to = TaskId(7)), LayoutError::Mismatch { edge, task: TaskId(7) }),
        ("an edge its end does not list", with(|it| it.tasks[1].inputs.clear()), LayoutError::Mismatch { edge, task }),
        ("an input without an edge", with(|it| it.edges.clear()), LayoutError::Mismatch { edge, task: TaskId(0) }),
        ("a cycle", layout(&[1, 1, 1], &[(0, 1), (1, 2), (2, 1)]), LayoutError::Cycle { task }),
    ];
    for (name, layout, expected) in cases {
        match start_with(&layout, 1, vec![], |_| {}) {
            Err(HostError::Layout(found)) => assert_eq!(found, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let core = |task| Scripted::new(subtask(task, 0), |_| Progress::Done);
    let outcome = |tasks: &[u32]| start_with(&sound(), 2, tasks.iter().map(|task| core(*task)).collect(), |_| {});
    assert!(matches!(outcome(&[0]), Err(HostError::MissingCore { subtask: found }) if found == subtask(1, 0)));
    assert!(matches!(outcome(&[0, 1, 1]), Err(HostError::ExcessCore { subtask: found }) if found == subtask(1, 0)));
    assert!(matches!(outcome(&[0, 1, 2]), Err(HostError::ExcessCore { subtask: found }) if found == subtask(2, 0)));
    let (incarnation, _handles) = outcome(&[1, 0]).unwrap();
    incarnation.join(SOON).unwrap();
}
