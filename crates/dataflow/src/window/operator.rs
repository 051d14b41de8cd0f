//! When windows fire and go.

use std::marker::PhantomData;

use cutwater_core::Timestamp;
use cutwater_state::{Data, Key, StateError};

use super::contents::Contents;
use super::{Kind, LateCount, Window, Windowed, Windows};
use crate::process::{KeyedProcess, ProcessContext};
use crate::states::States;
use crate::{NonRecoverable, UserError};

/// What an operator emits of results and of what is late.
pub(crate) trait Emit<R, T>: Send + Sync + 'static {
    type Out: Send + 'static;

    fn result(result: R) -> Self::Out;
    fn late(record: T) -> Option<Self::Out>;
}

/// Drops what is late.
pub(crate) struct OnlyResults;

/// Emits what is late beside the results.
pub(crate) struct WithLate;

impl<R: Send + 'static, T> Emit<R, T> for OnlyResults {
    type Out = R;

    fn result(result: R) -> R {
        result
    }

    fn late(_: T) -> Option<R> {
        None
    }
}

impl<R: Send + 'static, T: Send + 'static> Emit<R, T> for WithLate {
    type Out = Windowed<R, T>;

    fn result(result: R) -> Windowed<R, T> {
        Windowed::Result(result)
    }

    fn late(record: T) -> Option<Windowed<R, T>> {
        Some(Windowed::Late(record))
    }
}

/// Puts records into windows, fires these and clears them.
pub(crate) struct WindowOperator<C, E> {
    windows: Windows,
    lateness: i64,
    late: LateCount,
    contents: C,
    emit: PhantomData<fn() -> E>,
}

impl<C: Clone, E> Clone for WindowOperator<C, E> {
    fn clone(&self) -> Self {
        Self { late: self.late.clone(), contents: self.contents.clone(), ..*self }
    }
}

type Cx<'a, 'b, K, O> = &'a mut ProcessContext<'b, K, (), O>;

impl<C, E> WindowOperator<C, E> {
    pub(crate) fn new(windows: Windows, lateness: i64, late: LateCount, contents: C) -> Self {
        Self { windows, lateness, late, contents, emit: PhantomData }
    }

    /// The time of the timer that makes the window fire. A wall clock that shows the last millisecond may do so for more
    /// records; a watermark that does says that there are none.
    fn due(&self, window: Window) -> Timestamp {
        if self.windows.processing { Timestamp(window.end) } else { window.last() }
    }

    /// When what the window holds goes; `None`: never, its time is too far ahead.
    fn cleanup(&self, window: Window) -> Option<Timestamp> {
        let time = self.due(window).0.checked_add(self.lateness)?;
        (time != i64::MAX).then_some(Timestamp(time))
    }

    /// Whether the window is gone, or would be. By processing time a record is never behind the clock.
    fn is_over(&self, window: Window, watermark: Timestamp) -> bool {
        !self.windows.processing && self.cleanup(window).is_some_and(|cleanup| cleanup <= watermark)
    }

    fn register<K: Key, O>(&self, cx: Cx<'_, '_, K, O>, time: Timestamp) -> Result<(), StateError> {
        match self.windows.processing {
            true => cx.register_processing_timer(time),
            false => cx.register_timer(time),
        }
    }

    fn delete<K: Key, O>(&self, cx: Cx<'_, '_, K, O>, time: Timestamp) -> Result<(), StateError> {
        match self.windows.processing {
            true => cx.delete_processing_timer(time),
            false => cx.delete_timer(time),
        }
    }

    /// Notes a record that belongs to no window any more.
    fn drop_late<K: Key, T, R>(&self, cx: Cx<'_, '_, K, E::Out>, record: T)
    where
        E: Emit<R, T>,
    {
        self.late.add();
        if let Some(late) = E::late(record) {
            cx.emit(late);
        }
    }

    fn fire<K: Key, T>(&self, cx: Cx<'_, '_, K, E::Out>, window: Window) -> Result<(), UserError>
    where
        C: Contents<K, T>,
        E: Emit<C::Out, T>,
    {
        for result in self.contents.fire(cx, window)? {
            cx.emit_at(window.last(), E::result(result));
        }
        Ok(())
    }

    /// A record was added: fires if the watermark has passed the window, else when it will have.
    fn after_add<K: Key, T>(&self, cx: Cx<'_, '_, K, E::Out>, window: Window) -> Result<(), UserError>
    where
        C: Contents<K, T>,
        E: Emit<C::Out, T>,
    {
        if !self.windows.processing && window.last() <= cx.watermark() {
            self.fire(cx, window)?;
        } else {
            self.register(cx, self.due(window))?;
        }
        if let Some(cleanup) = self.cleanup(window) {
            self.register(cx, cleanup)?;
        }
        Ok(())
    }

    /// Makes one window of the record's own and those of the key that it meets. Returns it, unless it is over already.
    fn join<K: Key, T>(&self, cx: Cx<'_, '_, K, E::Out>, own: Window) -> Result<Option<Window>, UserError>
    where
        C: Contents<K, T>,
        E: Emit<C::Out, T>,
    {
        let (met, others): (Vec<_>, Vec<_>) = self.contents.windows(cx)?.into_iter().partition(|it| it.meets(own));
        let joined = met.iter().fold(own, |joined, window| joined.cover(*window));
        if self.is_over(joined, cx.watermark()) {
            return Ok(None);
        }
        if met.iter().any(|window| *window != joined) {
            self.contents.merge(cx, &met, joined)?;
            // Timers of a key have no other name than their time, which another window may share.
            let times = |window: &Window| [Some(self.due(*window)), self.cleanup(*window)].into_iter().flatten();
            let kept: Vec<Timestamp> = others.iter().chain([&joined]).flat_map(times).collect();
            for time in met.iter().flat_map(times).filter(|time| !kept.contains(time)) {
                self.delete(cx, time)?;
            }
        }
        Ok(Some(joined))
    }
}

impl<K, T, C, E> KeyedProcess<K, T> for WindowOperator<C, E>
where
    K: Key,
    T: Data + Clone,
    C: Contents<K, T>,
    E: Emit<C::Out, T>,
{
    type State = ();
    type Out = E::Out;

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        self.windows.check(self.lateness)?;
        Ok(self.contents.open(states)?)
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, K, (), E::Out>, record: T) -> Result<(), UserError> {
        let time = if self.windows.processing { Some(cx.processing_time()) } else { cx.timestamp() };
        let Some(time) = time else {
            let reason = "a record without event time came to a window: let the source give times to its records";
            return Err(NonRecoverable::new(reason).into());
        };
        let assigned = self.windows.assign(time);
        if let Kind::Session { .. } = self.windows.kind {
            let Some(joined) = self.join(cx, assigned[0])? else {
                self.drop_late(cx, record);
                return Ok(());
            };
            self.contents.add(cx, joined, record)?;
            return self.after_add(cx, joined);
        }
        let watermark = cx.watermark();
        let mut live = assigned.into_iter().filter(|window| !self.is_over(*window, watermark)).peekable();
        if live.peek().is_none() {
            // One that falls between two windows is not late.
            if time.0.saturating_add(self.lateness) <= watermark.0 {
                self.drop_late(cx, record);
            }
            return Ok(());
        }
        while let Some(window) = live.next() {
            if live.peek().is_none() {
                self.contents.add(cx, window, record)?;
                return self.after_add(cx, window);
            }
            self.contents.add(cx, window, record.clone())?;
            self.after_add(cx, window)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, K, (), E::Out>, time: Timestamp) -> Result<(), UserError> {
        for window in self.contents.windows(cx)? {
            if self.due(window) == time {
                self.fire(cx, window)?;
            }
            if self.cleanup(window) == Some(time) {
                self.contents.clear(cx, window)?;
            }
        }
        Ok(())
    }

    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, (), E::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        self.on_timer(cx, time)
    }
}
