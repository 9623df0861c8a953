//! What coordinators tell, for people.

use crate::error::printable;
use crate::render::{new_table, number};
use crate::rpc::proto::v1;
use bytesize::ByteSize;
use comfy_table::{Cell, CellAlignment, Color};
use prost_types::Timestamp;
use std::fmt::Write;

/// The state of an analysis in a word.
pub(super) fn state(analysis: &v1::Analysis) -> String {
    word(analysis.state().as_str_name(), "ANALYSIS_STATE_")
}

/// The word of an enumeration's value: `ANALYSIS_STATE_RUNNING` is `running`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// Seconds since 1970 in UTC to the second, as `2026-11-24 10:00:00`.
fn when(time: Option<&Timestamp>) -> String {
    let whole = |time: &Timestamp| Timestamp { seconds: time.seconds, nanos: 0 }.to_string();
    time.map(|time| whole(time).replace('T', " ").trim_end_matches('Z').to_owned()).unwrap_or_default()
}

fn seconds(from: Option<&Timestamp>, to: Option<&Timestamp>) -> Option<f64> {
    let at = |time: &Timestamp| time.seconds as f64 + f64::from(time.nanos) * 1e-9;
    Some((at(to?) - at(from?)).max(0.0))
}

/// Why an analysis does not move, or why it failed.
fn remark(analysis: &v1::Analysis) -> String {
    match &analysis.failure {
        Some(failure) => failure.message.clone(),
        None => {
            let waiting = word(analysis.waiting().as_str_name(), "WAITING_REASON_").replace('_', " ");
            let parts = [waiting, analysis.waiting_detail.clone()];
            parts
                .into_iter()
                .filter(|part| !part.is_empty() && part != "unspecified")
                .collect::<Vec<_>>()
                .join(": ")
        }
    }
}

/// One line an analysis.
pub(super) fn jobs(analyses: &[v1::Analysis], colour: bool) -> String {
    let mut table = new_table(colour);
    table.set_header(["id", "state", "layers", "failed", "created (UTC)", "by", "model", ""]);
    for analysis in analyses {
        let progress = analysis.progress.unwrap_or_default();
        let state_cell = match analysis.state() {
            v1::AnalysisState::Failed => Cell::new(state(analysis)).fg(Color::Red),
            v1::AnalysisState::Succeeded => Cell::new(state(analysis)).fg(Color::Green),
            _ => Cell::new(state(analysis)),
        };
        table.add_row([
            Cell::new(printable(&analysis.id)),
            state_cell,
            Cell::new(format!("{}/{}", progress.done, progress.layers)),
            Cell::new(progress.failed),
            Cell::new(when(analysis.create_time.as_ref())),
            Cell::new(printable(&analysis.created_by)),
            Cell::new(printable(&analysis.model)),
            Cell::new(printable(&remark(analysis))),
        ]);
    }
    right(&mut table, &[2, 3]);
    format!("{table}\n")
}

fn right(table: &mut comfy_table::Table, columns: &[usize]) {
    for (index, column) in table.column_iter_mut().enumerate() {
        if columns.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// `name  value` for each pair with a value.
fn lines(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<14} {}", printable(value));
    }
    text
}

/// One analysis.
pub(super) fn job(analysis: &v1::Analysis) -> String {
    let progress = analysis.progress.unwrap_or_default();
    let layers = format!(
        "{} of {} done ({} from cache), {} failed, {} running, {} queued",
        progress.done,
        progress.layers,
        progress.from_cache,
        progress.failed,
        progress.running,
        progress.queued
    );
    let plan = analysis.plan.map(|plan| plan_text(&plan)).unwrap_or_default();
    let took = seconds(analysis.start_time.as_ref(), analysis.end_time.as_ref());
    let retried = match progress.retried {
        0 => String::new(),
        n => {
            format!("{n} layers started anew, {} GFLOP done again", number(Some(progress.flops_again / 1e9)))
        }
    };
    lines(&[
        ("id", analysis.id.clone()),
        ("model", analysis.model.clone()),
        ("state", state(analysis)),
        ("", String::new()),
        (if analysis.failure.is_some() { "failure" } else { "waits" }, remark(analysis)),
        ("layers", layers),
        ("bytes", format!("{} of {}", ByteSize(progress.bytes_done), ByteSize(progress.bytes))),
        ("retried", retried),
        ("plan", plan),
        ("created", when(analysis.create_time.as_ref())),
        ("started", when(analysis.start_time.as_ref())),
        ("ended", when(analysis.end_time.as_ref())),
        ("took", took.map(|seconds| format!("{} s", number(Some(seconds)))).unwrap_or_default()),
        ("by", analysis.created_by.clone()),
        ("priority", analysis.priority.to_string()),
        ("spectra", if analysis.keep_spectra { "kept".to_owned() } else { String::new() }),
    ])
}

fn plan_text(plan: &v1::Plan) -> String {
    format!(
        "{} layers, {} skipped; {} GFLOP, {} to read, largest task {}",
        plan.layers,
        plan.skipped,
        number(Some(plan.flops / 1e9)),
        ByteSize(plan.bytes),
        ByteSize(plan.peak_bytes)
    )
}

/// What a request that was only checked would take.
pub(super) fn plan_line(model: &str, analysis: &v1::Analysis) -> String {
    format!("{model}: {}", plan_text(&analysis.plan.unwrap_or_default()))
}

/// How an analysis ended, in a line.
pub(super) fn ended_line(analysis: &v1::Analysis) -> String {
    let progress = analysis.progress.unwrap_or_default();
    let took = seconds(analysis.start_time.as_ref(), analysis.end_time.as_ref());
    let took = took.map(|seconds| format!(" in {} s", number(Some(seconds)))).unwrap_or_default();
    format!(
        "{} {}: {} of {} layers done ({} from cache), {} failed{took}\n",
        printable(&analysis.id),
        state(analysis),
        progress.done,
        progress.layers,
        progress.from_cache,
        progress.failed
    )
}

/// One line a worker.
pub(super) fn workers(workers: &[v1::Worker], colour: bool) -> String {
    let mut table = new_table(colour);
    table.set_header([
        "worker",
        "state",
        "free cores",
        "free memory",
        "running",
        "finished",
        "reported (UTC)",
        "version",
    ]);
    for worker in workers {
        table.add_row([
            Cell::new(printable(&worker.id)),
            Cell::new(worker_state(worker)),
            Cell::new(format!("{} of {}", worker.free_cores, worker.cores)),
            Cell::new(format!("{} of {}", ByteSize(worker.free_memory_bytes), ByteSize(worker.memory_bytes))),
            Cell::new(worker.running),
            Cell::new(worker.finished),
            Cell::new(when(worker.report_time.as_ref())),
            Cell::new(printable(&worker.version)),
        ]);
    }
    right(&mut table, &[2, 3, 4, 5]);
    format!("{table}\n")
}

/// The state of a worker in a word.
pub(super) fn worker_state(worker: &v1::Worker) -> String {
    word(worker.state().as_str_name(), "WORKER_STATE_")
}

/// What a drained worker still holds.
pub(super) fn drained_line(worker: &v1::Worker) -> String {
    format!("{} {}: {} tasks running\n", printable(&worker.id), worker_state(worker), worker.running)
}

/// How a coordinator stands.
pub(super) fn status(status: &v1::GetStatusResponse) -> String {
    let accepting = match (status.accepting, status.not_accepting_reason.as_str()) {
        (true, _) => "yes".to_owned(),
        (false, "") => "no".to_owned(),
        (false, why) => format!("no: {why}"),
    };
    let version = format!(
        "{} (algorithm {}, worker protocol {})",
        status.version, status.algorithm_version, status.worker_protocol
    );
    let mut pairs = vec![
        ("version", version),
        ("started", when(status.start_time.as_ref())),
        ("accepting", accepting),
        ("analyses", format!("{} active", status.analyses_active)),
        ("units", format!("{} queued, {} running", status.units_queued, status.units_running)),
        ("queue", format!("{} core-seconds", number(Some(status.queue_work_seconds)))),
        ("workers", format!("{}, {} desired", status.workers, status.desired_workers)),
    ];
    if let Some(store) = &status.store {
        pairs.push(("store", format!("{} used, {} free", ByteSize(store.bytes), ByteSize(store.free_bytes))));
        let results = format!(
            "{} kept ({}), {} evicted, {} commits",
            store.results,
            ByteSize(store.result_bytes),
            store.evictions,
            store.commits
        );
        pairs.push(("results", results));
        pairs.push(("recovery", store.recovery.clone()));
        pairs.push(("exported", when(store.export_time.as_ref())));
    }
    lines(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis() -> v1::Analysis {
        let mut analysis = v1::Analysis {
            id: "a1".to_owned(),
            model: "s3://b/\u{1b}[31mm".to_owned(),
            progress: Some(v1::Progress { layers: 14, done: 3, from_cache: 2, ..Default::default() }),
            create_time: Some(Timestamp { seconds: 1_764_000_000, nanos: 5 }),
            start_time: Some(Timestamp { seconds: 10, nanos: 500_000_000 }),
            end_time: Some(Timestamp { seconds: 12, nanos: 0 }),
            ..Default::default()
        };
        analysis.set_state(v1::AnalysisState::Running);
        analysis
    }

    #[test]
    fn an_analysis_is_one_line_without_escapes_of_the_model() {
        let mut waiting = analysis();
        waiting.set_waiting(v1::WaitingReason::NoWorkers);
        let text = jobs(&[waiting], false);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for cell in ["a1", "running", "3/14", "2025-11-24 16:00:00", "s3://b/\\u{1b}[31mm", "no workers"] {
            assert!(text.contains(cell), "{cell}: {text}");
        }
    }

    #[test]
    fn the_end_is_told_with_its_figures() {
        assert_eq!(
            ended_line(&analysis()),
            "a1 running: 3 of 14 layers done (2 from cache), 0 failed in 1.500 s\n"
        );
        let text = job(&analysis());
        assert!(
            text.contains("layers         3 of 14 done (2 from cache), 0 failed, 0 running, 0 queued\n"),
            "{text}"
        );
        assert!(!text.contains("waits") && !text.contains("plan"), "{text}");
    }

    #[test]
    fn a_coordinator_that_accepts_nothing_says_why() {
        let full = v1::GetStatusResponse {
            not_accepting_reason: "the disk is full".to_owned(),
            ..Default::default()
        };
        assert!(status(&full).contains("accepting      no: the disk is full\n"));
    }
}
