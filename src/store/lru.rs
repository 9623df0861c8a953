//! Which results were used when: kept in memory, saved lazily.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A saved time of last use is renewed once it is this old, in seconds: reading must not cost writes.
pub(super) const GRAIN: u64 = 60;

struct Entry {
    /// Place in the order of use.
    tick: u64,
    /// Of key and value.
    bytes: u64,
    /// Seconds since 1970.
    used: u64,
    /// What the disk says of it.
    saved: u64,
}

/// The results in the order of their last use.
#[derive(Default)]
pub(super) struct Lru {
    entries: HashMap<Arc<[u8]>, Entry>,
    order: BTreeMap<u64, Arc<[u8]>>,
    /// Used later than the disk says.
    stale: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    bytes: u64,
}

impl Lru {
    /// From what is stored: keys with their bytes and the time of their last use.
    pub(super) fn new(mut found: Vec<(Vec<u8>, u64, u64)>) -> Self {
        found.sort_by_key(|(_, _, used)| *used);
        let mut lru = Self::default();
        for (key, bytes, used) in found {
            lru.insert(&key, bytes, used);
        }
        lru
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A result was written.
    pub(super) fn insert(&mut self, key: &[u8], bytes: u64, used: u64) {
        self.remove(key);
        let (key, tick) = (Arc::<[u8]>::from(key), self.next);
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(tick, Arc::clone(&key));
        self.entries.insert(key, Entry { tick, bytes, used, saved: used });
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.tick);
            self.stale.remove(&entry.tick);
            self.bytes -= entry.bytes;
        }
    }

    /// A result was read at `now`.
    pub(super) fn touch(&mut self, key: &[u8], now: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(key) = self.order.remove(&entry.tick) else { return };
        self.stale.remove(&entry.tick);
        entry.tick = self.next;
        entry.used = now;
        self.next += 1;
        self.order.insert(entry.tick, Arc::clone(&key));
        if now >= entry.saved.saturating_add(GRAIN) {
            self.stale.insert(entry.tick, key);
        }
    }

    pub(super) fn bytes_of(&self, key: &[u8]) -> u64 {
        self.entries.get(key).map_or(0, |entry| entry.bytes)
    }

    /// When it was last used, in seconds since 1970.
    pub(super) fn used(&self, key: &[u8]) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.used)
    }

    /// Keys from the least recently used on.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.order.values()
    }

    /// Up to `limit` keys whose saved time is out of date, with the true one.
    pub(super) fn stale(&self, limit: usize) -> Vec<(Arc<[u8]>, u64)> {
        let keys = self.stale.values().take(limit);
        keys.map(|key| (Arc::clone(key), self.used(key).unwrap_or(0))).collect()
    }

    /// The disk now says `used` of this key.
    pub(super) fn saved(&mut self, key: &[u8], used: u64) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.saved = used;
            if entry.used < used.saturating_add(GRAIN) {
                self.stale.remove(&entry.tick);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lru: &Lru) -> Vec<&[u8]> {
        lru.oldest().map(|key| &**key).collect()
    }

    #[test]
    fn the_oldest_is_the_one_not_used_longest() {
        let found = vec![(b"b".to_vec(), 2, 20), (b"a".to_vec(), 1, 30), (b"c".to_vec(), 4, 10)];
        let mut lru = Lru::new(found);
        assert_eq!(order(&lru), [b"c", b"b", b"a"]);
        lru.touch(b"c", 31);
        lru.touch(b"missing", 31);
        assert_eq!(order(&lru), [b"b", b"a", b"c"]);
        lru.insert(b"b", 8, 32);
        assert_eq!((order(&lru), lru.bytes(), lru.len()), (vec![&b"a"[..], b"c", b"b"], 13, 3));
        lru.remove(b"a");
        assert_eq!((lru.bytes(), lru.bytes_of(b"b"), lru.used(b"a")), (12, 8, None));
    }

    #[test]
    fn a_use_is_saved_once_a_minute_at_most() {
        let mut lru = Lru::new(vec![(b"a".to_vec(), 1, 100)]);
        lru.touch(b"a", 100 + GRAIN - 1);
        assert!(lru.stale(9).is_empty());
        lru.touch(b"a", 100 + GRAIN);
        lru.touch(b"a", 101 + GRAIN);
        assert_eq!(lru.stale(9), [(Arc::from(&b"a"[..]), 101 + GRAIN)]);
        lru.saved(b"a", 101 + GRAIN);
        assert!(lru.stale(9).is_empty());
    }
}
