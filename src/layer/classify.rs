//! Is a tensor a weight at all? By its name, dtype and rank, before any matrix is looked for.

use super::SkipReason;
use super::names::{last_word, shape_text, words};
use crate::format::Tensor;

/// Why not, for machines and for people.
pub(super) type Refusal = (SkipReason, String);

/// Number of elements, unless it passes 2^64.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim))
}

/// The highest rank that unfolds: a 3-D convolution, [out, in, kd, kh, kw].
const HIGHEST_RANK: usize = 5;

/// What the tensor is instead of a weight; `None`: it may be one. Codes and scales are looked at elsewhere.
///
/// `is_batch_norm` says whether running statistics stand beside it.
pub(super) fn not_a_weight(tensor: &Tensor, is_batch_norm: bool) -> Option<Refusal> {
    let shape = tensor.shape.as_slice();
    let rank = shape.len();
    if shape.contains(&0) {
        return Some((SkipReason::Empty, format!("shape {} has no elements", shape_text(shape))));
    }
    let path = words(&tensor.name);
    let last = last_word(&tensor.name);
    if is_optimizer_state(&path, &last) {
        return Some((
            SkipReason::OptimizerState,
            format!("named as optimizer state, shape {}", shape_text(shape)),
        ));
    }
    if is_buffer(&path, &last, tensor) {
        return Some((SkipReason::Buffer, format!("named as a buffer, shape {}", shape_text(shape))));
    }
    if let Some(reason) = named_vector(&path, &last, rank, is_batch_norm) {
        return Some((reason, format!("shape {}", shape_text(shape))));
    }
    let Some(count) = elements(shape) else {
        return Some((
            SkipReason::TooLarge,
            format!("shape {} has 2^64 or more elements", shape_text(shape)),
        ));
    };
    if count == 1 {
        return Some((SkipReason::Scalar, format!("one element, shape {}", shape_text(shape))));
    }
    if rank == 1 {
        return Some(plain_vector(tensor));
    }
    if rank > HIGHEST_RANK {
        return Some((SkipReason::NotAMatrix, format!("rank {rank}: at most {HIGHEST_RANK} is analysed")));
    }
    if rank > 2 && shape.iter().take(2).all(|&dim| dim == 1) {
        let detail = format!("shape {}: each slice is a single number", shape_text(shape));
        return Some((SkipReason::NotAMatrix, detail));
    }
    None
}

fn plain_vector(tensor: &Tensor) -> Refusal {
    let shape = shape_text(&tensor.shape);
    if tensor.dtype.is_integer() {
        (SkipReason::Integer, format!("{} numbers of shape {shape}, not a weight", tensor.dtype.name()))
    } else {
        (SkipReason::NotAMatrix, format!("a vector of shape {shape}"))
    }
}

fn is_optimizer_state(path: &[String], last: &str) -> bool {
    const WORDS: [&str; 9] = [
        "optimizer",
        "optimizer_state",
        "optimizer_states",
        "opt_state",
        "optim",
        "master_weights",
        "master_params",
        "fp32_master",
        "fp32_from_fp16",
    ];
    const ENDINGS: [&str; 5] = ["exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "master_weight"];
    path.iter().any(|word| WORDS.contains(&word.as_str()) || ENDINGS.contains(&word.as_str()))
        || ENDINGS.iter().any(|ending| last.ends_with(ending))
}

fn is_buffer(path: &[String], last: &str, tensor: &Tensor) -> bool {
    const NAMES: [&str; 24] = [
        "position_ids",
        "token_type_ids",
        "input_ids",
        "num_batches_tracked",
        "inv_freq",
        "freqs",
        "freqs_cis",
        "freqs_cos",
        "freqs_sin",
        "cos_cached",
        "sin_cached",
        "masked_bias",
        "mask",
        "relative_position_index",
        "relative_coords_table",
        "position_index",
        "pe",
        "window",
        "hann_window",
        "forward_basis",
        "inverse_basis",
        "mel_basis",
        "mel_filters",
        "g_idx",
    ];
    let rotary = |word: &String| word.starts_with("rotary") || word == "rope" || word == "rope_emb";
    NAMES.contains(&last)
        || last.ends_with("_mask")
        || last.ends_with("_ids")
        || path.iter().any(rotary)
        || is_causal_mask(last, &tensor.shape)
        || tensor.dtype == crate::format::DType::Bool
}

/// GPT-2's `attn.bias`, [1, 1, n, n]: which positions may be looked at.
fn is_causal_mask(last: &str, shape: &[u64]) -> bool {
    last == "bias" && matches!(shape, [1, 1, rows, cols] if rows == cols)
}

/// Bias or norm, by name.
fn named_vector(path: &[String], last: &str, rank: usize, is_batch_norm: bool) -> Option<SkipReason> {
    let bias = last == "bias" || last.ends_with("_bias") || last.starts_with("bias_");
    let expert = path.iter().any(|word| word.contains("expert"));
    // A fused bias has one row an expert.
    if bias && (rank <= 1 || (rank == 2 && expert)) {
        return Some(SkipReason::Bias);
    }
    if rank > 1 {
        return None;
    }
    let statistic = matches!(last, "running_mean" | "running_var");
    let norm = statistic || is_batch_norm || path.iter().any(|word| is_norm(word));
    norm.then_some(SkipReason::Norm)
}

fn is_norm(word: &str) -> bool {
    let stem = word.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    word.contains("norm")
        || matches!(stem, "ln" | "bn" | "gn" | "gamma" | "beta")
        || ["ln_", "bn_"].iter().any(|start| word.starts_with(start))
        || ["_ln", "_bn", "_layer_norm"].iter().any(|ending| stem.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::super::testing::tensor;
    use super::*;
    use crate::format::DType;

    fn reason(name: &str, dtype: DType, shape: &[u64]) -> Option<SkipReason> {
        not_a_weight(&tensor(name, dtype, shape), false).map(|(reason, _)| reason)
    }

    #[test]
    fn names_and_shapes_that_are_no_weights() {
        use SkipReason::*;
        let table: &[(&str, DType, &[u64], SkipReason)] = &[
            ("a.bias", DType::F32, &[64], Bias),
            ("lstm.bias_ih_l0", DType::F32, &[64], Bias),
            ("core.block.dw_bias", DType::F32, &[64], Bias),
            ("final_conv.bias", DType::F32, &[1], Bias),
            ("model.layers.0.mlp.experts.gate_up_proj_bias", DType::BF16, &[32, 5760], Bias),
            ("e.LayerNorm.bias", DType::F32, &[64], Bias),
            ("e.LayerNorm.weight", DType::F32, &[64], Norm),
            ("h.0.ln_1.weight", DType::F32, &[64], Norm),
            ("transformer.ln_f.weight", DType::F32, &[64], Norm),
            ("conv1_BN.running_mean", DType::F32, &[64], Norm),
            ("conv1_BN.weight", DType::F32, &[64], Norm),
            ("layer1.0.bn2.weight", DType::F32, &[64], Norm),
            ("model.norm.weight", DType::F32, &[64], Norm),
            ("head.decoder_norms.0.weight.qweight", DType::I8, &[64], Norm),
            ("blocks.0.ls1.gamma", DType::F32, &[64], Norm),
            ("logit_scale", DType::F32, &[], Scalar),
            ("a.weight", DType::F32, &[1, 1], Scalar),
            ("bn.num_batches_tracked", DType::I64, &[], Buffer),
            ("embeddings.position_ids", DType::I64, &[1, 512], Buffer),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", DType::F32, &[64], Buffer),
            ("h.0.attn.bias", DType::F32, &[1, 1, 1024, 1024], Buffer),
            ("h.0.attn.bias", DType::U8, &[1, 1, 1024, 1024], Buffer),
            ("h.0.attn.masked_bias", DType::F32, &[], Buffer),
            ("x.attn_mask", DType::F32, &[64, 49, 49], Buffer),
            ("keep", DType::Bool, &[64, 64], Buffer),
            ("optimizer.state.0.exp_avg", DType::F32, &[64, 64], OptimizerState),
            ("a.weight.exp_avg_sq", DType::F32, &[64, 64], OptimizerState),
            ("state.3.momentum_buffer", DType::F32, &[64, 64], OptimizerState),
            ("a.weight", DType::F32, &[0, 64], Empty),
            ("a.weight", DType::F32, &[u64::MAX, 0], Empty),
            ("a.weight", DType::F32, &[u64::MAX, 2], TooLarge),
            ("prelu.weight", DType::F32, &[64], NotAMatrix),
            ("tokens", DType::I64, &[64], Integer),
            ("cls_token", DType::F32, &[1, 1, 768], NotAMatrix),
            ("w", DType::F32, &[2, 2, 2, 2, 2, 2], NotAMatrix),
        ];
        for (name, dtype, shape, expected) in table {
            assert_eq!(reason(name, *dtype, shape), Some(*expected), "{name} {shape:?}");
        }
    }

    #[test]
    fn weights_pass() {
        for (name, shape) in [
            ("a.weight", &[64, 64][..]),
            ("lstm_cell.weight_ih", &[512, 128]),
            ("attn.relative_attention_bias.weight", &[32, 8]),
            ("final_conv.weight", &[1, 128, 1]),
            ("conv.weight", &[64, 1, 3]),
            ("ensemble.weight", &[8, 8, 3, 3, 3]),
            ("learning.lnet.weight", &[8, 8]),
        ] {
            assert_eq!(reason(name, DType::F32, shape), None, "{name}");
        }
    }

    #[test]
    fn running_statistics_beside_it_make_a_vector_a_norm() {
        let gain = tensor("layer2.0.downsample.1.weight", DType::F32, &[128]);
        assert_eq!(not_a_weight(&gain, true).map(|(reason, _)| reason), Some(SkipReason::Norm));
        assert_eq!(not_a_weight(&gain, false).map(|(reason, _)| reason), Some(SkipReason::NotAMatrix));
    }
}
