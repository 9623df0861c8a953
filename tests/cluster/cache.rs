//! What is known is not read again.

use super::{alone, assert_same, everything, many, text};
use crate::support::cluster::{Cluster, until};
use spectrald::analysis::Options;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The sum of a metric over its labels.
fn metric(address: SocketAddr, name: &str) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
    values.iter().sum()
}

#[test]
fn an_unchanged_model_is_not_read_again() {
    let http = free();
    let line = format!("http_listen = \"{http}\"");
    let mut cluster = Cluster::with(&[("coordinator", &line)]);
    let bytes = many(8, 80, 9);
    let model = cluster.write("models/many.safetensors", &bytes);
    cluster.start_worker("w1");
    let expected = alone(&model, &everything());
    let first = cluster.submit(&model, &everything());
    assert_same(&text(&cluster.report(&first)), &expected, "the first time");
    assert_eq!(cluster.get(&first).progress.unwrap().from_cache, 0);
    let fetched = |least: f64| {
        until("the bytes read are counted", || {
            Some(metric(http, "spectrald_fetch_bytes_total")).filter(|bytes| *bytes >= least)
        })
    };
    let read = fetched(8.0 * 80.0 * 80.0 * 2.0);
    let second = cluster.submit(&model, &everything());
    assert_same(&text(&cluster.report(&second)), &expected, "the second time");
    assert_eq!(cluster.get(&second).progress.unwrap().from_cache, 8);
    assert_eq!(fetched(0.0), read, "no tensor byte is read");
    // without a worker, and after a restart
    cluster.kill_worker("w1");
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let third = cluster.submit(&model, &everything());
    assert_same(&text(&cluster.report(&third)), &expected, "after a restart, without a worker");
    assert_eq!(cluster.get(&third).progress.unwrap().from_cache, 8);
    // other options are another question
    let other = cluster.submit(&model, &Options::default());
    assert_eq!(cluster.get(&other).progress.unwrap().from_cache, 0);
    cluster.runtime.block_on(cluster.client().cancel(&other)).unwrap();
    // the same content elsewhere: read, known, not computed
    let copy = cluster.write("models/copy.safetensors", &bytes);
    cluster.start_worker("w2");
    let fourth = cluster.submit(&copy, &everything());
    assert_same(&text(&cluster.report(&fourth)), &alone(&copy, &everything()), "a copy");
    assert_eq!(cluster.get(&fourth).progress.unwrap().from_cache, 8, "the content was known");
}

#[test]
fn two_jobs_that_need_the_same_compute_it_once() {
    let mut cluster = Cluster::start();
    let model = cluster.write("models/many.safetensors", &many(12, 150, 10));
    let ids: Vec<String> = (0..3).map(|_| cluster.submit(&model, &everything())).collect();
    cluster.start_worker("w1");
    cluster.start_worker("w2");
    let expected = alone(&model, &everything());
    for id in &ids {
        assert_same(&text(&cluster.report(id)), &expected, "one of three");
    }
    let workers = until("both have told all", || {
        let workers = cluster.runtime.block_on(cluster.client().workers()).unwrap();
        workers.iter().all(|worker| worker.running == 0).then_some(workers)
    });
    let units: u64 = workers.iter().map(|worker| worker.finished).sum();
    assert_eq!(units, 12, "each layer is computed once for all three");
}
