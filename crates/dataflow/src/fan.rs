//! Streams that grow out of others: the branches of a fan-out, and streams whose end is not known yet.

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cutwater_core::{CheckpointId, Timestamp};

use crate::UserError;
use crate::exec::{BuildContext, ChainSnapshot, Exec};
use crate::graph::BuildChain;
use crate::job::Job;
use crate::stage::{Compose, Identity, Stage};
use crate::stream::{Build, Head, Stream};

/// Makes the stages of a branch.
type MakeBranch<T> = Build<Box<dyn Stage<T>>>;

/// The beginning of a stream that is part of a task which has begun before: a branch of a fan-out or a side output. Its
/// operators run fused with the task; between the two there is one dynamic call per record.
pub struct BranchHead<T> {
    /// Gives the branch to whom it grows out of, which the job holds. The branch holds this head, so it must not hold the other
    /// in its turn: neither would ever be freed.
    attach: Arc<dyn Fn(MakeBranch<T>) + Send + Sync>,
}

impl<T> BranchHead<T> {
    pub(crate) fn new(attach: impl Fn(MakeBranch<T>) + Send + Sync + 'static) -> Self {
        Self { attach: Arc::new(attach) }
    }
}

impl<T> Clone for BranchHead<T> {
    fn clone(&self) -> Self {
        Self { attach: Arc::clone(&self.attach) }
    }
}

impl<T: Send + 'static> Head for BranchHead<T> {
    type Out = T;
    type Built = Box<dyn Stage<T>>;

    fn build<N: Stage<T>>(&self, next: N, _: &BuildContext<'_>) -> Result<Box<dyn Stage<T>>, UserError> {
        Ok(Box::new(next))
    }

    fn place(&self, build: MakeBranch<T>) -> Option<BuildChain> {
        (self.attach)(build);
        None
    }
}

/// A stream that any number of consumers take, each all of its records: [`Stream::fan_out`].
#[must_use = "the records go nowhere until each branch ends in a sink"]
pub struct FanOut<'j, T> {
    job: &'j Job,
    task: usize,
    last: u16,
    branches: Arc<Mutex<Vec<MakeBranch<T>>>>,
    /// Whether somebody has taken a branch.
    taken: Cell<bool>,
}

impl<'j, T: Clone + Send + 'static> FanOut<'j, T> {
    /// One more stream of the same records.
    pub fn branch(&self) -> Stream<'j, BranchHead<T>, Identity<T>> {
        if self.taken.replace(true) {
            self.job.draft().open(self.task, self.last);
        }
        let branches = Arc::downgrade(&self.branches);
        let attach = move |build| {
            if let Some(branches) = branches.upgrade() {
                branches.lock().unwrap_or_else(PoisonError::into_inner).push(build);
            }
        };
        Stream::branch_of(self.job, self.task, self.last, BranchHead::new(attach))
    }
}

impl<'j, H: Head, C: Compose<H::Out>> Stream<'j, H, C> {
    /// Lets several consumers take the stream, each all of its records:
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, from_iter, discard};
    /// # let job = Job::new("doc");
    /// let numbers = job.source("numbers", from_iter(0u64..100)).filter(|n| n % 2 == 0).fan_out();
    /// numbers.branch().key_by(|n| n % 10).fold("sums", 0, |sum, n| *sum += n).sink("sums-out", discard());
    /// numbers.branch().sink("raw-out", discard());
    /// ```
    ///
    /// The branches run fused with the stream, in the order in which they ended: what is before the fan-out runs once. Each
    /// record is copied for all branches but the last. A branch without credit stops the whole task, and so the other
    /// branches: no queue grows while one of them is slow.
    pub fn fan_out(self) -> FanOut<'j, C::Out>
    where
        C::Out: Clone,
    {
        let (job, task, last) = self.place();
        let branches: Arc<Mutex<Vec<MakeBranch<C::Out>>>> = Arc::default();
        let all = Arc::clone(&branches);
        self.end(move |context| {
            let branches = all.lock().unwrap_or_else(PoisonError::into_inner);
            let mut built = branches.iter().map(|branch| branch(context)).collect::<Result<Vec<_>, _>>()?;
            let branch = built.pop().ok_or("a fan-out without a branch")?;
            Ok(Fan { operator: last, others: built, last: branch })
        });
        job.draft().open(task, last);
        FanOut { job, task, last, branches, taken: Cell::new(false) }
    }

    /// The stream without its type, to be ended once by somebody who does not know it.
    pub(crate) fn erase(self) -> Stream<'j, BranchHead<C::Out>, Identity<C::Out>> {
        let (job, task, last) = self.place();
        let follower: Arc<OnceLock<MakeBranch<C::Out>>> = Arc::default();
        let attached = Arc::downgrade(&follower);
        self.end(move |context| follower.get().ok_or("a stream without an end")?(context));
        job.draft().open(task, last);
        let attach = move |build| {
            if let Some(follower) = attached.upgrade() {
                drop(follower.set(build)); // it is ended once
            }
        };
        Stream::branch_of(job, task, last, BranchHead::new(attach))
    }
}

/// Hands each record to all branches.
struct Fan<T> {
    /// Who is told to run while records are copied, which is code of theirs.
    operator: u16,
    others: Vec<Box<dyn Stage<T>>>,
    last: Box<dyn Stage<T>>,
}

impl<T> Fan<T> {
    fn all(&mut self) -> impl Iterator<Item = &mut Box<dyn Stage<T>>> {
        self.others.iter_mut().chain([&mut self.last])
    }
}

impl<T: Clone + Send + 'static> Stage<T> for Fan<T> {
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        for branch in &mut self.others {
            exec.running = self.operator;
            branch.push(exec, time, record.clone())?;
        }
        self.last.push(exec, time, record)
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.all().try_for_each(|branch| branch.watermark(exec, watermark))
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.all().for_each(|branch| branch.flush(exec));
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.all().try_for_each(|branch| branch.snapshot(exec, checkpoint, out))
    }
}
