//! Workers and the coordinator are killed and stopped at random while jobs run: every report is that of one process.

use super::commits::number;
use super::{alone, assert_same, fracast, many, tall, text};
use crate::support::cluster::{Cluster, between};
use crate::support::models::{Numbers, fixture};
use spectrald::analysis::Options;
use spectrald::rpc::client::is_ended;
use spectrald::rpc::proto::v1::AnalysisState;
use std::io::Write as _;
use std::time::{Duration, Instant};

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
/// Jobs under way at a time.
const JOBS: usize = 4;

/// A job that was asked for.
struct Asked {
    id: String,
    model: String,
    options: Options,
    ended: bool,
}

#[derive(Debug, Default)]
struct Counts {
    workers_killed: u32,
    workers_stopped: u32,
    workers_told_to_end: u32,
    coordinators_killed: u32,
    coordinators_stopped: u32,
}

struct Chaos {
    cluster: Cluster,
    numbers: Numbers,
    models: [String; 4],
    asked: Vec<Asked>,
    counts: Counts,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let mut cluster = Cluster::start();
        let models = [
            fracast(),
            fixture("models/fracast-int8/model.int8.safetensors").into_os_string().into_string().unwrap(),
            cluster.write("models/many.safetensors", &many(40, 120, seed)),
            cluster.write("models/tall.safetensors", &tall(seed)),
        ];
        WORKERS.iter().for_each(|name| cluster.start_worker(name));
        let (numbers, asked, counts) = (Numbers::new(seed), Vec::new(), Counts::default());
        Self { cluster, numbers, models, asked, counts }
    }

    fn pick(&mut self, lo: u64, hi: u64) -> u64 {
        between(&mut self.numbers, lo, hi)
    }

    fn nap(&mut self, lo: u64, hi: u64) {
        let time = self.pick(lo, hi);
        std::thread::sleep(Duration::from_millis(time));
    }

    /// Keeps jobs under way. The first ones have each model once.
    fn ask(&mut self) {
        for at in 0..self.asked.len() {
            if !self.asked[at].ended {
                self.asked[at].ended = is_ended(&self.cluster.get(&self.asked[at].id));
            }
        }
        while self.asked.iter().filter(|job| !job.ended).count() < JOBS {
            let number = self.asked.len();
            let which = if number < 4 { number as u64 } else { self.pick(0, 4) };
            let is_tall = which == 3;
            // another seed is other work; a tall layer takes too long to be done often
            let seed = if is_tall { self.pick(0, 2) } else { number as u64 };
            let options = Options { seed: Some(seed), randomize: !is_tall, erg: true, ..Options::default() };
            let model = self.models[which as usize].clone();
            let id = self.cluster.submit(&model, &options);
            self.asked.push(Asked { id, model, options, ended: false });
        }
    }

    /// Something happens to one process.
    fn strike(&mut self) {
        let worker = WORKERS[self.pick(0, 3) as usize];
        match self.pick(0, 100) {
            0..40 => {
                self.cluster.kill_worker(worker);
                self.nap(0, 300);
                self.cluster.start_worker(worker);
                self.counts.workers_killed += 1;
            }
            40..65 => {
                self.cluster.workers[worker].signal("STOP");
                self.nap(50, 2500);
                self.cluster.workers[worker].signal("CONT");
                self.counts.workers_stopped += 1;
            }
            65..75 => {
                let mut process = self.cluster.workers.remove(worker).unwrap();
                process.signal("TERM");
                let status = process.end_within(Duration::from_secs(30));
                assert_eq!(status.code(), Some(0), "{}", process.log());
                self.cluster.start_worker(worker);
                self.counts.workers_told_to_end += 1;
            }
            75..90 => {
                self.cluster.kill_coordinator();
                self.nap(0, 300);
                self.cluster.start_coordinator();
                self.counts.coordinators_killed += 1;
            }
            _ => {
                let coordinator = self.cluster.coordinator.as_ref().unwrap();
                coordinator.signal("STOP");
                self.nap(50, 1500);
                self.cluster.coordinator.as_ref().unwrap().signal("CONT");
                self.counts.coordinators_stopped += 1;
            }
        }
    }
}

#[test]
fn processes_come_and_go() {
    let seconds = number("SPECTRALD_CHAOS_SECONDS", 20);
    let seed = number("SPECTRALD_CHAOS_SEED", u64::from(std::process::id()));
    // shown where the test fails; the last line of a test that passes names it too
    eprintln!("SPECTRALD_CHAOS_SEED={seed}");
    let mut chaos = Chaos::start(seed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        chaos.ask();
        chaos.nap(50, 500);
        chaos.strike();
    }
    let Chaos { cluster, asked, counts, .. } = chaos;
    let (mut layers, mut retried, mut again, mut known) = (0, 0, 0.0, 0);
    let mut expected = std::collections::BTreeMap::new();
    for job in &asked {
        let ended = cluster.ended(&job.id);
        assert_eq!(ended.state(), AnalysisState::Succeeded, "{ended:?}");
        let progress = ended.progress.unwrap();
        assert_eq!((progress.done, progress.failed), (progress.layers, 0), "{ended:?}");
        let expected = expected
            .entry((job.model.clone(), job.options.seed))
            .or_insert_with(|| alone(&job.model, &job.options));
        assert_same(&text(&cluster.report(&job.id)), expected, &format!("{} of seed {seed}", job.model));
        layers += progress.layers;
        retried += progress.retried;
        again += progress.flops_again;
        known += progress.from_cache;
    }
    let _ = writeln!(
        std::io::stderr(),
        "chaos for {seconds} s (seed {seed}): {counts:?}; {} analyses of {layers} layers all as in one process; {known} \
         known, {retried} started anew, {again:.1e} flops done again",
        asked.len()
    );
}
