//! What would be analysed and what it would cost, from headers.

use super::analyses::Stream;
use super::core::Core;
use super::create::{ToPlan, identity};
use super::planned::{Planned, Work};
use crate::analysis;
use crate::plan;
use crate::rpc::convert::options_from_proto;
use crate::rpc::proto::v1::{DescribeModelRequest, DescribeModelResponse, DescribedLayer, LayerResult};
use crate::{Error, Result};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// Rows in one message.
const AT_ONCE: usize = 500;

/// The description of a model as a stream.
pub(super) async fn describe(
    core: &Arc<Core>,
    request: DescribeModelRequest,
) -> Result<Stream<DescribeModelResponse>> {
    if request.model.is_empty() {
        return Err(Error::invalid("is empty; give the URI of a model").in_field("model"));
    }
    let (options, filters) = options_from_proto(request.options.as_ref())?;
    let place = core.sources.resolve(&request.model)?;
    let what = ToPlan { place, options, filters, keep_spectra: false, id: String::new() };
    let planned = core.plan(what).await?;
    let head = DescribeModelResponse {
        identity: Some(identity(&planned)),
        plan: Some(planned.plan()),
        layers: Vec::new(),
    };
    let rows = rows(&planned);
    let chunks: Vec<_> = rows.chunks(AT_ONCE).map(<[DescribedLayer]>::to_vec).collect();
    let rest = chunks.into_iter().map(|layers| DescribeModelResponse { layers, ..Default::default() });
    Ok(stream::iter(std::iter::once(head).chain(rest).map(Ok)).boxed())
}

fn rows(planned: &Planned) -> Vec<DescribedLayer> {
    let model = &planned.model;
    let mut rows = vec![DescribedLayer::default(); planned.row_count()];
    for (index, place) in planned.rows.iter().enumerate() {
        let (Some(layer), Some(slot)) = (model.layers.layers.get(index), rows.get_mut(*place as usize))
        else {
            continue;
        };
        let cost = plan::cost(&model.catalog, layer, &planned.options);
        let shards = planned.units_of(index).into_iter().filter(|unit| {
            matches!(planned.units.get(*unit as usize).map(|unit| &unit.work), Some(Work::Shard { .. }))
        });
        *slot = DescribedLayer {
            layer: Some(LayerResult::from(&analysis::described_row(&model.catalog, layer))),
            flops: cost.flops,
            bytes: cost.bytes,
            peak_bytes: cost.peak_bytes,
            shards: u32::try_from(shards.count()).unwrap_or(u32::MAX),
        };
        if let Some(layer) = &mut slot.layer {
            layer.set_status(crate::rpc::proto::v1::LayerStatus::Unspecified);
        }
    }
    for (skipped, place) in model.layers.skipped.iter().zip(&planned.skipped_rows) {
        if let Some(slot) = rows.get_mut(*place as usize) {
            slot.layer = Some(LayerResult::from(&analysis::skipped_row(&model.catalog, skipped)));
        }
    }
    rows
}
