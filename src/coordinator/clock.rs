//! The coordinator's clocks: a monotonic one for leases, the wall's for people.

use crate::job::Time;
use prost_types::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts milliseconds from its start, whatever the wall clock does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// The wall clock.
pub(super) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// Seconds from one time of the wall clock to another.
pub(super) fn seconds_between(from: &Timestamp, to: &Timestamp) -> f64 {
    (to.seconds - from.seconds) as f64 + f64::from(to.nanos - from.nanos) * 1e-9
}

/// The wall clock, so many milliseconds ago.
pub(super) fn ago(ms: u64) -> Timestamp {
    let mut then = wall();
    then.seconds -= i64::try_from(ms / 1000).unwrap_or_default();
    then
}
