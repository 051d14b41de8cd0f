use std::time::Duration;

use cutwater_core::Moment;

/// From one write to the next, at least; and to the next try of what failed.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long the end of a job waits for the last write, at most.
const LAST: Duration = Duration::from_secs(2);

/// Decides when the statistics are read and written beside the checkpoints. Pure: whoever polls it does the work on a thread
/// of its own and tells what came of it.
#[derive(Debug)]
pub(crate) struct Keeping {
    state: State,
    dirty: bool,
    not_before: Moment,
    number: u64,
    /// The job has ended: until when the last write is waited for.
    finishing: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The job is not ours (yet, or any more).
    Off,
    /// What an earlier process left has not been read, and nothing is written before it was: it goes on from that.
    Unread,
    Reading,
    Idle,
    Writing,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read what an earlier process left; answer with [`Keeping::handle_read`].
    Read,
    /// Write the object of this number, then delete older ones; answer with [`Keeping::handle_written`].
    Write(u64),
}

impl Keeping {
    pub(crate) fn new() -> Self {
        Self { state: State::Off, dirty: false, not_before: Moment::ZERO, number: 0, finishing: None }
    }

    /// The job was claimed. Only the first call counts.
    pub(crate) fn open(&mut self) {
        if (self.state, self.number, self.finishing) == (State::Off, 0, None) {
            self.state = State::Unread;
        }
    }

    /// There is something new to write.
    pub(crate) fn changed(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn poll(&mut self, now: Moment) -> Option<Step> {
        if self.finishing.is_some_and(|until| until <= now) {
            self.state = State::Off; // what hangs is left behind
        }
        match self.state {
            State::Unread if now >= self.not_before => {
                self.not_before = now + INTERVAL;
                self.state = State::Reading;
                Some(Step::Read)
            }
            State::Idle if self.dirty && (now >= self.not_before || self.finishing.is_some()) => {
                (self.dirty, self.not_before, self.number) = (false, now + INTERVAL, self.number + 1);
                self.state = State::Writing;
                Some(Step::Write(self.number))
            }
            State::Off | State::Unread | State::Reading | State::Idle | State::Writing => None,
        }
    }

    /// `known`: whether it is known now what there was.
    pub(crate) fn handle_read(&mut self, known: bool) {
        if self.state == State::Reading {
            self.state = if known { State::Idle } else { State::Unread };
            if known && self.number == 0 {
                self.not_before = Moment::ZERO; // the first write need not wait
            }
        }
    }

    /// `done`: whether it is there. If not, it is tried again later, but not at the end of the job.
    pub(crate) fn handle_written(&mut self, done: bool) {
        if self.state == State::Writing {
            self.state = State::Idle;
            self.dirty |= !done && self.finishing.is_none();
        }
    }

    /// The job has ended: what is new is written once more, if the job is `ours`.
    pub(crate) fn finish(&mut self, now: Moment, ours: bool) {
        self.finishing = Some(now + LAST);
        if !ours {
            self.state = State::Off;
        }
    }

    /// Whether the end of the job has to wait.
    pub(crate) fn is_busy(&self, now: Moment) -> bool {
        self.finishing.is_some_and(|until| now < until) && self.is_at_work()
    }

    fn is_at_work(&self) -> bool {
        match self.state {
            State::Off | State::Unread => false,
            State::Reading | State::Idle => self.dirty,
            State::Writing => true,
        }
    }

    /// When to poll again at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if self.finishing.is_some() {
            return self.finishing.filter(|_| self.is_at_work());
        }
        let waits = match self.state {
            State::Unread => true,
            State::Idle => self.dirty,
            State::Off | State::Reading | State::Writing => false,
        };
        waits.then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::from_millis(secs * 1000)
    }

    /// One whose job was claimed and that knows what there was.
    fn open() -> Keeping {
        let mut keeping = Keeping::new();
        keeping.open();
        assert_eq!(keeping.poll(at(0)), Some(Step::Read));
        keeping.handle_read(true);
        keeping
    }

    #[test]
    fn nothing_is_written_before_the_job_is_ours_and_what_was_there_is_known() {
        let mut keeping = Keeping::new();
        keeping.changed();
        assert_eq!((keeping.poll(at(9)), keeping.next_deadline()), (None, None), "not claimed");
        keeping.open();
        assert_eq!((keeping.poll(at(9)), keeping.poll(at(9))), (Some(Step::Read), None), "once");
        keeping.handle_read(false);
        assert_eq!((keeping.poll(at(9)), keeping.next_deadline()), (None, Some(at(12))), "the store fails: later");
        assert_eq!(keeping.poll(at(12)), Some(Step::Read));
        keeping.handle_read(true);
        assert_eq!(keeping.poll(at(12)), Some(Step::Write(1)), "the first need not wait");
    }

    #[test]
    fn at_most_one_write_in_three_seconds_and_one_at_a_time() {
        let mut keeping = open();
        assert_eq!((keeping.poll(at(1)), keeping.next_deadline()), (None, None), "nothing is new");
        keeping.changed();
        assert_eq!(keeping.poll(at(1)), Some(Step::Write(1)));
        keeping.changed();
        assert_eq!((keeping.poll(at(99)), keeping.next_deadline()), (None, None), "one is under way");
        keeping.handle_written(true);
        assert_eq!((keeping.poll(at(3)), keeping.next_deadline()), (None, Some(at(4))), "too soon");
        assert_eq!(keeping.poll(at(4)), Some(Step::Write(2)));
        keeping.handle_written(false);
        assert_eq!((keeping.poll(at(4)), keeping.next_deadline()), (None, Some(at(7))), "it failed: later");
        assert_eq!(keeping.poll(at(7)), Some(Step::Write(3)));
    }

    #[test]
    fn the_end_of_the_job_waits_for_one_last_write_and_not_for_ever() {
        let mut keeping = open();
        keeping.changed();
        assert_eq!(keeping.poll(at(1)), Some(Step::Write(1)));
        keeping.changed();
        keeping.finish(at(2), true);
        assert!(keeping.is_busy(at(2)) && !keeping.is_busy(at(4)), "a write that hangs");
        assert_eq!(keeping.next_deadline(), Some(at(4)));
        let mut hangs = open();
        hangs.changed();
        assert_eq!(hangs.poll(at(1)), Some(Step::Write(1)));
        hangs.finish(at(2), true);
        assert_eq!((hangs.poll(at(4)), hangs.next_deadline()), (None, None), "left behind");
        keeping.handle_written(true);
        assert!(keeping.is_busy(at(2)));
        assert_eq!(keeping.poll(at(2)), Some(Step::Write(2)), "at once");
        keeping.handle_written(false);
        assert!(!keeping.is_busy(at(2)), "tried once");
        assert_eq!(keeping.poll(at(2)), None);
    }

    #[test]
    fn a_job_that_is_not_ours_ends_without_a_word() {
        let cases = [
            ("it was never claimed", Keeping::new(), true, true),
            ("nothing is new", open(), false, true),
            ("another process has it", open(), true, false),
        ];
        for (name, mut keeping, dirty, ours) in cases {
            keeping.dirty = dirty;
            keeping.finish(at(1), ours);
            keeping.open();
            assert!(!keeping.is_busy(at(1)), "{name}");
            assert_eq!((keeping.poll(at(1)), keeping.next_deadline()), (None, None), "{name}");
        }
    }
}
