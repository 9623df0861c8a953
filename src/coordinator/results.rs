//! Rows by pages and as a stream; eigenvalues.

use super::analyses::Stream;
use super::core::Core;
use super::keys::Key;
use super::{page, rows};
use crate::rpc::proto::store::v1::RowRecord;
use crate::rpc::proto::v1::*;
use crate::store::Space;
use crate::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use prost::Message;
use std::sync::Arc;

/// Rows read at once.
const PAGE: usize = 256;
/// Bytes of rows in one message.
const MESSAGE: usize = 1 << 20;
/// Eigenvalues in one message: 256 KiB.
const VALUES: usize = 32 << 10;

/// A page of rows.
pub(super) fn list(core: &Core, request: &ListLayerResultsRequest) -> Result<ListLayerResultsResponse> {
    core.view(&request.id)?;
    let size = page::size(request.page_size, 100)?;
    if LayerStatus::try_from(request.status).is_err() {
        return Err(
            Error::invalid(format!("{} is no status that we know", request.status)).in_field("status")
        );
    }
    let status = request.status.to_string();
    let query = ["rows", request.id.as_str(), status.as_str()];
    let mut after = page::last(&query, &request.page_token)?.map(|place| {
        let mut key = rows::prefix(&request.id);
        key.extend_from_slice(&place);
        key
    });
    let mut layers = Vec::new();
    let mut bytes = 0;
    loop {
        let found = core.records.scan(Space::Row, &rows::prefix(&request.id), after.as_deref(), PAGE)?;
        if found.is_empty() {
            return Ok(ListLayerResultsResponse { layers, next_page_token: String::new() });
        }
        for (key, value) in found {
            let place = rows::place(&key).unwrap_or_default();
            if let Some(row) = wanted(&request.id, place, &value, request.status())? {
                bytes += row.encoded_len();
                layers.push(row);
            }
            after = Some(key);
            if layers.len() == size || bytes >= MESSAGE {
                let next_page_token = page::token(&query, &place.to_be_bytes());
                return Ok(ListLayerResultsResponse { layers, next_page_token });
            }
        }
    }
}

fn wanted(id: &str, place: u32, value: &[u8], status: LayerStatus) -> Result<Option<LayerResult>> {
    let record: RowRecord = super::core::decode(value, || format!("row {place} of {id}"))?;
    let row = record.row.unwrap_or_default();
    Ok((status == LayerStatus::Unspecified || row.status() == status).then_some(row))
}

/// All rows, some a message. Each page is read when the one before has been sent.
pub(super) fn stream(
    core: Arc<Core>,
    request: StreamLayerResultsRequest,
) -> Stream<StreamLayerResultsResponse> {
    let first = ListLayerResultsRequest {
        id: request.id,
        page_size: 1000,
        page_token: String::new(),
        status: request.status,
    };
    let pages = stream::unfold(Some(first), move |next| {
        let core = Arc::clone(&core);
        async move {
            let request = next?;
            let (asked, reader) = (request.clone(), core);
            let page = super::analyses::blocking(move || list(&reader, &asked)).await;
            let after = page.as_ref().ok().map(|page| page.next_page_token.clone());
            let more = after.filter(|token| !token.is_empty());
            let next = more.map(|page_token| ListLayerResultsRequest { page_token, ..request });
            Some((page.map(|page| StreamLayerResultsResponse { layers: page.layers }), next))
        }
    });
    pages.boxed()
}

/// The eigenvalues of a layer, some a message.
pub(super) fn spectrum(
    core: &Core,
    request: &StreamSpectrumRequest,
) -> Result<Stream<StreamSpectrumResponse>> {
    let record = core.find_row(&request.id, &request.layer)?;
    let row = record.row.unwrap_or_default();
    let in_row = |error: Error| error.in_tensor(&row.tensor).in_field("layer");
    if !row.has_esd {
        let why = row.detail.clone().unwrap_or_default();
        let reason = row.reason.clone().unwrap_or_default();
        let message = format!("has no spectrum: {reason}: {why}");
        return Err(in_row(Error::new(ErrorKind::FailedPrecondition, message)));
    }
    let key = Key::try_from(record.result_key.as_slice()).ok();
    let stored = key.map(|key| core.records.get(Space::Result, &rows::spectrum_key(&key))).transpose()?;
    let Some(bytes) = stored.flatten() else {
        let kept = core.view(&request.id)?.keep_spectra;
        let message = if kept {
            "its eigenvalues were kept and have been evicted since; ask for a new analysis"
        } else {
            "its eigenvalues were not kept; ask for an analysis with keep_spectra"
        };
        return Err(in_row(Error::new(ErrorKind::FailedPrecondition, message)));
    };
    let values: Vec<f64> =
        bytes.chunks_exact(8).filter_map(|eight| Some(f64::from_le_bytes(eight.try_into().ok()?))).collect();
    let total = values.len() as u64;
    let noise_floor = row.noise_floor.unwrap_or_default();
    let messages: Vec<_> = values
        .chunks(VALUES)
        .zip((0..).step_by(VALUES))
        .map(|(run, offset)| StreamSpectrumResponse {
            offset,
            total,
            values: run.to_vec(),
            layer: row.name.clone(),
            noise_floor,
            method: row.method.clone().unwrap_or_default(),
            // Of a partial spectrum: how many there would be.
            num_evals: row.partial.as_ref().and(row.num_evals),
        })
        .map(Ok)
        .collect();
    Ok(stream::iter(messages).boxed())
}
