use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Every instrument used once.
fn all_used() -> Metrics {
    let metrics = Metrics::standalone("coordinator").unwrap();
    metrics.analysis_ended("succeeded", Duration::from_secs(2));
    metrics.layers_done("analysed", 3);
    metrics.layer_took(Duration::from_millis(30));
    metrics.fetched(4096);
    metrics.cache_hit(Cache::Content, 1);
    metrics.cache_hit(Cache::Object, 2);
    metrics.cache_miss(5);
    metrics.queue(12.5, 4);
    metrics.workers(&[("ready", 2), ("draining", 0)]);
    metrics.units(&[("queued", 7)]);
    metrics.leases_expired(1);
    metrics.retried("lease_expired");
    metrics.stale_result();
    metrics.store_committed(1, 2);
    metrics.store_size(StoreSize { used: 10, free: 20 });
    metrics.store_evicted(6);
    metrics.connections(8);
    metrics.refused("unauthenticated");
    metrics.call_ended("a.B/C".to_owned(), "OK", Duration::from_millis(7));
    metrics
}

/// Name and type of each family, as printed.
fn families(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn the_document_lists_what_is_printed() {
    let printed = families(&all_used().render().unwrap());
    let document = include_str!("../../../docs/telemetry.md");
    let listed: BTreeMap<String, String> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.trim_end_matches('`').to_owned();
            let kind = cells.next()?.to_owned();
            matches!(kind.as_str(), "counter" | "gauge" | "histogram").then_some((name, kind))
        })
        .collect();
    assert_eq!(listed, printed);
}

#[test]
fn values_and_labels_as_printed() {
    let text = all_used().render().unwrap();
    for line in [
        "spectrald_analyses_total{state=\"succeeded\"} 1",
        "spectrald_analyses_total{state=\"failed\"} 0",
        "spectrald_analysis_duration_seconds_sum 2",
        "spectrald_layers_total{outcome=\"analysed\"} 3",
        "spectrald_layer_duration_seconds_count 1",
        "spectrald_fetch_bytes_total 4096",
        "spectrald_cache_hits_total{kind=\"object\"} 2",
        "spectrald_cache_misses_total 5",
        "spectrald_queue_work_seconds 12.5",
        "spectrald_desired_workers 4",
        "spectrald_workers{state=\"draining\"} 0",
        "spectrald_units{state=\"queued\"} 7",
        "spectrald_leases_expired_total 1",
        "spectrald_retries_total{cause=\"lease_expired\"} 1",
        "spectrald_stale_results_total 1",
        "spectrald_store_commits_total 1",
        "spectrald_store_syncs_total 2",
        "spectrald_store_bytes 10",
        "spectrald_store_free_bytes 20",
        "spectrald_store_evictions_total 6",
        "spectrald_connections 8",
        "spectrald_refusals_total{reason=\"unauthenticated\"} 1",
    ] {
        assert!(text.lines().any(|printed| printed == line), "no '{line}' in\n{text}");
    }
    let bucket = "rpc_server_call_duration_seconds_bucket{rpc_method=\"a.B/C\",rpc_status_code=\"OK\",\
                  rpc_system_name=\"grpc\",le=\"0.01\"} 1";
    assert!(text.contains(bucket), "{text}");
    let info = format!(
        "spectrald_build_info{{service=\"coordinator\",version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&info), "{text}");
    assert!(!text.contains("otel_scope") && !text.contains("target_info"), "{text}");
}

#[test]
fn counters_exist_before_the_first_event() {
    let text = Metrics::standalone("worker").unwrap().render().unwrap();
    let names: BTreeSet<String> = families(&text).into_keys().collect();
    for name in
        ["spectrald_analyses_total", "spectrald_leases_expired_total", "spectrald_store_commits_total"]
    {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
}

#[test]
fn two_sets_do_not_mix() {
    let (one, two) = (Metrics::standalone("a").unwrap(), Metrics::standalone("b").unwrap());
    one.stale_result();
    assert!(one.render().unwrap().contains("spectrald_stale_results_total 1\n"));
    assert!(two.render().unwrap().contains("spectrald_stale_results_total 0\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_measured() {
    let text = Metrics::standalone("worker").unwrap().render().unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes ") > 1e6);
    assert!(value("process_open_fds ") >= 3.0);
}
