//! The restart strategy: the one setting whose options belong to a source as a whole.

use std::time::Duration;

use super::{MIN_STEP, RestartSettings, Values};
use crate::source::Layer;
use crate::{ConfigError, Warning, value};

/// Where all its keys begin.
pub(super) const FAMILY: &str = "restart-strategy";

const TYPE: &str = "restart-strategy.type";
const INITIAL: &str = "restart-strategy.exponential-delay.initial-backoff";
const MAX: &str = "restart-strategy.exponential-delay.max-backoff";

/// The keys of the strongest source that sets the type, and a warning for each option set elsewhere: options mixed
/// from several sources would make a strategy that nobody chose.
pub(super) fn select(layers: &[Layer]) -> (Layer, Vec<Warning>) {
    let chosen = layers.iter().rposition(|layer| layer.contains_key(TYPE));
    let type_origin = chosen.map(|index| layers[index][TYPE].entry.origin.clone());
    let mut strategy = Layer::new();
    let mut warnings = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        for (name, found) in layer.iter().filter(|(name, _)| name.starts_with(FAMILY)) {
            if Some(index) == chosen {
                strategy.insert(name, found.clone());
            } else if *name != TYPE {
                warnings.push(Warning::StrategyOptionIgnored {
                    key: found.entry.key.clone(),
                    origin: found.entry.origin.clone(),
                    type_origin: type_origin.clone(),
                });
            }
        }
    }
    (strategy, warnings)
}

impl Values {
    pub(super) fn restart(&self) -> Result<Option<RestartSettings>, ConfigError> {
        let Some(found) = self.found.get(TYPE) else { return Ok(None) };
        match found.text()?.to_ascii_lowercase().as_str() {
            "none" | "off" | "disable" => Ok(Some(RestartSettings::None)),
            "fixed-delay" | "fixeddelay" => self.fixed_delay().map(Some),
            "failure-rate" | "failurerate" => self.failure_rate().map(Some),
            "exponential-delay" | "exponentialdelay" => self.exponential_delay().map(Some),
            _ => Err(found.invalid("give one of none, fixed-delay, failure-rate, exponential-delay".to_owned())),
        }
    }

    fn fixed_delay(&self) -> Result<RestartSettings, ConfigError> {
        Ok(RestartSettings::FixedDelay {
            attempts: self.number("restart-strategy.fixed-delay.attempts", 0)?,
            delay: self.read("restart-strategy.fixed-delay.delay", value::duration)?,
        })
    }

    fn failure_rate(&self) -> Result<RestartSettings, ConfigError> {
        Ok(RestartSettings::FailureRate {
            max_failures_per_interval: self.number("restart-strategy.failure-rate.max-failures-per-interval", 1)?,
            interval: self.duration_or_default(
                "restart-strategy.failure-rate.failure-rate-interval",
                "give more than 0",
                Duration::from_nanos(1),
            )?,
            delay: self.read("restart-strategy.failure-rate.delay", value::duration)?,
        })
    }

    fn exponential_delay(&self) -> Result<RestartSettings, ConfigError> {
        const MULTIPLIER: &str = "restart-strategy.exponential-delay.backoff-multiplier";
        const JITTER: &str = "restart-strategy.exponential-delay.jitter-factor";
        const RESET: &str = "restart-strategy.exponential-delay.reset-backoff-threshold";
        let initial_backoff = self.duration_or_default(INITIAL, "give at least 1 ms", MIN_STEP)?;
        let max_backoff = self.read(MAX, value::duration)?;
        if max_backoff < initial_backoff {
            return Err(self.conflict(MAX, INITIAL, "the longest delay can't be below the first"));
        }
        let backoff_multiplier = self.double(MULTIPLIER)?;
        if backoff_multiplier <= 1.0 {
            return Err(self.refused(MULTIPLIER, "give a number above 1".to_owned()));
        }
        let jitter_factor = self.double(JITTER)?;
        if !(0.0..=1.0).contains(&jitter_factor) {
            return Err(self.refused(JITTER, "give a number from 0 to 1".to_owned()));
        }
        Ok(RestartSettings::ExponentialDelay {
            initial_backoff,
            max_backoff,
            backoff_multiplier,
            reset_backoff_threshold: self.duration_or_default(RESET, "give at least 1 ms", MIN_STEP)?,
            jitter_factor,
            attempts_before_reset_backoff: self
                .number("restart-strategy.exponential-delay.attempts-before-reset-backoff", 1)?,
        })
    }
}
