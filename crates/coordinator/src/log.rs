//! The commit log of one job: a sequence of slots, each created if absent and never changed.
//!
//! [`Log`] asks for one object at a time on its main path (opening, appending) and beside it deletes what nobody needs.
//! What it asks for follows from where it stands, so that after a failed read, or after an answer that leaves a doubt,
//! the same question is simply asked again a little later.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use cutwater_core::{CheckpointId, Epoch, Moment};

use crate::{
    Action, CompletedCheckpoint, CreateOutcome, ExternalizedCheckpointRetention, Job, OpenError, Origin, Outcome,
    RestoreFrom, Settings, Token,
};

mod append;
mod check;
mod fallback;
pub(crate) mod names;
mod open;
mod orphans;
pub(crate) mod record;
mod retention;
mod search;

use append::Append;
use check::Check;
use fallback::Older;
use open::Open;
use record::Nonce;
pub(crate) use retention::Pin;
use retention::Retention;

/// From an unanswered question to its repetition.
const RETRY: Duration = Duration::from_secs(1);
/// How often a question is asked while opening. Later it is asked until there is an answer: only the truth helps.
const OPENING_TRIES: u32 = 5;

/// What the coordinator hears of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The claim is durable.
    Opened(Opened),
    AlreadyFinished {
        epoch: Epoch,
        latest: Option<Box<CompletedCheckpoint>>,
    },
    Refused(OpenError),
    /// The record is durable.
    Appended,
    /// The record is not there and never will be.
    Failed(String),
    /// The record's fate was unknown; now a claim of ours, of the next epoch, has its slot.
    Lost,
    /// Nobody has claimed the job after us.
    Current,
    Superseded(Epoch),
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Opened {
    pub(crate) restore: Option<Box<CompletedCheckpoint>>,
    pub(crate) origin: Option<Origin>,
    pub(crate) next_id: CheckpointId,
    /// How the job ended before, if its checkpoints went with it.
    pub(crate) discarded: Option<Outcome>,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    job: Job,
    num_retained: usize,
    allow_rewind: bool,
    retains: ExternalizedCheckpointRetention,
    older: Older,
    slots_per_boundary: u64,
    nonce: Nonce,
    next_token: u64,
    state: State,
    asked: Option<Token>,                     // the question of the main path that is out
    retry_at: Option<Moment>,                 // or when to ask it again
    tries: u32,                               // how often in a row it went unanswered
    epoch: Option<Epoch>,                     // since opened
    tail: u64,                                // the next slot
    newest_slot: Option<u64>,                 // of the newest Completed, or of the Discarded that it went with
    latest: Option<Box<CompletedCheckpoint>>, // that Completed
    retention: Retention,
    listing: Option<(Token, Epoch)>, // the listing that is out, and the epoch of the claim that opened
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

#[derive(Clone, Debug, Hash)]
enum State {
    New,
    Opening(Box<Open>),
    Idle,
    Appending(Box<Append>),
    /// Looking whether somebody else has claimed the job.
    Checking(Check),
    Over,
}

impl Log {
    pub(crate) fn new(settings: &Settings, job: Job, nonce: u64) -> Self {
        Self {
            job,
            num_retained: usize::try_from(settings.num_retained.get()).unwrap_or(usize::MAX).min(65536),
            allow_rewind: settings.allow_rewind,
            retains: settings.externalized_checkpoint_retention,
            older: Older::new(settings.fall_back),
            slots_per_boundary: names::SLOTS_PER_BOUNDARY,
            nonce: Nonce { process: nonce, counter: 0 },
            next_token: 0,
            state: State::New,
            asked: None,
            retry_at: None,
            tries: 0,
            epoch: None,
            tail: 0,
            newest_slot: None,
            latest: None,
            retention: Retention::default(),
            listing: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn set_slots_per_boundary(&mut self, slots: u64) {
        self.slots_per_boundary = slots;
    }

    pub(crate) fn handle_open(&mut self, from: RestoreFrom) {
        if matches!(self.state, State::New) {
            self.state = State::Opening(Box::new(Open::new(from)));
            self.ask();
        }
    }

    /// Appends a checkpoint; slot and epoch are filled in here. Only while idle.
    pub(crate) fn append_completed(&mut self, checkpoint: CompletedCheckpoint) {
        self.begin_completed(checkpoint);
    }

    /// Appends how the job ended. Only while idle.
    pub(crate) fn append_ended(&mut self, outcome: Outcome) {
        self.begin_ended(outcome);
    }

    pub(crate) fn handle_created(&mut self, now: Moment, token: Token, outcome: CreateOutcome) {
        if self.asked == Some(token) {
            self.asked = None;
            self.on_created(now, outcome);
        } else if self.retention.is_boundary(token) && self.is_open() {
            self.on_boundary_created(&outcome);
        }
    }

    pub(crate) fn handle_read(&mut self, now: Moment, token: Token, result: Result<Option<Vec<u8>>, String>) {
        if self.asked != Some(token) {
            return;
        }
        self.asked = None;
        match result {
            Err(reason) => self.stumble(now, reason),
            Ok(object) if matches!(self.state, State::Opening(_)) => self.on_opening_read(object.as_deref()),
            Ok(object) => match &self.state {
                State::Checking(check) => self.on_checking_read(*check, object.as_deref()),
                State::New | State::Opening(_) | State::Idle | State::Appending(_) | State::Over => {
                    self.on_settling_read(now, object.as_deref());
                }
            },
        }
    }

    pub(crate) fn handle_deleted(&mut self, token: Token, result: &Result<(), String>) {
        if self.is_open() {
            self.on_deleted(token, result.is_ok());
        }
    }

    pub(crate) fn handle_listed(&mut self, token: Token, result: Result<Vec<String>, String>) {
        if self.listing.is_some_and(|(out, _)| out == token) {
            self.on_listed(result.unwrap_or_default());
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.ask();
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.retry_at
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Stops for good. What is out is not waited for.
    pub(crate) fn close(&mut self) {
        self.state = State::Over;
        self.asked = None;
        self.retry_at = None;
    }

    /// Whether the job is ours and no record is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether the listing, or a deletion, is out, or is to be when a copy is made.
    pub(crate) fn is_tidying(&self) -> bool {
        let retention = &self.retention;
        self.listing.is_some() || retention.is_at_work() || retention.is_letting_go() || retention.awaits_copy()
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    pub(crate) fn latest(&self) -> Option<&CompletedCheckpoint> {
        self.latest.as_deref()
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Feeds what later behaviour depends on, as [`crate::Coordinator::digest`] says.
    pub(crate) fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            job: _,
            num_retained: _,
            allow_rewind: _,
            retains: _,
            older,
            slots_per_boundary,
            nonce,
            next_token: _,
            state,
            asked,
            retry_at,
            tries: _,
            epoch,
            tail,
            newest_slot,
            latest,
            retention,
            listing,
            actions: _,
            events: _,
        } = self;
        let listing = listing.map(|(_, epoch)| epoch);
        (slots_per_boundary, nonce, state, asked.is_some(), retry_at, listing).hash(hasher);
        (epoch, tail, newest_slot, latest).hash(hasher);
        older.hash(hasher);
        retention.digest(hasher);
    }

    fn is_open(&self) -> bool {
        self.epoch.is_some() && !matches!(self.state, State::Over)
    }

    /// Asks for what the main path needs next.
    fn ask(&mut self) {
        let token = self.token();
        let action = match &self.state {
            State::Opening(open) => Some(open.question(self.slots_per_boundary, token)),
            State::Appending(append) => Some(append.question(self.slots_per_boundary, token)),
            State::Checking(check) => Some(check.question(self.tail, self.slots_per_boundary, token)),
            State::New | State::Idle | State::Over => None,
        };
        if let Some(action) = action {
            self.asked = Some(token);
            self.actions.push_back(action);
        }
    }

    /// The question went unanswered: asks again later, or gives up if that does no harm.
    fn stumble(&mut self, now: Moment, reason: String) {
        self.tries += 1;
        let name = match &self.state {
            State::Opening(open) => Some(open.object(self.slots_per_boundary)),
            State::Appending(append) if append.is_opening() => Some(append.object(self.slots_per_boundary)),
            State::Appending(_) | State::Checking(_) | State::New | State::Idle | State::Over => None,
        };
        match name {
            Some(name) if self.tries >= OPENING_TRIES => self.refuse(OpenError::Storage { name, reason }),
            Some(_) | None => self.retry_at = Some(now + RETRY),
        }
    }

    fn refuse(&mut self, error: OpenError) {
        self.close();
        self.events.push_back(Event::Refused(error));
    }

    fn supersede(&mut self, by: Epoch) {
        self.close();
        self.events.push_back(Event::Superseded(by));
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn fresh_nonce(&mut self) -> Nonce {
        self.nonce.counter += 1;
        self.nonce
    }
}
