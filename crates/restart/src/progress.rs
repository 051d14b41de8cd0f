use std::fmt;
use std::num::NonZeroU32;

#[cfg(test)]
mod tests;

/// Where and how an attempt failed: what makes two failures the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureSite {
    /// The operator that failed.
    pub operator: String,
    /// The class of the error: what tells one from another, and says the same each time; such as where a panic began.
    pub class: String,
    /// The place in the sources that was being processed, if it is known.
    pub position: Option<SourceRange>,
}

/// Records of a source, one of which was being processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The source subtask.
    pub source: String,
    /// The first of the records, counted over all attempts.
    pub first: u64,
    /// The last, included.
    pub last: u64,
}

impl SourceRange {
    /// The records that both have.
    fn common(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        let common = self.source == other.source && first <= last;
        common.then(|| Self { source: self.source.clone(), first, last })
    }
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, first, last } = self;
        match first == last {
            true => write!(f, "record {first} of {source}"),
            false => write!(f, "records {first} to {last} of {source}"),
        }
    }
}

impl FailureSite {
    /// What both failures have in common, if they are the same.
    fn again(&self, last: &Self) -> Option<Self> {
        let position = self.position.as_ref().zip(last.position.as_ref()).and_then(|(own, last)| own.common(last))?;
        let same = (&self.operator, &self.class) == (&last.operator, &last.class);
        same.then(|| Self { position: Some(position), ..self.clone() })
    }
}

/// In what a job makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProgress {
    /// The same operator fails with the same class of error at the same place of the sources.
    SameFailure {
        /// Where and how; of the records those that were being processed each time.
        site: FailureSite,
        /// How often in a row.
        times: u32,
    },
    /// The job is restored after failures, and no source has got any further since the first of them.
    SamePositions {
        /// How often in a row.
        restores: u32,
    },
}

impl NoProgress {
    /// How often in a row.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        match self {
            Self::SameFailure { times: attempts, .. } | Self::SamePositions { restores: attempts } => *attempts,
        }
    }
}

impl fmt::Display for NoProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameFailure { site: FailureSite { operator, class, position }, times } => {
                write!(f, "operator {operator} failed {times} times in a row with the same error ({class})")?;
                position.iter().try_for_each(|position| write!(f, " at {position}"))
            }
            Self::SamePositions { restores } => {
                write!(f, "{restores} restores in a row, and no source has got any further")
            }
        }
    }
}

/// Notices that a job restarts again and again without getting on.
///
/// It is told of each failure and of each restore, in the order in which they happen, and answers whether the job makes
/// no progress:
///
/// - as many times in a row as [`Self::new`] is told, the same operator has failed with the same class of error while some
///   record of a source was being processed, each time the same; a failure without a known place is in no row;
/// - or as many times in a row the job was restored after a failure, each time with all sources where they were before.
///
/// It lives as long as the process, so that kills do not count. A source that has nothing to read does not advance either:
/// it is for the user to say whether the job is to be stopped.
///
/// ```
/// use std::num::NonZeroU32;
/// use cutwater_restart::{FailureSite, ProgressWatch, SourceRange};
///
/// let (operator, class) = ("parse".to_owned(), "panic at src/main.rs:7".to_owned());
/// let position = Some(SourceRange { source: "lines".to_owned(), first: 17, last: 17 });
/// let poison = FailureSite { operator, class, position };
/// let mut watch = ProgressWatch::new(NonZeroU32::new(3).unwrap());
/// assert_eq!(watch.handle_failure(Some(&poison)), None);
/// assert_eq!(watch.handle_failure(Some(&poison)), None);
/// let found = watch.handle_failure(Some(&poison)).unwrap();
/// assert!(found.to_string().starts_with("operator parse failed 3 times in a row"));
/// ```
#[derive(Clone, Debug)]
pub struct ProgressWatch {
    attempts: u32,
    same: Option<(FailureSite, u32)>, // the last failure, and how often it has come in a row
    positions: Option<Vec<u8>>,       // those of the last restore, or of a checkpoint since
    restores: u32,                    // after failures, with the sources where they were
    failed: bool,                     // since the last restore
}

impl ProgressWatch {
    /// Both rows are this long at the least: 3 by default, where the watch is used.
    #[must_use]
    pub fn new(attempts: NonZeroU32) -> Self {
        Self { attempts: attempts.get(), same: None, positions: None, restores: 0, failed: false }
    }

    /// How long both rows are at the least.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt has failed, or could not be started; `None`: it is not known where.
    pub fn handle_failure(&mut self, site: Option<&FailureSite>) -> Option<NoProgress> {
        self.failed = true;
        let site = site.filter(|site| site.position.is_some());
        let before = self.same.take();
        self.same = site.map(|site| {
            let again = before.as_ref().and_then(|(last, times)| Some((site.again(last)?, times.saturating_add(1))));
            again.unwrap_or_else(|| (site.clone(), 1))
        });
        let (site, times) = self.same.as_ref().filter(|(_, times)| *times >= self.attempts)?;
        Some(NoProgress::SameFailure { site: site.clone(), times: *times })
    }

    /// An attempt is about to start with the sources at these positions: any bytes that are the same if and only if no
    /// source has advanced.
    pub fn handle_restore(&mut self, positions: &[u8]) -> Option<NoProgress> {
        let after_failure = std::mem::take(&mut self.failed);
        if self.positions.as_deref() != Some(positions) {
            self.advanced(positions);
        } else if after_failure {
            self.restores = self.restores.saturating_add(1);
        }
        (self.restores >= self.attempts).then_some(NoProgress::SamePositions { restores: self.restores })
    }

    /// A checkpoint with the sources at these positions has completed. Returns whether any has advanced since the last
    /// restore or checkpoint.
    pub fn handle_checkpoint(&mut self, positions: &[u8]) -> bool {
        let advanced = self.positions.as_deref() != Some(positions);
        if advanced {
            self.advanced(positions);
        }
        advanced
    }

    fn advanced(&mut self, positions: &[u8]) {
        self.positions = Some(positions.to_vec());
        self.restores = 0;
    }
}
