//! Every run of the commit log in a small world: two coordinators, a log of a few slots, and a store that fails, forgets
//! to answer and answers late.
//!
//! [`search`] walks breadth first through all states that [`Bounds`] allow, with the real
//! [`Coordinator`](cutwater_coordinator::Coordinator), and checks in each what the log promises. The first state in which
//! a promise does not hold is reported with the shortest way to it. That the search finds mistakes is shown by making
//! some on purpose: [`Mutant`].
//!
//! # What may happen
//!
//! - To a create: it is done, or the object exists; it fails; nobody knows, and it takes effect at once, at any later
//!   time, or never. To a read: it is answered, or fails. To the deletion of slots: it is done; or it fails, and each slot
//!   goes later or never. To the deletion of files: as nobody reads them, the worst is that they go as soon as it is asked
//!   for, so they do; the answer may be that it failed.
//! - A coordinator crashes, what it had out stays in flight, and another start of the job has its place.
//! - A checkpoint is asked for; its only task acknowledges with a file, in time or after the attempt is over; the attempt
//!   fails; the job is canceled.
//! - Anybody is slow, for ever or for a while.
//!
//! # Why these are all
//!
//! Some runs are left out since another one shows the same, not to save time at the cost of runs:
//!
//! - An operation takes effect and is answered in one step. What its caller does in between touches nothing that others
//!   see, so it can as well be done before or after.
//! - Both coordinators start at the beginning, since one that starts later is one that is slow at first; for the same
//!   reason only who has asked for more than reads crashes, and what waits for a while is asked again at once.
//! - Of the first two starts the first one that does more than read is called 1.
//! - A state is not entered again with less of the bounds left than before.
//!
//! What is left out beyond that is counted in [`Report::pruned`]: creates in slots above the last one, and more operations
//! in flight than [`Bounds::late_creates`].

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::num::{NonZeroU8, NonZeroU32};

mod actor;
mod heal;
mod object;
mod tell;
mod world;

use actor::{ActorId, Cast};
use heal::heal;
use world::{Alone, Broken, Left, SLOTS, Stage, Step, World};

/// How large a world is. All counts are of the whole run, whoever is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Slots of the log, at most 5. A run does not go on where one above would be created.
    pub slots: u8,
    /// By how many slots a boundary moves.
    pub slots_per_boundary: NonZeroU8,
    /// How many completed checkpoints are kept.
    pub num_retained: NonZeroU32,
    /// Starts of the job after the first two, each in the place of one that crashed or is over.
    pub restarts: u8,
    /// Checkpoints asked for, at most 7.
    pub requests: u8,
    /// Answers of the store other than the right one, at most 4.
    pub faults: u8,
    /// Attempts that fail.
    pub failovers: u8,
    /// Coordinators that are told to cancel the job.
    pub cancels: u8,
    /// Creates of the dead, or of unknown fate, that are in flight at the same time, at most 2.
    pub late_creates: u8,
    /// The search gives up after this many states.
    pub most_states: u32,
}

impl Default for Bounds {
    /// The main world.
    fn default() -> Self {
        Self {
            slots: 3,
            slots_per_boundary: NonZeroU8::new(2).expect("two is not zero"),
            num_retained: NonZeroU32::MIN,
            restarts: 1,
            requests: 2,
            faults: 2,
            failovers: 1,
            cancels: 1,
            late_creates: 2,
            most_states: 40_000_000,
        }
    }
}

/// A mistake made on purpose, between the coordinator and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A create of unknown fate is called failed.
    UnknownIsFailure,
    /// The store overwrites what is there.
    NoFence,
    /// A record is called durable that is still on its way.
    NotifyBeforeDurable,
    /// When an attempt fails, a record on its way is given up without waiting for its fate.
    ForgetSettling,
    /// With the files that are to be deleted go those of the newest checkpoint.
    DeleteRetained,
    /// After a create nobody looks whether a boundary has passed the slot.
    LateLands,
    /// A read misses what is there.
    StaleRead,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// States entered, those entered again with other bounds left included.
    pub states: u64,
    /// Steps taken from them.
    pub transitions: u64,
    /// Steps of the longest shortest way to a state.
    pub depth: u32,
    /// Steps not taken, since the log or the operations in flight would be too many.
    pub pruned: u64,
    /// Distinct states of a single coordinator.
    pub coordinators: u64,
    /// Distinct contents of the log. From each of them, so from every state, a fresh coordinator opened the job and
    /// completed a checkpoint, without faults.
    pub logs: u64,
    /// Distinct pairs of a coordinator and a content of the log, from each of which, so from every state, the coordinator
    /// came to rest when it was left alone without faults.
    pub alone: u64,
    /// Whether all states within the bounds were entered.
    pub complete: bool,
    /// How often something interesting happened.
    pub marks: BTreeMap<&'static str, u64>,
    /// The first promise found broken.
    pub violation: Option<Violation>,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What should hold.
    pub rule: &'static str,
    /// What does instead.
    pub detail: String,
    /// The shortest way to it, step by step.
    pub trace: Vec<String>,
}

/// Walks through all states within the bounds, or to the first violation.
///
/// # Panics
///
/// If the bounds are larger than their fields allow.
#[must_use]
pub fn search(bounds: &Bounds, mutant: Option<Mutant>) -> Report {
    assert!(usize::from(bounds.slots) + 2 <= SLOTS, "too many slots: {bounds:?}");
    assert!(bounds.requests < 8 && bounds.faults < 5 && bounds.late_creates <= 2, "bounds are too large: {bounds:?}");
    let mut search = Search::new(bounds, mutant);
    let violation = search.run().err().map(|(node, step, broken)| search.explain(node, step, broken));
    Report {
        states: search.nodes.len() as u64,
        transitions: search.transitions,
        depth: search.depth,
        pruned: search.pruned,
        coordinators: search.cast.len() as u64,
        logs: search.healed.len() as u64,
        alone: search.settled.len() as u64,
        complete: violation.is_none() && search.frontier.is_empty(),
        marks: search.marks.0,
        violation,
    }
}

/// A map that is only asked, and the same in each run.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

#[derive(Debug, Default)]
struct Marks(BTreeMap<&'static str, u64>);

impl Marks {
    fn hit(&mut self, mark: &'static str) {
        *self.0.entry(mark).or_default() += 1;
    }
}

/// How a state was entered.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    step: Step,
    left: Left,
    /// The same state, entered before with other bounds left; `u32::MAX` if there is none.
    other: u32,
}

const NONE: u32 = u32::MAX;

struct Search<'a> {
    bounds: &'a Bounds,
    mutant: Option<Mutant>,
    cast: Cast,
    over: ActorId,
    marks: Marks,
    nodes: Vec<Node>,
    entered: HashMap<[u64; 2], u32, BuildHasherDefault<Hashed>>, // by digest: the node that entered it last
    frontier: Vec<(u32, World)>,
    settled: Alone,
    healed: Map<([u16; SLOTS], u8), ()>,
    transitions: u64,
    pruned: u64,
    depth: u32,
}

/// From which node which step broke what; without a step, the state itself is broken.
type Failure = (u32, Option<Step>, Broken);

impl<'a> Search<'a> {
    fn new(bounds: &'a Bounds, mutant: Option<Mutant>) -> Self {
        let mut cast = Cast::new(bounds);
        let (world, over) = (World::new(&mut cast), cast.over());
        let mut search = Self {
            bounds,
            mutant,
            cast,
            over,
            marks: Marks::default(),
            nodes: Vec::new(),
            entered: HashMap::default(),
            frontier: Vec::new(),
            settled: Alone::default(),
            healed: Map::default(),
            transitions: 0,
            pruned: 0,
            depth: 0,
        };
        search.enter(NONE, Step::Land(0), world, Left::of(bounds));
        search
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut steps = Vec::new();
        while !self.frontier.is_empty() {
            for (node, world) in std::mem::take(&mut self.frontier) {
                if self.nodes.len() > self.bounds.most_states as usize {
                    self.frontier.push((node, world));
                    return Ok(());
                }
                self.check_healing(node, &world)?;
                self.check_settling(node, &world)?;
                self.expand(node, &world, &mut steps)?;
            }
            self.depth += u32::from(!self.frontier.is_empty());
        }
        Ok(())
    }

    fn expand(&mut self, node: u32, world: &World, steps: &mut Vec<Step>) -> Result<(), Failure> {
        let left = self.nodes[node as usize].left;
        steps.clear();
        let Self { bounds, mutant, cast, over, marks, .. } = self;
        let stage = &mut Stage { bounds, mutant: *mutant, cast, over: *over, marks, told: None };
        world.steps(left, stage, steps, &mut self.pruned);
        for step in steps.iter().copied() {
            let Self { bounds, mutant, cast, over, marks, .. } = self;
            let stage = &mut Stage { bounds, mutant: *mutant, cast, over: *over, marks, told: None };
            let mut next = *world;
            let left = next.take(step, left, stage).map_err(|broken| (node, Some(step), broken))?;
            self.transitions += 1;
            self.enter(node, step, next, left);
        }
        Ok(())
    }

    fn enter(&mut self, parent: u32, step: Step, world: World, left: Left) {
        let digest = digest(&world);
        let other = self.entered.get(&digest).copied().unwrap_or(NONE);
        let mut before = other;
        while let Some(node) = self.nodes.get(before as usize) {
            if node.left.covers(left) {
                return;
            }
            before = node.other;
        }
        let node = u32::try_from(self.nodes.len()).expect("memory ends before");
        self.nodes.push(Node { parent, step, left, other });
        self.entered.insert(digest, node);
        self.frontier.push((node, world));
    }

    /// Each content of the log is opened once by a fresh coordinator, which must restore the newest checkpoint and
    /// complete one.
    fn check_healing(&mut self, node: u32, world: &World) -> Result<(), Failure> {
        if self.healed.insert((world.slots, world.boundaries), ()).is_some() {
            return Ok(());
        }
        let newest = world.newest(&self.cast.objects, cutwater_core::Epoch(u64::MAX));
        let detail = match heal(world, self.bounds, &self.cast.objects) {
            Ok(restored) if restored == newest => return Ok(()),
            Ok(restored) => format!("it restores {restored:?}, not {newest:?}"),
            Err(reason) => reason,
        };
        Err((node, None, Broken { rule: "when the faults stop, a checkpoint completes", detail }))
    }

    fn check_settling(&mut self, node: u32, world: &World) -> Result<(), Failure> {
        let Self { bounds, mutant, cast, over, .. } = self;
        let marks = &mut Marks::default(); // none of this happened
        let stage = &mut Stage { bounds, mutant: *mutant, cast, over: *over, marks, told: None };
        world.check_settling(&mut self.settled, stage).map_err(|broken| (node, None, broken))
    }

    /// Goes the way to the violation again, and tells it.
    fn explain(&mut self, node: u32, step: Option<Step>, broken: Broken) -> Violation {
        let mut way: Vec<Step> = step.into_iter().collect();
        let mut at = node;
        while let Some(node) = self.nodes.get(at as usize).filter(|node| node.parent != NONE) {
            way.push(node.step);
            at = node.parent;
        }
        let mut trace = Vec::new();
        let (mut world, mut left) = (World::new(&mut self.cast), Left::of(self.bounds));
        for step in way.into_iter().rev() {
            let mut told = Vec::new();
            let mut line = tell::step(&world, step, &self.cast);
            let Self { bounds, mutant, cast, over, .. } = self;
            let marks = &mut Marks::default();
            let mut stage = Stage { bounds, mutant: *mutant, cast, over: *over, marks, told: Some(&mut told) };
            if let Ok(after) = world.take(step, left, &mut stage) {
                left = after;
            }
            for told in told {
                line += "; ";
                line += &told;
            }
            trace.push(line);
        }
        Violation { rule: broken.rule, detail: broken.detail, trace }
    }
}

/// 128 bits that stand for a state: that two of a billion have the same ones happens once in 10^20 searches.
fn digest(world: &World) -> [u64; 2] {
    [0u8, 1].map(|half| {
        let mut hasher = DefaultHasher::new();
        (half, world).hash(&mut hasher);
        hasher.finish()
    })
}

/// Digests are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(self.0, |word| u64::from_le_bytes(*word));
    }
}

#[cfg(test)]
mod tests;
