//! `TaskService`: the workers' side.

use super::analyses::{Stream, blocking};
use super::arrivals;
use super::core::Core;
use super::objects;
use super::planned::{Planned, Work};
use crate::analysis::ALGORITHM_VERSION;
use crate::job::{Attempt, Finished, JobId, Outcome, Report, Running, Verdict, WorkerId};
use crate::rpc::WORKER_PROTOCOL as PROTOCOL;
use crate::rpc::convert::options_to_proto;
use crate::rpc::proto::v1;
use crate::rpc::proto::worker::v1::task_service_server::TaskService;
use crate::rpc::proto::worker::v1::*;
use crate::rpc::status::status;
use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::{Request, Response, Status, Streaming};

/// The longest name of a worker.
const LONGEST_ID: usize = 128;

/// The service.
pub(super) struct Tasks {
    pub(super) core: Arc<Core>,
    /// Versions by worker, for the view.
    pub(super) versions: Arc<Versions>,
}

/// What workers say of themselves beside what the table needs.
#[derive(Default)]
pub(super) struct Versions(Mutex<HashMap<String, About>>);

/// What one worker says of itself.
#[derive(Clone, Default)]
pub(super) struct About {
    pub(super) version: String,
    pub(super) finished: u64,
}

impl Versions {
    pub(super) fn of(&self, worker: &str) -> About {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(worker).cloned().unwrap_or_default()
    }

    fn note(&self, worker: &str, version: &str, finished: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let about = all.entry(worker.to_owned()).or_default();
        version.clone_into(&mut about.version);
        about.finished += finished;
    }

    /// Forgets those that the table has forgotten.
    pub(super) fn keep(&self, known: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|worker, _| known(worker));
    }
}

#[tonic::async_trait]
impl TaskService for Tasks {
    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> std::result::Result<Response<ReportResponse>, Status> {
        let request = request.into_inner();
        check_version(&request).map_err(|error| status(&error))?;
        let core = Arc::clone(&self.core);
        let versions = Arc::clone(&self.versions);
        // What is durable is to be counted even if the worker gives up the call.
        let answered = tokio::spawn(async move { answer(&core, &versions, request).await });
        match answered.await {
            Ok(response) => Ok(Response::new(response)),
            Err(panic) => {
                let message = format!("the report could not be handled: {panic}");
                Err(status(&Error::new(ErrorKind::Internal, message)))
            }
        }
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> std::result::Result<Response<LookupResponse>, Status> {
        let LookupRequest { worker, unit, digest } = request.into_inner();
        let finished = finished(worker, unit).map_err(|error| status(&error))?;
        let core = Arc::clone(&self.core);
        let known = tokio::spawn(async move { core.lookup(finished, &digest).await });
        let known = known.await.unwrap_or(Ok(false)).map_err(|error| status(&error))?;
        Ok(Response::new(LookupResponse { known }))
    }

    type ListObjectsStream = Stream<ListObjectsResponse>;

    async fn list_objects(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> std::result::Result<Response<Self::ListObjectsStream>, Status> {
        let request = request.into_inner();
        let stream = objects::list(&self.core, &request).map_err(|error| status(&error))?;
        Ok(Response::new(stream))
    }

    type ReadObjectStream = Stream<ReadObjectResponse>;

    async fn read_object(
        &self,
        request: Request<ReadObjectRequest>,
    ) -> std::result::Result<Response<Self::ReadObjectStream>, Status> {
        let core = Arc::clone(&self.core);
        let stream = objects::read(core, request.into_inner()).await.map_err(|error| status(&error))?;
        Ok(Response::new(stream))
    }

    async fn send_spectrum(
        &self,
        request: Request<Streaming<SendSpectrumRequest>>,
    ) -> std::result::Result<Response<SendSpectrumResponse>, Status> {
        arrivals::spectrum(&self.core, request.into_inner()).await?;
        Ok(Response::new(SendSpectrumResponse {}))
    }

    async fn send_partial_gram(
        &self,
        request: Request<Streaming<SendPartialGramRequest>>,
    ) -> std::result::Result<Response<SendPartialGramResponse>, Status> {
        arrivals::partial_gram(&self.core, request.into_inner()).await?;
        Ok(Response::new(SendPartialGramResponse {}))
    }

    type ReadGramSumStream = Stream<ReadGramSumResponse>;

    async fn read_gram_sum(
        &self,
        request: Request<ReadGramSumRequest>,
    ) -> std::result::Result<Response<Self::ReadGramSumStream>, Status> {
        let ReadGramSumRequest { worker, unit } = request.into_inner();
        let finished = finished(worker, unit).map_err(|error| status(&error))?;
        let core = Arc::clone(&self.core);
        let stream = blocking(move || arrivals::gram_sum(&core, &finished)).await?;
        Ok(Response::new(stream))
    }
}

/// A unit that a worker speaks of, as if it had ended.
pub(super) fn finished(worker: String, unit: Option<UnitKey>) -> Result<Finished> {
    let unit = unit.ok_or_else(|| Error::invalid("is missing").in_field("unit"))?;
    Ok(Finished {
        worker: WorkerId(worker),
        attempt: Attempt(unit.attempt),
        job: JobId(unit.analysis),
        unit: unit.unit,
        outcome: Outcome::Done,
    })
}

/// Whether the table would take the result of such a unit now.
pub(super) fn in_force(core: &Core, finished: &Finished) -> bool {
    matches!(core.table().check(finished), Verdict::Accepted { .. })
}

fn check_version(request: &ReportRequest) -> Result<()> {
    if request.protocol != PROTOCOL || request.algorithm_version != ALGORITHM_VERSION {
        let message = format!(
            "the worker (spectrald {}) speaks protocol {} with numerics {}, this coordinator (spectrald {}) \
             protocol {PROTOCOL} with numerics {ALGORITHM_VERSION}; run the same version on both",
            request.version,
            request.protocol,
            request.algorithm_version,
            env!("CARGO_PKG_VERSION"),
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, message).in_field("protocol"));
    }
    let id = &request.worker;
    if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
        let message = format!("is to be a name of 1 to {LONGEST_ID} bytes");
        return Err(Error::invalid(message).in_field("worker"));
    }
    Ok(())
}

async fn answer(core: &Arc<Core>, versions: &Versions, mut request: ReportRequest) -> ReportResponse {
    let worker = WorkerId(request.worker.clone());
    let results = std::mem::take(&mut request.results);
    versions.note(&worker.0, &request.version, results.len() as u64);
    core.metrics.fetched(request.bytes_read);
    note_speed(core, &results);
    let acknowledged = core.take_results(&worker, results).await;
    let held = hold(core, &request).await;
    let report = report_of(worker, request, &acknowledged);
    let (reply, events) = {
        let mut table = core.table();
        let reply = table.report(&report, core.now());
        (reply, table.take_events())
    };
    core.follow_up(events);
    let leases = reply.leases.into_iter().filter_map(|lease| core.lease(lease)).collect();
    let skip = reply.skip.into_iter().map(|(attempt, job, unit)| UnitKey {
        analysis: job.0,
        unit,
        attempt: attempt.0,
    });
    ReportResponse {
        sequence: reply.seq,
        leases,
        cancelled: reply.cancelled.into_iter().map(|attempt| attempt.0).collect(),
        acknowledged,
        report_after_ms: match held {
            true => 1,
            false => u32::try_from(core.settings.report_every.as_millis()).unwrap_or(u32::MAX),
        },
        skip: skip.collect(),
    }
}

/// Keeps the answer to a worker that has nothing to do until there is work, or its next report would be due. Whether
/// it was kept.
async fn hold(core: &Core, request: &ReportRequest) -> bool {
    let is_idle = request.running.is_empty() && request.free_cores > 0 && !request.draining;
    let arrived = core.arrived.notified();
    tokio::pin!(arrived);
    arrived.as_mut().enable();
    if !is_idle || core.table().totals().waiting_flops > 0 {
        return false;
    }
    // Either way the worker is answered.
    let _ = tokio::time::timeout(core.settings.report_every, arrived).await;
    true
}

/// How fast work goes, for those who plan.
fn note_speed(core: &Core, results: &[UnitResult]) {
    for result in results {
        let Some((_, planned)) = core.planned(&result.analysis) else { continue };
        if let Some(unit) = planned.units.get(result.unit as usize) {
            core.speed.add(unit.cost.flops, result.seconds);
            core.metrics
                .layer_took(std::time::Duration::try_from_secs_f64(result.seconds).unwrap_or_default());
        }
    }
}

fn report_of(worker: WorkerId, request: ReportRequest, acknowledged: &[UnitKey]) -> Report {
    let running = request.running.into_iter().map(|running| {
        let Running_ { attempt, analysis, units, progress, kept } = running;
        let is_acknowledged = |unit: u32| {
            acknowledged
                .iter()
                .any(|key| key.attempt == attempt && key.unit == unit && key.analysis == analysis)
        };
        let named = |unit: &u32| (JobId(analysis.clone()), *unit);
        Running {
            attempt: Attempt(attempt),
            units: units.iter().map(named).collect(),
            kept: kept.iter().filter(|unit| !is_acknowledged(**unit)).map(named).collect(),
            progress,
        }
    });
    Report {
        worker,
        session: request.session,
        seen: request.seen,
        cores: request.cores,
        memory: request.memory_bytes,
        free_cores: request.free_cores,
        free_memory: request.free_memory_bytes,
        draining: request.draining,
        running: running.collect(),
        want: request.free_cores > 0 && !request.draining,
    }
}

/// The message, where the table's type of the same name is in use.
type Running_ = crate::rpc::proto::worker::v1::Running;

impl Core {
    /// A lease as its worker gets it; `None` if its analysis has just ended.
    fn lease(&self, lease: crate::job::Lease) -> Option<Lease> {
        let (live, planned) = self.planned(&lease.job.0)?;
        let keep_spectra = live.lock().analysis().keep_spectra;
        let options = live.lock().analysis().options.clone();
        let files = planned.model.catalog.files.iter();
        Some(Lease {
            attempt: lease.attempt.0,
            analysis: lease.job.0,
            model: Some(ModelAt {
                uri: planned.place.uri.clone(),
                root: planned.place.root.clone(),
                through_coordinator: planned.place.is_local,
                files: files.map(|file| v1::ObjectIdentity::from(file.identity())).collect(),
            }),
            options: options.or_else(|| Some(options_to_proto(&planned.options, &[]))),
            keep_spectra,
            units: lease.units.iter().filter_map(|unit| unit_of(&planned, *unit)).collect(),
            memory_bytes: lease.memory,
            traceparent: live.traceparent(),
        })
    }
}

/// A unit as its worker gets it.
fn unit_of(planned: &Planned, number: u32) -> Option<Unit> {
    let unit = planned.units.get(number as usize)?;
    let work = match &unit.work {
        Work::Whole => unit::Work::Whole(Whole {}),
        Work::Shard { index, rows } => {
            unit::Work::Shard(Shard { index: *index, begin: rows.start, end: rows.end })
        }
        Work::Finish { shards } => unit::Work::Finish(Finish { shards: *shards }),
    };
    Some(Unit {
        unit: number,
        layer: u32::try_from(unit.layer).ok()?,
        name: planned.layer(unit)?.name.clone(),
        work: Some(work),
    })
}
