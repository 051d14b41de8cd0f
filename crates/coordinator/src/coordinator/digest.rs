use std::hash::{Hash, Hasher};

use super::Coordinator;

impl Coordinator {
    /// Feeds all that its later behaviour depends on, for a search that is to know a state when it meets it again: what
    /// feeds the same, of two coordinators made with the same settings and job, does the same from here on.
    ///
    /// Left out, though they show: tokens, which are only names, and [`Self::counts`]. Left out, though it matters after
    /// five failures in a row: how often the question that is out went unanswered. Drain the actions before.
    pub fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            settings: _,
            job: _,
            log,
            actions: _,
            clock,
            phase,
            restore,
            falls_back,
            origin,
            base,
            next_id,
            run,
            has_run,
            pending,
            requests,
            next_request,
            failures,
            counts: _,
            last_completion,
            storing,
        } = self;
        log.digest(hasher);
        (clock, phase, restore, falls_back, origin, base, next_id).hash(hasher);
        (run, has_run, pending, requests, next_request, failures, last_completion, storing).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use cutwater_core::{MaxParallelism, Moment};

    use super::*;
    use crate::{Action, Job, RestoreFrom, Settings};

    fn digest(coordinator: &Coordinator) -> u64 {
        let mut hasher = DefaultHasher::new();
        coordinator.digest(&mut hasher);
        hasher.finish()
    }

    /// Answers the question that is out, and has the next one asked.
    fn answer(coordinator: &mut Coordinator, result: Result<Option<Vec<u8>>, String>) {
        let Some(Action::Read { token, .. }) = coordinator.poll_action() else { panic!("a read is out") };
        coordinator.handle_read(Moment::ZERO, token, result);
        if let Some(deadline) = coordinator.next_deadline() {
            coordinator.handle_timeout(deadline);
        }
    }

    #[test]
    fn a_question_asked_once_more_is_the_same_state_and_an_answer_is_not() {
        let job = Job { name: "daily".to_owned(), max_parallelism: MaxParallelism::default() };
        let mut coordinator = Coordinator::new(Settings::default(), job, 1);
        coordinator.handle_open(Moment::ZERO, RestoreFrom::Latest);
        let asked = digest(&coordinator);
        answer(&mut coordinator, Err("unreachable".to_owned()));
        assert_eq!(digest(&coordinator), asked);
        answer(&mut coordinator, Ok(None));
        assert_ne!(digest(&coordinator), asked);
    }
}
