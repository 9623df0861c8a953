//! Each time-out, one millisecond before and at its time.

use super::*;

#[test]
fn a_silent_worker_is_lost_and_its_units_wait_again() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    assert_eq!(bench.report("w").leases.len(), 2);
    assert_eq!(bench.at(29_999), []);
    assert_eq!(bench.counts("a").running, 2);
    let events = bench.at(30_000);
    assert_eq!(causes(&events), [(0, Requeue::WorkerLost), (1, Requeue::WorkerLost)]);
    assert_eq!(bench.counts("a").queued, 2);
    assert_eq!(bench.table.workers().next().unwrap().state, WorkerState::Lost);
}

#[test]
fn a_report_puts_the_loss_off() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    bench.take("w");
    bench.at(29_999);
    bench.report("w");
    assert_eq!(bench.at(59_998), []);
    assert_eq!(causes(&bench.at(59_999)), [(0, Requeue::WorkerLost)]);
}

#[test]
fn a_lease_that_does_not_move_is_revoked_though_the_worker_beats() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let lease = bench.take("w");
    beat(&mut bench, 300_000);
    bench.worker("w").running[0].progress = 1;
    bench.report("w");
    beat(&mut bench, 899_000);
    assert_eq!(bench.at(899_999), []);
    assert_eq!(causes(&bench.at(900_000)), [(0, Requeue::NoProgress)]);
    bench.worker("w").want = false;
    assert_eq!(bench.report("w").cancelled, [lease.attempt]);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Stale);
}

/// Reports every 10 seconds until then, and nothing moves.
fn beat(bench: &mut Bench, until: u64) {
    while bench.now < Time(until) {
        let next = bench.now.plus(10_000).0.min(until);
        assert_eq!(causes(&bench.at(next)), []);
        bench.report("w");
    }
}

#[test]
fn a_result_is_progress() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![small("x"), small("y")]));
    let lease = bench.take("w");
    assert_eq!(lease.units, [0, 1]);
    beat(&mut bench, 599_999);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
    beat(&mut bench, 1_199_998);
    assert_eq!(causes(&bench.at(1_199_999)), [(1, Requeue::NoProgress)]);
}

#[test]
fn a_unit_too_large_for_every_worker_fails_after_its_time() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![NewUnit { memory: 9 * GIB, ..unit("x") }, small("y")]));
    bench.at(1_000);
    let lease = bench.take("w");
    assert_eq!(lease.units, [1]);
    let waiting = Waiting::NoWorkerHasMemory { needs: 9 * GIB, largest: 8 * GIB };
    assert_eq!(bench.waiting("a"), Some(waiting));
    assert_eq!(bench.finish("w", &lease, 1, Outcome::Done), accepted());
    beat(&mut bench, 600_999);
    assert_eq!(bench.state("a"), JobState::Running);
    let events = bench.at(601_000);
    let reason = "needs 9663676416 bytes of memory, the largest worker has 8589934592";
    assert_eq!(reasons(&events), [(0, reason.to_owned())]);
    assert_eq!(bench.state("a"), JobState::Done);
    assert_eq!(bench.counts("a").failed, 1);
}

#[test]
fn a_larger_worker_stops_that_clock_and_its_end_starts_it_again() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![NewUnit { memory: 9 * GIB, ..unit("x") }]));
    bench.report("w");
    beat(&mut bench, 599_000);
    bench.worker("large").memory = 16 * GIB;
    bench.worker("large").want = false;
    bench.report("large");
    assert_eq!(bench.waiting("a"), Some(Waiting::Queued));
    // It is lost 30 s later, and the clock starts from there.
    beat(&mut bench, 1_228_999);
    assert!(matches!(bench.waiting("a"), Some(Waiting::NoWorkerHasMemory { .. })));
    assert_eq!(reasons(&bench.at(1_229_000)).len(), 1);
}

#[test]
fn without_workers_a_job_fails_after_a_day() {
    const DAY: u64 = 86_400_000;
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    assert_eq!(bench.waiting("a"), Some(Waiting::NoWorkers));
    assert_eq!(bench.table.next_deadline(), Some(Time(DAY)));
    bench.at(5);
    bench.submit(job("b", vec![unit("x")]));
    assert_eq!(bench.at(DAY - 1), []);
    bench.at(DAY);
    assert_eq!(bench.state("a"), JobState::Failed("no worker for 86400 s".into()));
    assert_eq!(bench.state("b"), JobState::Queued);
    bench.at(DAY + 5);
    assert_eq!(bench.state("b"), JobState::Failed("no worker for 86400 s".into()));
    assert_eq!(bench.counts("b").dropped, 1);
    assert_eq!(bench.table.next_deadline(), None);
}

#[test]
fn that_clock_starts_when_the_last_worker_is_lost() {
    let mut bench = Bench::with(Config { no_worker_timeout: Some(100_000), ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    bench.at(99_999);
    bench.take("w");
    bench.at(129_999);
    bench.at(229_998);
    assert_eq!(bench.state("a"), JobState::Running);
    bench.at(229_999);
    assert_eq!(bench.state("a"), JobState::Failed("no worker for 100 s".into()));
}

#[test]
fn without_a_limit_jobs_wait_for_workers_for_ever() {
    let mut bench = Bench::with(Config { no_worker_timeout: None, ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    assert_eq!(bench.table.next_deadline(), None);
    bench.at(u64::MAX / 2);
    assert_eq!(bench.state("a"), JobState::Queued);
}

#[test]
fn a_lost_worker_is_forgotten() {
    let mut bench = Bench::new();
    bench.report("w");
    bench.at(30_000);
    bench.at(3_629_999);
    assert_eq!(bench.table.workers().count(), 1);
    let events = bench.at(3_630_000);
    assert_eq!(events, [Event::WorkerChanged { worker: WorkerId("w".into()), state: None }]);
    assert_eq!(bench.table.workers().count(), 0);
}

#[test]
fn the_back_off_ends_at_its_time() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let lease = bench.take("w");
    bench.finish("w", &lease, 0, Outcome::World("503".into()));
    let until = bench.table.next_deadline().unwrap();
    assert!((500..=1000).contains(&until.0));
    assert_eq!(bench.waiting("a"), Some(Waiting::BackOff { until }));
    bench.at(until.0 - 1);
    assert_eq!(bench.report("w").leases, []);
    bench.at(until.0);
    assert_eq!(bench.report("w").leases.len(), 1);
}

#[test]
fn back_off_doubles_up_to_its_longest_and_keys_come_back_apart() {
    use super::super::finish::back_off;
    for times in 1..80 {
        let whole = 1000u64.saturating_mul(1 << (times - 1).min(40)).min(300_000);
        let wait = back_off(b"x", times, 1000, 300_000);
        assert!(whole / 2 <= wait && wait <= whole, "{times}: {wait}");
    }
    let waits: std::collections::BTreeSet<u64> =
        (0..100u8).map(|key| back_off(&[key], 5, 1000, 300_000)).collect();
    assert!(waits.len() > 90);
    assert_eq!(back_off(b"x", 1, 0, 0), 0);
}

#[test]
fn after_a_restart_workers_may_speak_first() {
    let mut bench = Bench::new();
    let restore = Some(Restore::default());
    bench.submit(NewJob { restore, ..job("a", vec![unit("x")]) });
    bench.at(9_999);
    assert_eq!(bench.report("w").leases, []);
    assert_eq!(bench.waiting("a"), Some(Waiting::Adoption { until: Time(10_000) }));
    bench.at(10_000);
    assert_eq!(bench.waiting("a"), Some(Waiting::Queued));
    assert_eq!(bench.report("w").leases.len(), 1);
}

#[test]
fn a_starving_unit_reserves_a_worker() {
    let mut bench = Bench::new();
    let large = NewUnit { memory: 7 * GIB, cost: 1e10, ..unit("large") };
    let units: Vec<NewUnit> = (0..20).map(|n| NewUnit { memory: 2 * GIB, ..unit(&n.to_string()) }).collect();
    bench.submit(job("small", units));
    let first = bench.take("w");
    bench.submit(NewJob { priority: 1, ..job("large", vec![large]) });
    // Until it starves, small ones go on.
    let second = bench.take("w");
    bench.finish("w", &first, 0, Outcome::Done);
    bench.worker("w").want = false;
    for at in (10_000..=110_000).step_by(10_000).chain([119_999]) {
        bench.at(at);
        bench.report("w");
    }
    bench.worker("w").want = true;
    let third = bench.take("w");
    assert_eq!((second.job.0.as_str(), third.job.0.as_str()), ("small", "small"));
    bench.at(120_000);
    assert_eq!(bench.report("w").leases, []);
    // Another worker is not kept back by it, and takes what fits.
    bench.worker("v").free_memory = 2 * GIB;
    assert_eq!(bench.take("v").job.0, "small");
    bench.finish("w", &second, 1, Outcome::Done);
    assert_eq!(bench.report("w").leases, []);
    bench.finish("w", &third, 2, Outcome::Done);
    assert_eq!(bench.take("w").job.0, "large");
    assert_eq!(bench.report("w").leases, []);
}

#[test]
fn a_reservation_ends_with_its_worker() {
    let mut bench = Bench::with(Config { starve_after: 0, ..Config::default() });
    bench.submit(job("small", vec![unit("x"), unit("y")]));
    bench.take("w");
    bench.submit(NewJob { priority: 1, ..job("large", vec![NewUnit { memory: 8 * GIB, ..unit("z") }]) });
    assert_eq!(bench.report("w").leases, []);
    bench.at(30_000);
    // Lost: the reservation is free for another.
    bench.worker("v").want = true;
    assert_eq!(bench.take("v").job.0, "large");
}
