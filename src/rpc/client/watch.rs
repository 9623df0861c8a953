//! Progress as it comes, over broken connections and restarts of the coordinator.

use super::{Client, is_ended, within};
use crate::rpc::proto::v1;
use crate::rpc::status;
use crate::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

/// What a watch has to tell.
#[derive(Debug)]
pub enum Watched {
    /// What happened.
    Progress(Box<v1::WatchAnalysisResponse>),
    /// The connection was lost; it is sought again.
    Lost(Error),
}

/// A watched analysis.
pub struct Watch {
    client: Client,
    id: String,
    sequence: u64,
    stream: Option<Streaming<v1::WatchAnalysisResponse>>,
    ended: bool,
    lost: Option<Lost>,
}

/// Since when there has been no message, and how often it was tried since.
struct Lost {
    since: Instant,
    failures: u32,
}

impl Client {
    /// Watches an analysis: everything after this sequence number (0: from its beginning) until it has ended.
    pub fn watch(&self, id: &str, after_sequence: u64) -> Watch {
        Watch {
            client: self.clone(),
            id: id.to_owned(),
            sequence: after_sequence,
            stream: None,
            ended: false,
            lost: None,
        }
    }
}

impl Watch {
    /// What comes next; `None` after the message in which the analysis has ended.
    ///
    /// # Errors
    /// What the coordinator says; `Unavailable` if it gives no answer for longer than
    /// [`Patience::unreachable`](super::Patience).
    pub async fn next(&mut self) -> Result<Option<Watched>> {
        while !self.ended {
            let status = match self.message().await {
                Ok(message) => return Ok(Some(self.arrived(message))),
                Err(status) => status,
            };
            self.stream = None;
            if !is_resumed(&status) {
                return Err(self.client.told(&status));
            }
            if self.lost.is_none() {
                self.lost = Some(Lost { since: Instant::now(), failures: 0 });
                return Ok(Some(Watched::Lost(self.client.told(&status))));
            }
            self.wait(&status).await?;
        }
        Ok(None)
    }

    /// The next message of the stream, which is opened if there is none. Its end counts as broken: a coordinator
    /// that goes down ends its streams, and one that has told the end is not asked any more.
    async fn message(&mut self) -> std::result::Result<v1::WatchAnalysisResponse, Status> {
        let patience = &self.client.patience;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let request = v1::WatchAnalysisRequest { id: self.id.clone(), after_sequence: self.sequence };
                let mut service = self.client.analyses();
                let answer = service.watch_analysis(tonic::Request::new(request));
                empty.insert(within(patience.answer.min(patience.silence), answer).await?.into_inner())
            }
        };
        let message = within(patience.silence, stream.message()).await?;
        message.ok_or_else(|| Status::unavailable("the stream ended early"))
    }

    fn arrived(&mut self, mut message: v1::WatchAnalysisResponse) -> Watched {
        self.lost = None;
        // what was told before the connection broke may come again
        message.layers.retain(|event| event.sequence == 0 || event.sequence > self.sequence);
        self.sequence = self.sequence.max(message.sequence);
        self.ended = message.analysis.as_ref().is_some_and(is_ended);
        Watched::Progress(Box::new(message))
    }

    /// Waits before the next try, unless it has been too long.
    async fn wait(&mut self, status: &Status) -> Result<()> {
        let patience = &self.client.patience;
        let Some(lost) = &mut self.lost else { return Ok(()) };
        lost.failures += 1;
        if lost.since.elapsed() > patience.unreachable {
            let cause = status::error(status);
            let message = format!(
                "the coordinator has not answered for {} s: {}",
                patience.unreachable.as_secs_f64(),
                cause.message()
            );
            return Err(Error::new(ErrorKind::Unavailable, message).in_file(self.client.addr()));
        }
        sleep(patience.back_off(lost.failures)).await;
        Ok(())
    }
}

/// Whether a watch goes on after this: the coordinator is not there, is going down, or something between us broke.
/// What the coordinator says of the request itself is final.
fn is_resumed(status: &Status) -> bool {
    use tonic_types::StatusExt;
    let ours = status.get_details_error_info().is_some_and(|info| info.domain == status::DOMAIN);
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::ResourceExhausted => !ours,
        _ => false,
    }
}
