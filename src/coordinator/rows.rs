//! Rows of analyses in the store: under the analysis's id and the row's place in the report.

use super::keys::Key;
use super::live::{Filled, Live};
use super::planned::Planned;
use crate::analysis::{self, LayerReport};
use crate::rpc::proto::store::v1::RowRecord;
use crate::rpc::proto::v1::{self, LayerStatus};
use crate::store::{Batch, Records, Space};
use crate::{Error, ErrorKind, Result};
use prost::Message;

/// A row by its name.
pub(super) type Found = RowRecord;

/// Rows read at once.
const PAGE: usize = 512;

/// Where the row at `place` is kept.
pub(super) fn key(id: &str, place: u32) -> Vec<u8> {
    let mut key = prefix(id);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// What the keys of all rows of an analysis begin with.
pub(super) fn prefix(id: &str) -> Vec<u8> {
    let mut key = id.as_bytes().to_vec();
    key.push(b'/');
    key
}

/// The place in a key.
pub(super) fn place(key: &[u8]) -> Option<u32> {
    let tail = key.len().checked_sub(4)?;
    Some(u32::from_be_bytes(key.get(tail..)?.try_into().ok()?))
}

/// Puts the row of a layer, unless it has one, and numbers it: [`Core::order`](super::core::Core::order) is held until
/// the batch is queued.
pub(super) fn put(batch: &mut Batch, live: &Live, layer: usize, mut record: RowRecord) -> Option<Filled> {
    let mut state = live.lock();
    if state.is_filled(layer) || state.closing {
        return None;
    }
    let place = state.planned.as_ref()?.rows.get(layer).copied()?;
    record.sequence = state.take_sequence();
    let status = record.row.as_ref().map_or(LayerStatus::Unspecified, v1::LayerResult::status);
    batch.put(Space::Row, key(&live.id, place), record.encode_to_vec());
    let RowRecord { sequence, from_cache, failed, .. } = record;
    Some(Filled { layer, sequence, status, failed, from_cache })
}

/// A row that says why its layer could not be computed.
pub(super) fn failed_row(planned: &Planned, layer: usize, word: &str, reason: &str) -> v1::LayerResult {
    let Some(of) = planned.model.layers.layers.get(layer) else { return v1::LayerResult::default() };
    let error = Error::new(ErrorKind::Internal, reason);
    let mut row = analysis::failed_row(&planned.model.catalog, of, &planned.options, &error);
    row.reason = Some(word.to_owned());
    v1::LayerResult::from(&row)
}

/// A known result as the row of `layer`: the numbers are the result's, the description is the layer's.
pub(super) fn adopted(planned: &Planned, layer: usize, known: v1::LayerResult) -> Result<v1::LayerResult> {
    let of = planned.model.layers.layers.get(layer);
    let of = of.ok_or_else(|| Error::new(ErrorKind::Internal, "a unit of no layer"))?;
    let row = analysis::adopted_row(&planned.model.catalog, of, LayerReport::try_from(known)?);
    Ok(v1::LayerResult::from(&row))
}

/// As `adopted`, the other way: what of a row is the result's own, to be kept under its content.
pub(super) fn for_others(planned: &Planned, layer: usize, row: v1::LayerResult) -> Result<v1::LayerResult> {
    let of = planned.model.layers.layers.get(layer);
    let of = of.ok_or_else(|| Error::new(ErrorKind::Internal, "a unit of no layer"))?;
    Ok(v1::LayerResult::from(&analysis::row_for_others(of, LayerReport::try_from(row)?)))
}

/// Whether a row is worth keeping under its content: what a machine lacked is not a property of the content.
pub(super) fn is_lasting(row: &v1::LayerResult) -> bool {
    row.digest.is_some() && !matches!(row.reason.as_deref(), Some("NEEDS_MEMORY" | "INTERNAL"))
}

/// Where the eigenvalues of a result are kept.
pub(super) fn spectrum_key(result: &Key) -> Vec<u8> {
    let mut key = result.to_vec();
    key.push(b's');
    key
}

/// Visits every row of an analysis in order.
pub(super) fn each(
    records: &dyn Records,
    id: &str,
    visit: &mut dyn FnMut(u32, RowRecord) -> Result<()>,
) -> Result<()> {
    let prefix = prefix(id);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = records.scan(Space::Row, &prefix, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, bytes) in page {
            let at = place(&key).ok_or_else(|| Error::malformed(format!("a row of {id} has an odd key")))?;
            visit(at, super::core::decode(&bytes, || format!("row {at} of {id}"))?)?;
        }
    }
}

/// The row at a place.
pub(super) fn at(records: &dyn Records, id: &str, place: u32) -> Result<Option<RowRecord>> {
    let bytes = records.get(Space::Row, &key(id, place))?;
    bytes.map(|bytes| super::core::decode(&bytes, || format!("row {place} of {id}"))).transpose()
}
