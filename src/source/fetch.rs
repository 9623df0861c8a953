//! Pinned, length-checked, time-limited reads of one object in a store.
//!
//! object_store repeats requests that fail, and bodies that break off while the ETag is known. What it does not see is
//! checked here: a body that ends early or goes on too long, one that trickles, an object that another has replaced
//! on a server without `If-Match`.

use super::{ObjectIdentity, ReadAt, SourceOptions, checked_length, failure, room_for, runtime};
use crate::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long the end of a body may take when all its bytes are there.
const END_OF_BODY: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What all objects of one source use.
pub(super) struct Shared {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) options: SourceOptions,
    connections: Semaphore,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn ObjectStore>, options: SourceOptions) -> Self {
        let connections = Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS));
        Self { store, options, connections }
    }
}

/// An object as it was when it was opened.
pub(super) struct RemoteObject(Arc<Pinned>);

struct Pinned {
    shared: Arc<Shared>,
    name: String,
    identity: ObjectIdentity,
    meta: ObjectMeta,
    /// Whether reads name the version. Off once the store has refused it: reading a version is a permission of its own.
    by_version: AtomicBool,
}

/// Why one attempt at a range failed.
enum Failure {
    /// The body did not come whole; the next may.
    Body(Error),
    /// Trying again gives the same.
    Final(Error),
}

impl RemoteObject {
    /// `meta` is what the store said of the object when it was opened.
    pub(super) fn new(shared: Arc<Shared>, name: &str, uri: String, meta: ObjectMeta) -> Self {
        let version = meta.version.as_ref().map(|version| format!("version {version}"));
        let parts: Vec<String> = meta.e_tag.iter().cloned().chain(version).collect();
        let pin = (!parts.is_empty()).then(|| parts.join(" "));
        let identity = ObjectIdentity { uri, size: meta.size, pin };
        let by_version = AtomicBool::new(meta.version.is_some());
        Self(Arc::new(Pinned { shared, name: name.to_owned(), identity, meta, by_version }))
    }
}

impl ReadAt for RemoteObject {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn identity(&self) -> &ObjectIdentity {
        &self.0.identity
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        let read = || {
            let length = room_for(checked_length(&range, self.0.identity.size)?)?;
            if length == 0 {
                return Ok(Bytes::new());
            }
            let (object, range) = (Arc::clone(&self.0), range);
            runtime::wait_for(async move { object.read(range, length).await })
        };
        read().map_err(|error| error.in_file(self.name()))
    }
}

impl Pinned {
    /// Cuts the range, fetches the parts a few at a time into one buffer.
    async fn read(&self, range: Range<u64>, length: usize) -> Result<Bytes> {
        let options = &self.shared.options;
        let step = options.range_bytes.clamp(1, SourceOptions::LONGEST_RANGE);
        let mut rest = BytesMut::with_capacity(length);
        let mut parts = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start.saturating_add(step));
            // At most 8 MiB, as `step` is.
            let tail = rest.split_off((end - start) as usize);
            parts.push(self.fetch(start..end, std::mem::replace(&mut rest, tail)));
            start = end;
        }
        let mut fetched = stream::iter(parts).buffered(options.parallel_ranges.max(1));
        let mut whole = BytesMut::new();
        while let Some(part) = fetched.try_next().await? {
            // The parts are neighbours in one allocation: nothing is copied.
            whole.unsplit(part);
        }
        Ok(whole.freeze())
    }

    /// One part with its retries, within the range's time limit.
    async fn fetch(&self, range: Range<u64>, mut buffer: BytesMut) -> Result<BytesMut> {
        let options = &self.shared.options;
        let _permit =
            self.shared.connections.acquire().await.map_err(|_| unavailable("the source was closed"))?;
        let deadline = Instant::now() + options.range_timeout;
        let (mut pause, mut failures) = (options.backoff, 0);
        loop {
            buffer.clear();
            match timeout_at(deadline, self.attempt(&range, &mut buffer)).await {
                Ok(Ok(())) => return Ok(buffer),
                Ok(Err(Failure::Final(error))) => return Err(error),
                Ok(Err(Failure::Body(error))) if failures >= options.body_retries() => {
                    return Err(after_retries(error, failures));
                }
                Ok(Err(Failure::Body(_))) => failures += 1,
                Err(_) => {
                    let limit = options.range_timeout;
                    return Err(unavailable(format!(
                        "{} bytes did not come within {limit:?}",
                        range.end - range.start
                    )));
                }
            }
            sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = next_pause(options.backoff, pause);
        }
    }

    async fn attempt(&self, range: &Range<u64>, buffer: &mut BytesMut) -> std::result::Result<(), Failure> {
        let versioned = self.by_version.load(Ordering::Relaxed);
        let answer = match self.request(range, versioned).await {
            Err(object_store::Error::PermissionDenied { .. }) if versioned => {
                self.by_version.store(false, Ordering::Relaxed);
                self.request(range, false).await
            }
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(Failure::Final(self.explain(&error, range).await)),
        };
        self.check_same(&answer.meta).map_err(Failure::Final)?;
        self.receive(answer.into_stream(), (range.end - range.start) as usize, buffer).await
    }

    async fn request(
        &self,
        range: &Range<u64>,
        versioned: bool,
    ) -> object_store::Result<object_store::GetResult> {
        // If-Match compares strongly: a weak ETag never matches, not even its own object's.
        let strong = self.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions {
            if_match: strong,
            version: self.meta.version.clone().filter(|_| versioned),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        self.shared.store.get_opts(&self.meta.location, options).await
    }

    /// Reads exactly `length` bytes, and sees that no more follow.
    async fn receive(
        &self,
        mut body: BoxStream<'static, object_store::Result<Bytes>>,
        length: usize,
        buffer: &mut BytesMut,
    ) -> std::result::Result<(), Failure> {
        let window = self.shared.options.read_timeout;
        let least = least_bytes(self.shared.options.min_throughput, window);
        let (mut since, mut in_window) = (Instant::now(), 0);
        while buffer.len() < length {
            let so_far = format!("{} of {length} bytes came", buffer.len());
            let chunk = match timeout_at(since + window, body.next()).await {
                Err(_) if in_window > 0 => {
                    let rate = self.shared.options.min_throughput;
                    return body_failure(format!(
                        "the body is too slow: under {rate} bytes/s for {window:?}"
                    ));
                }
                Err(_) => return body_failure(format!("the body stalled for {window:?} after {so_far}")),
                Ok(Some(Err(error))) if failure::is_timeout(&error) => {
                    return body_failure(format!("the body stalled for {window:?} after {so_far}"));
                }
                Ok(Some(Err(error))) => {
                    return body_failure(format!(
                        "the body broke off after {so_far}: {}",
                        failure::cause(&error)
                    ));
                }
                Ok(None) => return body_failure(format!("the body ended after {so_far}")),
                Ok(Some(Ok(chunk))) => chunk,
            };
            if chunk.len() > length - buffer.len() {
                return Err(too_long(length));
            }
            buffer.extend_from_slice(&chunk);
            in_window += chunk.len() as u64;
            if in_window >= least {
                (since, in_window) = (Instant::now(), 0);
            }
        }
        // Whatever else goes wrong now, the bytes are there.
        match timeout(window.min(END_OF_BODY), body.next()).await {
            Ok(Some(Ok(more))) if !more.is_empty() => Err(too_long(length)),
            _ => Ok(()),
        }
    }

    /// Fails unless the answer is of the object that was opened.
    fn check_same(&self, now: &ObjectMeta) -> Result<()> {
        let then = &self.meta;
        if then.e_tag != now.e_tag {
            let show = |tag: &Option<String>| tag.as_ref().map_or("none".to_owned(), |tag| shortened(tag));
            return Err(changed(format!(
                "its ETag was {} and is {} now",
                show(&then.e_tag),
                show(&now.e_tag)
            )));
        }
        if then.size != now.size {
            return Err(changed(format!("its size was {} bytes and is {} now", then.size, now.size)));
        }
        let both = then.version.as_ref().zip(now.version.as_ref());
        if let Some((then, now)) = both.filter(|(then, now)| then != now) {
            return Err(changed(format!(
                "its version was {} and is {} now",
                shortened(then),
                shortened(now)
            )));
        }
        if then.e_tag.is_none() && then.last_modified != now.last_modified {
            let (then, now) = (then.last_modified, now.last_modified);
            return Err(changed(format!("it was last modified at {then} and is now at {now}")));
        }
        Ok(())
    }

    /// Says what a refused request means for an object that was there when it was opened.
    async fn explain(&self, error: &object_store::Error, range: &Range<u64>) -> Error {
        let translated = failure::translate(error);
        match translated.kind() {
            ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "the object was there when it was opened and is gone now")
            }
            ErrorKind::Changed => self.what_changed(range).await,
            _ => translated,
        }
    }

    /// Asks what the object is now that it is not what it was.
    async fn what_changed(&self, range: &Range<u64>) -> Error {
        let head = GetOptions { head: true, ..GetOptions::default() };
        let found =
            timeout(self.shared.options.read_timeout, self.shared.store.get_opts(&self.meta.location, head));
        if let Ok(Ok(found)) = found.await
            && let Err(error) = self.check_same(&found.meta)
        {
            return error;
        }
        let pin =
            self.identity.pin.as_deref().map_or("without ETag".to_owned(), |pin| format!("with ETag {pin}"));
        changed(format!("the store no longer has bytes {}..{} of the object {pin}", range.start, range.end))
    }
}

fn changed(what: String) -> Error {
    Error::new(ErrorKind::Changed, format!("the object changed while it was read: {what}"))
}

fn unavailable(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}

fn body_failure(what: String) -> std::result::Result<(), Failure> {
    Err(Failure::Body(unavailable(what)))
}

fn too_long(length: usize) -> Failure {
    Failure::Final(Error::malformed(format!(
        "the server sends more than the {length} bytes that were asked for"
    )))
}

fn after_retries(error: Error, retries: u32) -> Error {
    match retries {
        0 => error,
        1 => Error::new(error.kind(), format!("{} (after 1 retry)", error.message())),
        _ => Error::new(error.kind(), format!("{} (after {retries} retries)", error.message())),
    }
}

/// An ETag or version is the server's text, of any length.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Bytes that must come in `window` at `rate` bytes a second; at least one.
fn least_bytes(rate: u64, window: Duration) -> u64 {
    let bytes = u128::from(rate) * window.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// Decorrelated jitter: between the first pause and three times the last.
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
fn next_pause(first: Duration, last: Duration) -> Duration {
    let longest = last.saturating_mul(3).min(LONGEST_PAUSE).max(first);
    // A new hasher's keys are random enough to spread out retries.
    let random = RandomState::new().build_hasher().finish();
    first + (longest - first).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_within_their_bounds() {
        let first = Duration::from_millis(100);
        let mut last = first;
        for _ in 0..1000 {
            let next = next_pause(first, last);
            assert!(next >= first && next <= last * 3 && next <= LONGEST_PAUSE, "{last:?} then {next:?}");
            last = next;
        }
    }

    #[test]
    fn a_window_asks_for_at_least_one_byte() {
        assert_eq!(least_bytes(1024, Duration::from_secs(30)), 30720);
        assert_eq!(least_bytes(1, Duration::from_millis(200)), 1);
        assert_eq!(least_bytes(0, Duration::from_secs(30)), 1);
        assert_eq!(least_bytes(u64::MAX, Duration::from_secs(30)), u64::MAX);
    }
}
