//! The stateless stages, statically fused.

use cutwater_core::{CheckpointId, OperatorUid, Timestamp};

use crate::UserError;
use crate::exec::{ChainSnapshot, Exec};
use crate::sink::SinkWriter;

/// A place in a chain that takes records of one type. `time` is [`Timestamp::MIN`] for a record without one.
pub trait Stage<T>: Send + 'static {
    /// Takes a record.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError>;

    /// Takes a watermark, after all records before it.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError>;

    /// Sends partly filled batches.
    fn flush(&mut self, exec: &mut Exec);

    /// Adds to the snapshot.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn snapshot(&mut self, exec: &mut Exec, checkpoint: CheckpointId, out: &mut ChainSnapshot)
    -> Result<(), UserError>;
}

impl<T: 'static> Stage<T> for Box<dyn Stage<T>> {
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        (**self).push(exec, time, record)
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        (**self).watermark(exec, watermark)
    }

    fn flush(&mut self, exec: &mut Exec) {
        (**self).flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        (**self).snapshot(exec, checkpoint, out)
    }
}

/// Makes a stage out of the one that follows it: how a stream remembers its stateless operators.
pub trait Compose<In>: Clone + Send + Sync + 'static {
    /// What comes out at the end.
    type Out: Send + 'static;
    /// The stages from here to `N`.
    type Stage<N: Stage<Self::Out>>: Stage<In>;

    /// Puts the stages before `next`.
    fn compose<N: Stage<Self::Out>>(&self, next: N) -> Self::Stage<N>;
}

macro_rules! pass_on {
    () => {
        fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
            self.next.watermark(exec, watermark)
        }

        fn flush(&mut self, exec: &mut Exec) {
            self.next.flush(exec);
        }

        fn snapshot(
            &mut self,
            exec: &mut Exec,
            checkpoint: CheckpointId,
            out: &mut ChainSnapshot,
        ) -> Result<(), UserError> {
            self.next.snapshot(exec, checkpoint, out)
        }
    };
}

/// No stage at all.
pub struct Identity<T>(std::marker::PhantomData<fn(T) -> T>);

impl<T> Default for Identity<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> Clone for Identity<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Send + 'static> Compose<T> for Identity<T> {
    type Out = T;
    type Stage<N: Stage<T>> = N;

    fn compose<N: Stage<T>>(&self, next: N) -> N {
        next
    }
}

/// `map` as part of a stream.
#[derive(Clone)]
pub struct Map<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `map` as part of a chain.
pub struct MapStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F, U> Compose<In> for Map<P, F>
where
    P: Compose<In>,
    F: Fn(P::Out) -> U + Clone + Send + Sync + 'static,
    U: Send + 'static,
{
    type Out = U;
    type Stage<N: Stage<U>> = P::Stage<MapStage<F, N>>;

    fn compose<N: Stage<U>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(MapStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, U, F, N> Stage<T> for MapStage<F, N>
where
    F: Fn(T) -> U + Send + 'static,
    N: Stage<U>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let mapped = (self.f)(record);
        self.next.push(exec, time, mapped)
    }

    pass_on!();
}

/// `filter` as part of a stream.
#[derive(Clone)]
pub struct Filter<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `filter` as part of a chain.
pub struct FilterStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F> Compose<In> for Filter<P, F>
where
    P: Compose<In>,
    F: Fn(&P::Out) -> bool + Clone + Send + Sync + 'static,
{
    type Out = P::Out;
    type Stage<N: Stage<P::Out>> = P::Stage<FilterStage<F, N>>;

    fn compose<N: Stage<P::Out>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(FilterStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, F, N> Stage<T> for FilterStage<F, N>
where
    F: Fn(&T) -> bool + Send + 'static,
    N: Stage<T>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        if (self.f)(&record) { self.next.push(exec, time, record) } else { Ok(()) }
    }

    pass_on!();
}

/// `flat_map` as part of a stream.
#[derive(Clone)]
pub struct FlatMap<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `flat_map` as part of a chain.
pub struct FlatMapStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F, I> Compose<In> for FlatMap<P, F>
where
    P: Compose<In>,
    F: Fn(P::Out) -> I + Clone + Send + Sync + 'static,
    I: IntoIterator,
    I::Item: Send + 'static,
{
    type Out = I::Item;
    type Stage<N: Stage<I::Item>> = P::Stage<FlatMapStage<F, N>>;

    fn compose<N: Stage<I::Item>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(FlatMapStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, I, F, N> Stage<T> for FlatMapStage<F, N>
where
    F: Fn(T) -> I + Send + 'static,
    I: IntoIterator,
    N: Stage<I::Item>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let mut items = 0;
        for item in (self.f)(record) {
            items += 1;
            self.next.push(exec, time, item)?;
            exec.running = self.operator; // the iterator is user code too
        }
        exec.uneven += u64::from(items != 1);
        Ok(())
    }

    pass_on!();
}

/// The end of a chain that writes to a sink.
pub(crate) struct SinkStage<W> {
    pub(crate) writer: W,
    pub(crate) operator: u16,
    pub(crate) uid: OperatorUid,
}

impl<T, W> Stage<T> for SinkStage<W>
where
    T: Send + 'static,
    W: SinkWriter<T>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        self.writer.write((time != Timestamp::MIN).then_some(time), record)
    }

    fn watermark(&mut self, _: &mut Exec, _: Timestamp) -> Result<(), UserError> {
        Ok(())
    }

    fn flush(&mut self, _: &mut Exec) {}

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        exec.running = self.operator;
        for prepared in self.writer.prepare(checkpoint)? {
            out.prepared.push((self.uid.clone(), prepared));
        }
        Ok(())
    }
}
