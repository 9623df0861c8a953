//! Which scales belong to which codes, and whether the two fit.
//!
//! Decoded: one scale for the tensor, one an output channel, one a row or column of each expert, and blocks as in
//! DeepSeek-V3 (arXiv 2412.19437). Not decoded: packed sub-byte codes (GPTQ, AWQ, bitsandbytes, MXFP4, NVFP4), zero
//! points, and anything whose shapes do not fit; those are named with the reason.

use super::classify::{Refusal, elements};
use super::config::Config;
use super::names::{Index, shape_text};
use super::{Dequantise, SkipReason};
use crate::format::{Catalog, DType, Tensor};
use std::collections::HashMap;

/// How the elements of a tensor are to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Codes {
    /// They are the numbers, with something to say about it or nothing.
    Numbers(Option<&'static str>),
    /// They become numbers by their scales.
    Scaled(Dequantise),
    /// They cannot be read.
    Refused(Refusal),
}

/// What is said of integers that are analysed as they are.
pub(super) const UNSCALED: &str = "integer codes without a scale: alpha does not depend on scale, norms do";

/// Tensors that serve another one: position of the helper → position of the tensor that it serves.
pub(super) type Helpers = HashMap<usize, usize>;

/// Finds every tensor that serves the codes of another.
pub(super) fn helpers(catalog: &Catalog, index: &Index<'_>) -> Helpers {
    let mut helpers = Helpers::new();
    for (owner, tensor) in catalog.tensors.iter().enumerate().filter(|(_, tensor)| may_be_codes(tensor.dtype))
    {
        for name in helper_names(&tensor.name) {
            if let Some(&helper) = index.get(name.as_str()).filter(|&&helper| helper != owner) {
                helpers.entry(helper).or_insert(owner);
            }
        }
    }
    helpers
}

fn may_be_codes(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8 | DType::I32 | DType::F8E4M3 | DType::F8E5M2 | DType::Other(_))
}

fn helper_names(codes: &str) -> Vec<String> {
    let with = |base: &str, endings: &[&str]| -> Vec<String> {
        endings.iter().map(|ending| format!("{base}{ending}")).collect()
    };
    if let Some(base) = codes.strip_suffix(".qweight") {
        return with(base, &[".scale", ".scales", ".qzeros", ".zeros", ".zero_point", ".g_idx"]);
    }
    if let Some(base) = codes.strip_suffix("_packed") {
        return with(base, &["_scale", "_global_scale", "_zero_point", "_shape", "_g_idx"]);
    }
    if let Some(base) = codes.strip_suffix("_blocks") {
        return with(base, &["_scales"]);
    }
    let mut names = with(codes, &SCALE_ENDINGS);
    names.extend(with(codes, &["_scale_2", "_zero_point", "_format", ".absmax", ".quant_map"]));
    names.extend(with(codes, &[".nested_absmax", ".nested_quant_map"]));
    names.extend(with(codes, &[".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"]));
    if let Some(base) = codes.strip_suffix(".weight") {
        names.extend(with(base, &[".scale", ".input_scale", ".SCB", ".zero_point"]));
    }
    names
}

const SCALE_ENDINGS: [&str; 3] = ["_scale_inv", "_scale", ".scale"];

/// What a helper is reported as.
pub(super) fn helper_refusal(helper: &Tensor, owner: &Tensor) -> Refusal {
    let name = helper.name.as_str();
    let (reason, what) = if name.ends_with("zeros") || name.ends_with("zero_point") {
        (SkipReason::Integer, "zero points")
    } else if ["g_idx", "_shape", "_format", "__nf4", "__fp4"].iter().any(|ending| name.ends_with(ending)) {
        (SkipReason::Buffer, "layout")
    } else if name.ends_with("input_scale") {
        (SkipReason::Scale, "activation scales")
    } else {
        (SkipReason::Scale, "scales")
    };
    (reason, format!("{what} of '{}'", owner.name))
}

/// How the elements of this tensor, which has two dimensions or more, are to be read.
pub(super) fn codes(catalog: &Catalog, index: &Index<'_>, tensor: &Tensor) -> Codes {
    let dtype = tensor.dtype;
    if let DType::Other(_) = dtype {
        return unsupported(format!("{} is not decoded", dtype.name()));
    }
    if dtype.is_float() && !matches!(dtype, DType::F8E4M3 | DType::F8E5M2) {
        return Codes::Numbers(None);
    }
    if let Some(detail) = packed(tensor, index) {
        return Codes::Refused((SkipReason::Integer, detail));
    }
    if let Some(scale) = scale_of(catalog, index, tensor) {
        return scaled(catalog, tensor, scale);
    }
    if dtype.is_float() {
        return Codes::Numbers(None);
    }
    if tensor.name.ends_with(".weight") {
        return Codes::Numbers(Some(UNSCALED));
    }
    let detail = match tensor.name.strip_suffix(".qweight") {
        Some(base) => format!("{} codes without scales: there is no '{base}.scale'", dtype.name()),
        None => format!("{} numbers of shape {}, not a weight", dtype.name(), shape_text(&tensor.shape)),
    };
    Codes::Refused((SkipReason::Integer, detail))
}

fn unsupported(detail: String) -> Codes {
    Codes::Refused((SkipReason::UnsupportedDtype, detail))
}

/// Codes that hold several numbers each, or need more than a scale.
fn packed(tensor: &Tensor, index: &Index<'_>) -> Option<String> {
    let name = tensor.name.as_str();
    let has = |base: &str, ending: &str| index.contains_key(format!("{base}{ending}").as_str());
    let four_bit = "packed 4-bit codes are not decoded".to_owned();
    if let Some(base) = name.strip_suffix(".qweight") {
        let gptq = tensor.dtype != DType::I8 || has(base, ".qzeros") || has(base, ".zeros");
        return (gptq || has(base, ".zero_point")).then_some(four_bit);
    }
    if name.ends_with("_packed") || name.strip_suffix("_blocks").is_some_and(|base| has(base, "_scales")) {
        return Some(four_bit);
    }
    if has(name, ".absmax") || (tensor.dtype == DType::U8 && SCALE_ENDINGS.iter().any(|end| has(name, end))) {
        return Some(four_bit);
    }
    let base = name.strip_suffix(".weight").unwrap_or(name);
    if tensor.dtype == DType::I8 && has(base, ".SCB") {
        return Some(format!("bitsandbytes codes with '{base}.SCB' are not decoded"));
    }
    let zero_points = tensor.dtype.is_integer() && (has(name, "_zero_point") || has(base, ".zero_point"));
    zero_points.then(|| "codes with zero points are not decoded".to_owned())
}

fn scale_of(catalog: &Catalog, index: &Index<'_>, tensor: &Tensor) -> Option<usize> {
    if !may_be_codes(tensor.dtype) {
        return None;
    }
    let name = tensor.name.as_str();
    let mut candidates: Vec<String> = match name.strip_suffix(".qweight") {
        Some(base) => vec![format!("{base}.scale"), format!("{base}.scales")],
        None => SCALE_ENDINGS.iter().map(|ending| format!("{name}{ending}")).collect(),
    };
    candidates.extend(name.strip_suffix(".weight").map(|base| format!("{base}.scale")));
    let found = candidates.iter().find_map(|candidate| index.get(candidate.as_str()).copied())?;
    catalog.tensors.get(found).map(|_| found)
}

fn scaled(catalog: &Catalog, tensor: &Tensor, scale: usize) -> Codes {
    let Some(scales) = catalog.tensors.get(scale) else { return Codes::Numbers(None) };
    let reason = if tensor.dtype.is_integer() { SkipReason::Integer } else { SkipReason::UnsupportedDtype };
    if !matches!(scales.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        let detail =
            format!("scales '{}' are {}, which is not decoded as a scale", scales.name, scales.dtype.name());
        return Codes::Refused((reason, detail));
    }
    let block = Config::of(catalog.config.as_ref(), &tensor.name).weight_block_size();
    match fit(&tensor.shape, &scales.shape, block) {
        Some((cols, block_rows, block_cols)) => {
            Codes::Scaled(Dequantise { scale, cols, block_rows, block_cols })
        }
        None => Codes::Refused((
            reason,
            format!(
                "shape {} does not fit scales '{}' of shape {} (blocks of {} × {})",
                shape_text(&tensor.shape),
                scales.name,
                shape_text(&scales.shape),
                block.0,
                block.1
            ),
        )),
    }
}

/// Columns, rows of a block and columns of a block for codes of `shape` with scales of `scale` shape.
fn fit(shape: &[u64], scale: &[u64], block: (u64, u64)) -> Option<(u64, u64, u64)> {
    let (&first, rest) = shape.split_first()?;
    let (row, scales) = (elements(rest)?, elements(scale)?);
    if first == 0 || row == 0 {
        return None;
    }
    if scales == 1 {
        return Some((row, first, row));
    }
    let by_channel = scale.first() == Some(&first) && scales == first && scale.len() <= shape.len();
    if by_channel {
        return Some((row, 1, row));
    }
    let (&cols, leading) = shape.split_last()?;
    if scale == leading {
        return Some((cols, 1, cols));
    }
    let (block_rows, block_cols) = grid(shape, scale, block)?;
    Some((cols, block_rows, block_cols))
}

/// Blocks where the scales have the rank of the codes: on the last two dimensions, repeated over those before.
fn grid(shape: &[u64], scale: &[u64], block: (u64, u64)) -> Option<(u64, u64)> {
    let ([lead @ .., rows, cols], [scale_lead @ .., scale_rows, scale_cols]) = (shape, scale) else {
        return None;
    };
    if lead != scale_lead {
        return None;
    }
    let blocks = (*scale_rows, *scale_cols) == (rows.div_ceil(block.0), cols.div_ceil(block.1));
    let side = |scales: u64, all: u64| match scales {
        _ if scales == all => Some(1),
        1 => Some(all),
        _ => None,
    };
    let (block_rows, block_cols) =
        if blocks { block } else { (side(*scale_rows, *rows)?, side(*scale_cols, *cols)?) };
    // A block must not reach from one expert into the next.
    let fits = elements(lead)? == 1 || rows % block_rows == 0;
    fits.then_some((block_rows, block_cols))
}

#[cfg(test)]
mod tests {
    use super::super::names::index;
    use super::super::testing::{catalog, tensor};
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn shapes_that_fit_and_shapes_that_do_not() {
        let block = (128, 128);
        for (shape, scale, expected) in [
            (&[64, 96][..], &[64][..], Some((96, 1, 96))),
            (&[64, 96], &[64, 1], Some((96, 1, 96))),
            (&[64, 1, 3], &[64, 1, 1], Some((3, 1, 3))),
            (&[64, 8, 3], &[64, 1, 1], Some((24, 1, 24))),
            (&[64, 96], &[], Some((96, 64, 96))),
            (&[64, 96], &[1], Some((96, 64, 96))),
            (&[64, 96], &[1, 96], Some((96, 64, 1))),
            (&[576, 7168], &[5, 56], Some((7168, 128, 128))),
            (&[300, 200], &[3, 2], Some((200, 128, 128))),
            (&[8, 256, 384], &[8, 2, 3], Some((384, 128, 128))),
            (&[8, 200, 384], &[8, 2, 3], None),
            (&[8, 200, 384], &[8, 200, 1], Some((384, 1, 384))),
            (&[8, 200, 384], &[8, 1, 384], Some((384, 200, 1))),
            (&[8, 200, 384], &[8, 200], Some((384, 1, 384))),
            (&[300, 200], &[2, 2], None),
            (&[300, 200], &[200], None),
            (&[300, 200], &[300, 2], None),
            (&[0, 200], &[1], None),
        ] {
            let found = fit(shape, scale, block);
            assert_eq!(found, expected, "{shape:?} with {scale:?}");
            let Some((cols, block_rows, block_cols)) = found else { continue };
            // Every scale is used, and none beyond the last.
            let dequantise = Dequantise { scale: 0, cols, block_rows, block_cols };
            let all: u64 = shape.iter().product();
            let used: BTreeSet<u64> = (0..all).map(|element| dequantise.scale_index(element)).collect();
            assert!(used.into_iter().eq(0..scale.iter().product()), "{shape:?} with {scale:?}");
        }
    }

    #[test]
    fn scale_index_counts_blocks_along_rows() {
        let blocks = Dequantise { scale: 0, cols: 200, block_rows: 128, block_cols: 128 };
        assert_eq!(blocks.scale_index(0), 0);
        assert_eq!(blocks.scale_index(128), 1);
        assert_eq!(blocks.scale_index(127 * 200 + 199), 1);
        assert_eq!(blocks.scale_index(128 * 200), 2);
        assert_eq!(blocks.scale_index(299 * 200 + 199), 5);
        let channel = Dequantise { scale: 0, cols: 3, block_rows: 1, block_cols: 3 };
        assert_eq!((channel.scale_index(2), channel.scale_index(3)), (0, 1));
    }

    #[test]
    fn pairs_are_found_under_their_names() {
        for (codes_name, dtype, scale_name) in [
            ("a.weight.qweight", DType::I8, "a.weight.scale"),
            ("a.qweight", DType::I8, "a.scale"),
            ("a.weight", DType::I8, "a.weight_scale"),
            ("a.weight", DType::F8E4M3, "a.weight_scale_inv"),
            ("a.weight", DType::F8E4M3, "a.weight_scale"),
            ("a.weight", DType::F8E5M2, "a.scale"),
            ("mlp.experts.down_proj", DType::F8E4M3, "mlp.experts.down_proj_scale"),
        ] {
            let catalog = catalog(
                vec![tensor(codes_name, dtype, &[64, 96]), tensor(scale_name, DType::F32, &[64, 1])],
                None,
            );
            let index = index(&catalog);
            let expected = Dequantise { scale: 1, cols: 96, block_rows: 1, block_cols: 96 };
            assert_eq!(codes(&catalog, &index, &catalog.tensors[0]), Codes::Scaled(expected), "{codes_name}");
            assert_eq!(helpers(&catalog, &index), Helpers::from([(1, 0)]), "{scale_name}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let refused = |entries: Vec<Tensor>| {
            let catalog =
                catalog(entries, Some(json!({"quantization_config": {"weight_block_size": [64, 64]}})));
            match codes(&catalog, &index(&catalog), &catalog.tensors[0]) {
                Codes::Refused(refusal) => refusal,
                other => panic!("{other:?}"),
            }
        };
        let (reason, detail) = refused(vec![
            tensor("a.weight", DType::F8E4M3, &[300, 200]),
            tensor("a.weight_scale_inv", DType::F32, &[3, 2]),
        ]);
        assert_eq!(reason, SkipReason::UnsupportedDtype);
        assert!(
            detail.contains("[300, 200]") && detail.contains("[3, 2]") && detail.contains("64 × 64"),
            "{detail}"
        );
        let (reason, detail) =
            refused(vec![tensor("a.weight", DType::I8, &[8, 8]), tensor("a.weight_scale", DType::I32, &[8])]);
        assert_eq!(reason, SkipReason::Integer);
        assert!(detail.contains("I32"), "{detail}");
        let (reason, detail) = refused(vec![
            tensor("a.qweight", DType::I32, &[64, 96]),
            tensor("a.qzeros", DType::I32, &[1, 12]),
            tensor("a.scales", DType::F16, &[1, 96]),
        ]);
        assert_eq!((reason, detail.as_str()), (SkipReason::Integer, "packed 4-bit codes are not decoded"));
        let (reason, detail) = refused(vec![tensor("a.qweight", DType::I8, &[64, 96])]);
        assert_eq!(reason, SkipReason::Integer);
        assert!(detail.contains("a.scale"), "{detail}");
        let (reason, _) =
            refused(vec![tensor("a.weight", DType::Other(crate::format::OtherDType::F4), &[64, 96])]);
        assert_eq!(reason, SkipReason::UnsupportedDtype);
        let (reason, _) =
            refused(vec![tensor("a.weight", DType::I8, &[8, 8]), tensor("a.SCB", DType::F32, &[8])]);
        assert_eq!(reason, SkipReason::Integer);
    }

    #[test]
    fn numbers_without_scales() {
        let one = |name: &str, dtype| {
            let catalog = catalog(vec![tensor(name, dtype, &[8, 8])], None);
            codes(&catalog, &index(&catalog), &catalog.tensors[0])
        };
        assert_eq!(one("a.weight", DType::F8E4M3), Codes::Numbers(None));
        assert_eq!(one("a.weight", DType::I8), Codes::Numbers(Some(UNSCALED)));
        assert_eq!(one("a.weight", DType::F32), Codes::Numbers(None));
        assert!(matches!(one("a.table", DType::I64), Codes::Refused((SkipReason::Integer, _))));
    }
}
