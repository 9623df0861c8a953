//! What holds for any catalogue.

use super::*;
use proptest::prelude::*;

const NAMES: [&str; 24] = [
    "a.weight",
    "a.bias",
    "norm.weight",
    "conv.weight",
    "h.0.attn.c_attn.weight",
    "layers.1.self_attn.qkv_proj.weight",
    "layers.1.attention.query_key_value.weight",
    "layers.1.mlp.gate_up_proj.weight",
    "layers.1.mlp.experts.gate_up_proj",
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "gru.weight_ih_l0",
    "embed.weight",
    "pos_embed",
    "lm_head.weight",
    "b.qweight",
    "b.scale",
    "a.weight_scale_inv",
    "a.weight_scale",
    "b.qzeros",
    "mask",
    "optimizer.exp_avg",
    "weight",
    "",
];

fn shapes() -> impl Strategy<Value = Vec<u64>> {
    let small = prop::collection::vec(prop_oneof![4 => 1_u64..13, 1 => Just(0)], 0..7);
    let large = prop::collection::vec(prop_oneof![Just(1), Just(3), Just(1 << 33), any::<u64>()], 1..5);
    prop_oneof![9 => small, 1 => large]
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let numbered = any::<bool>();
    let one = (0..NAMES.len(), 0..DType::ALL.len(), any::<bool>(), shapes(), numbered);
    prop::collection::vec(one, 1..20).prop_map(|entries| {
        let mut seen = BTreeSet::new();
        let made = entries.into_iter().enumerate().map(|(i, (name, dtype, float, shape, numbered))| {
            let dtype = if float { DType::F32 } else { DType::ALL[dtype] };
            let name = if numbered { format!("x.{i}.{}", NAMES[name]) } else { NAMES[name].to_owned() };
            tensor(&name, dtype, &shape)
        });
        made.filter(|tensor| seen.insert(tensor.name.clone())).collect()
    })
}

fn options() -> impl Strategy<Value = LayerOptions> {
    let conv = prop_oneof![Just(Conv::Pool), Just(Conv::Slices), Just(Conv::Flatten), Just(Conv::Operator)];
    let most = || prop::option::of(0_u64..200);
    (conv, any::<(bool, bool, bool)>(), 0_u64..10, most(), most()).prop_map(
        |(conv, (split_gates, split_fused, ww_layers), min_evals, max_evals, max_n)| LayerOptions {
            conv,
            grid: 5,
            split_gates,
            split_fused,
            min_evals,
            max_evals,
            max_n,
            ww_layers,
        },
    )
}

fn configs() -> impl Strategy<Value = Option<serde_json::Value>> {
    prop_oneof![
        Just(None),
        Just(Some(json!({"model_type": "gpt2", "n_head": 1, "n_embd": 3}))),
        Just(Some(
            json!({"text_config": {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2}})
        )),
        Just(Some(json!({"quantization_config": {"weight_block_size": [2, 3]}}))),
        Just(Some(json!({"num_attention_heads": u64::MAX, "head_dim": u64::MAX, "hidden_size": []}))),
    ]
}

/// The last element that the view touches, or none if it does not fit in 64 bits.
fn last_element(view: &MatrixView) -> Option<u64> {
    let down = view.rows.checked_sub(1)?.checked_mul(view.row_stride)?;
    let across = view.cols.checked_sub(1)?.checked_mul(view.col_stride)?;
    view.offset.checked_add(down)?.checked_add(across)
}

/// How often the views touch each element.
fn touches(elements: u64, views: &[MatrixView]) -> Vec<u8> {
    let mut counts = vec![0_u8; elements as usize];
    for view in views {
        for row in 0..view.rows {
            for col in 0..view.cols {
                counts[(view.offset + row * view.row_stride + col * view.col_stride) as usize] += 1;
            }
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_tensor_has_its_place(tensors in tensors(), options in options(), config in configs()) {
        let catalog = catalog(tensors, config);
        let found = layers(&catalog, &options);
        for (position, tensor) in catalog.tensors.iter().enumerate() {
            let rows: Vec<_> = found.layers.iter().filter(|layer| layer.tensor == position).collect();
            let skipped: Vec<_> = found.skipped.iter().filter(|skip| skip.tensor == position).collect();
            prop_assert!(!rows.is_empty() || skipped.len() == 1, "{tensor:?} {skipped:?}");
            let elements = classify::elements(&tensor.shape).unwrap_or(u64::MAX);
            let views: Vec<_> = rows.iter().flat_map(|layer| layer.matrices.iter().copied()).collect();
            for view in &views {
                let last = last_element(view).expect("a view's end fits in 64 bits");
                prop_assert!(last < elements, "{tensor:?} {view:?}");
            }
            let whole = skipped.is_empty();
            if elements < 100_000 {
                let counts = touches(elements, &views);
                prop_assert!(counts.iter().all(|&count| count <= 1), "{tensor:?} {views:?}");
                prop_assert!(!whole || counts.iter().all(|&count| count == 1), "{tensor:?} {views:?}");
            }
            for layer in rows {
                let first = layer.matrices[0];
                prop_assert!(layer.matrices.iter().all(|v| (v.rows, v.cols) == (first.rows, first.cols)));
                if let Some(dequantise) = &layer.dequantise {
                    let scales = &catalog.tensors[dequantise.scale];
                    prop_assert!(dequantise.scale_index(elements - 1) == scales.elements() - 1);
                }
                if !options.ww_layers {
                    prop_assert_eq!((layer.n, layer.m), (first.rows.max(first.cols), first.rows.min(first.cols)));
                    prop_assert!(layer.num_evals() >= options.min_evals);
                    prop_assert_eq!(layer.layer_id, position as u64 + 1);
                }
            }
        }
        let order: Vec<_> = found.layers.iter().map(|layer| layer.tensor).collect();
        prop_assert!(order.is_sorted());
        prop_assert!(found.skipped.is_sorted_by_key(|skip| skip.tensor));
    }

    #[test]
    fn unfolding_partitions_the_tensor(
        shape in prop::collection::vec(1_u64..7, 3..=5),
        conv in prop_oneof![Just(Conv::Pool), Just(Conv::Slices), Just(Conv::Flatten), Just(Conv::Operator)],
    ) {
        let unfolding = unfold::convolution(&shape, &LayerOptions { conv, ..LayerOptions::default() }).unwrap();
        let views: Vec<_> = unfolding.parts.iter().flat_map(|part| part.matrices.iter().copied()).collect();
        let counts = touches(shape.iter().product(), &views);
        prop_assert!(counts.iter().all(|&count| count == 1));
        let expected: u64 = if conv == Conv::Flatten { 1 } else { shape[2..].iter().product() };
        prop_assert_eq!(views.len() as u64, expected);
    }

    #[test]
    fn any_name_is_read(name in "\\PC{0,30}", shape in shapes()) {
        let found = layers(&catalog(vec![tensor(&name, DType::F32, &shape)], None), &LayerOptions::default());
        prop_assert!(!found.layers.is_empty() || found.skipped.len() == 1);
    }
}
