//! [`Records`] in memory, for tests and simulations: what was not synced is lost by a crash.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::records::{Batch, Done, Health, MAX_PAGE, Pairs, Records, Space};
use crate::Result;

/// When batches become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// At once, by a thread of its own, as the store on disk does it.
    Thread,
    /// When [`Memory::sync`] is called, by the caller of it: nothing depends on the scheduler, so a simulation
    /// replays.
    Step,
}

type Table = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

#[derive(Default)]
struct State {
    visible: Table,
    durable: Table,
    waiting: Vec<(Batch, Result<()>, Done)>,
    /// Off: `done` is called though nothing was made durable.
    lies: bool,
    commits: u64,
    syncs: u64,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// A store in memory. Writes are visible at once and durable after a sync.
pub struct Memory {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Memory {
    /// An empty store.
    pub fn new(sync: Sync) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = (sync == Sync::Thread).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run())
        });
        Self { shared, thread }
    }

    /// Off: batches are acknowledged without having been made durable, as by a store that forgets to sync. For the
    /// control of a test, which must then see loss.
    pub fn set_sync_enabled(&self, enabled: bool) {
        self.shared.lock().lies = !enabled;
    }

    /// Makes everything submitted so far durable, then calls each `done`; gives their number.
    pub fn sync(&self) -> usize {
        self.shared.sync()
    }

    /// How many batches wait for a sync.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// Loses everything that is not durable. The `done` of a lost batch is dropped without being called, for whoever
    /// waits for it is gone as well.
    pub fn crash(&self) {
        let lost = {
            let mut state = self.shared.lock();
            state.visible = state.durable.clone();
            std::mem::take(&mut state.waiting)
        };
        // Outside the lock: a closure may own anything.
        drop(lost);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything that can panic runs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> usize {
        let waiting = {
            let mut state = self.lock();
            let waiting = std::mem::take(&mut state.waiting);
            if !waiting.is_empty() {
                state.syncs += 1;
            }
            for (batch, outcome, _) in &waiting {
                if outcome.is_ok() {
                    state.commits += 1;
                    if !state.lies {
                        apply(&mut state.durable, batch);
                    }
                }
            }
            waiting
        };
        let count = waiting.len();
        for (_, outcome, done) in waiting {
            done(outcome);
        }
        count
    }

    fn run(&self) {
        loop {
            {
                let mut state = self.lock();
                while state.waiting.is_empty() && !state.stopped {
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.waiting.is_empty() {
                    return;
                }
            }
            self.sync();
        }
    }
}

fn apply(table: &mut Table, batch: &Batch) {
    for op in &batch.ops {
        let key = (op.space, op.key.clone());
        match &op.value {
            Some(value) => table.insert(key, value.clone()),
            None => table.remove(&key),
        };
    }
}

/// A page of those that come, in the order in which they come.
fn page<'a>(pairs: impl Iterator<Item = (&'a (Space, Vec<u8>), &'a Vec<u8>)>, limit: usize) -> Pairs {
    let mut bytes = 0;
    let mut page = Vec::new();
    for ((_, key), value) in pairs.take(limit) {
        bytes += value.len();
        page.push((key.clone(), value.clone()));
        if bytes >= MAX_PAGE {
            break;
        }
    }
    page
}

impl Records for Memory {
    fn submit(&self, batch: Batch, done: Done) {
        let checked = batch.check();
        let mut state = self.shared.lock();
        if checked.is_ok() {
            apply(&mut state.visible, &batch);
        }
        state.waiting.push((batch, checked, done));
        self.shared.wake.notify_all();
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.shared.lock().visible.get(&(space, key.to_vec())).cloned())
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool> {
        Ok(self.shared.lock().visible.contains_key(&(space, key.to_vec())))
    }

    fn scan(&self, space: Space, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Pairs> {
        let state = self.shared.lock();
        let low = match after {
            Some(after) if after >= prefix => Bound::Excluded((space, after.to_vec())),
            _ => Bound::Included((space, prefix.to_vec())),
        };
        let from = state.visible.range((low, Bound::Unbounded));
        Ok(page(from.take_while(|((found, key), _)| *found == space && key.starts_with(prefix)), limit))
    }

    fn scan_back(&self, space: Space, prefix: &[u8], before: Option<&[u8]>, limit: usize) -> Result<Pairs> {
        let state = self.shared.lock();
        let low = Bound::Included((space, prefix.to_vec()));
        let all = state.visible.range((low, Bound::Unbounded));
        let mut found: Vec<_> = all
            .take_while(|((found, key), _)| *found == space && key.starts_with(prefix))
            .filter(|((_, key), _)| before.is_none_or(|before| key.as_slice() < before))
            .collect();
        found.reverse();
        Ok(page(found.into_iter(), limit))
    }

    fn health(&self) -> Health {
        let state = self.shared.lock();
        let mut health = Health { commits: state.commits, syncs: state.syncs, ..Health::default() };
        for ((space, key), value) in &state.visible {
            if let Some(usage) = health.spaces.get_mut(space.index()) {
                usage.entries += 1;
                usage.bytes += (key.len() + value.len()) as u64;
            }
        }
        health
    }
}
