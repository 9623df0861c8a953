//! Who may start: tasks in a fixed order within a byte budget, and permits to compute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out tasks in order, each when its bytes fit what is left of the budget.
pub(super) struct Admission {
    state: Mutex<State>,
    changed: Condvar,
    budget: u64,
    order: Vec<(usize, u64)>,
}

struct State {
    next: usize,
    free: u64,
    stopped: bool,
}

/// An admitted task; give it back to [`Admission::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    /// Index of the task.
    pub(super) index: usize,
    reserved: u64,
}

impl Admission {
    /// Tasks as (index, peak bytes), in the order in which they start. A task above the whole budget is admitted
    /// without a reservation: whoever runs it refuses it.
    pub(super) fn new(budget: u64, order: Vec<(usize, u64)>) -> Self {
        let state = State { next: 0, free: budget, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), budget, order }
    }

    /// The next task, when it fits; `None` when there is none left, or the run stops.
    pub(super) fn next(&self, cancel: &AtomicBool) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.stopped || cancel.load(Ordering::Relaxed) {
                return None;
            }
            let &(index, peak) = self.order.get(state.next)?;
            let reserved = if peak > self.budget { 0 } else { peak };
            if reserved <= state.free {
                state.next += 1;
                state.free -= reserved;
                return Some(Task { index, reserved });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether every task has started.
    pub(super) fn is_drained(&self) -> bool {
        self.lock().next >= self.order.len()
    }

    /// Gives a task's bytes back.
    pub(super) fn release(&self, task: Task) {
        self.lock().free += task.reserved;
        self.changed.notify_all();
    }

    /// No further task starts.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counting semaphore.
pub(super) struct Permits {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Held while computing: one or two permits.
pub(super) struct Permit<'a> {
    permits: &'a Permits,
    pub(super) count: usize,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), changed: Condvar::new() }
    }

    /// Waits for `count` permits at once.
    pub(super) fn take(&self, count: usize) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.changed.wait_while(free, |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Permit { permits: self, count }
    }
}

impl Permit<'_> {
    /// Takes another one if it is free.
    pub(super) fn widen(&mut self) {
        let mut free = self.permits.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free > 0 {
            *free -= 1;
            self.count += 1;
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.permits.free.lock().unwrap_or_else(PoisonError::into_inner) += self.count;
        self.permits.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn tasks_start_in_order_and_never_exceed_the_budget() {
        let order: Vec<(usize, u64)> = (0..200).map(|i| (i, 1 + (i as u64 * 37) % 50)).collect();
        let admission = Admission::new(60, order.clone());
        let (in_use, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let cancel = AtomicBool::new(false);
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some(task) = admission.next(&cancel) {
                        let now = in_use.fetch_add(task.reserved, Ordering::SeqCst) + task.reserved;
                        most.fetch_max(now, Ordering::SeqCst);
                        seen.lock().unwrap().push(task.index);
                        std::thread::yield_now();
                        in_use.fetch_sub(task.reserved, Ordering::SeqCst);
                        admission.release(task);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 60);
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>(), "each once");
    }

    #[test]
    fn a_task_above_the_budget_does_not_block_the_others() {
        let admission = Admission::new(10, vec![(0, 11), (1, 10)]);
        let cancel = AtomicBool::new(false);
        assert_eq!(admission.next(&cancel).map(|t| t.index), Some(0));
        assert_eq!(admission.next(&cancel).map(|t| t.index), Some(1));
        assert_eq!(admission.next(&cancel), None);
    }

    #[test]
    fn cancel_and_stop_end_the_line() {
        let admission = Admission::new(10, vec![(0, 1), (1, 1)]);
        assert_eq!(admission.next(&AtomicBool::new(true)), None);
        admission.stop();
        assert_eq!(admission.next(&AtomicBool::new(false)), None);
    }
}
