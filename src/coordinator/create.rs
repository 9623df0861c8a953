//! An analysis asked for: checked, planned from headers, answered from what is known, and queued; durable before it is
//! answered.

use super::clock;
use super::core::{Core, failure};
use super::live::Live;
use super::planned::Planned;
use super::sources::Place;
use crate::analysis::Options;
use crate::format;
use crate::layer;
use crate::rpc::convert::{options_from_proto, options_to_proto};
use crate::rpc::proto::store::v1::AnalysisRecord;
use crate::rpc::proto::v1::{self, AnalysisState, CreateAnalysisRequest};
use crate::run::{self, Model};
use crate::store::{Batch, Space};
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Planning that takes longer goes on after the answer.
const PLAN_BEFORE_ANSWER: Duration = Duration::from_secs(10);
/// The longest request id.
const LONGEST_ID: usize = 128;

/// A request that is well formed and allowed.
struct Asked {
    request: CreateAnalysisRequest,
    place: Place,
    options: Options,
    filters: Vec<String>,
    by: String,
}

/// What planning needs to know.
pub(super) struct ToPlan {
    pub(super) place: Place,
    pub(super) options: Options,
    pub(super) filters: Vec<String>,
    pub(super) keep_spectra: bool,
    pub(super) id: String,
}

impl Core {
    /// Accepts an analysis, or gives the one that the same request made before.
    pub(super) async fn create(
        self: &Arc<Self>,
        request: CreateAnalysisRequest,
        by: String,
    ) -> Result<v1::Analysis> {
        let asked = self.check(request, by)?;
        if asked.request.validate_only {
            return self.validate(asked).await;
        }
        self.check_room()?;
        if asked.request.request_id.is_empty() {
            return self.accept(asked).await;
        }
        let _one_at_a_time = self.creating.lock().await;
        match self.made_before(&asked.request)? {
            Some(id) => self.view(&id),
            None => self.accept(asked).await,
        }
    }

    fn check(&self, request: CreateAnalysisRequest, by: String) -> Result<Asked> {
        if request.model.is_empty() {
            return Err(Error::invalid("is empty; give the URI of a model").in_field("model"));
        }
        if request.request_id.len() > LONGEST_ID || request.request_id.chars().any(char::is_control) {
            return Err(Error::invalid("is not a UUID or a short name").in_field("request_id"));
        }
        let (options, filters) = options_from_proto(request.options.as_ref())?;
        let place = self.sources.resolve(&request.model)?;
        Ok(Asked { request, place, options, filters, by })
    }

    /// Whether there is room for one more analysis.
    fn check_room(&self) -> Result<()> {
        if let Some(why) = self.not_accepting() {
            return Err(Error::new(ErrorKind::Exhausted, why));
        }
        let most = self.settings.leases.max_jobs_queued;
        if self.live_count() >= most {
            let message = format!("{most} analyses wait or run already, the limit in force; try again later");
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        Ok(())
    }

    /// Why no further analysis is taken.
    pub(super) fn not_accepting(&self) -> Option<String> {
        let health = self.records.health();
        if let Some(why) = health.failed {
            return Some(format!("the store refuses writes: {why}"));
        }
        health.low_on_disk.then(|| {
            let free = bytesize::ByteSize(health.free_bytes);
            format!("the store's disk is nearly full ({free} left); what is there is kept")
        })
    }

    fn made_before(&self, request: &CreateAnalysisRequest) -> Result<Option<String>> {
        let Some(id) = self.records.get(Space::Meta, request_key(&request.request_id).as_slice())? else {
            return Ok(None);
        };
        let id = String::from_utf8_lossy(&id).into_owned();
        let record = self.record(&id)?;
        if record.request_digest != digest(request) {
            let message = format!("was used for another request, which made analysis {id}");
            return Err(Error::new(ErrorKind::Conflict, message).in_field("request_id"));
        }
        Ok(Some(id))
    }

    async fn validate(self: &Arc<Self>, asked: Asked) -> Result<v1::Analysis> {
        let mut analysis = new_record(&asked, String::new()).analysis.unwrap_or_default();
        let planned = self.plan(to_plan(asked, String::new())).await?;
        analysis.plan = Some(planned.plan());
        analysis.identity = Some(identity(&planned));
        analysis.set_state(AnalysisState::Unspecified);
        Ok(analysis)
    }

    async fn accept(self: &Arc<Self>, asked: Asked) -> Result<v1::Analysis> {
        let id = uuid::Uuid::now_v7().to_string();
        let record = new_record(&asked, id.clone());
        let request_id = asked.request.request_id.clone();
        let mut planning = Box::pin(self.plan(to_plan(asked, id.clone())));
        let live = Arc::new(Live::new(record));
        match tokio::time::timeout(PLAN_BEFORE_ANSWER, &mut planning).await {
            Ok(planned) => self.admit(&live, planned?, &request_id).await?,
            Err(_) => {
                // A store that answers slowly: accepted as it is, planned later.
                let mut batch = Batch::new();
                put_record(&mut batch, &live.lock().record, &request_id);
                self.commit(batch).await?;
                self.add_live(Arc::clone(&live));
                drop(planning);
                let core = Arc::clone(self);
                self.settings.runtime.spawn(async move { core.plan_later(id).await });
                return Ok(self.view_of(&live));
            }
        }
        self.view(&live.id).or_else(|_| Ok(self.view_of(&live)))
    }

    /// Reads the headers of a model and cuts its layers into units.
    pub(super) async fn plan(self: &Arc<Self>, what: ToPlan) -> Result<Planned> {
        let closed = |_| Error::new(ErrorKind::Unavailable, "the coordinator is stopping");
        let _permit = self.planning.acquire().await.map_err(closed)?;
        let core = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || core.read_and_plan(what)).await;
        made.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, format!("planning failed: {panic}"))))
    }

    fn read_and_plan(&self, what: ToPlan) -> Result<Planned> {
        let source = self.sources.open(&what.place)?;
        let limits = &self.settings.format_limits;
        let in_model = |error: Error| error.in_model(&what.place.uri);
        let mut catalog = format::read_catalog_within(source.as_ref(), limits).map_err(in_model)?;
        catalog.uri.clone_from(&what.place.uri);
        self.settings.check_tensors(&catalog).map_err(in_model)?;
        let mut layers = layer::layers(&catalog, &what.options.layers);
        layer::filter(&mut layers, &what.filters, "options.layers").map_err(in_model)?;
        let model = Model { catalog, layers };
        if let Some(error) = run::nothing_analysable(&model) {
            return Err(error);
        }
        let planned = Planned::new(what.place, source, model, (what.options, what.keep_spectra), &what.id);
        let checked = self.settings.check_units(planned.rows.len(), planned.units.len());
        checked.map_err(|error| error.in_model(&planned.place.uri))?;
        Ok(planned)
    }

    /// Plans an analysis that was accepted before it was planned. Failing ends it.
    pub(super) async fn plan_later(self: Arc<Self>, id: String) {
        let Some(live) = self.live(&id) else { return };
        let admitted = match self.plan_patiently(&live).await {
            Ok(planned) => self.admit(&live, planned, "").await,
            Err(error) => Err(error),
        };
        if let Err(error) = admitted {
            self.end_failed(&id, failure(word(&error), &error.to_string()));
        }
    }

    /// What planning an accepted analysis needs to know.
    pub(super) fn to_plan_again(&self, live: &Live) -> Result<ToPlan> {
        let mut state = live.lock();
        let analysis = state.analysis();
        let (options, filters) = options_from_proto(analysis.options.as_ref())?;
        let place = self.sources.resolve(&analysis.model)?;
        Ok(ToPlan { place, options, filters, keep_spectra: analysis.keep_spectra, id: live.id.clone() })
    }
}

/// The word that says why an analysis failed.
pub(super) fn word(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Changed => "MODEL_CHANGED",
        ErrorKind::NotFound => "MODEL_GONE",
        ErrorKind::NothingAnalysable => "NOTHING_ANALYSABLE",
        _ => crate::rpc::status::reason(error.kind()),
    }
}

fn to_plan(asked: Asked, id: String) -> ToPlan {
    let Asked { request, place, options, filters, .. } = asked;
    ToPlan { place, options, filters, keep_spectra: request.keep_spectra, id }
}

fn new_record(asked: &Asked, id: String) -> AnalysisRecord {
    let mut analysis = v1::Analysis {
        id,
        model: asked.place.uri.clone(),
        options: Some(options_to_proto(&asked.options, &asked.filters)),
        create_time: Some(clock::wall()),
        created_by: asked.by.clone(),
        keep_spectra: asked.request.keep_spectra,
        priority: asked.request.priority,
        ..v1::Analysis::default()
    };
    analysis.set_state(AnalysisState::Planning);
    AnalysisRecord {
        analysis: Some(analysis),
        request_id: asked.request.request_id.clone(),
        root: asked.place.root.clone(),
        request_digest: digest(&asked.request),
        ..AnalysisRecord::default()
    }
}

pub(super) fn put_record(batch: &mut Batch, record: &AnalysisRecord, request_id: &str) {
    let id = record.analysis.as_ref().map(|analysis| analysis.id.clone()).unwrap_or_default();
    if !request_id.is_empty() {
        batch.put(Space::Meta, request_key(request_id), id.clone().into_bytes());
    }
    batch.put(Space::Job, id.into_bytes(), record.encode_to_vec());
}

fn request_key(request_id: &str) -> Vec<u8> {
    format!("request/{request_id}").into_bytes()
}

/// Of what the request asks for, its id aside.
fn digest(request: &CreateAnalysisRequest) -> Vec<u8> {
    let plain = CreateAnalysisRequest { request_id: String::new(), ..request.clone() };
    blake3::hash(&plain.encode_to_vec()).as_bytes().to_vec()
}

/// What was read.
pub(super) fn identity(planned: &Planned) -> v1::ModelIdentity {
    let catalog = &planned.model.catalog;
    v1::ModelIdentity {
        uri: catalog.uri.clone(),
        format: catalog.format.to_owned(),
        files: catalog.files.iter().map(|file| v1::ObjectIdentity::from(file.identity())).collect(),
        metadata: catalog.metadata.clone().into_iter().collect(),
        notes: catalog.notes.clone(),
    }
}
