//! Units of equal key: computed once, for all who need them.

use super::*;

fn id(id: &str) -> JobId {
    JobId(id.into())
}

#[test]
fn two_jobs_that_need_the_same_compute_it_once() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    bench.submit(job("b", vec![unit("own"), unit("x")]));
    let lease = bench.take("w");
    assert_eq!((lease.job.clone(), bench.counts("b").running), (id("a"), 1));
    let also = vec![(id("b"), 1)];
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Accepted { also });
    assert_eq!((bench.state("a"), bench.counts("b").done), (JobState::Done, 1));
    assert_eq!(bench.take("w").units, [0]);
    assert_eq!(bench.report("w").leases, []);
}

#[test]
fn a_latecomer_follows_what_is_running() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    let lease = bench.take("w");
    bench.submit(job("b", vec![unit("x")]));
    assert_eq!((bench.state("b"), bench.counts("b").running), (JobState::Running, 1));
    bench.finish("w", &lease, 0, Outcome::Task("NaN".into()));
    assert_eq!((bench.counts("b").failed, bench.state("b")), (1, JobState::Done));
}

#[test]
fn units_of_one_job_may_be_the_same_work() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("x"), NewUnit { after: vec![0], ..unit("x") }]));
    let lease = bench.take("w");
    assert_eq!((lease.units.as_slice(), bench.report("w").leases), (&[0][..], vec![]));
    bench.finish("w", &lease, 0, Outcome::Done);
    assert_eq!((bench.counts("a").done, bench.state("a")), (3, JobState::Done));
}

#[test]
fn when_the_owner_is_cancelled_its_lease_goes_on_for_the_follower() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x"), unit("y")]));
    bench.submit(job("b", vec![unit("x")]));
    let x = bench.take("w");
    let y = bench.take("w");
    bench.table.cancel(&id("a"), bench.now);
    bench.table.check_invariants();
    assert_eq!(bench.report("w").cancelled, [y.attempt]);
    bench.table.remove(&id("a"));
    let also = vec![(id("b"), 0)];
    assert_eq!(bench.finish("w", &x, 0, Outcome::Done), Verdict::Accepted { also });
    assert_eq!(bench.state("b"), JobState::Done);
}

#[test]
fn a_promoted_follower_inherits_the_history() {
    let mut bench = Bench::with(Config { max_kills: 2, ..Config::default() });
    bench.submit(job("a", vec![unit("x")]));
    bench.submit(job("b", vec![unit("x")]));
    bench.take("v");
    bench.at(30_000);
    bench.table.cancel(&id("a"), bench.now);
    assert_eq!(bench.take("w").job, id("b"));
    assert_eq!(reasons(&bench.at(60_000)).len(), 1);
    assert_eq!((bench.counts("b").set_aside, bench.state("b")), (1, JobState::Done));
}

#[test]
fn a_changed_model_does_not_fail_those_who_follow() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    bench.submit(job("b", vec![unit("x")]));
    let lease = bench.take("w");
    bench.table.take_events();
    bench.finish("w", &lease, 0, Outcome::Model("gone".into()));
    assert_eq!(bench.state("a"), JobState::Failed("gone".into()));
    assert_eq!(causes(&bench.table.take_events()), [(0, Requeue::Model("gone".into()))]);
    let lease = bench.take("w");
    assert_eq!(lease.job, id("b"));
    bench.finish("w", &lease, 0, Outcome::Done);
    assert_eq!(bench.state("b"), JobState::Done);
}

#[test]
fn a_more_urgent_follower_becomes_the_owner() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    bench.submit(NewJob { priority: 5, ..job("middle", vec![unit("m")]) });
    bench.submit(NewJob { priority: 9, ..job("b", vec![unit("x")]) });
    assert_eq!(bench.take("w").job, id("b"));
}

#[test]
fn a_follower_that_waits_for_nothing_takes_over_from_one_that_does() {
    let mut bench = Bench::new();
    bench.submit(job(
        "a",
        vec![NewUnit { memory: 99 * GIB, ..unit("s") }, NewUnit { after: vec![0], ..unit("x") }],
    ));
    bench.submit(job("b", vec![unit("x")]));
    let lease = bench.take("w");
    assert_eq!(lease.job, id("b"));
    let also = vec![(id("a"), 1)];
    assert_eq!(bench.finish("w", &lease, 0, Outcome::Done), Verdict::Accepted { also });
}

#[test]
fn a_unit_that_fails_for_what_it_needs_leaves_the_work_to_others() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("s"), NewUnit { after: vec![0], ..unit("x") }]));
    bench.submit(job("b", vec![unit("t"), NewUnit { after: vec![0], ..unit("x") }]));
    let s = bench.take("w");
    assert_eq!(s.job, id("a"));
    bench.finish("w", &s, 0, Outcome::Task("bad".into()));
    assert_eq!((bench.state("a"), bench.counts("a").failed), (JobState::Done, 2));
    let t = bench.take("w");
    assert_eq!((t.job.clone(), t.units.as_slice()), (id("b"), &[0][..]));
    bench.finish("w", &t, 0, Outcome::Done);
    assert_eq!(bench.take("w").units, [1]);
}

#[test]
fn the_cache_ends_followers_too() {
    let mut bench = Bench::new();
    bench.submit(job("a", vec![unit("x")]));
    bench.submit(job("b", vec![unit("x")]));
    let also = vec![(id("a"), 0)];
    assert_eq!(bench.table.complete(&id("b"), 0, bench.now), Verdict::Accepted { also });
    assert_eq!((bench.counts("a").from_cache, bench.counts("b").from_cache), (1, 1));
}
