//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What became of connections, counted from the start.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    over_total: AtomicU64,
    over_peer: AtomicU64,
    failed_handshakes: AtomicU64,
    slow_handshakes: AtomicU64,
    failed_accepts: AtomicU64,
}

/// Something to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Accepted,
    OverTotal,
    OverPeer,
    FailedHandshake,
    SlowHandshake,
    FailedAccept,
}

impl Counts {
    pub(super) fn add(&self, event: Event) {
        let counter = match event {
            Event::Accepted => &self.accepted,
            Event::OverTotal => &self.over_total,
            Event::OverPeer => &self.over_peer,
            Event::FailedHandshake => &self.failed_handshakes,
            Event::SlowHandshake => &self.slow_handshakes,
            Event::FailedAccept => &self.failed_accepts,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that were handed to the server.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed because there were too many in all.
    pub fn over_total(&self) -> u64 {
        self.over_total.load(Ordering::Relaxed)
    }

    /// Connections closed because there were too many from their address.
    pub fn over_peer(&self) -> u64 {
        self.over_peer.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    /// TLS handshakes cut off because they took too long.
    pub fn slow_handshakes(&self) -> u64 {
        self.slow_handshakes.load(Ordering::Relaxed)
    }

    /// Failures to accept, such as too many open files.
    pub fn failed_accepts(&self) -> u64 {
        self.failed_accepts.load(Ordering::Relaxed)
    }
}

/// The connections there are.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    most_per_peer: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Slots {
    pub(super) fn new(most: usize, most_per_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_peer, taken: Mutex::default() })
    }

    /// Places taken.
    pub(super) fn open(&self) -> u64 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().map(|open| *open as u64).sum()
    }

    /// Takes a place for a connection from `address`, or says which cap is reached.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Event> {
        let peer = peer(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return Err(Event::OverTotal);
        }
        if taken.get(&peer).copied().unwrap_or_default() >= self.most_per_peer {
            return Err(Event::OverPeer);
        }
        *taken.entry(peer).or_default() += 1;
        Ok(Slot { slots: Arc::clone(self), peer })
    }
}

/// The address that counts: an IPv6 site has 2⁶⁴ addresses, so its /64 is one peer.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_peer_and_in_all_and_come_back() {
        let slots = Slots::new(3, 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = slots.take(a).unwrap();
        let _second = slots.take(a).unwrap();
        assert_eq!(slots.take(a).unwrap_err(), Event::OverPeer);
        // An IPv4 address in IPv6 dress is the same peer.
        assert_eq!(slots.take("::ffff:10.0.0.1".parse().unwrap()).unwrap_err(), Event::OverPeer);
        let _third = slots.take(b).unwrap();
        assert_eq!(slots.take(b).unwrap_err(), Event::OverTotal);
        drop(first);
        let _again = slots.take(a).unwrap();
        assert_eq!(slots.taken.lock().unwrap().len(), 2);
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let slots = Slots::new(10, 1);
        let _one = slots.take("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(slots.take("2001:db8::2".parse().unwrap()).unwrap_err(), Event::OverPeer);
        assert!(slots.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
