//! Threads for computing, outside the asynchronous runtime.
//!
//! Not the runtime's own pool for blocking calls: that one grows to hundreds of threads, where computing wants as many
//! as there are cores.

use crate::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// At most so many threads, started when they are first needed; idle ones wait.
pub(super) struct Pool {
    inner: Arc<Inner>,
    most: usize,
}

struct Inner {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool of at most `most` threads.
    pub(super) fn new(most: usize) -> Self {
        let inner = Inner { state: Mutex::default(), ready: Condvar::new() };
        Self { inner: Arc::new(inner), most: most.max(1) }
    }

    /// Runs `job` when a thread is free. A closed pool drops it.
    ///
    /// # Errors
    /// `Internal` if no thread can be started and there is none.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        let mut state = self.inner.lock();
        if state.closed {
            return Ok(());
        }
        if state.idle <= state.jobs.len() && state.threads < self.most {
            let inner = Arc::clone(&self.inner);
            let started = std::thread::Builder::new().name("compute".to_owned()).spawn(move || inner.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    return Err(Error::new(ErrorKind::Internal, format!("cannot start a thread: {error}")));
                }
                // Those that are there will come to it.
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        self.inner.ready.notify_one();
        Ok(())
    }

    /// Drops what has not started; threads end when their job does.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.inner.lock();
            state.closed = true;
            self.inner.ready.notify_all();
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job may hold what calls the pool when it is dropped.
        drop(dropped);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            // Whoever submitted it learns of a panic by what the job drops.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        state.idle += 1;
        let mut state = self
            .ready
            .wait_while(state, |state| state.jobs.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.threads -= 1;
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn never_more_jobs_at_a_time_than_threads() {
        let pool = Pool::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (send, receive) = mpsc::channel();
        for _ in 0..200 {
            let (now, most, send) = (Arc::clone(&now), Arc::clone(&most), send.clone());
            pool.submit(Box::new(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                send.send(()).unwrap();
            }))
            .unwrap();
        }
        drop(send);
        assert_eq!(receive.iter().count(), 200);
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }

    #[test]
    fn a_panic_costs_its_job_and_no_thread() {
        let pool = Pool::new(1);
        let (send, receive) = mpsc::channel();
        for number in 0..3 {
            let send = send.clone();
            pool.submit(Box::new(move || {
                if number == 1 {
                    std::panic::resume_unwind(Box::new("quiet"));
                }
                send.send((number, std::thread::current().id())).unwrap();
            }))
            .unwrap();
        }
        drop(send);
        let done: Vec<_> = receive.iter().collect();
        assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(done[0].1, done[1].1, "the same thread");
    }

    #[test]
    fn a_closed_pool_drops_what_has_not_started() {
        let pool = Pool::new(1);
        let (begin, begun) = mpsc::channel::<()>();
        let (go, gate) = mpsc::channel::<()>();
        let (send, receive) = mpsc::channel();
        let first = send.clone();
        pool.submit(Box::new(move || {
            begin.send(()).unwrap();
            gate.recv().unwrap();
            first.send(1).unwrap();
        }))
        .unwrap();
        pool.submit(Box::new(move || send.send(2).unwrap())).unwrap();
        begun.recv().unwrap();
        pool.close();
        go.send(()).unwrap();
        assert_eq!(receive.iter().collect::<Vec<_>>(), [1]);
    }
}
