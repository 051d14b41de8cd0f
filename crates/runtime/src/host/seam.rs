use cutwater_core::{ChannelId, EdgeId, Moment, SubtaskId};

/// What a host runs: one subtask, without threads, clock or channels.
///
/// All calls come from one worker thread, one at a time. Those that hand something over (`handle_*`) only note it; the
/// work happens in [`Core::run`]. A panic out of `run` is taken for one of user code, see [`Core::panicked`]; a panic out
/// of any other method ends the incarnation. The core is dropped on its worker thread, and a panic of that is ignored.
pub trait Core: Send + 'static {
    /// What travels from subtask to subtask; moved between threads as it is, never serialised.
    type Element: Send + 'static;
    /// What the driver tells a subtask.
    type Command: Send + 'static;

    /// Which subtask this is. Asked once, at the start.
    fn subtask(&self) -> SubtaskId;
    /// An element arrived. Those of one channel come in the order sent.
    fn handle_element(&mut self, now: Moment, channel: ChannelId, element: Self::Element);
    /// The receiver at the other end of `output` gives back credit for `bytes`. May be the sum of several returns.
    fn handle_credit(&mut self, output: OutputChannel, bytes: u64);
    /// The driver sent a command. Those of one sending thread come in the order sent.
    fn handle_command(&mut self, now: Moment, command: Self::Command);
    /// Works for one bounded quantum (about one batch) and appends to `out`, which is empty, what is to be sent. First
    /// called at the start, then whenever something was handed over, a deadline passed, or the last answer was
    /// [`Progress::Busy`]; spurious calls are possible.
    ///
    /// What it had put into `out` before a panic is not sent.
    fn run(&mut self, now: Moment, out: &mut Vec<Output<Self::Element>>) -> Progress;
    /// Whether the last quantum ended in the midst of something after which it may be the turn of other cores, and not before.
    fn is_amid(&self) -> bool {
        false
    }
    /// When to call [`Core::run`] at the latest, whether or not something arrives. Asked after each `run`. One that is not
    /// after that `run`'s `now` although the core is idle is taken for a millisecond later, so that nothing spins.
    fn next_deadline(&self) -> Option<Moment>;
    /// Code called by [`Core::run`] panicked with `message`, at `location` (`file:line:column`; unknown if the panic was
    /// resumed rather than begun). The core reports it; nothing else is called any more, while the other cores go on.
    fn panicked(&mut self, message: String, location: Option<String>);
}

/// One effect of [`Core::run`], performed in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<E> {
    /// Send `element` along one of the subtask's outputs.
    Send {
        /// Where to.
        output: OutputChannel,
        /// What.
        element: E,
    },
    /// Give the sender of an input channel credit back.
    Credit {
        /// The channel whose elements were processed.
        channel: ChannelId,
        /// For how much, in whatever measure sender and receiver agree on; zero is not sent.
        bytes: u64,
    },
}

/// What a core expects after a quantum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do: run again soon, after the others have had their turn.
    Busy,
    /// Nothing to do until an element, a credit or a command arrives, or the deadline passes.
    Idle,
    /// The subtask has ended: it is dropped, and what still arrives for it with it.
    Done,
}

/// One way out of a subtask: to one receiving subtask of one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputChannel {
    /// The edge, one of the task's outputs.
    pub edge: EdgeId,
    /// Index of the receiving subtask, below the receiving task's parallelism.
    pub to: u32,
}
