use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use cutwater_core::{EdgeId, Moment, SubtaskId};
use timely::WorkerConfig;
use timely::communication::allocator::zero_copy::bytes_slab::BytesRefill;
use timely::communication::allocator::{ProcessBuilder, Thread};
use timely::communication::{Allocator, Pull, Push};
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::Activator;
use timely::worker::Worker;

use super::envelope::{Credit, Envelope, Route};
use super::incarnation::{Shared, Stop};
use super::layout::{Plan, TaskPlan};
use super::operator::{Input, Operator, Port, Remote, Slot};
use super::seam::Core;

/// The longest sleep of an idle worker. Everything that matters wakes it; this is for what was forgotten.
const LONGEST_PARK: Duration = Duration::from_millis(500);

/// One worker's part of Timely's channels between threads; none if there is only one worker.
pub(super) struct Wires(Option<ProcessBuilder>);

impl Wires {
    pub(super) fn for_all(workers: usize) -> Vec<Self> {
        if workers == 1 {
            return vec![Self(None)];
        }
        // Buffers are for bytes; values moved within the process need none.
        let refill = BytesRefill { logic: Arc::new(|size| Box::new(vec![0_u8; size])), limit: None };
        ProcessBuilder::new_typed_vector(workers, refill, None).into_iter().map(|one| Self(Some(one))).collect()
    }

    /// Waits for the other workers to do the same. Panics if one of them never will.
    fn connect(self) -> Allocator {
        self.0.map_or_else(|| Allocator::Thread(Thread::default()), |one| Allocator::Process(one.build()))
    }
}

/// A command on its way: for the core in `slot` of the operator of the plan's task number `operator`.
pub(super) struct Note<M> {
    pub(super) operator: usize,
    pub(super) slot: u32,
    pub(super) command: M,
}

/// All that one worker starts with.
pub(super) struct Seat<C: Core, F> {
    pub(super) worker: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: F,
    pub(super) wires: Wires,
    pub(super) inbox: Receiver<Note<C::Command>>,
    pub(super) cores: BTreeMap<SubtaskId, C>,
}

impl<C: Core, F: Fn() -> Moment + Clone + 'static> Seat<C, F> {
    /// The life of a worker: until all cores of all workers are done, or until an abort. To be called inside `catch`:
    /// Timely's Worker has to be made and dropped there.
    #[expect(clippy::disallowed_methods, reason = "Timely wants the instant from which its own delays count")]
    pub(super) fn run(self) {
        let Self { worker: index, plan, shared, clock, wires, inbox, mut cores } = self;
        let mut worker = Worker::new(WorkerConfig::default(), wires.connect(), Some(Instant::now()));
        let build = Build { worker: index, plan: &plan, shared: &shared, clock: &clock };
        let operators = worker.dataflow::<(), _, _>(|scope| build.all(scope, &mut cores));
        while shared.stop() == Stop::NotRequested {
            for Note { operator, slot, command } in inbox.try_iter() {
                let (remote, activator) = &operators[operator];
                remote.commands.borrow_mut().push_back((slot, command));
                activator.activate();
            }
            if !worker.step_or_park(Some(wake_due(&operators, &clock))) {
                break; // the dataflow is complete: on all workers every core is done
            }
        }
    }
}

type Operators<M> = Vec<(Rc<Remote<M>>, Activator)>;

/// Activates the operators whose deadline has passed; how long the worker may sleep for the sake of the others.
fn wake_due<M>(operators: &Operators<M>, clock: &impl Fn() -> Moment) -> Duration {
    let earliest = operators.iter().map(|(remote, _)| remote.deadline.get()).min().unwrap_or(Moment::MAX);
    if earliest == Moment::MAX {
        return LONGEST_PARK; // without deadlines there is no need to know the time
    }
    let now = clock();
    for (_, activator) in operators.iter().filter(|(remote, _)| remote.deadline.get() <= now) {
        activator.activate();
    }
    earliest.since(now).min(LONGEST_PARK)
}

/// Building the dataflow. All workers build the same operators and channels in the same order, whatever they host, since
/// Timely counts them to know which belong together.
struct Build<'a, F> {
    worker: usize,
    plan: &'a Plan,
    shared: &'a Arc<Shared>,
    clock: &'a F,
}

/// What the sender's operator of an edge leaves for the receiver's, which is built later.
struct HalfEdge<'scope, E: Send + 'static> {
    stream: Stream<'scope, (), Envelope<E>>,
    credits: Vec<Box<dyn Push<Credit>>>,
}

type HalfEdges<'scope, E> = BTreeMap<EdgeId, HalfEdge<'scope, E>>;

impl<F: Fn() -> Moment + Clone + 'static> Build<'_, F> {
    fn all<C: Core>(&self, scope: Scope<'_, ()>, cores: &mut BTreeMap<SubtaskId, C>) -> Operators<C::Command> {
        let mut edges = BTreeMap::new();
        self.plan.tasks.iter().map(|task| self.operator(scope, task, &mut edges, cores)).collect()
    }

    fn operator<'scope, C: Core>(
        &self,
        scope: Scope<'scope, ()>,
        task: &TaskPlan,
        edges: &mut HalfEdges<'scope, C::Element>,
        cores: &mut BTreeMap<SubtaskId, C>,
    ) -> (Rc<Remote<C::Command>>, Activator) {
        let mut builder = OperatorBuilder::new(task.task.to_string(), scope);
        let (inputs, channels) = inputs(&mut builder, task, edges);
        let ports = ports(&mut builder, scope, task, edges);
        let local = |index: &u32| task.placement.worker(*index) == self.worker;
        let slots = (0..task.placement.parallelism).filter(local).map(|index| {
            let subtask = SubtaskId { task: task.task, index };
            let core = cores.remove(&subtask).expect("each worker was given the cores placed on it");
            Slot::new(subtask, core, channels)
        });
        let activator = scope.activator_for(builder.operator_info().address);
        let remote = Rc::new(Remote { commands: Default::default(), deadline: Moment::MAX.into() });
        let mut operator = Operator {
            worker: self.worker,
            shared: Arc::clone(self.shared),
            clock: self.clock.clone(),
            activator: activator.clone(),
            remote: Rc::clone(&remote),
            placement: task.placement,
            slots: slots.collect(),
            inputs,
            ports,
            capabilities: Vec::new(),
            out: Vec::new(),
        };
        builder.build_reschedule(|capabilities| {
            operator.capabilities = capabilities;
            move |_| operator.activate()
        });
        (remote, activator)
    }
}

/// The inputs of a task and how many channels they are.
fn inputs<'scope, E: Send + 'static>(
    builder: &mut OperatorBuilder<'scope, ()>,
    task: &TaskPlan,
    edges: &mut HalfEdges<'scope, E>,
) -> (Vec<Input<E>>, u32) {
    let mut base = 0;
    let mut inputs = Vec::with_capacity(task.inputs.len());
    for &(edge, senders) in &task.inputs {
        let HalfEdge { stream, credits } = edges.remove(&edge).expect("edges point forward in the plan");
        let receivers = task.placement;
        let elements = builder.new_input(stream, DistributorPact(move |_| Route(receivers)));
        inputs.push(Input { elements, base, senders, credits });
        base += senders.parallelism;
    }
    (inputs, base)
}

/// The outputs of a task. Credit comes back over a raw channel, addressed to this operator: a message in it wakes it.
fn ports<'scope, E: Send + 'static>(
    builder: &mut OperatorBuilder<'scope, ()>,
    scope: Scope<'scope, ()>,
    task: &TaskPlan,
    edges: &mut HalfEdges<'scope, E>,
) -> Vec<Port<E>> {
    let mut ports = Vec::with_capacity(task.outputs.len());
    for &(edge, receivers) in &task.outputs {
        let (elements, stream) = builder.new_output();
        let worker = scope.worker();
        let (pushers, credits): (_, Box<dyn Pull<Credit>>) =
            worker.allocate(worker.new_identifier(), builder.operator_info().address);
        edges.insert(edge, HalfEdge { stream, credits: pushers });
        ports.push(Port { edge, receivers, elements, credits, sent: false });
    }
    ports
}
