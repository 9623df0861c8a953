//! Answers that come in many messages: rows, eigenvalues, descriptions. A stream that breaks is begun anew.

use super::{Client, within};
use crate::analysis::LayerReport;
use crate::rpc::proto::v1;
use crate::{Error, Result};
use tonic::{Status, Streaming};

/// Eigenvalues that a coordinator has kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigenvalues {
    /// Name of the layer.
    pub layer: String,
    /// How they were found: gram, svd or randomized.
    pub method: String,
    /// Absolute error to expect of each.
    pub noise_floor: f64,
    /// The eigenvalues, ascending.
    pub values: Vec<f64>,
    /// How many the layer has, if these are the largest alone.
    pub num_evals: Option<u64>,
}

/// A model that was described.
#[derive(Debug, Clone)]
pub struct Described {
    /// What would be read.
    pub identity: v1::ModelIdentity,
    /// What it would take.
    pub plan: v1::Plan,
    /// What would be analysed or skipped, in the order of the model.
    pub layers: Vec<v1::DescribedLayer>,
}

impl Client {
    /// The rows of an analysis in the order of the model; while it runs, those that are there.
    ///
    /// # Errors
    /// `NotFound`; `Internal` for a row that this version does not understand; otherwise as [`Client::create`].
    pub async fn layer_results(&self, id: &str) -> Result<Vec<LayerReport>> {
        let call = async || {
            let request = v1::StreamLayerResultsRequest { id: id.to_owned(), status: 0 };
            let mut service = self.analyses();
            let answer = service.stream_layer_results(tonic::Request::new(request));
            let stream = within(self.patience.answer, answer).await?.into_inner();
            let mut rows = Vec::new();
            self.each(stream, |message| {
                rows.extend(message.layers);
                Ok(())
            })
            .await?;
            Ok(rows)
        };
        let rows = self.retried(call).await?;
        rows.into_iter().map(|row| LayerReport::try_from(row).map_err(|e| self.not_understood(&e))).collect()
    }

    /// The eigenvalues of a layer, by its name or its tensor's.
    ///
    /// # Errors
    /// `NotFound`: no such analysis or layer; `FailedPrecondition`: it keeps no eigenvalues, or has none yet;
    /// otherwise as [`Client::create`].
    pub async fn spectrum(&self, id: &str, layer: &str) -> Result<Eigenvalues> {
        let call = async || {
            let request = v1::StreamSpectrumRequest { id: id.to_owned(), layer: layer.to_owned() };
            let mut service = self.analyses();
            let answer = service.stream_spectrum(tonic::Request::new(request));
            let stream = within(self.patience.answer, answer).await?.into_inner();
            let mut first: Option<v1::StreamSpectrumResponse> = None;
            self.each(stream, |message| match &mut first {
                None if message.offset == 0 => {
                    first = Some(message);
                    Ok(())
                }
                Some(all) if message.offset == all.values.len() as u64 => {
                    all.values.extend(message.values);
                    Ok(())
                }
                _ => Err(Status::data_loss("eigenvalues out of order")),
            })
            .await?;
            match first {
                Some(all) if all.values.len() as u64 == all.total => Ok(all),
                _ => Err(Status::data_loss("eigenvalues are missing")),
            }
        };
        let all = self.retried(call).await?;
        Ok(Eigenvalues {
            layer: all.layer,
            method: all.method,
            noise_floor: all.noise_floor,
            values: all.values,
            num_evals: all.num_evals,
        })
    }

    /// What would be analysed, why the rest is skipped, and what it costs.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn describe(&self, model: &str, options: &v1::AnalysisOptions) -> Result<Described> {
        let call = async || {
            let request =
                v1::DescribeModelRequest { model: model.to_owned(), options: Some(options.clone()) };
            let mut service = self.analyses();
            let answer = service.describe_model(tonic::Request::new(request));
            let stream = within(self.patience.answer, answer).await?.into_inner();
            let (mut identity, mut plan, mut layers) = (None, None, Vec::new());
            self.each(stream, |message| {
                identity = identity.take().or(message.identity);
                plan = plan.take().or(message.plan);
                layers.extend(message.layers);
                Ok(())
            })
            .await?;
            Ok((identity, plan, layers))
        };
        let (identity, plan, layers) = self.retried(call).await?;
        Ok(Described {
            identity: self.present(identity, "identity")?,
            plan: self.present(plan, "plan")?,
            layers,
        })
    }

    /// Hands on every message of a stream to its end.
    async fn each<T>(
        &self,
        mut stream: Streaming<T>,
        mut take: impl FnMut(T) -> std::result::Result<(), Status>,
    ) -> std::result::Result<(), Status> {
        while let Some(message) = within(self.patience.answer, stream.message()).await? {
            take(message)?;
        }
        Ok(())
    }

    /// Something in an answer that this version does not know.
    pub(super) fn not_understood(&self, error: &Error) -> Error {
        self.strange(&format!("what this version does not understand: {error}"))
    }
}
