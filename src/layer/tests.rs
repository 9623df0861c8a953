//! Whole catalogues: real models by their names and shapes, and properties of any catalogue.

use super::testing::{catalog, tensor};
use super::*;
use crate::format::{DType, Tensor};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

mod goldens;
mod properties;

fn floats(entries: &[(&str, &[u64])]) -> Vec<Tensor> {
    entries.iter().map(|(name, shape)| tensor(name, DType::F32, shape)).collect()
}

fn of(entries: &[(&str, &[u64])], options: &LayerOptions) -> Layers {
    layers(&catalog(floats(entries), None), options)
}

fn one(name: &str, shape: &[u64]) -> Layer {
    let mut found = of(&[(name, shape)], &LayerOptions { min_evals: 0, ..LayerOptions::default() });
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    found.layers.remove(0)
}

#[test]
fn layer_types_from_names_and_shapes() {
    use LayerType::*;
    for (name, shape, expected) in [
        ("a.weight", &[64, 32][..], Dense),
        ("head.queries", &[48, 64], Dense),
        ("lm_head.weight", &[100, 64], Dense),
        ("embed_out.weight", &[100, 64], Dense),
        ("embeddings.word_embeddings.weight", &[100, 64], Embedding),
        ("transformer.wte.weight", &[100, 64], Embedding),
        ("wpe.weight", &[100, 64], Embedding),
        ("tok_embeddings.weight", &[100, 64], Embedding),
        ("model.embed_tokens.weight", &[100, 64], Embedding),
        ("shared.weight", &[100, 64], Embedding),
        ("emb.weight", &[100, 64], Embedding),
        ("vit.pos_embed", &[1, 197, 64], Embedding),
        ("encoder.embedding_hidden_mapping_in.weight", &[64, 32], Dense),
        ("time_embed.0.weight", &[64, 32], Dense),
        ("patch_embed.proj.weight", &[64, 3, 16, 16], Conv2d),
        ("query_tokens", &[1, 32, 64], Dense),
        ("conv1.weight", &[128, 129, 3], Conv1d),
        ("core.block.dw_weight", &[64, 1, 3], Conv1d),
        ("final_conv.weight", &[1, 128, 1], Conv1d),
        ("patch.weight", &[64, 3, 2, 14, 14], Conv3d),
        ("lstm_cell.weight_ih", &[512, 128], Recurrent),
        ("rnn.weight_hh_l0_reverse", &[512, 128], Recurrent),
        ("attn.in_proj_weight", &[192, 64], Dense),
        ("model.layers.0.mlp.experts.gate_up_proj", &[8, 64, 128], Expert),
        ("model.layers.0.block_sparse_moe.input_linear.weight", &[8, 64, 128], Expert),
    ] {
        assert_eq!(one(name, shape).layer_type, expected, "{name}");
    }
}

#[test]
fn roles_and_blocks_from_names() {
    for (name, expected, block) in [
        ("encoder.layer.3.attention.self.query.weight", Some("q"), Some(3)),
        ("encoder.layer.3.attention.output.dense.weight", Some("o"), Some(3)),
        ("encoder.layer.3.intermediate.dense.weight", Some("up"), Some(3)),
        ("encoder.layer.3.output.dense.weight", Some("down"), Some(3)),
        ("pooler.dense.weight", Some("pooler"), None),
        ("embeddings.position_embeddings.weight", Some("pos_embed"), None),
        ("embeddings.word_embeddings.weight", Some("embed"), None),
        ("model.layers.11.self_attn.k_proj.weight", Some("k"), Some(11)),
        ("model.layers.11.self_attn.o_proj.weight", Some("o"), Some(11)),
        ("model.layers.11.mlp.gate_proj.weight", Some("gate"), Some(11)),
        ("model.layers.11.mlp.gate_up_proj.weight", Some("gate_up"), Some(11)),
        ("model.layers.11.mlp.gate.weight", Some("router"), Some(11)),
        ("model.layers.11.block_sparse_moe.gate.weight", Some("router"), Some(11)),
        ("model.layers.11.block_sparse_moe.experts.5.w2.weight", Some("down"), Some(11)),
        ("model.layers.11.mlp.experts.5.gate_proj.weight", Some("gate"), Some(11)),
        ("model.layers.11.self_attn.kv_a_proj_with_mqa.weight", Some("kv_a"), Some(11)),
        ("lm_head.weight", Some("head"), None),
        ("output.weight", Some("head"), None),
        ("layers.2.attention.wo.weight", Some("o"), Some(2)),
        ("layers.2.feed_forward.w3.weight", Some("up"), Some(2)),
        ("transformer.h.7.attn.c_attn.weight", Some("qkv"), Some(7)),
        ("h.7.attn.c_proj.weight", Some("o"), Some(7)),
        ("h.7.mlp.c_proj.weight", Some("down"), Some(7)),
        ("h.7.mlp.c_fc.weight", Some("up"), Some(7)),
        ("gpt_neox.layers.1.attention.query_key_value.weight", Some("qkv"), Some(1)),
        ("gpt_neox.layers.1.attention.dense.weight", Some("o"), Some(1)),
        ("gpt_neox.layers.1.mlp.dense_4h_to_h.weight", Some("down"), Some(1)),
        ("embed_out.weight", Some("head"), None),
        ("encoder.block.4.layer.0.SelfAttention.q.weight", Some("q"), Some(4)),
        ("encoder.block.4.layer.0.SelfAttention.o.weight", Some("o"), Some(4)),
        ("encoder.block.4.layer.1.DenseReluDense.wi_0.weight", Some("gate"), Some(4)),
        ("encoder.block.4.layer.1.DenseReluDense.wo.weight", Some("down"), Some(4)),
        ("blocks.9.attn.qkv.weight", Some("qkv"), Some(9)),
        ("blocks.9.attn.proj.weight", Some("o"), Some(9)),
        ("blocks.9.mlp.fc2.weight", Some("down"), Some(9)),
        ("model.decoder.layers.2.self_attn.out_proj.weight", Some("o"), Some(2)),
        ("model.decoder.layers.2.fc1.weight", Some("up"), Some(2)),
        ("unet.up.attn1.to_out.0.weight", Some("o"), None),
        ("backbone.layers.5.mixer.in_proj.weight", Some("ssm_in"), Some(5)),
        ("base_model.model.layers.1.self_attn.q_proj.lora_A.default.weight", Some("lora_A"), Some(1)),
        ("base_model.model.layers.1.self_attn.q_proj.lora_B.weight", Some("lora_B"), Some(1)),
        ("model.layers.1.self_attn.q_proj.base_layer.weight", Some("q"), Some(1)),
        ("layer3.0.conv1.weight", None, Some(3)),
        ("head.future_conv.out_proj.weight", None, None),
        ("core.block.pw.weight", None, None),
        ("fc.weight", Some("head"), None),
    ] {
        let layer = one(name, &[64, 32]);
        assert_eq!((layer.role.as_deref(), layer.block), (expected, block), "{name}");
    }
    assert_eq!(one("layer3.0.conv1.weight", &[64, 32, 3, 3]).role.as_deref(), Some("conv"));
}

#[test]
fn a_gate_beside_an_up_is_no_router() {
    let found = of(&[("ffn.gate.weight", &[64, 32]), ("ffn.up.weight", &[64, 32])], &LayerOptions::default());
    assert_eq!(found.layers[0].role.as_deref(), Some("gate"));
}

#[test]
fn silero_by_default_and_with_gates() {
    let entries: &[(&str, &[u64])] = &[
        ("stft_conv.weight", &[258, 1, 256]),
        ("conv1.weight", &[128, 129, 3]),
        ("conv1.bias", &[128]),
        ("lstm_cell.weight_ih", &[512, 128]),
        ("lstm_cell.weight_hh", &[512, 128]),
        ("lstm_cell.bias_ih", &[512]),
        ("final_conv.weight", &[1, 128, 1]),
    ];
    let found = of(entries, &LayerOptions::default());
    let rows: Vec<_> =
        found.layers.iter().map(|l| (l.layer_id, l.name.as_str(), l.n, l.m, l.rf, l.num_evals())).collect();
    assert_eq!(
        rows,
        [
            (1, "stft_conv", 258, 1, 256, 256),
            (2, "conv1", 129, 128, 3, 384),
            (4, "lstm_cell.weight_ih", 512, 128, 1, 128),
            (5, "lstm_cell.weight_hh", 512, 128, 1, 128),
        ]
    );
    let skipped: Vec<_> =
        found.skipped.iter().map(|s| (s.name.as_str(), s.reason, s.detail.as_str())).collect();
    assert_eq!(skipped[0], ("conv1.bias", SkipReason::Bias, "shape [128]"));
    assert_eq!(skipped[2], ("final_conv", SkipReason::TooFewEvals, "M=1: 1 eigenvalue < min_evals 8"));
    let split = of(entries, &LayerOptions { split_gates: true, ..LayerOptions::default() });
    let gates: Vec<_> = split.layers.iter().filter(|l| l.tensor == 3).collect();
    let names: Vec<_> = gates.iter().map(|l| l.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["gate_i", "gate_f", "gate_g", "gate_o"]);
    assert_eq!(gates[2].matrices[0].offset, 256 * 128);
}

#[test]
fn gru_plain_rnn_and_unknown_recurrent_weights() {
    let options = LayerOptions { split_gates: true, ..LayerOptions::default() };
    let gates = |entries: &[(&str, &[u64])]| {
        let found = of(entries, &options);
        let names = found.layers.iter().filter(|l| l.tensor == 0).map(|l| l.name.clone()).collect::<Vec<_>>();
        (names, found.layers[0].note.clone())
    };
    let (names, _) = gates(&[("r.weight_ih_l0", &[96, 20]), ("r.weight_hh_l0", &[96, 32])]);
    assert_eq!(names, ["r.weight_ih_l0.gate_r", "r.weight_ih_l0.gate_z", "r.weight_ih_l0.gate_n"]);
    let (names, _) = gates(&[("gru.weight_ih_l0", &[96, 20])]);
    assert_eq!(names.len(), 3);
    let (names, note) = gates(&[("r.weight_hh_l0", &[32, 32])]);
    assert_eq!(names, ["r.weight_hh_l0"]);
    assert!(note.unwrap().contains("plain"));
    let (names, note) = gates(&[("r.weight_ih_l0", &[96, 20])]);
    assert_eq!(names, ["r.weight_ih_l0"]);
    assert!(note.unwrap().contains("neither"));
    // An LSTM with a projection: the hidden size stands in weight_hr.
    let (names, _) = gates(&[("r.weight_hh_l0", &[128, 8]), ("r.weight_hr_l0", &[8, 32])]);
    assert_eq!(names.len(), 4);
}

fn fused(
    name: &str,
    shape: &[u64],
    config: Option<serde_json::Value>,
) -> (Vec<(String, u64, u64)>, Option<String>) {
    let options = LayerOptions { split_fused: true, min_evals: 1, ..LayerOptions::default() };
    let found = layers(&catalog(floats(&[(name, shape)]), config), &options);
    let rows = found.layers.iter().map(|l| {
        let (rows, cols) = l.matrix_shape();
        (l.role.clone().unwrap_or_default(), rows, cols)
    });
    (rows.collect(), found.layers[0].note.clone())
}

#[test]
fn fused_attention_is_cut_by_heads_else_in_thirds() {
    let llama = json!({"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096});
    let part = |role: &str, rows, cols| (role.to_owned(), rows, cols);
    let (rows, note) = fused("layers.0.self_attn.qkv_proj.weight", &[6144, 4096], Some(llama.clone()));
    assert_eq!(rows, [part("q", 4096, 4096), part("k", 1024, 4096), part("v", 1024, 4096)]);
    assert_eq!(note, None);
    // Heads that do not fit, and outputs that are not three times the inputs: better whole than wrong.
    let (rows, note) = fused("layers.0.self_attn.qkv_proj.weight", &[6000, 4096], Some(llama));
    assert_eq!(rows, [part("qkv", 6000, 4096)]);
    assert!(note.unwrap().starts_with("not split"));
    let (rows, note) = fused("blocks.0.attn.qkv.weight", &[192, 64], None);
    assert_eq!(rows, [part("q", 64, 64), part("k", 64, 64), part("v", 64, 64)]);
    assert_eq!(note, None);
    let (rows, note) = fused("blocks.0.attn.qkv.weight", &[384, 64], None);
    assert_eq!(rows.len(), 3);
    assert!(note.unwrap().contains("equal thirds"));
    let (rows, note) = fused("blocks.0.attn.qkv.weight", &[200, 64], None);
    assert_eq!(rows.len(), 1);
    assert!(note.unwrap().contains("200"));
}

#[test]
fn gpt2_stores_its_weights_transposed() {
    let part = |role: &str| (role.to_owned(), 768, 768);
    let (rows, _) = fused("h.0.attn.c_attn.weight", &[768, 2304], Some(json!({"model_type": "gpt2"})));
    assert_eq!(rows, [part("q"), part("k"), part("v")]);
    assert_eq!(fused("h.0.attn.c_attn.weight", &[768, 2304], None).0, rows);
    // nanoGPT and Qwen use the name for an ordinary linear layer.
    assert_eq!(fused("h.0.attn.c_attn.weight", &[2304, 768], Some(json!({"model_type": "gpt2"}))).0, rows);
}

#[test]
fn interleaved_heads_stay_together() {
    let name = "layers.0.attention.query_key_value.weight";
    for config in [None, Some(json!({"model_type": "gpt_neox", "num_attention_heads": 8, "hidden_size": 64}))]
    {
        let (rows, note) = fused(name, &[192, 64], config);
        assert_eq!(rows, [("qkv".to_owned(), 192, 64)]);
        assert!(note.unwrap().contains("head by head"));
    }
    let falcon =
        json!({"model_type": "falcon", "multi_query": true, "num_attention_heads": 8, "hidden_size": 64});
    let (rows, _) = fused(name, &[80, 64], Some(falcon));
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [64, 8, 8]);
}

#[test]
fn gate_and_up_are_halves() {
    let (rows, _) = fused("layers.0.mlp.gate_up_proj.weight", &[128, 32], None);
    assert_eq!(rows, [("gate".to_owned(), 64, 32), ("up".to_owned(), 64, 32)]);
    let (rows, note) = fused("layers.0.mlp.gate_up_proj.weight", &[129, 32], None);
    assert_eq!((rows.len(), note.is_some()), (1, true));
}

#[test]
fn a_small_part_is_skipped_by_itself() {
    let config = json!({"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 4});
    let options = LayerOptions { split_fused: true, ..LayerOptions::default() };
    let found = layers(&catalog(floats(&[("a.qkv_proj.weight", &[40, 32])]), Some(config)), &options);
    assert_eq!(found.layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["a.qkv_proj.q"]);
    let skipped: Vec<_> = found.skipped.iter().map(|s| (s.name.as_str(), s.reason)).collect();
    assert_eq!(
        skipped,
        [("a.qkv_proj.k", SkipReason::TooFewEvals), ("a.qkv_proj.v", SkipReason::TooFewEvals)]
    );
}

#[test]
fn experts_become_a_row_each() {
    let found = of(&[("model.layers.2.mlp.experts.down_proj", &[4, 64, 32])], &LayerOptions::default());
    let rows: Vec<_> =
        found.layers.iter().map(|l| (l.name.as_str(), l.slice_id, l.matrices[0].offset)).collect();
    assert_eq!(rows[0], ("model.layers.2.mlp.experts.down_proj[0]", Some(0), 0));
    assert_eq!(rows[3], ("model.layers.2.mlp.experts.down_proj[3]", Some(3), 3 * 64 * 32));
    assert_eq!(found.layers[0].role.as_deref(), Some("down"));
    assert_eq!(found.layers[0].layer_id, 1);
}

#[test]
fn limits_give_the_figures() {
    let entries: &[(&str, &[u64])] = &[("token_type.weight", &[2, 384]), ("wide.weight", &[16, 900])];
    let options = LayerOptions { max_n: Some(800), ..LayerOptions::default() };
    let details: Vec<_> = of(entries, &options).skipped.into_iter().map(|s| (s.reason, s.detail)).collect();
    assert_eq!(details[0], (SkipReason::TooFewEvals, "M=2: 2 eigenvalues < min_evals 8".to_owned()));
    assert_eq!(details[1], (SkipReason::TooLarge, "N=900 > max_N 800".to_owned()));
    let options = LayerOptions { max_evals: Some(15), min_evals: 0, ..LayerOptions::default() };
    let found = of(entries, &options);
    assert_eq!(found.skipped[0].detail, "M=16: 16 eigenvalues > max_evals 15");
    let slices =
        of(&[("c.weight", &[4, 4, 3, 3])], &LayerOptions { conv: Conv::Slices, ..LayerOptions::default() });
    assert_eq!(slices.skipped.len(), 1, "one row for all slices");
    let pool = of(&[("c.weight", &[4, 4, 3, 3])], &LayerOptions::default());
    assert_eq!(pool.layers[0].num_evals(), 36);
}

#[test]
fn int8_codes_and_their_scales_make_one_layer() {
    let tensors = vec![
        tensor("core.block.dw_weight.scale", DType::F32, &[64, 1, 1]),
        tensor("core.block.ffn.down.weight.scale", DType::F32, &[64, 1]),
        tensor("head.decoder_norms.0.weight.scale", DType::F32, &[1]),
        tensor("core.block.dw_weight.qweight", DType::I8, &[64, 1, 3]),
        tensor("core.block.ffn.down.weight.qweight", DType::I8, &[64, 96]),
        tensor("head.decoder_norms.0.weight.qweight", DType::I8, &[64]),
    ];
    let options = LayerOptions { min_evals: 3, ..LayerOptions::default() };
    let found = layers(&catalog(tensors, None), &options);
    let rows: Vec<_> =
        found.layers.iter().map(|l| (l.name.as_str(), l.dequantise.clone().unwrap())).collect();
    let by_channel = |scale, cols| Dequantise { scale, cols, block_rows: 1, block_cols: cols };
    assert_eq!(
        rows,
        [("core.block.dw_weight", by_channel(0, 3)), ("core.block.ffn.down", by_channel(1, 96))]
    );
    let reasons: Vec<_> = found.skipped.iter().map(|s| s.reason).collect();
    assert_eq!(reasons, [SkipReason::Scale, SkipReason::Scale, SkipReason::Scale, SkipReason::Norm]);
    assert_eq!(found.skipped[1].detail, "scales of 'core.block.ffn.down.weight.qweight'");
}

#[test]
fn gptq_is_named_and_left_out() {
    let tensors = vec![
        tensor("q_proj.g_idx", DType::I32, &[4096]),
        tensor("q_proj.qweight", DType::I32, &[512, 4096]),
        tensor("q_proj.qzeros", DType::I32, &[32, 512]),
        tensor("q_proj.scales", DType::F16, &[32, 4096]),
    ];
    let found = layers(&catalog(tensors, None), &LayerOptions::default());
    assert!(found.layers.is_empty());
    let reasons: Vec<_> = found.skipped.iter().map(|s| s.reason).collect();
    assert_eq!(reasons, [SkipReason::Buffer, SkipReason::Integer, SkipReason::Integer, SkipReason::Scale]);
    assert_eq!(found.skipped[1].detail, "packed 4-bit codes are not decoded");
}

#[test]
fn tied_weights_are_candidates_and_shared_bytes_are_tied() {
    let mut model = catalog(
        floats(&[
            ("model.embed_tokens.weight", &[100, 64]),
            ("model.embed_positions.weight", &[100, 64]),
            ("lm_head.weight", &[100, 64]),
            ("other.lm_head.weight", &[100, 32]),
        ]),
        None,
    );
    assert_eq!(tied_candidates(&model), [(0, 2)]);
    assert_eq!(layers(&model, &LayerOptions::default()).layers.len(), 4);
    model.tensors[2].range = model.tensors[0].range.clone();
    let found = layers(&model, &LayerOptions::default());
    assert_eq!((found.skipped[0].tensor, found.skipped[0].reason), (2, SkipReason::Tied));
    assert!(found.skipped[0].detail.contains("model.embed_tokens.weight"));
    let t5 =
        catalog(floats(&[("shared.weight", &[100, 64]), ("decoder.embed_tokens.weight", &[100, 64])]), None);
    assert_eq!(tied_candidates(&t5), [(0, 1)]);
}
