use cutwater_core::OperatorUid;

/// Why a state of an operator could not be declared or reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatesError {
    /// Two states of one operator have the same name.
    #[error("operator {operator} has two states named {name}: {first}, and {second}: give one another name")]
    DuplicateName {
        /// The operator.
        operator: OperatorUid,
        /// The name.
        name: String,
        /// What the first one is.
        first: String,
        /// What the second one is.
        second: String,
    },
    /// A name that can't be one.
    #[error("operator {operator}: {name:?} is no name for a state: it needs 1 to 200 bytes without control characters")]
    Name {
        /// The operator.
        operator: OperatorUid,
        /// The name.
        name: String,
    },
    /// A time-to-live below a millisecond.
    #[error("state {name} of {operator} has a time-to-live of less than a millisecond")]
    Ttl {
        /// The operator.
        operator: OperatorUid,
        /// The state.
        name: String,
    },
    /// More states than an operator can have.
    #[error("operator {operator} declares more than {most} states: use a map with several entries instead")]
    TooMany {
        /// The operator.
        operator: OperatorUid,
        /// How many it can have.
        most: usize,
    },
    /// A handle that was not declared, or in another operator.
    #[error("{handle} was not declared by this operator: declare it in `open` and keep what that returns")]
    Undeclared {
        /// The type of the handle.
        handle: &'static str,
    },
}
