//! What coordinators tell, for programs: the fields of the API by their names, states as words, times as RFC 3339.

use super::tables::{state, word, worker_state};
use crate::analysis::{ModelIdentity, Summary};
use crate::rpc::convert::options_from_proto;
use crate::rpc::proto::v1;
use crate::{Error, ErrorKind, Result};
use prost_types::Timestamp;
use serde_json::{Value, json};

/// One analysis.
pub(super) fn analysis(analysis: &v1::Analysis) -> Result<String> {
    pretty(&of_analysis(analysis)?)
}

/// An array of analyses.
pub(super) fn analyses(analyses: &[v1::Analysis]) -> Result<String> {
    pretty(&analyses.iter().map(of_analysis).collect::<Result<Value>>()?)
}

/// A message of a watch, in one line.
pub(super) fn watched(message: &v1::WatchAnalysisResponse) -> Result<String> {
    let layers: Vec<Value> = message
        .layers
        .iter()
        .map(|layer| {
            let status = word(layer.status().as_str_name(), "LAYER_STATUS_");
            json!({ "sequence": layer.sequence, "row": layer.row, "name": layer.name, "status": status })
        })
        .collect();
    let analysis = message.analysis.as_ref().map(of_analysis).transpose()?;
    let object = json!({ "sequence": message.sequence, "analysis": analysis, "layers": layers });
    Ok(format!("{object}\n"))
}

/// An array of workers.
pub(super) fn workers(workers: &[v1::Worker]) -> Result<String> {
    let of = |worker: &v1::Worker| {
        json!({
            "id": worker.id,
            "state": worker_state(worker),
            "cores": worker.cores,
            "memory_bytes": worker.memory_bytes,
            "free_cores": worker.free_cores,
            "free_memory_bytes": worker.free_memory_bytes,
            "running": worker.running,
            "finished": worker.finished,
            "report_time": time(worker.report_time.as_ref()),
            "version": worker.version,
        })
    };
    pretty(&workers.iter().map(of).collect::<Value>())
}

/// How a coordinator stands.
pub(super) fn status(status: &v1::GetStatusResponse) -> Result<String> {
    let store = status.store.as_ref().map(|store| {
        json!({
            "bytes": store.bytes,
            "free_bytes": store.free_bytes,
            "results": store.results,
            "result_bytes": store.result_bytes,
            "evictions": store.evictions,
            "commits": store.commits,
            "recovery": store.recovery,
            "export_time": time(store.export_time.as_ref()),
        })
    });
    pretty(&json!({
        "version": status.version,
        "algorithm_version": status.algorithm_version,
        "worker_protocol": status.worker_protocol,
        "start_time": time(status.start_time.as_ref()),
        "accepting": status.accepting,
        "not_accepting_reason": status.not_accepting_reason,
        "analyses_active": status.analyses_active,
        "units_queued": status.units_queued,
        "units_running": status.units_running,
        "queue_work_seconds": status.queue_work_seconds,
        "desired_workers": status.desired_workers,
        "workers": status.workers,
        "store": store,
    }))
}

fn of_analysis(analysis: &v1::Analysis) -> Result<Value> {
    let (options, layers) = options_from_proto(analysis.options.as_ref())?;
    let identity = analysis.identity.clone().map(ModelIdentity::try_from).transpose()?;
    let summary = analysis.summary.clone().map(Summary::try_from).transpose()?;
    let waiting = word(analysis.waiting().as_str_name(), "WAITING_REASON_");
    let failure = analysis
        .failure
        .as_ref()
        .map(|failure| json!({ "reason": failure.reason, "message": failure.message }));
    Ok(json!({
        "id": analysis.id,
        "model": analysis.model,
        "options": options,
        "layers": layers,
        "state": state(analysis),
        "waiting": (waiting != "unspecified").then_some(waiting),
        "waiting_detail": analysis.waiting_detail,
        "progress": analysis.progress.as_ref().map(progress),
        "plan": analysis.plan.as_ref().map(plan),
        "identity": identity,
        "summary": summary,
        "failure": failure,
        "create_time": time(analysis.create_time.as_ref()),
        "start_time": time(analysis.start_time.as_ref()),
        "end_time": time(analysis.end_time.as_ref()),
        "created_by": analysis.created_by,
        "keep_spectra": analysis.keep_spectra,
        "priority": analysis.priority,
        "sequence": analysis.sequence,
    }))
}

fn progress(progress: &v1::Progress) -> Value {
    json!({
        "layers": progress.layers,
        "queued": progress.queued,
        "running": progress.running,
        "done": progress.done,
        "failed": progress.failed,
        "from_cache": progress.from_cache,
        "retried": progress.retried,
        "flops_again": progress.flops_again,
        "bytes_done": progress.bytes_done,
        "bytes": progress.bytes,
    })
}

fn plan(plan: &v1::Plan) -> Value {
    json!({
        "layers": plan.layers,
        "skipped": plan.skipped,
        "units": plan.units,
        "flops": plan.flops,
        "bytes": plan.bytes,
        "peak_bytes": plan.peak_bytes,
        "partial_gram_bytes": plan.partial_gram_bytes,
    })
}

fn time(time: Option<&Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

fn pretty(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    let failed = |e| Error::new(ErrorKind::Internal, format!("cannot write the answer: {e}"));
    Ok(text.map_err(failed)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_analysis_has_words_and_times() {
        let mut known = v1::Analysis { id: "a".to_owned(), ..Default::default() };
        known.set_state(v1::AnalysisState::Queued);
        known.set_waiting(v1::WaitingReason::BackOff);
        known.create_time = Some(Timestamp { seconds: 1_764_000_000, nanos: 0 });
        let value: Value = serde_json::from_str(&analysis(&known).unwrap()).unwrap();
        assert_eq!((&value["state"], &value["waiting"]), (&"queued".into(), &"back_off".into()));
        assert_eq!(value["create_time"], "2025-11-24T16:00:00Z");
        assert_eq!((&value["end_time"], &value["options"]["method"]), (&Value::Null, &"auto".into()));
        let line = watched(&v1::WatchAnalysisResponse { sequence: 3, ..Default::default() }).unwrap();
        assert_eq!(line, "{\"sequence\":3,\"analysis\":null,\"layers\":[]}\n");
    }
}
