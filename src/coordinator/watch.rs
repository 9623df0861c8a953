//! Progress as it comes: at most four messages a second, and one every 15 seconds if nothing happens.

use super::analyses::{Stream, lighter};
use super::core::Core;
use super::live::{Happened, Live};
use super::restore::has_ended;
use super::rows;
use crate::Result;
use crate::rpc::proto::v1::{LayerEvent, WatchAnalysisRequest, WatchAnalysisResponse};
use crate::rpc::status::status;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

const PAUSE: Duration = Duration::from_millis(250);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events in one message.
const AT_ONCE: usize = 5000;

/// Where a stream is.
struct Watching {
    core: Arc<Core>,
    id: String,
    after: u64,
    live: Option<(Arc<Live>, Receiver<u64>)>,
    first: bool,
    ended: bool,
}

/// The stream of an analysis, from `after_sequence` on.
pub(super) fn watch(core: Arc<Core>, request: WatchAnalysisRequest) -> Result<Stream<WatchAnalysisResponse>> {
    let WatchAnalysisRequest { id, after_sequence } = request;
    let live = core.live(&id).map(|live| {
        let news = live.news();
        (live, news)
    });
    core.view(&id)?;
    let start = Watching { core, id, after: after_sequence, live, first: true, ended: false };
    let messages = stream::unfold(start, |mut watching| async move {
        if watching.ended {
            return None;
        }
        let next = watching.next().await.map_err(|error| status(&error));
        watching.ended |= next.is_err();
        Some((next, watching))
    });
    Ok(messages.boxed())
}

impl Watching {
    async fn next(&mut self) -> Result<WatchAnalysisResponse> {
        self.pause().await;
        let (events, more) = self.events()?;
        let analysis = self.core.view(&self.id)?;
        let all_told = !more && events.last().is_none_or(|event| event.sequence >= self.after);
        self.ended = has_ended(analysis.state()) && all_told && self.caught_up(&events);
        if let Some(last) = events.last() {
            self.after = self.after.max(last.sequence);
        }
        if self.ended {
            self.after = self.after.max(analysis.sequence);
        }
        let layers = self.named(&events)?;
        Ok(WatchAnalysisResponse { sequence: self.after, analysis: Some(lighter(analysis)), layers })
    }

    /// Until something happens that was not told.
    async fn pause(&mut self) {
        let Some((live, news)) = &mut self.live else { return };
        if std::mem::take(&mut self.first) {
            news.borrow_and_update();
            return;
        }
        let quiet = tokio::time::sleep(PAUSE);
        tokio::pin!(quiet);
        let mut has_news = false;
        loop {
            // The sender lives as long as the analysis that is held here.
            tokio::select! {
                () = &mut quiet => break,
                _ = news.changed() => has_news = true,
            }
            // The end is told at once.
            if has_ended(live.lock().analysis().state()) {
                return;
            }
        }
        if !has_news {
            let _ = tokio::time::timeout(HEARTBEAT, news.changed()).await;
        }
        news.borrow_and_update();
    }

    /// Whether no event is left to tell after these.
    fn caught_up(&self, events: &[Happened]) -> bool {
        let told = events.last().map_or(self.after, |event| event.sequence);
        match &self.live {
            Some((live, _)) => live.lock().events.last().is_none_or(|last| last.sequence <= told),
            None => true,
        }
    }

    /// The next events that were not told, and whether there are more.
    fn events(&self) -> Result<(Vec<Happened>, bool)> {
        let Some((live, _)) = &self.live else { return self.events_of_ended() };
        let state = live.lock();
        let first = state.events.partition_point(|event| event.sequence <= self.after);
        let rest = state.events.get(first..).unwrap_or_default();
        let events = rest.iter().take(AT_ONCE).copied().collect();
        Ok((events, rest.len() > AT_ONCE))
    }

    /// An analysis that had ended before the call: its rows hold their sequence numbers.
    fn events_of_ended(&self) -> Result<(Vec<Happened>, bool)> {
        let mut events = Vec::new();
        rows::each(self.core.records.as_ref(), &self.id, &mut |row, record| {
            if record.sequence > self.after {
                let status = record.row.as_ref().map(|row| row.status()).unwrap_or_default();
                events.push(Happened { sequence: record.sequence, row, layer: u32::MAX, status });
            }
            Ok(())
        })?;
        events.sort_by_key(|event| event.sequence);
        let more = events.len() > AT_ONCE;
        events.truncate(AT_ONCE);
        Ok((events, more))
    }

    fn named(&self, events: &[Happened]) -> Result<Vec<LayerEvent>> {
        let planned = self.live.as_ref().and_then(|(live, _)| live.planned());
        let name = |event: &Happened| -> Result<String> {
            let layers = planned.as_ref().map(|planned| &planned.model.layers.layers);
            if let Some(layer) = layers.and_then(|layers| layers.get(event.layer as usize)) {
                return Ok(layer.name.clone());
            }
            Ok(rows::at(self.core.records.as_ref(), &self.id, event.row)?
                .and_then(|record| record.row)
                .map(|row| row.name)
                .unwrap_or_default())
        };
        let event = |event: &Happened| -> Result<LayerEvent> {
            let mut told =
                LayerEvent { sequence: event.sequence, row: event.row.into(), ..LayerEvent::default() };
            told.name = name(event)?;
            told.set_status(event.status);
            Ok(told)
        };
        events.iter().map(event).collect()
    }
}
