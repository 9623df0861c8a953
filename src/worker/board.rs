//! What the worker holds, what is free, what is to be reported: plain data, no input or output, no clock.

use crate::rpc::proto::worker::v1::unit_failure::Blame;
use crate::rpc::proto::worker::v1::unit_result::Outcome;
use crate::rpc::proto::worker::v1::{
    Lease, ReportRequest, ReportResponse, Returned, Running, UnitFailure, UnitKey, UnitResult,
};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most bytes of results in one report; a message has at most 4 MiB.
const REPORT_BYTES: usize = 3 << 20;
/// A row above this is not sent: names come from files and may be of any length.
const RESULT_BYTES: usize = 1 << 20;

/// A lease that may start, or has.
#[derive(Clone)]
pub(super) struct Task {
    /// What to do.
    pub(super) lease: Arc<Lease>,
    /// Set when nobody wants it any more.
    pub(super) cancel: Arc<AtomicBool>,
    /// Rises whenever work moves.
    pub(super) progress: Arc<AtomicU64>,
}

/// A lease until each of its units has ended and its result is acknowledged.
struct Held {
    task: Task,
    /// Units that have not ended.
    left: VecDeque<u32>,
    /// The unit that is computed, and what stops it.
    under_way: Option<(u32, Arc<AtomicBool>)>,
}

impl Held {
    fn stop(&self) {
        self.task.cancel.store(true, Ordering::Relaxed);
        if let Some((_, stop)) = &self.under_way {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// A report to send.
pub(super) struct Report {
    /// The message.
    pub(super) request: ReportRequest,
    /// Whether results were left for the next report.
    pub(super) is_cut: bool,
}

/// The state of the worker's side of the protocol.
pub(super) struct Board {
    cores: usize,
    memory: u64,
    seen: u64,
    draining: bool,
    /// Leases with units that have not ended or results that are not acknowledged, by attempt.
    held: BTreeMap<u64, Held>,
    /// Leases that have not started, in the order in which they came.
    waiting: VecDeque<u64>,
    /// Bytes of the leases that a thread works on, wanted or not, by attempt.
    busy: BTreeMap<u64, u64>,
    /// Units that have ended and are not acknowledged.
    results: VecDeque<UnitResult>,
    /// Of all bytes read, those in the last report that was answered, and in the last that was sent.
    bytes_told: u64,
    bytes_sent: u64,
}

impl Board {
    /// Nothing held. At most `cores` leases are under way, whose bytes together are at most `memory`.
    pub(super) fn new(cores: usize, memory: u64) -> Self {
        Self {
            cores: cores.max(1),
            memory,
            seen: 0,
            draining: false,
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
            busy: BTreeMap::new(),
            results: VecDeque::new(),
            bytes_told: 0,
            bytes_sent: 0,
        }
    }

    /// Takes a lease. One that is held already, or has results that wait, changes nothing. Units of one that cannot
    /// be done here end at once.
    pub(super) fn accept(&mut self, lease: Lease) {
        let attempt = lease.attempt;
        if self.held.contains_key(&attempt) || self.busy.contains_key(&attempt) {
            return;
        }
        let (needed, memory) = (lease.memory_bytes, self.memory);
        let left = lease.units.iter().map(|unit| unit.unit).collect();
        let task = Task { lease: Arc::new(lease), cancel: Arc::default(), progress: Arc::default() };
        self.held.insert(attempt, Held { task, left, under_way: None });
        if self.draining {
            self.hand_back(attempt);
        } else if needed > memory {
            let message = format!("needs {needed} bytes, this worker has {memory}");
            let failure =
                UnitFailure { blame: Blame::World.into(), reason: "NEEDS_MEMORY".to_owned(), message };
            self.end_all(attempt, &Outcome::Failure(failure));
        } else {
            self.waiting.push_back(attempt);
        }
        self.forget_if_ended(attempt);
    }

    /// The next lease to start: in the order in which they came, when a core is free and its bytes fit.
    pub(super) fn next(&mut self) -> Option<Task> {
        loop {
            let attempt = *self.waiting.front()?;
            let Some(held) = self.held.get(&attempt).filter(|held| !held.left.is_empty()) else {
                self.waiting.pop_front();
                continue;
            };
            let needed = held.task.lease.memory_bytes;
            let used: u64 = self.busy.values().sum();
            if self.busy.len() >= self.cores || needed > self.memory.saturating_sub(used) {
                return None;
            }
            self.waiting.pop_front();
            self.busy.insert(attempt, needed);
            return Some(held.task.clone());
        }
    }

    /// A unit begins: what stops it, or `None` if it is not wanted any more.
    pub(super) fn begin(&mut self, attempt: u64, unit: u32) -> Option<Arc<AtomicBool>> {
        let held = self.held.get_mut(&attempt).filter(|held| held.left.contains(&unit))?;
        let stop = Arc::new(AtomicBool::new(false));
        held.under_way = Some((unit, Arc::clone(&stop)));
        Some(stop)
    }

    /// A unit has ended: with a result to report, or without one, if the coordinator knows it. Ignored if the lease
    /// is not wanted any more.
    pub(super) fn finish(&mut self, attempt: u64, unit: u32, result: Option<UnitResult>) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let Some(at) = held.left.iter().position(|&left| left == unit) else { return };
        held.left.remove(at);
        held.task.progress.fetch_add(1, Ordering::Relaxed);
        self.results.extend(result.map(short_enough));
        self.forget_if_ended(attempt);
    }

    /// The thread that worked on the lease is free again. What it left undone is handed back.
    pub(super) fn end(&mut self, attempt: u64) {
        self.busy.remove(&attempt);
        self.hand_back(attempt);
    }

    /// From now on every lease that comes is handed back.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Hands back all units that have not ended, and stops their computation.
    pub(super) fn hand_back_all(&mut self) {
        let attempts: Vec<u64> = self.held.keys().copied().collect();
        for attempt in attempts {
            if let Some(held) = self.held.get(&attempt) {
                held.stop();
            }
            self.hand_back(attempt);
        }
    }

    /// Hands back what is left of one lease.
    pub(super) fn hand_back(&mut self, attempt: u64) {
        self.end_all(attempt, &Outcome::Returned(Returned {}));
    }

    fn end_all(&mut self, attempt: u64, outcome: &Outcome) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let lease = &held.task.lease;
        self.results.extend(held.left.drain(..).map(|unit| result_of(lease, unit, outcome.clone())));
        self.forget_if_ended(attempt);
    }

    fn forget_if_ended(&mut self, attempt: u64) {
        let has_ended = self.held.get(&attempt).is_some_and(|held| held.left.is_empty());
        if has_ended && !self.results.iter().any(|result| result.attempt == attempt) {
            self.held.remove(&attempt);
        }
    }

    /// Whether one lease alone is here, and a core has no work.
    pub(super) fn has_spare_core(&self) -> bool {
        self.cores >= 2 && self.busy.len() == 1 && self.waiting.is_empty()
    }

    /// Whether nothing is held and nothing is left to report.
    pub(super) fn is_done(&self) -> bool {
        self.held.is_empty() && self.results.is_empty()
    }

    /// Units that have not ended, and results that are not acknowledged.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.held.values().map(|held| held.left.len()).sum(), self.results.len())
    }

    /// Cores and bytes that no lease has: none under way, none that waits.
    pub(super) fn free(&self) -> (usize, u64) {
        let waiting = self.waiting.iter().filter_map(|attempt| self.held.get(attempt));
        let (mut leases, mut bytes) = (self.busy.len(), self.busy.values().sum::<u64>());
        for held in waiting.filter(|held| !held.left.is_empty()) {
            leases += 1;
            bytes = bytes.saturating_add(held.task.lease.memory_bytes);
        }
        (self.cores.saturating_sub(leases), self.memory.saturating_sub(bytes))
    }

    /// All that the coordinator is to know; `bytes_read`: of models, since the start. The caller adds who it is.
    pub(super) fn report(&mut self, bytes_read: u64) -> Report {
        self.bytes_sent = bytes_read;
        let (free_cores, free_memory_bytes) = self.free();
        let (mut results, mut size) = (Vec::new(), 0);
        for result in &self.results {
            // A field's tag and length take at most 6 bytes.
            size += result.encoded_len() + 6;
            if size > REPORT_BYTES {
                break;
            }
            results.push(result.clone());
        }
        let is_cut = results.len() < self.results.len();
        let mut running: BTreeMap<u64, Running> =
            self.held.iter().map(|(&attempt, held)| (attempt, running(held))).collect();
        // A unit in neither list has been handed back.
        let kept = self.results.iter().filter(|r| !matches!(r.outcome, Some(Outcome::Returned(_))));
        for result in kept {
            running.entry(result.attempt).and_modify(|running| running.kept.push(result.unit));
        }
        let request = ReportRequest {
            cores: as_u32(self.cores),
            memory_bytes: self.memory,
            free_cores: if self.draining { 0 } else { as_u32(free_cores) },
            free_memory_bytes: if self.draining { 0 } else { free_memory_bytes },
            draining: self.draining,
            seen: self.seen,
            running: running.into_values().collect(),
            results,
            bytes_read: bytes_read.saturating_sub(self.bytes_told),
            ..ReportRequest::default()
        };
        Report { request, is_cut }
    }

    /// Takes the answer to the last report. There is one report at a time, so that answers come in order.
    pub(super) fn answered(&mut self, answer: ReportResponse) {
        self.bytes_told = self.bytes_sent;
        self.seen = answer.sequence;
        self.drop_results(&answer.acknowledged);
        self.cancel(&answer.cancelled);
        self.skip(&answer.skip);
        answer.leases.into_iter().for_each(|lease| self.accept(lease));
    }

    fn drop_results(&mut self, keys: &[UnitKey]) {
        if keys.is_empty() {
            return;
        }
        let mut sorted: Vec<(u64, u32, &str)> =
            keys.iter().map(|key| (key.attempt, key.unit, key.analysis.as_str())).collect();
        sorted.sort_unstable();
        self.results.retain(|r| sorted.binary_search(&(r.attempt, r.unit, r.analysis.as_str())).is_err());
        let with_results: BTreeSet<u64> = self.results.iter().map(|result| result.attempt).collect();
        self.held.retain(|attempt, held| !held.left.is_empty() || with_results.contains(attempt));
    }

    /// Stops units that are not wanted any more; of the rest of their lease nothing changes.
    fn skip(&mut self, keys: &[UnitKey]) {
        for key in keys {
            let Some(held) = self.held.get_mut(&key.attempt) else { continue };
            held.left.retain(|unit| *unit != key.unit);
            if let Some((_, stop)) = held.under_way.as_ref().filter(|(unit, _)| *unit == key.unit) {
                stop.store(true, Ordering::Relaxed);
            }
        }
        self.drop_results(keys);
    }

    /// Stops leases that are not wanted any more; nothing of them is reported.
    pub(super) fn cancel(&mut self, attempts: &[u64]) {
        for attempt in attempts {
            if let Some(held) = self.held.remove(attempt) {
                held.stop();
            }
            self.results.retain(|result| result.attempt != *attempt);
        }
    }
}

/// The result of a unit that took no time.
pub(super) fn result_of(lease: &Lease, unit: u32, outcome: Outcome) -> UnitResult {
    UnitResult {
        analysis: lease.analysis.clone(),
        unit,
        attempt: lease.attempt,
        outcome: Some(outcome),
        has_spectrum: false,
        seconds: 0.0,
    }
}

fn running(held: &Held) -> Running {
    Running {
        attempt: held.task.lease.attempt,
        analysis: held.task.lease.analysis.clone(),
        units: held.left.iter().copied().collect(),
        progress: held.task.progress.load(Ordering::Relaxed),
        kept: Vec::new(),
    }
}

/// A result that would not fit a report is a failure that says so.
fn short_enough(mut result: UnitResult) -> UnitResult {
    let length = result.encoded_len();
    if length > RESULT_BYTES {
        let message =
            format!("its result takes {length} bytes, more than {RESULT_BYTES}: are its names that long?");
        result.outcome = Some(Outcome::Failure(UnitFailure {
            blame: Blame::Unit.into(),
            reason: "RESULT_TOO_LARGE".to_owned(),
            message,
        }));
    }
    result
}

fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::v1::LayerResult;
    use crate::rpc::proto::worker::v1::Unit;

    fn lease(attempt: u64, memory_bytes: u64, units: &[u32]) -> Lease {
        let units = units.iter().map(|&unit| Unit { unit, ..Unit::default() }).collect();
        Lease { attempt, analysis: "a".to_owned(), memory_bytes, units, ..Lease::default() }
    }

    fn row(lease: &Lease, unit: u32) -> Option<UnitResult> {
        Some(result_of(lease, unit, Outcome::Row(LayerResult::default())))
    }

    fn key(attempt: u64, unit: u32) -> UnitKey {
        UnitKey { analysis: "a".to_owned(), unit, attempt }
    }

    fn units(results: &[UnitResult]) -> Vec<(u64, u32)> {
        results.iter().map(|r| (r.attempt, r.unit)).collect()
    }

    #[test]
    fn leases_start_in_order_within_cores_and_memory() {
        let mut board = Board::new(2, 100);
        for (attempt, memory) in [(1, 60), (2, 50), (3, 10)] {
            board.accept(lease(attempt, memory, &[7]));
        }
        assert_eq!(board.next().map(|t| t.lease.attempt), Some(1));
        assert!(board.next().is_none(), "50 bytes do not fit the 40 that are left, and 3 came later");
        assert_eq!(board.free(), (0, 0), "what waits is not free");
        board.end(1);
        assert_eq!(board.next().map(|t| t.lease.attempt), Some(2));
        assert_eq!(board.next().map(|t| t.lease.attempt), Some(3));
        assert_eq!(board.free(), (0, 40));
        board.end(2);
        assert_eq!(board.free(), (1, 90));
    }

    #[test]
    fn results_are_reported_until_they_are_acknowledged() {
        let mut board = Board::new(1, 100);
        let held = lease(5, 1, &[1, 2]);
        board.accept(held.clone());
        assert!(board.next().is_some());
        board.finish(5, 1, row(&held, 1));
        let first = board.report(0).request;
        assert_eq!((units(&first.results), first.running[0].units.clone()), (vec![(5, 1)], vec![2]));
        assert_eq!(first.running[0].kept, [1]);
        assert_eq!(first.running[0].progress, 1, "the end of a unit is progress");
        assert_eq!(units(&board.report(0).request.results), [(5, 1)], "no answer came: it is sent again");
        board.answered(ReportResponse { sequence: 3, acknowledged: vec![key(5, 1)], ..Default::default() });
        let next = board.report(0).request;
        assert!(next.results.is_empty() && next.seen == 3);
        board.answered(ReportResponse { acknowledged: vec![key(4, 2)], ..Default::default() });
        board.finish(5, 2, row(&held, 2));
        let last = board.report(0).request;
        assert_eq!(
            (last.running[0].units.len(), last.running[0].kept.clone()),
            (0, vec![2]),
            "nothing was given back"
        );
        assert!(!board.is_done(), "an acknowledgement of another attempt is none");
        board.answered(ReportResponse { acknowledged: vec![key(5, 2)], ..Default::default() });
        assert!(board.is_done());
        assert_eq!(board.free().0, 0, "its thread is not back yet");
    }

    #[test]
    fn a_lease_that_comes_twice_is_done_once() {
        let mut board = Board::new(2, 100);
        let held = lease(5, 1, &[1]);
        board.accept(held.clone());
        board.accept(held.clone());
        assert!(board.next().is_some() && board.next().is_none());
        board.finish(5, 1, row(&held, 1));
        board.accept(held.clone());
        assert!(board.next().is_none(), "its result waits");
        assert_eq!(board.report(0).request.results.len(), 1);
    }

    #[test]
    fn a_cancelled_lease_vanishes_at_once_but_keeps_its_core_until_its_thread_is_back() {
        let mut board = Board::new(2, 100);
        let held = lease(5, 60, &[1, 2]);
        board.accept(held.clone());
        board.accept(lease(6, 50, &[3]));
        let task = board.next().unwrap();
        board.finish(5, 1, row(&held, 1));
        board.answered(ReportResponse { cancelled: vec![5, 6, 77], ..Default::default() });
        let report = board.report(0).request;
        assert!(report.running.is_empty() && report.results.is_empty());
        assert_eq!((report.free_cores, report.free_memory_bytes), (1, 40));
        assert!(task.cancel.load(Ordering::Relaxed));
        board.finish(5, 2, row(&held, 2));
        board.end(5);
        assert!(board.is_done(), "what came late is dropped");
        assert_eq!(board.free(), (2, 100));
        assert!(board.next().is_none(), "6 was cancelled before it started");
    }

    #[test]
    fn a_unit_that_is_skipped_stops_alone() {
        let mut board = Board::new(1, 100);
        let held = lease(5, 1, &[1, 2, 3, 4]);
        board.accept(held.clone());
        let task = board.next().unwrap();
        assert!(board.begin(5, 1).is_some());
        board.finish(5, 1, row(&held, 1));
        let stop = board.begin(5, 2).unwrap();
        board.answered(ReportResponse { skip: vec![key(5, 1), key(5, 2), key(5, 3)], ..Default::default() });
        assert!(stop.load(Ordering::Relaxed) && !task.cancel.load(Ordering::Relaxed));
        board.finish(5, 2, row(&held, 2));
        assert!(board.begin(5, 3).is_none());
        let report = board.report(0).request;
        assert!(report.results.is_empty() && report.running[0].units == [4]);
        board.answered(ReportResponse { skip: vec![key(5, 4)], ..Default::default() });
        assert!(board.is_done());
    }

    #[test]
    fn draining_hands_back_what_has_not_ended() {
        let mut board = Board::new(1, 100);
        let held = lease(5, 1, &[1, 2]);
        board.accept(held.clone());
        board.accept(lease(6, 1, &[3]));
        let task = board.next().unwrap();
        board.drain();
        let report = board.report(0).request;
        assert!(report.draining && report.free_cores == 0 && report.free_memory_bytes == 0);
        board.finish(5, 1, row(&held, 1));
        board.hand_back_all();
        board.end(5);
        assert!(task.cancel.load(Ordering::Relaxed));
        assert!(board.next().is_none(), "6 has nothing left to do");
        board.accept(lease(7, 1, &[4]));
        let report = board.report(0).request;
        assert!(report.running.iter().all(|running| running.units.is_empty()));
        assert_eq!(units(&report.results), [(5, 1), (5, 2), (6, 3), (7, 4)]);
        let returned = report.results.iter().filter(|r| matches!(r.outcome, Some(Outcome::Returned(_))));
        assert_eq!(returned.count(), 3);
    }

    #[test]
    fn a_thread_that_comes_back_early_hands_back_the_rest() {
        let mut board = Board::new(1, 100);
        board.accept(lease(5, 1, &[1]));
        board.next();
        board.end(5);
        let results = board.report(0).request.results;
        assert!(matches!(results[0].outcome, Some(Outcome::Returned(_))));
    }

    #[test]
    fn what_the_coordinator_knows_is_over_without_a_result() {
        let mut board = Board::new(1, 100);
        board.accept(lease(5, 1, &[1]));
        board.next();
        board.finish(5, 1, None);
        assert!(board.is_done());
    }

    #[test]
    fn a_lease_above_the_memory_fails_and_blocks_nobody() {
        let mut board = Board::new(1, 100);
        board.accept(lease(5, 101, &[1]));
        board.accept(lease(6, 100, &[2]));
        assert_eq!(board.next().map(|t| t.lease.attempt), Some(6));
        let results = board.report(0).request.results;
        let Some(Outcome::Failure(failure)) = &results[0].outcome else { panic!("no failure") };
        assert_eq!(failure.message, "needs 101 bytes, this worker has 100");
        assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::World, "NEEDS_MEMORY"));
    }

    #[test]
    fn a_report_stays_under_the_limit_and_the_rest_goes_with_the_next() {
        let mut board = Board::new(1, 100);
        let numbers: Vec<u32> = (0..10).collect();
        let held = lease(5, 1, &numbers);
        board.accept(held.clone());
        board.next();
        for &unit in &numbers {
            let long = LayerResult { name: "x".repeat(900_000), ..LayerResult::default() };
            board.finish(5, unit, Some(result_of(&held, unit, Outcome::Row(long))));
        }
        let report = board.report(0);
        assert!(report.is_cut && report.request.encoded_len() < 4 << 20);
        assert_eq!(units(&report.request.results), [(5, 0), (5, 1), (5, 2)]);
        let acknowledged = (0..9).map(|unit| key(5, unit)).collect();
        board.answered(ReportResponse { acknowledged, ..Default::default() });
        let last = board.report(0);
        assert!(!last.is_cut && units(&last.request.results) == [(5, 9)]);
    }

    #[test]
    fn a_result_that_fits_no_report_is_a_failure() {
        let mut board = Board::new(1, 100);
        let held = lease(5, 1, &[1]);
        board.accept(held.clone());
        board.next();
        let long = LayerResult { name: "x".repeat(2 << 20), ..LayerResult::default() };
        board.finish(5, 1, Some(result_of(&held, 1, Outcome::Row(long))));
        let results = board.report(0).request.results;
        let Some(Outcome::Failure(failure)) = &results[0].outcome else { panic!("no failure") };
        assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Unit, "RESULT_TOO_LARGE"));
    }

    #[test]
    fn bytes_are_told_once_they_are_answered() {
        let mut board = Board::new(1, 100);
        assert_eq!(board.report(10).request.bytes_read, 10);
        assert_eq!(board.report(15).request.bytes_read, 15, "no answer came");
        board.answered(ReportResponse::default());
        assert_eq!(board.report(18).request.bytes_read, 3);
    }

    #[test]
    fn a_spare_core_is_one_that_nobody_waits_for() {
        let mut board = Board::new(2, 100);
        board.accept(lease(1, 1, &[1]));
        board.next();
        assert!(board.has_spare_core());
        board.accept(lease(2, 1, &[2]));
        assert!(!board.has_spare_core());
        let mut single = Board::new(1, 100);
        single.accept(lease(1, 1, &[1]));
        single.next();
        assert!(!single.has_spare_core());
    }
}
