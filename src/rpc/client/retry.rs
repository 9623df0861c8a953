//! When to try again, and how long to wait for an answer (AIP-194).

use crate::rpc::status::{is_of_transport, retry_after};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tonic::{Code, Status};

/// Patience of a client.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Tries of a call, the first included.
    pub tries: u32,
    /// Pause after the first failure; it doubles.
    pub first_pause: Duration,
    /// Longest pause, unless the server names one.
    pub longest_pause: Duration,
    /// Longest wait for an answer, and for the next message of a stream.
    pub answer: Duration,
    /// Longest time without an answer while an analysis is watched.
    pub unreachable: Duration,
    /// Silence of a watched analysis after which the connection counts as lost. Servers speak every 15 seconds.
    pub silence: Duration,
    /// Of the jitter.
    pub seed: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(1),
            answer: Duration::from_secs(60),
            unreachable: Duration::from_secs(60),
            silence: Duration::from_secs(45),
            seed: RandomState::new().hash_one(0),
        }
    }
}

/// Longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

impl Patience {
    /// The pause before try number `failures` + 1; `None`: give up. Only what may have passed by then is tried again:
    /// a server that is not there or says so, and an overloaded one that names a time.
    pub(super) fn pause(&self, failures: u32, status: &Status) -> Option<Duration> {
        if failures >= self.tries {
            return None;
        }
        let asked = retry_after(status).map(|pause| pause.min(LONGEST_ASKED));
        match status.code() {
            Code::Unavailable => Some(self.back_off(failures).max(asked.unwrap_or_default())),
            Code::ResourceExhausted => asked,
            _ if is_lost(status) => Some(self.back_off(failures)),
            _ => None,
        }
    }

    /// The pause after so many failures, with a jitter of 20 %.
    pub(super) fn back_off(&self, failures: u32) -> Duration {
        let doubled = self.first_pause * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        let draw = mixed(self.seed.wrapping_add(u64::from(failures)));
        let jitter = 0.8 + 0.4 * (draw >> 11) as f64 / (1_u64 << 53) as f64;
        doubled.min(self.longest_pause).mul_f64(jitter)
    }
}

/// Whether the connection broke, rather than that the server answered. A call that has run out of time is not tried
/// again: the next would as well.
pub(super) fn is_lost(status: &Status) -> bool {
    is_of_transport(status) && status.message() != "Timeout expired"
}

/// SplitMix64.
fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::status::status;
    use crate::{Error, ErrorKind};

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let patience = Patience { seed: 7, ..Patience::default() };
        let pauses = |status: Status| (1..=4).map(|n| patience.pause(n, &status)).collect::<Vec<_>>();
        let bare: Vec<_> = pauses(Status::unavailable("x"));
        for (pause, nominal) in bare.iter().zip([100.0, 200.0, 400.0]) {
            let ratio = pause.unwrap().as_secs_f64() * 1e3 / nominal;
            assert!((0.8..=1.2).contains(&ratio), "{bare:?}");
        }
        assert_eq!(bare[3], None, "the fourth failure is the last");
        let ours = pauses(status(&Error::new(ErrorKind::Unavailable, "x")));
        assert_eq!(ours[0], Some(Duration::from_secs(1)), "the server names a second");
        let full = pauses(status(&Error::new(ErrorKind::Exhausted, "x")));
        assert_eq!((full[0], full[3]), (Some(Duration::from_secs(5)), None));
        assert!(pauses(Status::from_error("reset".into()))[0].is_some());
        for final_one in [
            Status::resource_exhausted("no time named"),
            Status::internal("x"),
            Status::deadline_exceeded("x"),
            status(&Error::invalid("x")),
            status(&Error::new(ErrorKind::Interrupted, "x")),
        ] {
            assert_eq!(pauses(final_one.clone())[0], None, "{final_one:?}");
        }
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let patience = Patience { seed: 1, ..Patience::default() };
        let all: Vec<f64> = (1..40).map(|n| patience.back_off(n).as_secs_f64()).collect();
        assert!(all.iter().all(|pause| (0.08..=1.2).contains(pause)), "{all:?}");
        assert!(all[4..].iter().all(|pause| *pause >= 0.8), "{all:?}");
        assert!(all[4..].windows(2).any(|two| two[0] != two[1]), "there is jitter");
    }
}
