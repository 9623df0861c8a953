//! What is given to whom, in which order; lost replies, restarts, adoption.

use super::*;

#[test]
fn small_units_of_one_job_travel_together() {
    let mut bench = Bench::with(Config { batch_units: 3, ..Config::default() });
    bench.submit(job("a", (0..7).map(|n| small(&n.to_string())).collect()));
    bench.submit(job("b", vec![small("b")]));
    let reply = bench.report("w");
    let units: Vec<_> = reply.leases.iter().map(|lease| (lease.job.0.as_str(), lease.units.len())).collect();
    assert_eq!(units, [("a", 3), ("b", 1), ("a", 3), ("a", 1)]);
    assert_eq!(reply.leases[0].model, "model of a");
    assert_eq!(bench.report("w").leases, []);
}

#[test]
fn a_batch_ends_when_its_cost_is_reached() {
    let mut bench = Bench::with(Config { batch_flops: 2.5e6, ..Config::default() });
    let memory = |n: u64| NewUnit { memory: n * GIB, ..small(&n.to_string()) };
    bench.submit(job("a", vec![memory(1), memory(3), memory(2), memory(4)]));
    let lease = bench.take("w");
    assert_eq!((lease.units.as_slice(), lease.memory, lease.cost), (&[0, 1, 2][..], 3 * GIB, 3_000_000));
}

#[test]
fn the_most_work_goes_first_and_what_does_not_fit_is_passed_over() {
    let mut bench = Bench::new();
    let units = [(1, 3e9), (6, 9e9), (5, 8e9), (2, 4e9)];
    let units =
        units.map(|(memory, cost)| NewUnit { memory: memory * GIB, cost, ..unit(&memory.to_string()) });
    bench.submit(job("a", units.to_vec()));
    let given: Vec<u32> = bench.report("w").leases.iter().flat_map(|lease| lease.units.clone()).collect();
    // 6 of 8 GiB, then not 5, but 2.
    assert_eq!(given, [1, 3]);
}

#[test]
fn never_more_than_free_bytes_and_cores() {
    let mut bench = Bench::new();
    bench.submit(job("a", (0..9).map(|n| unit(&n.to_string())).collect()));
    bench.worker("w").free_memory = 2 * GIB - 1;
    assert_eq!(bench.report("w").leases.len(), 1);
    bench.worker("v").free_cores = 2;
    assert_eq!(bench.report("v").leases.len(), 2);
    bench.worker("u").want = false;
    assert_eq!(bench.report("u").leases, []);
}

#[test]
fn a_report_said_twice_is_not_given_twice() {
    let mut bench = Bench::new();
    bench.submit(job("a", (0..9).map(|n| unit(&n.to_string())).collect()));
    assert_eq!(bench.report_lost("w").leases.len(), 4);
    assert_eq!(bench.report_lost("w").leases, []);
}

#[test]
fn a_lease_whose_reply_was_lost_waits_again_without_blame() {
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    let lost = bench.report_lost("w");
    bench.worker("w").want = false;
    // It has not seen that reply, and nothing later: the lease may be on its way.
    bench.table.take_events();
    bench.report("w");
    assert_eq!(causes(&bench.table.take_events()), []);
    // Now it has seen a later one.
    bench.report("w");
    assert_eq!(causes(&bench.table.take_events()), [(0, Requeue::HandedBack)]);
    bench.worker("w").want = true;
    assert!(bench.take("w").attempt > lost.leases[0].attempt);
}

#[test]
fn part_of_a_lease_may_be_given_back() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![small("x"), small("y"), small("z")]));
    let lease = bench.take("w");
    bench.worker("w").running[0].units.remove(1);
    bench.worker("w").want = false;
    bench.table.take_events();
    bench.report("w");
    assert_eq!(causes(&bench.table.take_events()), [(1, Requeue::HandedBack)]);
    assert_eq!(bench.finish("w", &lease, 1, Outcome::Done), Verdict::Stale);
    assert_eq!(bench.finish("w", &lease, 2, Outcome::Done), accepted());
}

#[test]
fn a_revoked_lease_on_its_way_still_takes_its_room() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![NewUnit { memory: 8 * GIB, ..unit("x") }]));
    bench.report_lost("w");
    bench.table.cancel(&JobId("a".into()), bench.now);
    bench.submit(job("b", vec![NewUnit { memory: 8 * GIB, ..unit("y") }]));
    assert_eq!(bench.report_lost("w").leases, []);
}

#[test]
fn an_overtaken_report_is_ignored() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let early = bench.worker("w").clone();
    bench.take("w");
    bench.report("w");
    let reply = bench.table.report(&early, bench.now);
    assert_eq!(reply, Reply::default());
    assert_eq!(bench.counts("a").running, 1);
}

#[test]
fn a_new_process_of_a_worker_ends_the_leases_of_the_old() {
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![small("x"), small("y")]));
    let lease = bench.take("w");
    bench.report("w");
    let old = bench.worker("w").clone();
    bench.workers.clear();
    bench.worker("w").session = 2;
    bench.table.take_events();
    bench.report("w");
    let events = bench.table.take_events();
    assert_eq!(reasons(&events).len(), 1);
    assert_eq!(causes(&events), [(1, Requeue::WorkerLost)]);
    let reply = bench.table.report(&old, bench.now);
    assert_eq!((reply.seq, reply.cancelled), (0, vec![lease.attempt]));
}

#[test]
fn a_worker_whose_clock_went_back_is_welcome_once_it_was_lost() {
    let mut bench = Bench::new();
    bench.worker("w").session = 5;
    bench.report("w");
    bench.workers.clear();
    assert_eq!(bench.report("w").seq, 0);
    bench.at(30_000);
    assert_ne!(bench.report("w").seq, 0);
}

#[test]
fn equal_priorities_share_and_higher_ones_go_first() {
    let mut bench = Bench::new();
    bench.submit(job("huge", (0..50).map(|n| NewUnit { cost: 9e9, ..unit(&n.to_string()) }).collect()));
    bench.take("u");
    bench.take("u");
    bench.submit(job("tiny", (0..3).map(|n| unit(&format!("t{n}"))).collect()));
    // The newcomer starts level with its rival, and takes three times for each of the other's.
    let order: Vec<String> = (0..5).map(|n| bench.take(&format!("v{n}")).job.0).collect();
    assert_eq!(order, ["huge", "tiny", "tiny", "tiny", "huge"]);
    bench.submit(NewJob { priority: 1, ..job("urgent", vec![unit("p")]) });
    assert_eq!(bench.take("w").job.0, "urgent");
    assert_eq!(bench.take("w").job.0, "huge");
}

#[test]
fn a_draining_worker_finishes_and_takes_nothing() {
    let mut bench = Bench::new();
    bench.submit(job("a", (0..9).map(|n| unit(&n.to_string())).collect()));
    let lease = bench.take("w");
    assert!(bench.table.drain(&WorkerId("w".into()), bench.now));
    assert!(!bench.table.drain(&WorkerId("v".into()), bench.now));
    assert_eq!(bench.report("w").leases, []);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
    assert_eq!(bench.table.workers().next().unwrap().state, WorkerState::Draining);
    assert_eq!(bench.waiting("a"), Some(Waiting::NoWorkers));
    // Until its process ends.
    bench.worker("w").session = 2;
    assert_eq!(bench.report("w").leases.len(), 4);
    bench.worker("v").draining = true;
    assert_eq!(bench.report("v").leases, []);
}

/// A worker with a lease of epoch 1, and a table of epoch 2 that has the same job.
fn restarted(units: Vec<NewUnit>) -> (Bench, Lease) {
    let mut bench = Bench::new();
    bench.submit(job("a", units.clone()));
    let lease = bench.take("w");
    bench.table = Table::new(Config::default(), 2, Time(0));
    bench.submit(NewJob { restore: Some(Restore::default()), ..job("a", units) });
    (bench, lease)
}

#[test]
fn after_a_restart_a_lease_is_adopted() {
    let (mut bench, lease) = restarted(vec![small("x"), small("y")]);
    let reply = bench.report("w");
    assert_eq!((reply.cancelled, reply.leases), (vec![], vec![]));
    assert_eq!(bench.counts("a").running, 2);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Duplicate);
    // The worker gives the rest back; that attempt is not adopted a second time.
    let report = bench.worker("w").clone();
    bench.worker("w").running.clear();
    bench.report("w");
    assert_eq!(bench.counts("a").queued, 1);
    bench.worker("w").running = report.running;
    assert_eq!(bench.report("w").cancelled, [lease.attempt]);
    assert_eq!(bench.finish("w", &lease, 1, Outcome::Done), Verdict::Stale);
}

#[test]
fn after_a_restart_a_result_may_come_before_the_report() {
    let (mut bench, lease) = restarted(vec![unit("x"), unit("y")]);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Duplicate);
    assert_eq!(bench.counts("a").done, 1);
}

#[test]
fn a_lease_is_not_adopted_from_two_workers() {
    let (mut bench, lease) = restarted(vec![unit("x")]);
    let running = bench.worker("w").running.clone();
    bench.report("w");
    bench.worker("v").running = running;
    assert_eq!(bench.report("v").cancelled, [lease.attempt]);
    assert_eq!(bench.finish("v", &lease, 0, Outcome::Done), Verdict::Stale);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
}

#[test]
fn a_unit_that_is_done_is_skipped_in_an_adopted_lease() {
    let (mut bench, lease) = restarted(vec![small("x"), small("y")]);
    let id = JobId("a".into());
    bench.table.complete(&id, 0, bench.now);
    let reply = bench.report("w");
    assert_eq!((reply.skip, reply.cancelled), (vec![(lease.attempt, id, 0)], vec![]));
    assert_eq!(bench.counts("a").running, 1);
}

#[test]
fn an_unknown_lease_is_cancelled() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let id = |id: &str| JobId(id.into());
    let running = |attempt, job: &str, unit| Running {
        attempt: Attempt(attempt),
        units: vec![(id(job), unit)],
        kept: vec![],
        progress: 0,
    };
    // Of this epoch; of no job; of no unit; of nothing.
    let current = (1 << 32) + 5;
    let empty = Running { units: vec![], ..running(9, "a", 0) };
    bench.worker("w").want = false;
    bench.worker("w").running = vec![running(current, "a", 0), running(7, "b", 0), running(8, "a", 3), empty];
    let cancelled = [current, 7, 8, 9].map(Attempt);
    assert_eq!(bench.report("w").cancelled, cancelled);
    assert_eq!(bench.counts("a").queued, 1);
}

#[test]
fn attempts_that_ran_out_are_not_used_again() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    bench.table.attempts = u32::MAX - 1;
    assert_eq!(
        bench.report("w").leases.iter().map(|lease| lease.attempt.0).collect::<Vec<_>>(),
        [(2 << 32) - 1]
    );
}
