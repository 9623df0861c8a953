//! Waiting for an analysis: progress and notes on stderr.

use crate::cli::output;
use crate::cli::progress::Bar;
use crate::error::printable;
use crate::rpc::client::{Client, Watched};
use crate::rpc::proto::v1;
use crate::{Error, ErrorKind, Result};

/// Follows an analysis to its end, whatever that is. `each` sees every message.
pub(super) async fn until_ended(
    client: &Client,
    id: &str,
    quiet: bool,
    mut each: impl FnMut(&v1::WatchAnalysisResponse) -> Result<()>,
) -> Result<v1::Analysis> {
    let bar = Bar::new(!quiet && output::stderr_is_terminal());
    let note = |text: &str| {
        if !quiet {
            bar.suspend(|| anstream::eprintln!("note: {}", printable(text)));
        }
    };
    let (mut last, mut waiting) = (None, v1::WaitingReason::Unspecified);
    let mut watch = client.watch(id, 0);
    while let Some(watched) = watch.next().await? {
        let message = match watched {
            Watched::Lost(error) => {
                note(&format!("{error}; trying again"));
                continue;
            }
            Watched::Progress(message) => message,
        };
        each(&message)?;
        let finished = message.layers.last().map(|layer| layer.name.clone());
        let Some(analysis) = message.analysis else { continue };
        if analysis.waiting() != std::mem::replace(&mut waiting, analysis.waiting()) {
            waits(&analysis).iter().for_each(|text| note(text));
        }
        bar.follow(&analysis, finished);
        last = Some(analysis);
    }
    last.ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the coordinator told nothing of the analysis").in_file(client.addr())
    })
}

/// Why nothing moves, where it is worth telling.
fn waits(analysis: &v1::Analysis) -> Option<String> {
    let why = match analysis.waiting() {
        v1::WaitingReason::Unspecified | v1::WaitingReason::Queued => return None,
        v1::WaitingReason::NoWorkers => "no worker is there",
        v1::WaitingReason::NoWorkerHasMemory => "no worker has the memory for the next layer",
        v1::WaitingReason::BackOff => "work that failed is tried again later",
        v1::WaitingReason::Restarted => "the coordinator has just started",
    };
    let detail = &analysis.waiting_detail;
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    Some(format!("analysis {} waits: {why}{detail}", analysis.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_with_its_reason() {
        let mut analysis = v1::Analysis { id: "a1".to_owned(), ..Default::default() };
        assert_eq!(waits(&analysis), None);
        analysis.set_waiting(v1::WaitingReason::NoWorkerHasMemory);
        analysis.waiting_detail = "needs 3 GiB".to_owned();
        let told = "analysis a1 waits: no worker has the memory for the next layer (needs 3 GiB)";
        assert_eq!(waits(&analysis).as_deref(), Some(told));
    }
}
