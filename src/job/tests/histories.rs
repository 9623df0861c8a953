//! Random histories against the model.

use super::world::{Check, World};

/// How many operations a history has before all goes well.
const STEPS: usize = 40;

/// Runs a history up to this many operations, and to its good end.
fn history(seed: u64, steps: usize, fencing_off: bool) -> (World, Check) {
    let mut world = World::new(seed, fencing_off);
    let end = run(&mut world, seed, steps, fencing_off);
    (world, end)
}

fn run(world: &mut World, seed: u64, steps: usize, fencing_off: bool) -> Check {
    // The table's own twins of everything are compared after each step in some histories, at the end of all.
    let thorough = seed.is_multiple_of(16);
    for step in 0..steps {
        world.step().map_err(|error| format!("seed {seed}, step {step} of {steps}: {error}"))?;
        if (thorough || step + 1 == steps) && !fencing_off {
            intact(world, seed, steps)?;
        }
    }
    world.settle().map_err(|error| format!("seed {seed}, after {steps} steps: {error}"))?;
    if fencing_off { Ok(()) } else { intact(world, seed, steps) }
}

/// A panic of the comparison says what differs, but not in which history.
fn intact(world: &World, seed: u64, steps: usize) -> Check {
    let check = std::panic::AssertUnwindSafe(|| world.table.check_invariants());
    std::panic::catch_unwind(check)
        .map_err(|_| format!("seed {seed}, {steps} steps: the table is not in step"))
}

/// The shortest history of this seed that fails.
fn shortest(seed: u64, fencing_off: bool) -> Option<String> {
    (0..=STEPS).find_map(|steps| history(seed, steps, fencing_off).1.err())
}

/// Runs these histories; gives how many results were accepted, refused, and accepted from before a restart.
fn histories(seeds: std::ops::Range<u64>) -> [u64; 3] {
    let mut sums = [0; 3];
    for seed in seeds {
        let (world, end) = history(seed, STEPS, false);
        if end.is_err() {
            panic!("{}", shortest(seed, false).unwrap_or_default());
        }
        let model = world.model;
        for (sum, n) in sums.iter_mut().zip([model.accepted, model.refused, model.adopted]) {
            *sum += n;
        }
    }
    sums
}

#[test]
fn random_histories_keep_every_promise() {
    let count: u64 =
        std::env::var("SPECTRALD_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let sums = std::thread::scope(|scope| {
        let halves = [0..count / 2, count / 2..count].map(|seeds| scope.spawn(|| histories(seeds)));
        halves.map(|half| half.join().unwrap())
    });
    let [accepted, refused, adopted] = [0, 1, 2].map(|n| sums[0][n] + sums[1][n]);
    // The histories must reach what they are meant to test.
    assert!(
        accepted > 2 * count && refused > count / 2 && adopted > count / 50,
        "{accepted} {refused} {adopted}"
    );
}

#[test]
fn a_history_repeats_itself() {
    for seed in 0..50 {
        let events = |_| {
            let mut world = World::new(seed, false);
            (0..STEPS).for_each(|_| world.step().unwrap());
            format!("{:?}", world.table)
        };
        let (first, second): (String, String) = (events(0), events(1));
        // The map by key has no order of its own; nothing else may differ.
        let sorted = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.sort_unstable();
            bytes
        };
        assert_eq!(sorted(&first), sorted(&second));
    }
}

/// The control: with fencing off, the same histories find it out.
#[test]
fn without_fencing_the_promises_break() {
    let found = (0..1000).find_map(|seed| shortest(seed, true));
    let error = found.unwrap();
    assert!(error.contains("stale result taken"), "{error}");
}
