//! `WorkerService` and `SystemService`: what people see of workers and coordinator.

use super::clock;
use super::core::Core;
use super::page;
use super::tasks::Versions;
use crate::analysis::ALGORITHM_VERSION;
use crate::job::{self, WorkerId, WorkerView};
use crate::rpc::WORKER_PROTOCOL;
use crate::rpc::proto::v1::system_service_server::SystemService;
use crate::rpc::proto::v1::worker_service_server::WorkerService;
use crate::rpc::proto::v1::*;
use crate::rpc::status::status;
use crate::store::Space;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The services.
#[derive(Clone)]
pub(super) struct Workers {
    pub(super) core: Arc<Core>,
    pub(super) versions: Arc<Versions>,
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> std::result::Result<Response<ListWorkersResponse>, Status> {
        let listed = self.list(&request.into_inner());
        listed.map(Response::new).map_err(|error| status(&error))
    }

    async fn drain_worker(
        &self,
        request: Request<DrainWorkerRequest>,
    ) -> std::result::Result<Response<DrainWorkerResponse>, Status> {
        let id = WorkerId(request.into_inner().id);
        let (known, events) = {
            let mut table = self.core.table();
            (table.drain(&id, self.core.now()), table.take_events())
        };
        self.core.follow_up(events);
        let worker = self.all().into_iter().find(|worker| known && worker.id == id.0);
        match worker {
            Some(worker) => Ok(Response::new(DrainWorkerResponse { worker: Some(worker) })),
            None => {
                let error = Error::new(ErrorKind::NotFound, format!("there is no worker '{id}'"));
                Err(status(&error.in_field("id")))
            }
        }
    }
}

impl Workers {
    fn list(&self, request: &ListWorkersRequest) -> Result<ListWorkersResponse> {
        let size = page::size(request.page_size, 100)?;
        let after = page::last(&["workers"], &request.page_token)?.unwrap_or_default();
        let mut rest = self.all().into_iter().filter(|worker| worker.id.as_bytes() > after.as_slice());
        let workers: Vec<Worker> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let last = workers.last().filter(|_| more);
        let next_page_token =
            last.map(|last| page::token(&["workers"], last.id.as_bytes())).unwrap_or_default();
        Ok(ListWorkersResponse { workers, next_page_token })
    }

    fn all(&self) -> Vec<Worker> {
        let views: Vec<WorkerView> = self.core.table().workers().collect();
        self.versions.keep(|worker| views.iter().any(|view| view.id.0 == worker));
        views.into_iter().map(|view| self.worker(view)).collect()
    }

    fn worker(&self, view: WorkerView) -> Worker {
        let about = self.versions.of(&view.id.0);
        let ago = self.core.now().since(view.last_report);
        let mut worker = Worker {
            id: view.id.0,
            cores: view.cores,
            memory_bytes: view.memory,
            free_cores: view.free_cores,
            free_memory_bytes: view.free_memory,
            running: u32::try_from(view.leases).unwrap_or(u32::MAX),
            finished: about.finished,
            report_time: Some(clock::ago(ago)),
            version: about.version,
            ..Worker::default()
        };
        worker.set_state(match view.state {
            job::WorkerState::Ready => WorkerState::Ready,
            job::WorkerState::Draining => WorkerState::Draining,
            job::WorkerState::Lost => WorkerState::Lost,
        });
        worker
    }
}

#[tonic::async_trait]
impl SystemService for Workers {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> std::result::Result<Response<GetStatusResponse>, Status> {
        let core = &self.core;
        let why = core.not_accepting();
        let health = core.records.health();
        let load = core.load();
        let results = health.space(Space::Result);
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            algorithm_version: ALGORITHM_VERSION,
            worker_protocol: WORKER_PROTOCOL,
            start_time: Some(core.start),
            accepting: why.is_none(),
            not_accepting_reason: why.unwrap_or_default(),
            analyses_active: core.live_count() as u64,
            units_queued: load.queued,
            units_running: load.running,
            queue_work_seconds: load.queue_work_seconds,
            desired_workers: load.desired_workers,
            workers: load.workers,
            store: Some(StoreStatus {
                bytes: health.database_bytes,
                free_bytes: health.free_bytes,
                results: results.entries,
                result_bytes: results.bytes,
                evictions: health.evictions,
                commits: health.commits,
                recovery: core.recovery.clone(),
                export_time: core.last_export(),
            }),
        }))
    }
}
