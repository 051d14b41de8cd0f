use super::{Key, Kind, Support};

/// Sorted by name. Names, kinds, defaults and old names are those of Flink 2.3.0, but for `cutwater.` and `s3.allow-http`, which
/// are ours. Those of Flink below `s3.` are read by its plugins; among them are several spellings of one thing.
pub(crate) static KEYS: &[Key] = &[
    Key {
        name: "cutwater.object-store.deadline",
        kind: Kind::Duration,
        default: Some("30 s"),
        old: &[],
        support: Support::Built,
        description: "The longest that one operation on an object store may take with all its tries; at least 10 ms, and more than \
            a year is taken as one. Longer: a store that is away for a while fails no checkpoint, one that stays away is \
            told of later.",
    },
    Key {
        name: "cutwater.object-store.parallelism",
        kind: Kind::Integer,
        default: Some("16"),
        old: &[],
        support: Support::Built,
        description: "How many requests to an object store run at once; at least 1. More: faster where answers are slow to come, \
            more load on the store.",
    },
    Key {
        name: "cutwater.object-store.request-timeout",
        kind: Kind::Duration,
        default: Some("20 s"),
        old: &[],
        support: Support::Built,
        description: "The longest that a single request to an object store may take with its body; at least 10 ms, and more than a \
            year is taken as one. Shorter: a lost answer is asked for again sooner, and slow uploads are cut off.",
    },
    Key {
        name: "cutwater.object-store.upload-rate",
        kind: Kind::Memory,
        default: None,
        old: &[],
        support: Support::Built,
        description: "How many bytes a second are uploaded to an object store at the most; at least 1 byte, unlimited unless set. \
            Less: more room on the line for others, longer checkpoints.",
    },
    Key {
        name: "cutwater.restart.no-progress",
        kind: Kind::Choice(&["REPORT", "STOP"]),
        default: Some("REPORT"),
        old: &[],
        support: Support::Built,
        description: "What follows if the job restarts again and again without getting on: it is reported, or the job ends as \
            failed. No progress is that the same operator fails with the same error at the same place of the sources, or \
            that restores follow failures and no source gets any further, `cutwater.restart.no-progress-attempts` times \
            in a row. Kills of the process do not count.",
    },
    Key {
        name: "cutwater.restart.no-progress-attempts",
        kind: Kind::Integer,
        default: Some("3"),
        old: &[],
        support: Support::Built,
        description: "How many failures or restores in a row without progress it takes; at least 1. More: errors that mend \
            themselves get more time.",
    },
    Key {
        name: "cutwater.rocksdb.block-cache",
        kind: Kind::Memory,
        default: Some("256 mb"),
        old: &[],
        support: Support::Built,
        description: "How much memory RocksDB takes for blocks of its files, all subtasks of the process together; at least 1 mb. \
            More: fewer reads of the disk.",
    },
    Key {
        name: "cutwater.rocksdb.overlay",
        kind: Kind::Memory,
        default: Some("64 mb"),
        old: &[],
        support: Support::Built,
        description: "How much of each state by key of a subtask stays in memory in front of RocksDB, about: the values that were \
            used last; at least 1 mb. More: fewer accesses to RocksDB, which cost hundreds of times as much.",
    },
    Key {
        name: "cutwater.rocksdb.write-buffers",
        kind: Kind::Memory,
        default: Some("256 mb"),
        old: &[],
        support: Support::Built,
        description: "How much memory RocksDB takes for writes that are not in files yet, all subtasks of the process together; \
            at least 1 mb. More: fewer and larger files, less compaction.",
    },
    Key {
        name: "cutwater.savepoint.format",
        kind: Kind::Choice(&["CANONICAL", "NATIVE"]),
        default: Some("CANONICAL"),
        old: &[],
        support: Support::Built,
        description: "In which form savepoints store state by key: the one that every backend reads (`CANONICAL`), or the backend's \
            own files, where it has such (`NATIVE`), which are quick to make and to start from, by that backend alone.",
    },
    Key {
        name: "cutwater.state-recovery.fall-back",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::Built,
        description: "Whether a job whose checkpoint turns out to be damaged starts from the retained one before it; else it \
            ends as failed. Output of what came between is published once more. Needs \
            `execution.checkpointing.num-retained` of at least 2.",
    },
    Key {
        name: "execution.checkpointing.aligned-checkpoint-timeout",
        kind: Kind::Duration,
        default: Some("0 ms"),
        old: &["execution.checkpointing.alignment-timeout"],
        support: Support::NotBuilt { inert: Some("0 ms") },
        description: "After this time an aligned checkpoint goes on unaligned.",
    },
    Key {
        name: "execution.checkpointing.checkpoints-after-tasks-finish",
        kind: Kind::Boolean,
        default: Some("true"),
        old: &["execution.checkpointing.checkpoints-after-tasks-finish.enabled"],
        support: Support::Built,
        description: "Whether checkpoints go on when some subtasks have reached the end of their input.",
    },
    Key {
        name: "execution.checkpointing.cleaner.parallel-mode",
        kind: Kind::Boolean,
        default: Some("true"),
        old: &["state.checkpoint.cleaner.parallel-mode"],
        support: Support::NoMeaning,
        description: "Whether Flink deletes the files of a checkpoint in parallel.",
    },
    Key {
        name: "execution.checkpointing.create-subdir",
        kind: Kind::Boolean,
        default: Some("true"),
        old: &["state.checkpoints.create-subdir"],
        support: Support::NotBuilt { inert: Some("true") },
        description: "Whether each job has a folder of its own below the checkpoint folder. Cutwater always makes one.",
    },
    Key {
        name: "execution.checkpointing.data-inline-threshold",
        kind: Kind::Memory,
        default: Some("20 kb"),
        old: &["state.storage.fs.memory-threshold", "state.backend.fs.memory-threshold"],
        support: Support::Built,
        description: "A state file smaller than this is kept within the record of its checkpoint instead of as a file or \
            object of its own: of small state, a checkpoint is one object. At most 1 mb; 0 for none. With many subtasks \
            less, so that all of it is at most 4 mb.",
    },
    Key {
        name: "execution.checkpointing.dir",
        kind: Kind::Text,
        default: None,
        old: &["state.checkpoints.dir", "state.backend.fs.checkpointdir"],
        support: Support::Built,
        description: "The folder that checkpoints are written to, as a path or `file:` URI.",
    },
    Key {
        name: "execution.checkpointing.during-recovery.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Checkpoints while channel state is still being restored.",
    },
    Key {
        name: "execution.checkpointing.externalized-checkpoint-retention",
        kind: Kind::Choice(&["DELETE_ON_CANCELLATION", "RETAIN_ON_CANCELLATION", "NO_EXTERNALIZED_CHECKPOINTS"]),
        default: Some("RETAIN_ON_CANCELLATION"),
        old: &[],
        support: Support::Built,
        description: "What becomes of checkpoints when the job ends. `RETAIN_ON_CANCELLATION` keeps them, so that the same \
            command resumes (Flink's default deletes them, and after a job has finished it always does). \
            `DELETE_ON_CANCELLATION` keeps them if the job failed or was stopped to go on later. \
            `NO_EXTERNALIZED_CHECKPOINTS` deletes them, but for a stop without a savepoint. Savepoints and published \
            output stay.",
    },
    Key {
        name: "execution.checkpointing.file-merging.across-checkpoint-boundary",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NoMeaning,
        description: "File merging: files that several checkpoints share.",
    },
    Key {
        name: "execution.checkpointing.file-merging.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Many state files in one.",
    },
    Key {
        name: "execution.checkpointing.file-merging.max-file-size",
        kind: Kind::Memory,
        default: Some("32 mb"),
        old: &[],
        support: Support::NoMeaning,
        description: "File merging: the largest file.",
    },
    Key {
        name: "execution.checkpointing.file-merging.max-space-amplification",
        kind: Kind::Double,
        default: Some("2.0"),
        old: &[],
        support: Support::NoMeaning,
        description: "File merging: how much dead space is borne.",
    },
    Key {
        name: "execution.checkpointing.file-merging.max-subtasks-per-file",
        kind: Kind::Integer,
        default: Some("4"),
        old: &[],
        support: Support::NoMeaning,
        description: "File merging: how many subtasks share a file.",
    },
    Key {
        name: "execution.checkpointing.file-merging.pool-blocking",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NoMeaning,
        description: "File merging: whether to wait for a free file.",
    },
    Key {
        name: "execution.checkpointing.incremental",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["state.backend.incremental"],
        support: Support::Built,
        description: "Whether checkpoints hold only what has changed since the one before, when that pays. (In Flink for RocksDB alone; \
            here for every backend.)",
    },
    Key {
        name: "execution.checkpointing.interval",
        kind: Kind::Duration,
        default: None,
        old: &[],
        support: Support::Built,
        description: "From the start of one checkpoint to the start of the next; at least 10 ms; unset or 0: no \
            checkpoints. Longer: fewer writes to the store, more to do again after a failure. Raised to the \
            minimum pause if shorter.",
    },
    Key {
        name: "execution.checkpointing.interval-during-backlog",
        kind: Kind::Duration,
        default: None,
        old: &[],
        support: Support::NotBuilt { inert: None },
        description: "The interval while a source works off a backlog.",
    },
    Key {
        name: "execution.checkpointing.local-backup.dirs",
        kind: Kind::Text,
        default: None,
        old: &["taskmanager.state.local.root-dirs"],
        support: Support::Built,
        description: "Folders for the copies of `execution.checkpointing.local-backup.enabled`, with `,` between; each gets a \
            folder with the job's name. Only copies in such folders outlive the process. Unset: a temporary folder, which goes \
            with the job.",
    },
    Key {
        name: "execution.checkpointing.local-backup.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["state.backend.local-recovery"],
        support: Support::Built,
        description: "Copies snapshot files to a disk of this machine too, beside the upload and never holding it up. They take as \
            much room there as a checkpoint, or two. Unset: as `execution.state-recovery.from-local`.",
    },
    Key {
        name: "execution.checkpointing.max-concurrent-checkpoints",
        kind: Kind::Integer,
        default: Some("1"),
        old: &[],
        support: Support::Built,
        description: "How many checkpoints may be under way at once: the next begins while the one before is still being written.",
    },
    Key {
        name: "execution.checkpointing.min-pause",
        kind: Kind::Duration,
        default: Some("0 ms"),
        old: &[],
        support: Support::Built,
        description: "The least time from the end of one checkpoint to the start of the next; at most a year. Longer: \
            the job gets more time of its own, checkpoints come more seldom than the interval says.",
    },
    Key {
        name: "execution.checkpointing.mode",
        kind: Kind::Choice(&["EXACTLY_ONCE", "AT_LEAST_ONCE"]),
        default: Some("EXACTLY_ONCE"),
        old: &[],
        support: Support::Built,
        description: "Whether a subtask holds back channels whose barrier has arrived until all have theirs. \
            `AT_LEAST_ONCE` never holds back, and may count records twice after a restart.",
    },
    Key {
        name: "execution.checkpointing.num-retained",
        kind: Kind::Integer,
        default: Some("1"),
        old: &["state.checkpoints.num-retained"],
        support: Support::Built,
        description: "How many completed checkpoints are kept; at least 1. More: more ways back, more space.",
    },
    Key {
        name: "execution.checkpointing.region.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Checkpoints of a part of the job (Flink 2.4).",
    },
    Key {
        name: "execution.checkpointing.savepoint-dir",
        kind: Kind::Text,
        default: None,
        old: &["state.savepoints.dir", "savepoints.state.backend.fs.dir"],
        support: Support::Built,
        description: "The folder below which savepoints get folders of their own, also those that a signal asks for.",
    },
    Key {
        name: "execution.checkpointing.snapshot-compression",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::Built,
        description: "Whether state files are compressed, with Zstandard at level 1 (Flink: Snappy). Worth it on a store \
            that is slower than some 350 MB/s a core, or that costs by the byte.",
    },
    Key {
        name: "execution.checkpointing.storage",
        kind: Kind::Choice(&["jobmanager", "filesystem"]),
        default: None,
        old: &["state.checkpoint-storage"],
        support: Support::Built,
        description: "`filesystem` writes checkpoints to `execution.checkpointing.dir`; `jobmanager` keeps them in \
            memory, where they survive a restart of the job and not one of the process. Unset: `filesystem` \
            if a folder is set.",
    },
    Key {
        name: "execution.checkpointing.timeout",
        kind: Kind::Duration,
        default: Some("10 min"),
        old: &[],
        support: Support::Built,
        description: "A checkpoint that takes longer is given up; at least 10 ms. Longer: slow checkpoints get \
            through, a stuck one is noticed later.",
    },
    Key {
        name: "execution.checkpointing.tolerable-failed-checkpoints",
        kind: Kind::Integer,
        default: Some("0"),
        old: &[],
        support: Support::Built,
        description: "How many checkpoints in a row may fail before the job fails; 2147483647 is as good as unlimited. \
            Larger: a slow store stops nobody, and the last good checkpoint grows older unnoticed.",
    },
    Key {
        name: "execution.checkpointing.unaligned.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["execution.checkpointing.unaligned"],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Barriers overtake waiting records, which become a part of the checkpoint.",
    },
    Key {
        name: "execution.checkpointing.unaligned.forced",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Unaligned where Flink would refuse it.",
    },
    Key {
        name: "execution.checkpointing.unaligned.interruptible-timers.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Unaligned checkpoints between two timers.",
    },
    Key {
        name: "execution.checkpointing.unaligned.max-subtasks-per-channel-state-file",
        kind: Kind::Integer,
        default: Some("5"),
        old: &[],
        support: Support::NoMeaning,
        description: "Unaligned: how many subtasks share a file.",
    },
    Key {
        name: "execution.checkpointing.unaligned.recover-output-on-downstream.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Unaligned: output is restored as input of the next operator.",
    },
    Key {
        name: "execution.checkpointing.write-buffer-size",
        kind: Kind::Integer,
        default: Some("4096"),
        old: &["state.storage.fs.write-buffer-size", "state.backend.fs.write-buffer-size"],
        support: Support::NoMeaning,
        description: "The buffer of Flink's file streams.",
    },
    Key {
        name: "execution.state-recovery.approximate-local-recovery",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["execution.checkpointing.approximate-local-recovery"],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Restart a failed subtask alone and lose records.",
    },
    Key {
        name: "execution.state-recovery.claim-mode",
        kind: Kind::Choice(&["CLAIM", "NO_CLAIM", "LEGACY"]),
        default: Some("NO_CLAIM"),
        old: &["execution.savepoint-restore-mode"],
        support: Support::Built,
        description: "Who owns the savepoint that a job started from: the job deletes it when it has checkpoints of its own \
            (`CLAIM`), or leaves it alone (`NO_CLAIM`). `LEGACY` is not offered.",
    },
    Key {
        name: "execution.state-recovery.from-local",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::Built,
        description: "Reads state from the copies on this machine, where they are there and exactly the files that the checkpoint \
            names; all else from the store. `state.backend.local-recovery` sets this and \
            `execution.checkpointing.local-backup.enabled`.",
    },
    Key {
        name: "execution.state-recovery.ignore-unclaimed-state",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["execution.savepoint.ignore-unclaimed-state"],
        support: Support::Built,
        description: "Leave out state that no operator asks for; else such a start is refused. In code single operators can \
            be named.",
    },
    Key {
        name: "execution.state-recovery.path",
        kind: Kind::Text,
        default: None,
        old: &["execution.savepoint.path"],
        support: Support::Built,
        description: "The savepoint to start from, or the folder of another job's checkpoints. If the job has gone on from it \
            before, its own newest checkpoint wins.",
    },
    Key {
        name: "execution.state-recovery.without-channel-state.checkpoint-id",
        kind: Kind::Integer,
        default: Some("-1"),
        old: &["execution.checkpointing.recover-without-channel-state.checkpoint-id"],
        support: Support::NotBuilt { inert: Some("-1") },
        description: "Restore this checkpoint without its channel state.",
    },
    Key {
        name: "jobmanager.execution.failover-strategy",
        kind: Kind::Choice(&["region", "full"]),
        default: Some("region"),
        old: &[],
        support: Support::NoMeaning,
        description: "Which part of a job Flink restarts after a failure. Cutwater restarts all of it, in milliseconds.",
    },
    Key {
        name: "jobmanager.scheduler",
        kind: Kind::Choice(&["Default", "Adaptive", "AdaptiveBatch"]),
        default: Some("Default"),
        old: &[],
        support: Support::NotBuilt { inert: Some("Default") },
        description: "Whether the parallelism follows what a cluster has to give. Here a job gets another one when it is \
            started again with another `parallelism.default`.",
    },
    Key {
        name: "parallelism.default",
        kind: Kind::Integer,
        default: None,
        old: &[],
        support: Support::Built,
        description: "The number of subtasks of each operator; from 1 to the maximum parallelism. Unset: the program \
            decides.",
    },
    Key {
        name: "pipeline.max-parallelism",
        kind: Kind::Integer,
        default: Some("-1"),
        old: &[],
        support: Support::Built,
        description: "The number of key groups, and so the largest parallelism the job can ever have; from 1 to 32768; \
            -1: not set. It can't change once there is a checkpoint.",
    },
    Key {
        name: "pipeline.name",
        kind: Kind::Text,
        default: None,
        old: &[],
        support: Support::Built,
        description: "The name of the job, which is also the folder of its checkpoints below the checkpoint folder: 1 to 200 \
            letters, digits, `-`, `_` or `.`, a letter or digit first. Unset: the name that the program gave it.",
    },
    Key {
        name: "pipeline.sources.pause-until-first-checkpoint",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &[],
        support: Support::NotBuilt { inert: Some("false") },
        description: "Sources wait until the first checkpoint after a start has completed.",
    },
    Key {
        name: "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        kind: Kind::Integer,
        default: Some("2147483647"),
        old: &[],
        support: Support::Built,
        description: "How many failures in a row are forgiven; at least 1.",
    },
    Key {
        name: "restart-strategy.exponential-delay.backoff-multiplier",
        kind: Kind::Double,
        default: Some("1.5"),
        old: &[],
        support: Support::Built,
        description: "By what the delay grows from failure to failure; above 1.",
    },
    Key {
        name: "restart-strategy.exponential-delay.initial-backoff",
        kind: Kind::Duration,
        default: Some("1 s"),
        old: &[],
        support: Support::Built,
        description: "The first delay; at least 1 ms.",
    },
    Key {
        name: "restart-strategy.exponential-delay.jitter-factor",
        kind: Kind::Double,
        default: Some("0.1"),
        old: &[],
        support: Support::Built,
        description: "The part of a delay by which it varies at random; from 0 to 1.",
    },
    Key {
        name: "restart-strategy.exponential-delay.max-backoff",
        kind: Kind::Duration,
        default: Some("1 min"),
        old: &[],
        support: Support::Built,
        description: "The longest delay; at least the first.",
    },
    Key {
        name: "restart-strategy.exponential-delay.reset-backoff-threshold",
        kind: Kind::Duration,
        default: Some("1 h"),
        old: &[],
        support: Support::Built,
        description: "After running this long the next failure counts as the first; at least 1 ms.",
    },
    Key {
        name: "restart-strategy.failure-rate.delay",
        kind: Kind::Duration,
        default: Some("1 s"),
        old: &[],
        support: Support::Built,
        description: "From a failure to the restart.",
    },
    Key {
        name: "restart-strategy.failure-rate.failure-rate-interval",
        kind: Kind::Duration,
        default: Some("1 min"),
        old: &[],
        support: Support::Built,
        description: "The interval in which failures are counted; above 0. Longer: sooner given up.",
    },
    Key {
        name: "restart-strategy.failure-rate.max-failures-per-interval",
        kind: Kind::Integer,
        default: Some("1"),
        old: &[],
        support: Support::Built,
        description: "How many failures an interval may hold; at least 1.",
    },
    Key {
        name: "restart-strategy.fixed-delay.attempts",
        kind: Kind::Integer,
        default: Some("1"),
        old: &[],
        support: Support::Built,
        description: "How many failures are forgiven in the whole life of the job.",
    },
    Key {
        name: "restart-strategy.fixed-delay.delay",
        kind: Kind::Duration,
        default: Some("1 s"),
        old: &[],
        support: Support::Built,
        description: "From a failure to the restart.",
    },
    Key {
        name: "restart-strategy.type",
        kind: Kind::Text,
        default: None,
        old: &["restart-strategy"],
        support: Support::Built,
        description: "Whether and when a failed job starts again: `none` (`off`, `disable`), `fixed-delay`, `failure- \
            rate` or `exponential-delay`. Unset: with checkpoints on, a fixed delay of 1 s and 2147483647 \
            attempts; with checkpoints off, none. The options below are read only from the level that sets \
            the type.",
    },
    Key {
        name: "s3.access-key",
        kind: Kind::Text,
        default: None,
        old: &["s3.access.key"],
        support: Support::Built,
        description: "The access key for `s3://`; with `s3.secret-key`. Unset: both come from where other programs have them, \
            `AWS_ACCESS_KEY_ID` and so on.",
    },
    Key {
        name: "s3.allow-http",
        kind: Kind::Boolean,
        default: None,
        old: &[],
        support: Support::Built,
        description: "Whether an endpoint on another machine may be reached without TLS, where everybody on the way can read and \
            change the state. Unset: `AWS_ALLOW_HTTP` says.",
    },
    Key {
        name: "s3.endpoint",
        kind: Kind::Text,
        default: None,
        old: &[],
        support: Support::Built,
        description: "Where the service behind `s3://` is, as `https://HOST:PORT`. Unset: `AWS_ENDPOINT_URL_S3`, \
            `AWS_ENDPOINT_URL` or `~/.aws/config` say, else it is Amazon's.",
    },
    Key {
        name: "s3.path-style-access",
        kind: Kind::Boolean,
        default: None,
        old: &["s3.path.style.access", "s3.path-style"],
        support: Support::Built,
        description: "Whether the bucket stands in the path of a URL, not in the name of the host. Unset: if there is an endpoint, \
            or the name of the bucket has a dot.",
    },
    Key {
        name: "s3.region",
        kind: Kind::Text,
        default: None,
        old: &["s3.endpoint.region"],
        support: Support::Built,
        description: "The region of the bucket. Unset: `AWS_REGION`, `AWS_DEFAULT_REGION` or `~/.aws/config` say, else it is `us- \
            east-1`.",
    },
    Key {
        name: "s3.secret-key",
        kind: Kind::Secret,
        default: None,
        old: &["s3.secret.key"],
        support: Support::Built,
        description: "The secret key that belongs to `s3.access-key`. It is never shown. A file that holds it should be readable \
            by the job alone.",
    },
    Key {
        name: "scheduler-mode",
        kind: Kind::Choice(&["REACTIVE"]),
        default: None,
        old: &[],
        support: Support::NotBuilt { inert: None },
        description: "A cluster whose jobs always use all of it.",
    },
    Key {
        name: "state.backend.rocksdb.localdir",
        kind: Kind::Text,
        default: None,
        old: &[],
        support: Support::Built,
        description: "The folder on a local disk for the databases of RocksDB; they go when the job ends. Unset: a folder of its \
            own where temporary files go.",
    },
    Key {
        name: "state.backend.type",
        kind: Kind::Text,
        default: Some("hashmap"),
        old: &["state.backend"],
        support: Support::Built,
        description: "Where keyed state lives: `hashmap` (or `memory`); `rocksdb` keeps values that were not used for a while on \
            a local disk, which needs a program with the feature `rocksdb`.",
    },
    Key {
        name: "state.changelog.enabled",
        kind: Kind::Boolean,
        default: Some("false"),
        old: &["state.backend.changelog.enabled"],
        support: Support::NotBuilt { inert: Some("false") },
        description: "State changes in a log of their own between checkpoints.",
    },
    Key {
        name: "web.checkpoints.history",
        kind: Kind::Integer,
        default: Some("10"),
        old: &["jobmanager.web.checkpoints.history"],
        support: Support::Built,
        description: "How many of the newest checkpoints, completed and failed, the status of a job and the statistics \
            beside its checkpoints hold; 0 to 1000, and more is taken as 1000. More: a longer past to compare with, \
            more to write.",
    },
    Key {
        name: "web.exception-history-size",
        kind: Kind::Integer,
        default: Some("16"),
        old: &[],
        support: Support::Built,
        description: "How many of the newest failures the status of a job holds; 0 to 1000, and more is taken as 1000.",
    },
];
