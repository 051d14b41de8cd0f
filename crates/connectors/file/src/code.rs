use crate::FileError;

impl FileError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "FIL0001",
            Self::NotAFile { .. } => "FIL0002",
            Self::Read { .. } => "FIL0003",
            Self::Corrupt { .. } => "FIL0004",
            Self::Truncated { .. } => "FIL0005",
            Self::NoHeader { .. } => "FIL0006",
            Self::TooLong { .. } => "FIL0007",
            Self::Unclosed { .. } => "FIL0008",
            Self::Fields { .. } => "FIL0009",
            Self::MissingColumn { .. } => "FIL0010",
            Self::BadField { .. } => "FIL0011",
            Self::BadRecord { .. } => "FIL0012",
            Self::Utf8 { .. } => "FIL0013",
            Self::Changed { .. } => "FIL0014",
            Self::UnknownSplit { .. } => "FIL0015",
            Self::BadFiles { .. } => "FIL0016",
            Self::Output { .. } => "FIL0017",
            Self::BadNames { .. } => "FIL0018",
            Self::InTheWay { .. } => "FIL0019",
            Self::BadHandle { .. } => "FIL0020",
            Self::Gone { .. } => "FIL0021",
            Self::Conflict { .. } => "FIL0022",
            Self::BadJson { .. } => "FIL0023",
            Self::CantFollow { .. } => "FIL0024",
            Self::NotAppended { .. } => "FIL0025",
            Self::Connect { .. } => "FIL0026",
            Self::Receive { .. } => "FIL0027",
            Self::SocketLine { .. } => "FIL0028",
        }
    }
}
