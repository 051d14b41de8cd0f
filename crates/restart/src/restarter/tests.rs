use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::Strategy;
use Input::{Fail, Fatal, Ran, Tick};

/// What a test feeds, with its time in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Input {
    Fail(u64),
    Fatal(u64),
    Tick(u64),
    Ran(u64),
}

fn feed(restarter: &mut Restarter, input: Input) {
    match input {
        Fail(at) => restarter.handle_failure(Moment::from_millis(at), FailureClass::Recoverable),
        Fatal(at) => restarter.handle_failure(Moment::from_millis(at), FailureClass::NonRecoverable),
        Tick(at) => restarter.handle_timeout(Moment::from_millis(at)),
        Ran(at) => restarter.handle_restarted(Moment::from_millis(at)),
    }
}

fn run(strategy: &Strategy, inputs: &[Input]) -> Vec<Action> {
    let mut restarter = Restarter::new(strategy.clone(), 1).unwrap();
    let mut actions = Vec::new();
    for &input in inputs {
        feed(&mut restarter, input);
        while let Some(action) = restarter.poll_action() {
            actions.push(action);
        }
    }
    actions
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn restart(failed: u64, attempt: u32, delay: u64) -> Action {
    Action::Restart { at: Moment::from_millis(failed + delay), attempt, delay: ms(delay) }
}

fn merged(at: u64) -> Action {
    Action::Merged { at: Moment::from_millis(at) }
}

fn start(attempt: u32) -> Action {
    Action::Start { attempt }
}

fn give_up(reason: GiveUp) -> Action {
    Action::GiveUp { reason }
}

/// Delays of 100, 200, 400, 800, 1000, 1000, ... ms; reset after 5 s.
fn doubling() -> ExponentialDelay {
    ExponentialDelay {
        initial_backoff: ms(100),
        max_backoff: ms(1000),
        backoff_multiplier: 2.0,
        reset_backoff_threshold: ms(5000),
        jitter_factor: 0.0,
        attempts_before_reset_backoff: 2_147_483_647,
    }
}

#[test]
fn none_and_fixed_delay() {
    let fixed = |attempts| Strategy::FixedDelay { attempts, delay: ms(10) };
    let exhausted = |attempts| give_up(GiveUp::AttemptsExhausted { attempts });
    let cases = [
        ("none gives up at once", Strategy::None, vec![Fail(5)], vec![give_up(GiveUp::NoStrategy)]),
        ("a failure is forgiven", fixed(1), vec![Fail(5)], vec![restart(5, 1, 10)]),
        ("it waits for its time", fixed(1), vec![Fail(5), Tick(14)], vec![restart(5, 1, 10)]),
        ("it starts at its time", fixed(1), vec![Fail(5), Tick(15)], vec![restart(5, 1, 10), start(1)]),
        ("it starts once", fixed(1), vec![Fail(5), Tick(15), Tick(16)], vec![restart(5, 1, 10), start(1)]),
        ("no attempt forgives nothing", fixed(0), vec![Fail(5)], vec![exhausted(0)]),
        (
            "as many failures as attempts are forgiven, the next is not",
            fixed(2),
            vec![Fail(0), Tick(10), Ran(11), Fail(20), Tick(30), Ran(31), Fail(40)],
            vec![restart(0, 1, 10), start(1), restart(20, 2, 10), start(2), exhausted(2)],
        ),
        (
            "the count never goes back, however long the job has run",
            fixed(1),
            vec![Fail(0), Tick(10), Ran(11), Fail(1_000_000_000)],
            vec![restart(0, 1, 10), start(1), exhausted(1)],
        ),
        (
            "a failure while waiting counts and moves the restart",
            fixed(2),
            vec![Fail(0), Fail(4), Tick(10), Tick(14)],
            vec![restart(0, 1, 10), restart(4, 2, 10), start(2)],
        ),
        (
            "a start that fails counts",
            fixed(2),
            vec![Fail(0), Tick(10), Fail(12), Tick(22), Fail(23)],
            vec![restart(0, 1, 10), start(1), restart(12, 2, 10), start(2), exhausted(2)],
        ),
        (
            "what cannot be mended ends the job, attempts left or not",
            fixed(9),
            vec![Fatal(3)],
            vec![give_up(GiveUp::NonRecoverable)],
        ),
        (
            "also while a restart waits, which then does not happen",
            fixed(9),
            vec![Fail(0), Fatal(3), Tick(10), Fail(11), Ran(12)],
            vec![restart(0, 1, 10), give_up(GiveUp::NonRecoverable)],
        ),
        ("nobody started it, so it does not run again", fixed(1), vec![Ran(3), Tick(4)], vec![]),
    ];
    for (name, strategy, inputs, expected) in cases {
        assert_eq!(run(&strategy, &inputs), expected, "{name}");
    }
}

#[test]
fn failure_rate() {
    let rate = |max| Strategy::FailureRate { max_failures_per_interval: max, interval: ms(100), delay: ms(0) };
    let exceeded = |max_failures| give_up(GiveUp::RateExceeded { max_failures, interval: ms(100) });
    let cases = [
        ("the limit itself is tolerated", 2, vec![Fail(0), Fail(1)], vec![restart(0, 1, 0), restart(1, 2, 0)]),
        (
            "one more within the interval is not",
            2,
            vec![Fail(0), Fail(50), Fail(99)],
            vec![restart(0, 1, 0), restart(50, 2, 0), exceeded(2)],
        ),
        (
            "exactly an interval after the oldest is within",
            2,
            vec![Fail(0), Fail(50), Fail(100)],
            vec![restart(0, 1, 0), restart(50, 2, 0), exceeded(2)],
        ),
        (
            "one tick later it is not",
            2,
            vec![Fail(0), Fail(50), Fail(101)],
            vec![restart(0, 1, 0), restart(50, 2, 0), restart(101, 3, 0)],
        ),
        (
            "the interval slides: only the last failures count",
            2,
            vec![Fail(0), Fail(50), Fail(101), Fail(150)],
            vec![restart(0, 1, 0), restart(50, 2, 0), restart(101, 3, 0), exceeded(2)],
        ),
        (
            "rare failures are forgiven for ever",
            1,
            vec![Fail(0), Fail(101), Fail(202), Fail(303)],
            vec![restart(0, 1, 0), restart(101, 2, 0), restart(202, 3, 0), restart(303, 4, 0)],
        ),
        ("two at the same moment exceed one", 1, vec![Fail(7), Fail(7)], vec![restart(7, 1, 0), exceeded(1)]),
        ("what cannot be mended is not asked about", 5, vec![Fatal(1)], vec![give_up(GiveUp::NonRecoverable)]),
    ];
    for (name, max, inputs, expected) in cases {
        assert_eq!(run(&rate(max), &inputs), expected, "{name}");
    }
}

#[test]
fn exponential_delay() {
    let limited = |attempts_before_reset_backoff| ExponentialDelay { attempts_before_reset_backoff, ..doubling() };
    let exhausted = |attempts| give_up(GiveUp::AttemptsExhausted { attempts });
    let cases = [
        (
            "the delay grows up to the maximum and stays",
            doubling(),
            vec![Fail(0), Fail(100), Fail(300), Fail(700), Fail(1500), Fail(2500)],
            vec![
                restart(0, 1, 100),
                restart(100, 2, 200),
                restart(300, 3, 400),
                restart(700, 4, 800),
                restart(1500, 5, 1000),
                restart(2500, 6, 1000),
            ],
        ),
        (
            "a failure before the planned restart merges into it, and the delay does not grow",
            doubling(),
            vec![Fail(0), Fail(0), Fail(99), Tick(100), Ran(110), Fail(120)],
            vec![restart(0, 1, 100), merged(100), merged(100), start(1), restart(120, 2, 200)],
        ),
        (
            "a failure at the planned restart is a new one, even if the start is late",
            doubling(),
            vec![Fail(0), Fail(100), Tick(300)],
            vec![restart(0, 1, 100), restart(100, 2, 200), start(2)],
        ),
        (
            "merged failures use up no attempt",
            limited(1),
            vec![Fail(0), Fail(50), Fail(99), Tick(100)],
            vec![restart(0, 1, 100), merged(100), merged(100), start(1)],
        ),
        (
            "just short of the threshold nothing is reset",
            doubling(),
            vec![Fail(0), Tick(100), Ran(100), Fail(5099)],
            vec![restart(0, 1, 100), start(1), restart(5099, 2, 200)],
        ),
        (
            "at the threshold the delay begins anew",
            doubling(),
            vec![Fail(0), Tick(100), Ran(100), Fail(5100)],
            vec![restart(0, 1, 100), start(1), restart(5100, 2, 100)],
        ),
        (
            "the threshold counts from the planned restart, not from the real one",
            doubling(),
            vec![Fail(0), Tick(4000), Ran(5000), Fail(5100)],
            vec![restart(0, 1, 100), start(1), restart(5100, 2, 100)],
        ),
        (
            "one attempt more than allowed gives up",
            limited(2),
            vec![Fail(0), Fail(100), Fail(300)],
            vec![restart(0, 1, 100), restart(100, 2, 200), exhausted(2)],
        ),
        (
            "a reset gives the attempts back",
            limited(2),
            vec![Fail(0), Fail(100), Fail(5300), Fail(5400), Fail(5600)],
            vec![restart(0, 1, 100), restart(100, 2, 200), restart(5300, 3, 100), restart(5400, 4, 200), exhausted(2)],
        ),
        (
            "what cannot be mended does not merge",
            doubling(),
            vec![Fail(0), Fatal(50), Tick(100)],
            vec![restart(0, 1, 100), give_up(GiveUp::NonRecoverable)],
        ),
        (
            "a failure dated before a start that was given is not lost",
            doubling(),
            vec![Fail(0), Tick(100), Ran(100), Fail(99)],
            vec![restart(0, 1, 100), start(1), restart(99, 2, 0)],
        ),
    ];
    for (name, parameters, inputs, expected) in cases {
        assert_eq!(run(&Strategy::ExponentialDelay(parameters), &inputs), expected, "{name}");
    }
}

#[test]
fn the_deadline_is_the_planned_restart_and_nothing_else() {
    let mut restarter = Restarter::new(Strategy::FixedDelay { attempts: 1, delay: ms(10) }, 0).unwrap();
    assert_eq!((restarter.next_deadline(), restarter.restarts()), (None, 0));
    feed(&mut restarter, Fail(5));
    assert_eq!((restarter.next_deadline(), restarter.restarts()), (Some(Moment::from_millis(15)), 1));
    feed(&mut restarter, Tick(15));
    assert_eq!(restarter.next_deadline(), None);
    feed(&mut restarter, Ran(16));
    assert!(!restarter.has_given_up());
    feed(&mut restarter, Fail(17));
    assert_eq!((restarter.next_deadline(), restarter.has_given_up()), (None, true));
}

#[test]
fn jitter_spreads_and_the_seed_decides_it() {
    let strategy = ExponentialDelay { jitter_factor: 0.5, initial_backoff: ms(1), ..doubling() };
    let delays = |seed| {
        let mut backoff = Backoff::new(strategy.clone(), seed);
        (0..8).map(|_| backoff.take_delay()).collect::<Vec<_>>()
    };
    assert_eq!(delays(3), delays(3));
    assert_ne!(delays(3), delays(4));
    let third: Vec<Duration> = (0..1000).map(|seed| delays(seed)[3]).collect();
    let (least, most) = (third.iter().min().unwrap(), third.iter().max().unwrap());
    assert!(*least >= ms(4) && *most <= ms(12), "8 ms +- half: {least:?} to {most:?}");
    assert!(*least < ms(5) && *most > ms(11), "the range is used: {least:?} to {most:?}");
}

#[test]
fn a_strategy_out_of_range_is_refused() {
    let strategy = Strategy::FailureRate { max_failures_per_interval: 0, interval: ms(1), delay: ms(1) };
    assert_eq!(Restarter::new(strategy, 0).unwrap_err(), InvalidStrategy::MaxFailures);
}

fn any_exponential() -> impl proptest::strategy::Strategy<Value = ExponentialDelay> {
    (1_u64..5_000, 0_u64..100_000, 1.0001_f64..1e6, 1_u64..100_000, 0.0_f64..=1.0, 1_u32..50).prop_map(
        |(initial, above, backoff_multiplier, threshold, jitter_factor, attempts)| ExponentialDelay {
            initial_backoff: ms(initial),
            max_backoff: ms(initial + above),
            backoff_multiplier,
            reset_backoff_threshold: ms(threshold),
            jitter_factor,
            attempts_before_reset_backoff: attempts,
        },
    )
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        (0_u32..6, 0_u64..100).prop_map(|(attempts, delay)| Strategy::FixedDelay { attempts, delay: ms(delay) }),
        (1_u32..6, 1_u64..500, 0_u64..100).prop_map(|(max, interval, delay)| Strategy::FailureRate {
            max_failures_per_interval: max,
            interval: ms(interval),
            delay: ms(delay),
        }),
        any_exponential().prop_map(Strategy::ExponentialDelay),
    ]
}

/// Inputs at times that never go back.
fn any_inputs() -> impl proptest::strategy::Strategy<Value = Vec<Input>> {
    proptest::collection::vec((0_u8..16, 0_u64..300), 0..60).prop_map(|steps| {
        let mut now = 0;
        let input = |(kind, pause)| {
            now += pause;
            match kind {
                0 => Fatal(now),
                1..=6 => Fail(now),
                7..=11 => Tick(now),
                _ => Ran(now),
            }
        };
        steps.into_iter().map(input).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn exponential_delays_stay_within_their_bounds(parameters in any_exponential(), seed: u64) {
        let mut backoff = Backoff::new(parameters.clone(), seed);
        for _ in 0..2_000 {
            let delay = backoff.take_delay();
            prop_assert!((parameters.initial_backoff..=parameters.max_backoff).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn without_jitter_delays_never_shrink_and_reach_the_maximum(parameters in any_exponential()) {
        let parameters = ExponentialDelay { jitter_factor: 0.0, backoff_multiplier: 1.01, ..parameters };
        let mut backoff = Backoff::new(parameters.clone(), 0);
        let delays: Vec<Duration> = (0..2_000).map(|_| backoff.take_delay()).collect();
        prop_assert_eq!(delays[0], parameters.initial_backoff);
        prop_assert!(delays.is_sorted());
        prop_assert_eq!(delays[1_999], parameters.max_backoff);
    }

    #[test]
    fn each_failure_is_answered_once_and_starts_come_in_time(
        strategy in any_strategy(), seed: u64, inputs in any_inputs(),
    ) {
        let mut restarter = Restarter::new(strategy, seed).unwrap();
        let mut scheduled = 0;
        for input in inputs {
            let (was_over, deadline) = (restarter.has_given_up(), restarter.next_deadline());
            feed(&mut restarter, input);
            let actions: Vec<Action> = std::iter::from_fn(|| restarter.poll_action()).collect();
            match (&input, actions.as_slice()) {
                (_, []) if was_over => {}
                (Fail(now), [Action::Restart { at, attempt, delay }]) => {
                    scheduled += 1;
                    prop_assert_eq!((*at, *attempt), (Moment::from_millis(*now) + *delay, scheduled));
                    prop_assert_eq!(restarter.next_deadline(), Some(*at));
                }
                (Fail(_), [Action::Merged { at }]) => prop_assert_eq!(Some(*at), deadline),
                (Fail(_) | Fatal(_), [Action::GiveUp { .. }]) => prop_assert!(restarter.has_given_up()),
                (Tick(now), [Action::Start { attempt }]) => {
                    prop_assert!(deadline.is_some_and(|at| at <= Moment::from_millis(*now)));
                    prop_assert_eq!(*attempt, scheduled);
                }
                (Tick(now), []) => prop_assert!(deadline.is_none_or(|at| at > Moment::from_millis(*now))),
                (Ran(_), []) => {}
                (input, actions) => prop_assert!(false, "{input:?} gave {actions:?}"),
            }
        }
    }

    /// The rule as Flink's words have it, over the whole list of failures.
    #[test]
    fn failure_rate_refuses_just_when_an_interval_holds_too_many(
        max in 1_u32..5, interval in 1_u64..300, pauses in proptest::collection::vec(0_u64..200, 1..30),
    ) {
        let strategy =
            Strategy::FailureRate { max_failures_per_interval: max, interval: ms(interval), delay: ms(0) };
        let mut restarter = Restarter::new(strategy, 0).unwrap();
        let mut times = Vec::new();
        for pause in pauses {
            let now = times.last().copied().unwrap_or(0) + pause;
            times.push(now);
            feed(&mut restarter, Fail(now));
            let within = times.iter().filter(|&&at| now - at <= interval).count();
            prop_assert_eq!(restarter.has_given_up(), within > max as usize);
            if restarter.has_given_up() {
                break;
            }
        }
    }
}

#[test]
fn a_job_without_progress_is_given_up_once_whatever_the_strategy() {
    let strategy = Strategy::FixedDelay { attempts: u32::MAX, delay: Duration::ZERO };
    let mut restarter = Restarter::new(strategy, 1).unwrap();
    restarter.handle_no_progress(3);
    restarter.handle_no_progress(4);
    restarter.handle_failure(Moment::ZERO, FailureClass::Recoverable);
    assert_eq!(restarter.poll_action(), Some(Action::GiveUp { reason: GiveUp::NoProgress { attempts: 3 } }));
    assert_eq!((restarter.poll_action(), restarter.has_given_up()), (None, true));
}
