//! How patient a source is, and what it tells a store.

use std::fmt;
use std::time::Duration;

/// Time limits, retries and store settings. The defaults suit models of any size over the internet.
///
/// The time limits replace those of the environment (`AWS_TIMEOUT` and its like); `store_config` has the last word.
#[derive(Clone)]
pub struct SourceOptions {
    /// Longest wait for a connection (default 5 s).
    pub connect_timeout: Duration,
    /// Longest silence of a store: until its answer begins, and between two pieces of a body (default 30 s).
    pub read_timeout: Duration,
    /// Slowest body that is waited for, in bytes a second, averaged over `read_timeout` (default 1024).
    pub min_throughput: u64,
    /// Longest time for one ranged request with all its retries (default 240 s; signatures stay valid for 300 s).
    pub range_timeout: Duration,
    /// How often a request is repeated that failed or was answered 5xx, 429 or 408 (default 8). A body that breaks
    /// off or stalls is asked for again at most three times.
    pub retries: u32,
    /// First pause between repetitions; later ones grow with decorrelated jitter up to 15 s (default 100 ms).
    pub backoff: Duration,
    /// Longest range that one request asks for, in bytes (default and most: 8 MiB).
    pub range_bytes: u64,
    /// How many ranges of one read are fetched at a time (default 4).
    pub parallel_ranges: usize,
    /// How many ranges of the whole model are fetched at a time (default 16).
    pub connections: usize,
    /// Settings of the store as `(key, value)`, with the names of the environment variables (such as
    /// `AWS_ENDPOINT_URL`, in either case); they override the environment. An `AWS_ACCESS_KEY_ID` given here puts
    /// all credentials of the environment aside. For HTTP the keys are object_store's client settings
    /// (`proxy_url`, `user_agent`, …).
    pub store_config: Vec<(String, String)>,
    /// Whether a store may send us elsewhere (default yes: Hugging Face does). A service that reads what others name
    /// must not be led to addresses that they could not name: without it, a redirect is an error, and so is a host
    /// name that resolves to a link-local or metadata address (through a proxy it is the proxy that resolves names).
    pub follow_redirects: bool,
}

impl SourceOptions {
    /// For a service that reads what others name: with these settings of the store, and no redirect followed, since it
    /// could lead anywhere.
    pub fn of_service(store_config: Vec<(String, String)>) -> Self {
        Self { store_config, follow_redirects: false, ..Self::default() }
    }

    /// Longest range that one request may ask for: 8 MiB.
    pub const LONGEST_RANGE: u64 = 8 << 20;
    /// How often a body is asked for again.
    const BODY_RETRIES: u32 = 3;

    pub(super) fn body_retries(&self) -> u32 {
        self.retries.min(Self::BODY_RETRIES)
    }
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            min_throughput: 1024,
            range_timeout: Duration::from_secs(240),
            retries: 8,
            backoff: Duration::from_millis(100),
            range_bytes: Self::LONGEST_RANGE,
            parallel_ranges: 4,
            connections: 16,
            store_config: Vec::new(),
            follow_redirects: true,
        }
    }
}

impl fmt::Debug for SourceOptions {
    /// Leaves out the values of `store_config`: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.store_config.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("SourceOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("min_throughput", &self.min_throughput)
            .field("range_timeout", &self.range_timeout)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("range_bytes", &self.range_bytes)
            .field("parallel_ranges", &self.parallel_ranges)
            .field("connections", &self.connections)
            .field("store_config", &keys)
            .field("follow_redirects", &self.follow_redirects)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_setting_of_the_store() {
        let options = SourceOptions {
            store_config: vec![("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into())],
            ..SourceOptions::default()
        };
        let text = format!("{options:?}");
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("hunter2"), "{text}");
    }
}
