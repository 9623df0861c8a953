//! `AnalysisService`.

use super::core::{Core, failure, no_such_analysis};
use super::restore::has_ended;
use super::{complete, describe, page, results, watch};
use crate::guard::Caller;
use crate::rpc::proto::store::v1::AnalysisRecord;
use crate::rpc::proto::v1::analysis_service_server::AnalysisService;
use crate::rpc::proto::v1::*;
use crate::rpc::status::status;
use crate::store::Space;
use crate::{Error, Result};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Records read at once while listing.
const SCAN: usize = 256;
/// Records looked at for one page, so that a filter that matches little does not hold up others.
const LOOKED_AT: usize = 20_000;

/// The service.
pub(super) struct Analyses(pub(super) Arc<Core>);

/// A stream of messages.
pub(super) type Stream<T> = futures_util::stream::BoxStream<'static, std::result::Result<T, Status>>;

#[tonic::async_trait]
impl AnalysisService for Analyses {
    async fn create_analysis(
        &self,
        request: Request<CreateAnalysisRequest>,
    ) -> std::result::Result<Response<CreateAnalysisResponse>, Status> {
        let by = request.extensions().get::<Caller>().map(|caller| caller.name.clone()).unwrap_or_default();
        let core = Arc::clone(&self.0);
        // Once it is durable the answer may be lost, not the analysis: so the work does not end with the call.
        let created = tokio::spawn(async move { core.create(request.into_inner(), by).await });
        let created = created.await.unwrap_or_else(|panic| {
            Err(Error::new(crate::ErrorKind::Internal, format!("the request could not be handled: {panic}")))
        });
        let analysis = created.map_err(|error| status(&error))?;
        tracing::info!(analysis = analysis.id, model = analysis.model, by = analysis.created_by, "accepted");
        Ok(Response::new(CreateAnalysisResponse { analysis: Some(analysis) }))
    }

    async fn get_analysis(
        &self,
        request: Request<GetAnalysisRequest>,
    ) -> std::result::Result<Response<GetAnalysisResponse>, Status> {
        let analysis = self.0.view(&request.into_inner().id).map_err(|error| status(&error))?;
        Ok(Response::new(GetAnalysisResponse { analysis: Some(analysis) }))
    }

    async fn list_analyses(
        &self,
        request: Request<ListAnalysesRequest>,
    ) -> std::result::Result<Response<ListAnalysesResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || list(&core, &request.into_inner())).await.map(Response::new)
    }

    type WatchAnalysisStream = Stream<WatchAnalysisResponse>;

    async fn watch_analysis(
        &self,
        request: Request<WatchAnalysisRequest>,
    ) -> std::result::Result<Response<Self::WatchAnalysisStream>, Status> {
        let stream = watch::watch(Arc::clone(&self.0), request.into_inner());
        Ok(Response::new(stream.map_err(|error| status(&error))?))
    }

    async fn cancel_analysis(
        &self,
        request: Request<CancelAnalysisRequest>,
    ) -> std::result::Result<Response<CancelAnalysisResponse>, Status> {
        let id = request.into_inner().id;
        let core = Arc::clone(&self.0);
        let ended = tokio::spawn(async move { cancel(&core, &id).await });
        let analysis = ended.await.unwrap_or_else(|_| Err(no_such_analysis(""))).map_err(|e| status(&e))?;
        Ok(Response::new(CancelAnalysisResponse { analysis: Some(analysis) }))
    }

    async fn list_layer_results(
        &self,
        request: Request<ListLayerResultsRequest>,
    ) -> std::result::Result<Response<ListLayerResultsResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || results::list(&core, &request.into_inner())).await.map(Response::new)
    }

    type StreamLayerResultsStream = Stream<StreamLayerResultsResponse>;

    async fn stream_layer_results(
        &self,
        request: Request<StreamLayerResultsRequest>,
    ) -> std::result::Result<Response<Self::StreamLayerResultsStream>, Status> {
        let request = request.into_inner();
        self.0.view(&request.id).map_err(|error| status(&error))?;
        Ok(Response::new(results::stream(Arc::clone(&self.0), request)))
    }

    type StreamSpectrumStream = Stream<StreamSpectrumResponse>;

    async fn stream_spectrum(
        &self,
        request: Request<StreamSpectrumRequest>,
    ) -> std::result::Result<Response<Self::StreamSpectrumStream>, Status> {
        let core = Arc::clone(&self.0);
        let stream = blocking(move || results::spectrum(&core, &request.into_inner())).await?;
        Ok(Response::new(stream))
    }

    type DescribeModelStream = Stream<DescribeModelResponse>;

    async fn describe_model(
        &self,
        request: Request<DescribeModelRequest>,
    ) -> std::result::Result<Response<Self::DescribeModelStream>, Status> {
        let stream = describe::describe(&self.0, request.into_inner()).await;
        Ok(Response::new(stream.map_err(|error| status(&error))?))
    }
}

/// Runs what reads the disk outside the threads that serve.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: tokio::task::JoinError| {
        Err(Error::new(crate::ErrorKind::Internal, format!("the request could not be handled: {error}")))
    };
    done.unwrap_or_else(failed).map_err(|error| status(&error))
}

async fn cancel(core: &Arc<Core>, id: &str) -> Result<Analysis> {
    let Some(live) = core.live(id) else { return core.view(id) };
    if live.lock().closing {
        // It ends by itself in this moment.
        return Ok(core.view_of(&live));
    }
    let reason = failure("CANCELLED", "ended on request");
    complete::end(core, &live, AnalysisState::Cancelled, Some(reason)).await?;
    core.view(id)
}

fn list(core: &Core, request: &ListAnalysesRequest) -> Result<ListAnalysesResponse> {
    let size = page::size(request.page_size, 50)?;
    if AnalysisState::try_from(request.state).is_err() {
        return Err(Error::invalid(format!("{} is no state that we know", request.state)).in_field("state"));
    }
    let state = request.state.to_string();
    let query = ["analyses", state.as_str(), request.model_prefix.as_str()];
    let mut before = page::last(&query, &request.page_token)?;
    let mut analyses = Vec::new();
    let mut looked_at = 0;
    loop {
        let found = core.records.scan_back(Space::Job, b"", before.as_deref(), SCAN)?;
        if found.is_empty() {
            return Ok(ListAnalysesResponse { analyses, next_page_token: String::new() });
        }
        for (key, bytes) in found {
            looked_at += 1;
            let id = String::from_utf8_lossy(&key).into_owned();
            if let Some(analysis) = entry(core, &id, &bytes, request)? {
                analyses.push(analysis);
            }
            before = Some(key);
            if analyses.len() == size || looked_at == LOOKED_AT {
                let next_page_token = page::token(&query, before.as_deref().unwrap_or_default());
                return Ok(ListAnalysesResponse { analyses, next_page_token });
            }
        }
    }
}

/// An analysis of the list, if it was asked for.
fn entry(core: &Core, id: &str, bytes: &[u8], request: &ListAnalysesRequest) -> Result<Option<Analysis>> {
    let mut analysis = match core.live(id) {
        Some(live) => core.view_of(&live),
        None => {
            let record: AnalysisRecord = super::core::decode(bytes, || format!("analysis {id}"))?;
            record.analysis.unwrap_or_default()
        }
    };
    let any = request.state() == AnalysisState::Unspecified;
    let wanted = any || analysis.state() == request.state();
    analysis.identity = None;
    analysis.summary = None;
    Ok((wanted && analysis.model.starts_with(&request.model_prefix)).then_some(analysis))
}

/// Without what is long, until it has ended.
pub(super) fn lighter(mut analysis: Analysis) -> Analysis {
    if !has_ended(analysis.state()) {
        analysis.identity = None;
        analysis.summary = None;
    }
    analysis
}
