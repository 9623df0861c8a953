//! Outcomes, blame, jobs, limits and views.

use super::*;

#[test]
fn a_result_counts_once() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    let lease = bench.take("w");
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Duplicate);
    assert_eq!(bench.finish("w", &lease, 1, Outcome::Done), Verdict::Stale);
    assert_eq!(bench.finish("w", &lease, 2, Outcome::Done), Verdict::Unknown);
    let counts = bench.counts("a");
    assert_eq!((counts.done, counts.queued, counts.bytes_done), (1, 1, 100));
    let second = bench.take("w");
    assert!(second.attempt > lease.attempt && second.attempt.epoch() == 1);
    assert_eq!(bench.finish("w", &second, 1, Outcome::Done), accepted());
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn check_changes_nothing() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let lease = bench.take("w");
    let result = finished("w", &lease, 0, Outcome::Done);
    assert_eq!(bench.table.check(&result), bench.table.check(&result));
    assert_eq!(bench.counts("a").running, 1);
}

#[test]
fn only_the_worker_that_holds_the_lease_may_finish_it() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let lease = bench.take("w");
    assert_eq!(bench.finish("v", &lease, 0, Outcome::Done), Verdict::Stale);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), accepted());
}

#[test]
fn a_late_result_of_an_expired_lease_is_stale() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let old = bench.take("w");
    bench.at(30_000);
    assert_eq!(bench.finish("w", &old, 0, Outcome::Done), Verdict::Stale);
    let new = bench.take("v");
    assert_eq!(bench.finish("w", &old, 0, Outcome::Done), Verdict::Stale);
    assert_eq!(bench.finish("v", &new, 0, Outcome::Done), accepted());
    assert_eq!(bench.finish("w", &old, 0, Outcome::Done), Verdict::Stale);
}

#[test]
fn a_failure_of_the_task_is_final_at_once() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    let lease = bench.take("w");
    bench.table.take_events();
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Task("bad dtype".into())), accepted());
    assert_eq!(reasons(&bench.table.take_events()), [(0, "bad dtype".to_owned())]);
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Task("bad dtype".into())), Verdict::Duplicate);
    assert_eq!(bench.counts("a").failed, 1);
    assert_eq!(bench.state("a"), JobState::Running);
}

#[test]
fn failures_of_the_world_are_tried_again_up_to_a_limit() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    for times in 1..=20 {
        assert!(!bench.state("a").is_final(), "{times}");
        bench.worker("w").seen = 0;
        bench.worker("w").session += 1;
        let lease = bench.take("w");
        bench.table.take_events();
        assert_eq!(bench.finish("w", &lease, 0, Outcome::World("503".into())), accepted());
        if times < 20 {
            assert_eq!(causes(&bench.table.take_events()), [(0, Requeue::World("503".into()))]);
            assert_eq!(bench.finish("w", &lease, 0, Outcome::World("503".into())), Verdict::Stale);
            bench.at(bench.now.0 + 300_000);
        }
    }
    assert_eq!(reasons(&bench.table.take_events()), [(0, "tried 20 times: 503".to_owned())]);
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn a_failure_of_the_model_fails_the_job() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y"), unit("z")]));
    let lease = bench.take("w");
    let other = bench.take("v");
    let outcome = Outcome::Model("the object changed".into());
    assert_eq!(bench.finish("w", &lease, 0, outcome), accepted());
    assert_eq!(bench.state("a"), JobState::Failed("the object changed".into()));
    assert_eq!(bench.counts("a").dropped, 3);
    let reply = bench.report("v");
    assert_eq!((reply.cancelled, reply.leases), (vec![other.attempt], vec![]));
    assert_eq!(bench.finish("v", &other, 1, Outcome::Done), Verdict::Stale);
}

#[test]
fn a_unit_that_killed_three_workers_is_set_aside() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("poison"), unit("good")]));
    for name in ["u", "v"] {
        bench.take(name);
        bench.report_lost(name);
        bench.at(bench.now.0 + 30_000);
        assert_eq!(bench.counts("a").set_aside, 0);
    }
    bench.take("w");
    let events = bench.at(bench.now.0 + 30_000);
    assert_eq!(reasons(&events), [(0, "its worker was lost, 3 times in all".to_owned())]);
    assert!(events.iter().any(|event| matches!(event, Event::UnitSetAside { unit: 0, .. })));
    let counts = bench.counts("a");
    assert_eq!((counts.set_aside, counts.retried), (1, 2));
    let lease = bench.take("x");
    bench.finish("x", &lease, 1, Outcome::Done);
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn only_the_unit_under_way_is_blamed() {
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![small("x"), small("y"), small("z")]));
    let lease = bench.take("w");
    assert_eq!(lease.units, [0, 1, 2]);
    // The worker began with the last, and has computed the first without an answer yet.
    let named = |unit| (JobId("a".into()), unit);
    let running = &mut bench.worker("w").running[0];
    running.units = vec![named(2), named(1)];
    running.kept = vec![named(0)];
    bench.report("w");
    let events = bench.at(30_000);
    assert_eq!(reasons(&events).iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [2]);
    assert_eq!(causes(&events).iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [1, 0]);
    // The one under way and the one computed are done again.
    assert_eq!(bench.table.totals().again_units, 2);
    assert_eq!(bench.table.totals().again_flops, 2_000_000);
}

#[test]
fn the_unit_after_a_finished_one_is_under_way() {
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![small("x"), small("y"), small("z")]));
    let lease = bench.take("w");
    bench.report("w");
    bench.finish("w", &lease, 0, Outcome::Done);
    assert_eq!(reasons(&bench.at(30_000)).iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [1]);
}

#[test]
fn nobody_is_blamed_when_all_is_computed() {
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    bench.take("w");
    let running = &mut bench.worker("w").running[0];
    running.kept = std::mem::take(&mut running.units);
    bench.report("w");
    assert_eq!(causes(&bench.at(30_000)), [(0, Requeue::WorkerLost)]);
}

#[test]
fn a_lease_never_reported_is_blamed_on_a_lost_worker_only() {
    // Lost: the first unit is to blame.
    let mut bench = Bench::with(Config { max_kills: 1, ..Config::default() });
    bench.submit(job("a", vec![small("x"), small("y")]));
    bench.take("w");
    assert_eq!(reasons(&bench.at(30_000)).len(), 1);
    // No progress, never reported: nobody is.
    let mut bench = Bench::with(Config { max_kills: 1, progress_timeout: 10_000, ..Config::default() });
    bench.submit(job("a", vec![small("x"), small("y")]));
    bench.take("w");
    let causes = causes(&bench.at(10_000));
    assert_eq!(causes, [(0, Requeue::NoProgress), (1, Requeue::NoProgress)]);
}

#[test]
fn a_lease_without_progress_counts_as_a_kill() {
    let mut bench = Bench::with(Config { max_kills: 1, progress_timeout: 10_000, ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    bench.take("w");
    bench.report("w");
    assert_eq!(reasons(&bench.at(10_000)), [(0, "its worker made no progress, 1 times in all".to_owned())]);
}

#[test]
fn what_needs_a_failed_unit_fails_with_its_reason() {
    let mut bench = Bench::new();
    let after = |key: &str, after: Vec<u32>| NewUnit { after, ..unit(key) };
    let units = vec![unit("x"), after("y", vec![0]), after("z", vec![1]), unit("free")];
    bench.submit(job("a", units));
    let lease = bench.take("w");
    assert_eq!(lease.units, [0]);
    bench.table.take_events();
    bench.finish("w", &lease, 0, Outcome::Task("NaN".into()));
    let expected = [
        (0, "NaN".to_owned()),
        (1, "unit 0, which it needs: NaN".to_owned()),
        (2, "unit 1, which it needs: unit 0, which it needs: NaN".to_owned()),
    ];
    assert_eq!(reasons(&bench.table.take_events()), expected);
    assert_eq!(bench.counts("a").failed, 3);
}

#[test]
fn a_finish_waits_for_its_shards_and_then_goes_first() {
    let mut bench = Bench::new();
    let shard = |key: &str| NewUnit { cost: 4e9, ..unit(key) };
    let finish = NewUnit { after: vec![1, 2, 2], cost: 3e9, ..unit("finish") };
    let layer = NewUnit { cost: 9e9, ..unit("layer") };
    bench.submit(job("a", vec![layer, shard("s1"), shard("s2"), finish]));
    // Shards go before layers, although they cost less.
    let first = bench.take("w");
    let second = bench.take("v");
    assert_eq!((first.units.as_slice(), second.units.as_slice()), (&[1][..], &[2][..]));
    bench.finish("w", &first, 1, Outcome::Done);
    bench.worker("u").want = false;
    bench.finish("v", &second, 2, Outcome::Done);
    assert_eq!(bench.take("w").units, [3]);
    assert_eq!(bench.take("w").units, [0]);
}

#[test]
fn cancelling_drops_what_waits_and_revokes_what_runs() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    let lease = bench.take("w");
    assert!(bench.table.cancel(&JobId("a".into()), bench.now));
    bench.table.check_invariants();
    assert_eq!(bench.state("a"), JobState::Cancelled);
    assert_eq!(bench.report("w").cancelled, [lease.attempt]);
    assert_eq!(bench.counts("a").dropped, 2);
    assert!(!bench.table.cancel(&JobId("a".into()), bench.now));
    assert!(!bench.table.cancel(&JobId("b".into()), bench.now));
    assert!(bench.table.remove(&JobId("a".into())));
    assert!(!bench.table.remove(&JobId("a".into())));
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Unknown);
    assert_eq!(bench.table.totals().units, 0);
}

#[test]
fn a_job_that_has_not_ended_is_not_removed() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    assert!(!bench.table.remove(&JobId("a".into())));
}

#[test]
fn the_cache_ends_units_without_a_worker() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    let id = JobId("a".into());
    assert_eq!(bench.table.complete(&id, 0, bench.now), accepted());
    assert_eq!(bench.table.complete(&id, 0, bench.now), Verdict::Duplicate);
    assert_eq!(bench.table.complete(&id, 7, bench.now), Verdict::Unknown);
    bench.table.check_invariants();
    let lease = bench.take("w");
    assert_eq!(lease.units, [1]);
    // Even one that is running.
    assert_eq!(bench.table.complete(&id, 1, bench.now), accepted());
    assert_eq!(bench.report("w").cancelled, [lease.attempt]);
    let counts = bench.counts("a");
    assert_eq!((counts.done, counts.from_cache), (2, 2));
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn a_job_without_units_is_done() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![]));
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn a_restored_job_goes_on_where_it_was() {
    let mut bench = Bench::with(Config { adoption_grace: 0, ..Config::default() });
    let after = NewUnit { after: vec![0], ..unit("y") };
    let lost = NewUnit { after: vec![2], ..unit("lost") };
    let units = vec![unit("x"), after, unit("z"), unit("p"), lost];
    let restore =
        Restore { done: vec![0], failed: vec![(2, "bad".into())], set_aside: vec![(3, "killed".into())] };
    bench.submit(NewJob { restore: Some(restore), ..job("a", units) });
    assert_eq!(reasons(&bench.table.take_events()), [(4, "unit 2, which it needs: bad".to_owned())]);
    let counts = bench.counts("a");
    assert_eq!((counts.done, counts.failed, counts.set_aside, counts.bytes_done), (1, 2, 1, 100));
    let lease = bench.take("w");
    assert_eq!(lease.units, [1]);
    bench.finish("w", &lease, 1, Outcome::Done);
    assert_eq!(bench.state("a"), JobState::Done);
}

#[test]
fn jobs_that_make_no_sense_are_refused() {
    let mut bench = Bench::new();
    let error = |new: NewJob| Bench::new().table.submit(new, Time(0)).unwrap_err().to_string();
    let after = |after: Vec<u32>| job("a", vec![NewUnit { after, ..unit("x") }, unit("y")]);
    let cost = |cost: f64| job("a", vec![NewUnit { cost, ..unit("x") }]);
    let restore = |done: Vec<u32>| NewJob {
        restore: Some(Restore { done, failed: vec![(1, "bad".into())], ..Restore::default() }),
        ..job("a", vec![unit("x"), unit("y")])
    };
    assert_eq!(error(after(vec![2])), "field 'after': unit 0 waits for unit 2, which is not in the job");
    assert_eq!(error(after(vec![0])), "field 'after': unit 0 waits for itself in a circle");
    assert_eq!(error(cost(-1.0)), "field 'cost': unit 0 costs -1 flops");
    assert_eq!(error(cost(f64::NAN)), "field 'cost': unit 0 costs NaN flops");
    assert_eq!(error(restore(vec![2])), "field 'restore': unit 2 is not in the job");
    assert_eq!(error(restore(vec![1])), "field 'restore': unit 1 ended twice");
    bench.submit(job("a", vec![]));
    let again = bench.table.submit(job("a", vec![]), bench.now).unwrap_err();
    assert_eq!(again.to_string(), "field 'id': job 'a' is there already");
    bench.table.check_invariants();
}

#[test]
fn the_table_has_limits_but_takes_back_what_it_had() {
    let mut bench = Bench::with(Config { max_jobs_queued: 2, max_units: 3, ..Config::default() });
    let units = |n: usize| (0..n).map(|n| unit(&n.to_string())).collect::<Vec<_>>();
    let mut refused = |new: NewJob| {
        let error = bench.table.submit(new, Time(0)).unwrap_err();
        (error.kind(), error.to_string())
    };
    use crate::ErrorKind::{TooLarge, Unavailable};
    assert_eq!(refused(job("a", units(4))), (TooLarge, "the job has 4 units, the limit is 3".into()));
    bench.submit(job("a", units(2)));
    let mut refused = |new: NewJob| {
        let error = bench.table.submit(new, Time(0)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let message = "the job has 2 units and 2 are held, the limit is 3";
    assert_eq!(refused(job("b", units(2))), (Unavailable, message.into()));
    bench.submit(job("b", units(1)));
    let error = bench.table.submit(job("c", vec![]), Time(0)).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Unavailable, "2 jobs are queued, the limit is 2"));
    let restore = Some(Restore::default());
    bench.submit(NewJob { restore, ..job("c", units(2)) });
    // Ended jobs count as units until they are removed, and not as queued ones.
    for id in ["a", "b", "c"] {
        bench.table.cancel(&JobId(id.into()), bench.now);
    }
    assert!(bench.table.submit(job("d", units(1)), bench.now).is_err());
    bench.table.remove(&JobId("a".into()));
    bench.table.remove(&JobId("c".into()));
    bench.submit(job("d", units(2)));
}

#[test]
fn views_say_what_an_autoscaler_needs() {
    let mut bench = Bench::new();
    assert_eq!(bench.table.desired_workers(60.0, 1e9), 0);
    bench.submit(job("a", (0..100).map(|n| NewUnit { cost: 6e9, ..unit(&n.to_string()) }).collect()));
    assert_eq!(bench.table.queue_work_seconds(1e9), 600.0);
    // One core for want of a worker to judge by.
    assert_eq!(bench.table.desired_workers(60.0, 1e9), 10);
    for (name, cores) in [("u", 2), ("v", 4), ("w", 64)] {
        bench.worker(name).want = false;
        bench.worker(name).cores = cores;
        bench.report(name);
    }
    assert_eq!(bench.table.desired_workers(60.0, 1e9), 3);
    assert_eq!(bench.table.desired_workers(1e9, 1e9), 1);
    bench.worker("w").want = true;
    let lease = bench.take("w");
    let totals = bench.table.totals();
    assert_eq!((totals.waiting_flops, totals.leased_flops), (594_000_000_000, 6_000_000_000));
    let view = bench.table.workers().find(|worker| worker.id.0 == "w").unwrap();
    assert_eq!((view.leases, view.running), (1, vec![(lease.job, 0)]));
    assert_eq!(bench.table.jobs().count(), 1);
}
