use std::fmt;

use crate::Rng;

/// What the proxy can do to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Answers 500; the server never sees the request.
    Error,
    /// Answers 500 after the server carried it out.
    ErrorAfter,
    /// Answers 503 with the code `SlowDown`; the server never sees it.
    SlowDown,
    /// Answers 409 with the code `ConditionalRequestConflict`, to a PUT with `If-None-Match` only. The server never sees
    /// it: S3 says so when another such request runs, and asks for a retry.
    Conflict,
    /// Cuts the connection once the server has carried it out, so that the client's own retry meets its first try.
    AnswerLost,
    /// Sends it to the server twice and gives the second answer.
    Twice,
    /// Holds the connection, then closes it; the server never sees the request.
    TimeOutBefore,
    /// The same after the server carried it out.
    TimeOutAfter,
    /// Cuts the connection of a PUT, and delivers it to the server some time later.
    Late,
    /// Gives the answer with its full `Content-Length` and a part of its body, and cuts the connection.
    CutBody,
    /// Gives a part of an object with a `Content-Length` that fits.
    ShortBody,
    /// Gives an object with one bit flipped.
    FlippedBit,
    /// Waits before the answer and gives its body in small pieces.
    Slow,
    /// Says 200 where the server said 412, to a PUT with `If-None-Match`: what a store that ignores it would say.
    PreconditionIgnored,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Error,
        Self::ErrorAfter,
        Self::SlowDown,
        Self::Conflict,
        Self::AnswerLost,
        Self::Twice,
        Self::TimeOutBefore,
        Self::TimeOutAfter,
        Self::Late,
        Self::CutBody,
        Self::ShortBody,
        Self::FlippedBit,
        Self::Slow,
        Self::PreconditionIgnored,
    ];

    /// Its name in tables and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::ErrorAfter => "error-after",
            Self::SlowDown => "slow-down",
            Self::Conflict => "conflict",
            Self::AnswerLost => "answer-lost",
            Self::Twice => "twice",
            Self::TimeOutBefore => "time-out-before",
            Self::TimeOutAfter => "time-out-after",
            Self::Late => "late",
            Self::CutBody => "cut-body",
            Self::ShortBody => "short-body",
            Self::FlippedBit => "flipped-bit",
            Self::Slow => "slow",
            Self::PreconditionIgnored => "precondition-ignored",
        }
    }

    /// Whether it can befall such a request.
    pub(super) fn befalls(self, request: Traits) -> bool {
        match self {
            Self::Error
            | Self::ErrorAfter
            | Self::SlowDown
            | Self::AnswerLost
            | Self::Twice
            | Self::TimeOutBefore
            | Self::TimeOutAfter
            | Self::Slow => true,
            Self::Conflict | Self::PreconditionIgnored => request.creates,
            Self::Late => request.puts,
            Self::CutBody => request.gets,
            Self::ShortBody | Self::FlippedBit => request.gets_object,
        }
    }
}

/// What the faults that befall only some requests look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    pub(super) puts: bool,
    pub(super) creates: bool,
    pub(super) gets: bool,
    pub(super) gets_object: bool,
}

/// How often each fault befalls a request that it can befall: from 0, never, to 1, always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates([f64; Fault::ALL.len()]);

impl Rates {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The same rate for each of these faults.
    ///
    /// # Panics
    ///
    /// As [`Self::with`].
    #[must_use]
    pub fn of(faults: &[Fault], rate: f64) -> Self {
        faults.iter().fold(Self::none(), |rates, fault| rates.with(*fault, rate))
    }

    /// With this rate for this fault.
    ///
    /// # Panics
    ///
    /// If all rates together are more than 1: a request meets one fault at most.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: f64) -> Self {
        self.0[fault as usize] = rate;
        let sum: f64 = self.0.iter().sum();
        assert!(rate >= 0.0 && sum < 1.0 + 1e-9, "a rate of {rate} for {}, {sum} in all", fault.name());
        self
    }

    /// What befalls a request.
    pub(super) fn draw(&self, request: Traits, rng: &mut Rng) -> Option<Fault> {
        let mut left = rng.fraction();
        Fault::ALL.into_iter().filter(|fault| fault.befalls(request)).find(|fault| {
            left -= self.0[*fault as usize];
            left < 0.0
        })
    }
}

/// How often the proxy did what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came in whole.
    pub requests: u64,
    /// Requests that the server answered, late and repeated ones too.
    pub delivered: u64,
    /// Connections closed because the proxy was down.
    pub refused: u64,
    pub(super) faults: [u64; Fault::ALL.len()],
}

impl Counts {
    /// How often this fault was injected.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// How many faults were injected in all.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// All of them by name.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.lines().into_iter().map(|(name, count)| (name.to_owned(), serde_json::Value::from(count))).collect()
    }

    fn lines(&self) -> Vec<(&'static str, u64)> {
        let requests = [("requests", self.requests), ("delivered", self.delivered), ("refused", self.refused)];
        let faults = Fault::ALL.map(|fault| (fault.name(), self.of(fault)));
        requests.into_iter().chain(faults).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.lines() {
            writeln!(f, "{name:<20} {count:>8}")?;
        }
        Ok(())
    }
}
