//! How a seed draws the parts of a world.

use super::{Copied, Images, Joined, Pipeline, Rates, Restart, Retention, StageKind, WorldConfig};
use crate::random::Random;

/// About what is typical.
pub(super) fn scale(typical: u16, random: &mut Random) -> u16 {
    let percent = random.one_of(&[30, 100, 100, 300]);
    u16::try_from((u32::from(typical) * percent).div_ceil(100)).unwrap_or(u16::MAX)
}

/// What becomes of checkpoints at the end, and whether the job may go back past a damaged one; by dice of their own too.
pub(super) fn draw_ending(random: &mut Random) -> (Retention, bool) {
    let retention = match random.below(100) {
        0..70 => Retention::Retain,
        70..85 => Retention::DeleteOnCancellation,
        _ => Retention::Never,
    };
    (retention, random.percent(30))
}

/// Puts tiers below the tables of some worlds, by dice of its own too. So little stays in memory that most entries go to the
/// tier and come back with each batch, there may be more keys, snapshots are taken more often and given up sooner, and come in many
/// small parts, each of which may have to be in the tier before the next one comes. More restores fail or go back further, so that
/// tiers are filled anew more often.
pub(super) fn draw_tiers(random: &mut Random, drawn: WorldConfig) -> WorldConfig {
    if drawn.deltas || !random.percent(40) {
        return drawn;
    }
    let overlay = random.one_of(&[1, 1, 60, 200]);
    // In half of the worlds all processes have them, in the others some.
    let share = random.one_of(&[100, 60]);
    let tiers = (0..4).map(|_| random.percent(share).then_some(overlay)).collect();
    let more_keys = random.percent(50);
    let keys = |pipeline: Pipeline| match more_keys {
        true => Pipeline { keys: random.between(10, 30), ..pipeline },
        false => pipeline,
    };
    let pipelines = drawn.pipelines.into_iter().map(keys).collect();
    let mut rate = |typical| if random.percent(40) { 0 } else { scale(typical, random) };
    let (tier_read, tier_write, tier_stall, restore_fails) = (rate(15), rate(15), rate(1_500), rate(2_000));
    let rates = Rates { tier_read, tier_write, tier_stall, restore_fails, ..drawn.rates };
    WorldConfig {
        tiers,
        pipelines,
        rates,
        sweep_step_bytes: random.one_of(&[1, 24, drawn.sweep_step_bytes]),
        unwritten_limit_bytes: random.one_of(&[1, 48, drawn.unwritten_limit_bytes]),
        interval_us: random.between(500, 3_000),
        timeout_us: random.one_of(&[3_000, 3_000, drawn.timeout_us]),
        retained: random.one_of(&[2, 3, drawn.retained]),
        fall_back: drawn.fall_back || random.percent(40),
        // There are more checkpoints on the way to the end, and each takes more steps.
        healed_steps: 2 * drawn.healed_steps,
        ..drawn
    }
}

/// Gives the tiers of some worlds files of their own form, by dice of its own too, and all processes tiers. Faults come longer, and
/// there are more restarts and savepoints, so that more is restored.
pub(super) fn draw_images(random: &mut Random, drawn: WorldConfig) -> WorldConfig {
    let Some(overlay) = drawn.tiers.iter().copied().flatten().next().filter(|_| random.percent(60)) else {
        return drawn;
    };
    // In most worlds all processes use them, in the others some.
    let share = random.one_of(&[100, 100, 60]);
    let images = Images {
        checkpoints: (0..4).map(|_| random.percent(share)).collect(),
        savepoints: random.percent(50),
        files: random.one_of(&[1, 2, 3, 4]),
        held_bytes: random.one_of(&[0, 0, 60, 1 << 20]),
    };
    let mut rate = |typical| if random.percent(40) { 0 } else { scale(typical, random) };
    let rates = Rates {
        kill: rate(20),
        task_panic: rate(30),
        savepoint: rate(60),
        stop: rate(25),
        from_savepoint: rate(6_000),
        // A restore reads many files.
        restore_fails: rate(300),
        corrupt_read: rate(100),
        ..drawn.rates
    };
    WorldConfig {
        tiers: vec![Some(overlay); 4],
        images: Some(images),
        rates,
        // Each checkpoint takes more steps.
        timeout_us: random.one_of(&[3_000, 20_000, 100_000]),
        fault_steps: 2 * drawn.fault_steps,
        ..drawn
    }
}

/// Joins and splits streams of a world, by dice of its own, so that all else is as it was before there were such.
pub(super) fn draw_edges(random: &mut Random, pipelines: &mut Vec<Pipeline>, records: u32) -> Option<Joined> {
    let joined = random.percent(40).then(|| random.one_of(&[Joined::Union, Joined::Connect]));
    if joined.is_some() {
        if pipelines.len() == 1 {
            // Some end long before the first stream, some after it.
            let records = random.between(1, records);
            pipelines.push(Pipeline::draw(random, records, 1));
        }
        pipelines[1].first_split = pipelines[0].splits;
    }
    for pipeline in pipelines {
        let copied = random.one_of(&[Copied::Fused, Copied::Rebalance, Copied::Broadcast]);
        pipeline.copied = random.percent(30).then_some(copied);
        pipeline.sided = random.percent(25);
    }
    joined
}

impl Pipeline {
    pub(super) fn draw(random: &mut Random, records: u32, most_stages: u32) -> Self {
        let splits = random.between(1, 4);
        let mut stages = match random.below(100) {
            0..10 => Vec::new(),
            _ => vec![StageKind::Number],
        };
        if !stages.is_empty() {
            let more = random.below(most_stages);
            stages.extend((0..more).map(|_| StageKind::Forget));
            if random.percent(35) {
                if stages.len() == 3 {
                    stages.pop();
                }
                stages.push(StageKind::Days);
            }
        }
        Self {
            splits,
            records: (records / splits).max(1),
            keys: random.between(1, 9),
            chunk: random.between(1, 5),
            pause_us: random.one_of(&[0, 100, 700]),
            reshape: random.percent(30),
            stages,
            first_split: 0,
            copied: None,
            sided: false,
        }
    }
}

impl Restart {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0 => Self::None,
            1 => Self::FailureRate { failures: 2, interval_us: 20_000, delay_us: 500 },
            2 | 3 => Self::Exponential { initial_us: 1_000, max_us: 8_000 },
            _ => Self::FixedDelay {
                attempts: random.one_of(&[1, 3, 1_000_000]),
                delay_us: random.one_of(&[0, 0, 2_000]),
            },
        }
    }
}
