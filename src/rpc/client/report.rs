//! The report of an analysis, as `analyze` gives it.

use super::Client;
use crate::analysis::{ModelIdentity, ModelReport, SCHEMA_VERSION, Summary, Timings, Tool};
use crate::rpc::convert::options_from_proto;
use crate::rpc::proto::v1;
use crate::rpc::status;
use crate::{Error, ErrorKind, Result};
use std::sync::OnceLock;

/// Whether an analysis has ended, in whatever way.
pub fn is_ended(analysis: &v1::Analysis) -> bool {
    use v1::AnalysisState::{Cancelled, Failed, Succeeded};
    matches!(analysis.state(), Succeeded | Failed | Cancelled)
}

/// Why an analysis has no report; `None`: it has succeeded.
pub fn failure(analysis: &v1::Analysis) -> Option<Error> {
    use v1::AnalysisState as State;
    match analysis.state() {
        State::Succeeded => None,
        State::Failed => {
            let failure = analysis.failure.clone().unwrap_or_default();
            let kind = status::kind_of_reason(&failure.reason).unwrap_or(ErrorKind::Internal);
            let message = if failure.message.is_empty() { failure.reason } else { failure.message };
            Some(Error::new(kind, message))
        }
        State::Cancelled => {
            Some(Error::new(ErrorKind::FailedPrecondition, format!("analysis {} was cancelled", analysis.id)))
        }
        State::Unspecified | State::Planning | State::Queued | State::Running => {
            let done = analysis.progress.unwrap_or_default();
            let message = format!(
                "analysis {} has not ended: {} of {} layers are done; `spectrald watch` waits for it",
                analysis.id, done.done, done.layers
            );
            Some(Error::new(ErrorKind::FailedPrecondition, message))
        }
    }
}

impl Client {
    /// The report of an analysis that has succeeded. All but `timings` is what `analyze` would have given: seconds are
    /// those from its first layer to its end, threads are not known (0).
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` if it has not ended or was cancelled; its own failure if it failed;
    /// otherwise as [`Client::create`].
    pub async fn report(&self, id: &str) -> Result<ModelReport> {
        let analysis = self.get(id).await?;
        if let Some(error) = failure(&analysis) {
            return Err(error);
        }
        let layers = self.layer_results(id).await?;
        let system = self.status().await?;
        let strange = |error: Error| self.not_understood(&error);
        let timings = timings(&analysis);
        let identity = self.present(analysis.identity, "identity")?;
        let summary = self.present(analysis.summary, "summary")?;
        let (options, _) = options_from_proto(analysis.options.as_ref()).map_err(strange)?;
        Ok(ModelReport {
            schema_version: SCHEMA_VERSION,
            tool: Tool {
                version: self.version(&system.version)?,
                algorithm: system.algorithm_version,
                ..Tool::default()
            },
            model: ModelIdentity::try_from(identity).map_err(strange)?,
            options,
            summary: Summary::try_from(summary).map_err(strange)?,
            layers,
            timings,
        })
    }

    /// The coordinator's version for as long as this process runs. It is that of the first coordinator whose version
    /// is not ours; another one is refused rather than misnamed.
    fn version(&self, version: &str) -> Result<&'static str> {
        static OTHER: OnceLock<String> = OnceLock::new();
        let own = Tool::default().version;
        if version == own {
            return Ok(own);
        }
        let known = OTHER.get_or_init(|| version.to_owned());
        if known == version {
            return Ok(known);
        }
        Err(self.strange(&format!("version {version}, after version {known} of another")))
    }
}

fn timings(analysis: &v1::Analysis) -> Timings {
    let seconds = |time: prost_types::Timestamp| time.seconds as f64 + f64::from(time.nanos) * 1e-9;
    let (start, end) = (analysis.start_time.map(seconds), analysis.end_time.map(seconds));
    Timings {
        seconds: end.zip(start.or(end)).map_or(0.0, |(end, start)| (end - start).max(0.0)),
        bytes_read: analysis.progress.map_or(0, |progress| progress.bytes_done),
        threads: 0,
    }
}
