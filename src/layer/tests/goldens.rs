//! What WeightWatcher 0.7.7 reported for three models, made with its `analyze()` on a CPU: names, ids, N, M, rf and
//! slice ids of every row.

use super::*;

type Row = (u64, String, u64, u64, u64, u64);

fn ww(conv: Conv) -> LayerOptions {
    LayerOptions { ww_layers: true, conv, ..LayerOptions::default() }
}

fn rows(found: &Layers) -> Vec<Row> {
    found.layers.iter().map(|l| (l.layer_id, l.name.clone(), l.n, l.m, l.rf, l.num_evals())).collect()
}

fn minilm() -> Vec<Tensor> {
    let mut tensors = vec![tensor("embeddings.position_ids", DType::I64, &[1, 512])];
    let mut add = |name: String, shape: &[u64]| tensors.push(tensor(&name, DType::F32, shape));
    add("embeddings.LayerNorm.bias".to_owned(), &[384]);
    add("embeddings.LayerNorm.weight".to_owned(), &[384]);
    add("embeddings.position_embeddings.weight".to_owned(), &[512, 384]);
    add("embeddings.token_type_embeddings.weight".to_owned(), &[2, 384]);
    add("embeddings.word_embeddings.weight".to_owned(), &[30522, 384]);
    for block in 0..6 {
        for (part, out, inputs) in [
            ("attention.output.LayerNorm", 384, 0),
            ("attention.output.dense", 384, 384),
            ("attention.self.key", 384, 384),
            ("attention.self.query", 384, 384),
            ("attention.self.value", 384, 384),
            ("intermediate.dense", 1536, 384),
            ("output.LayerNorm", 384, 0),
            ("output.dense", 384, 1536),
        ] {
            add(format!("encoder.layer.{block}.{part}.bias"), &[out]);
            let shape = if inputs == 0 { vec![out] } else { vec![out, inputs] };
            add(format!("encoder.layer.{block}.{part}.weight"), &shape);
        }
    }
    add("pooler.dense.bias".to_owned(), &[384]);
    add("pooler.dense.weight".to_owned(), &[384, 384]);
    tensors
}

#[test]
fn minilm_has_weightwatchers_rows() {
    let found = layers(&catalog(minilm(), None), &ww(Conv::Pool));
    let mut expected: Vec<Row> = vec![
        (2, "embeddings.position_embeddings".to_owned(), 512, 384, 1, 384),
        (4, "embeddings.word_embeddings".to_owned(), 30522, 384, 1, 384),
    ];
    for block in 0..6 {
        for (offset, part, n) in [
            (6, "attention.output.dense", 384),
            (7, "attention.self.key", 384),
            (8, "attention.self.query", 384),
            (9, "attention.self.value", 384),
            (10, "intermediate.dense", 1536),
            (12, "output.dense", 1536),
        ] {
            expected.push((offset + 8 * block, format!("encoder.layer.{block}.{part}"), n, 384, 1, 384));
        }
    }
    expected.push((53, "pooler.dense".to_owned(), 384, 384, 1, 384));
    assert_eq!(rows(&found), expected);
    assert!(found.layers.iter().all(|l| l.layer_type == LayerType::Dense && l.slice_id.is_none()));
    let token_types = found.skipped.iter().find(|s| s.name.contains("token_type")).unwrap();
    assert_eq!((token_types.layer_id, token_types.reason), (Some(3), SkipReason::TooFewEvals));
    let norm = found.skipped.iter().find(|s| s.name == "embeddings.LayerNorm").unwrap();
    assert_eq!((norm.layer_id, norm.reason), (Some(1), SkipReason::Norm));
    let bias = found.skipped.iter().find(|s| s.name == "pooler.dense.bias").unwrap();
    assert_eq!((bias.layer_id, bias.reason), (None, SkipReason::Bias));
}

#[test]
fn fracast_has_weightwatchers_rows() {
    let vectors = |name: &str| (name.to_owned(), vec![64_u64]);
    let matrix = |name: &str, rows, cols| (name.to_owned(), vec![rows, cols]);
    // Biases left out: they bear no id.
    let entries = vec![
        ("core.block.dw_weight".to_owned(), vec![64, 1, 3]),
        matrix("core.block.ffn.down.weight", 64, 96),
        matrix("core.block.ffn.up.weight", 192, 64),
        vectors("core.block.norm1.weight"),
        vectors("core.block.norm2.weight"),
        matrix("core.block.pw.weight", 64, 64),
        matrix("core.in_proj.weight", 64, 7),
        vectors("core.norm.weight"),
        matrix("core.periodic.proj.weight", 64, 8),
        matrix("core.scale.to_gb.weight", 128, 8),
        matrix("head.decoder_ffns.0.down.weight", 64, 96),
        matrix("head.decoder_ffns.0.up.weight", 192, 64),
        vectors("head.decoder_norms.0.weight"),
        ("head.fc_blocks.0.dw_weight".to_owned(), vec![64, 1, 3]),
        vectors("head.fc_blocks.0.norm.weight"),
        vectors("head.fc_blocks.1.norm.weight"),
        matrix("head.future_conv.block.ffn.down.weight", 64, 96),
        matrix("head.future_conv.block.ffn.up.weight", 192, 64),
        vectors("head.future_conv.block.norm1.weight"),
        vectors("head.future_conv.block.norm2.weight"),
        matrix("head.future_conv.block.pw.weight", 64, 64),
        matrix("head.future_conv.in_proj.weight", 64, 6),
        matrix("head.future_conv.out_proj.weight", 64, 64),
        matrix("head.out_proj.weight", 9, 64),
        matrix("head.queries", 48, 64),
        matrix("head.summary_proj.weight", 64, 133),
    ];
    let tensors = entries.iter().map(|(name, shape)| tensor(name, DType::F32, shape)).collect();
    let found = layers(&catalog(tensors, None), &ww(Conv::Pool));
    let expected = [
        (1, "core.block.ffn.down", 96, 64),
        (2, "core.block.ffn.up", 192, 64),
        (5, "core.block.pw", 64, 64),
        (8, "core.periodic.proj", 64, 8),
        (9, "core.scale.to_gb", 128, 8),
        (10, "head.decoder_ffns.0.down", 96, 64),
        (11, "head.decoder_ffns.0.up", 192, 64),
        (15, "head.future_conv.block.ffn.down", 96, 64),
        (16, "head.future_conv.block.ffn.up", 192, 64),
        (19, "head.future_conv.block.pw", 64, 64),
        (21, "head.future_conv.out_proj", 64, 64),
        (22, "head.out_proj", 64, 9),
        (23, "head.summary_proj", 133, 64),
    ];
    assert_eq!(rows(&found), expected.map(|(id, name, n, m)| (id, name.to_owned(), n, m, 1, m)));
    let queries = found.skipped.iter().find(|s| s.name == "head.queries").unwrap();
    assert_eq!((queries.layer_id, queries.reason), (None, SkipReason::NotInWeightwatcher));
}

fn crepe() -> Catalog {
    let mut tensors = Vec::new();
    for (number, shape) in [
        (1, [128, 1, 512, 1]),
        (2, [16, 128, 64, 1]),
        (3, [16, 16, 64, 1]),
        (4, [16, 16, 64, 1]),
        (5, [32, 16, 64, 1]),
        (6, [64, 32, 64, 1]),
    ] {
        tensors.push(tensor(&format!("conv{number}.weight"), DType::F32, &shape));
        for part in ["bias", "_BN.weight", "_BN.bias", "_BN.running_mean", "_BN.running_var"] {
            let dot = if part == "bias" { "." } else { "" };
            tensors.push(tensor(&format!("conv{number}{dot}{part}"), DType::F32, &shape[..1]));
        }
        tensors.push(tensor(&format!("conv{number}_BN.num_batches_tracked"), DType::I64, &[]));
    }
    tensors.push(tensor("classifier.weight", DType::F32, &[360, 256]));
    tensors.push(tensor("classifier.bias", DType::F32, &[360]));
    catalog(tensors, None)
}

#[test]
fn crepe_pooled_has_weightwatchers_rows() {
    let found = layers(&crepe(), &ww(Conv::Pool));
    let expected = [
        (1, "conv1", 128, 1, 512, 512),
        (3, "conv2", 16, 128, 64, 1024),
        (5, "conv3", 16, 16, 64, 1024),
        (7, "conv4", 16, 16, 64, 1024),
        (9, "conv5", 32, 16, 64, 1024),
        (11, "conv6", 64, 32, 64, 2048),
        (13, "classifier", 360, 256, 1, 256),
    ];
    assert_eq!(
        rows(&found),
        expected.map(|(id, name, n, m, rf, evals)| (id, name.to_owned(), n, m, rf, evals))
    );
    assert!(found.layers.iter().take(6).all(|l| l.scale == 0.5_f64.sqrt()));
    let reasons: BTreeMap<_, usize> = found.skipped.iter().fold(BTreeMap::new(), |mut counts, s| {
        *counts.entry(s.reason).or_default() += 1;
        counts
    });
    assert_eq!(
        reasons,
        BTreeMap::from([(SkipReason::Bias, 13), (SkipReason::Norm, 18), (SkipReason::Buffer, 6)])
    );
}

#[test]
fn crepe_slices_have_weightwatchers_rows() {
    let found = layers(&crepe(), &ww(Conv::Slices));
    let mut expected = Vec::new();
    for (id, name, n, m, evals) in [
        (3, "conv2", 16, 128, 16),
        (5, "conv3", 16, 16, 16),
        (7, "conv4", 16, 16, 16),
        (9, "conv5", 32, 16, 16),
        (11, "conv6", 64, 32, 32),
    ] {
        expected.extend((0..64).map(|_| (id, name.to_owned(), n, m, 64, evals)));
    }
    expected.push((13, "classifier".to_owned(), 360, 256, 1, 256));
    assert_eq!(rows(&found), expected);
    let ids: Vec<_> = found.layers.iter().take(65).map(|l| l.slice_id.unwrap()).collect();
    assert_eq!((ids[0], ids[63], ids[64]), (0, 63, 0));
    assert_eq!(found.layers[320].slice_id, Some(0));
    assert_eq!(found.layers[0].scale, 32.0_f64.sqrt());
    let conv1 = &found.skipped[0];
    assert_eq!(
        (conv1.name.as_str(), conv1.layer_id, conv1.reason),
        ("conv1", Some(1), SkipReason::TooFewEvals)
    );
}

#[test]
fn n_and_m_swap_as_in_weightwatcher() {
    for (shape, n, m) in [
        ([64, 128, 2, 2], 64, 128), // even number of positions: swapped back
        ([64, 128, 3, 3], 128, 64), // odd: swapped
        ([128, 64, 3, 3], 128, 64), // no swap
        ([4, 64, 41, 41], 4, 64),   // out + in < kh + kw: read the other way round, no swap
    ] {
        let found = of(&[("c.weight", &shape)], &LayerOptions { max_evals: Some(0), ..ww(Conv::Pool) });
        assert_eq!((found.layers[0].n, found.layers[0].m), (n, m), "{shape:?}");
    }
}

#[test]
fn weightwatchers_limits_count_its_own_m() {
    let reason = |name: &str, shape: &[u64], conv| {
        let found = of(&[(name, shape)], &ww(conv));
        found.skipped.first().map(|skipped| skipped.reason)
    };
    // GPT-2's wte: 50257 > 50000.
    assert_eq!(reason("wte.weight", &[50257, 768], Conv::Pool), Some(SkipReason::TooLarge));
    // M = 128 is reported, so 128 · 144 > 15000, although there are only 4 · 144 eigenvalues.
    assert_eq!(reason("c.weight", &[4, 128, 12, 12], Conv::Pool), Some(SkipReason::TooLarge));
    assert_eq!(reason("c.weight", &[4, 128, 12, 12], Conv::Slices), None);
    assert_eq!(reason("c.weight", &[4, 128, 3, 3], Conv::Slices), Some(SkipReason::TooFewEvals));
    assert_eq!(reason("c.weight", &[2, 4, 2, 2], Conv::Pool), None);
    assert_eq!(reason("c.weight", &[1, 64, 3, 3], Conv::Pool), Some(SkipReason::NotInWeightwatcher));
    assert_eq!(reason("c.weight", &[64, 64, 3], Conv::Pool), Some(SkipReason::NotInWeightwatcher));
    assert_eq!(
        reason("experts.gate_up_proj", &[8, 64, 64], Conv::Pool),
        Some(SkipReason::NotInWeightwatcher)
    );
    assert_eq!(reason("a.weight", &[0, 64], Conv::Pool), Some(SkipReason::Empty));
}

#[test]
fn weightwatcher_reads_codes_as_numbers() {
    let tensors = vec![
        tensor("a.weight", DType::F8E4M3, &[64, 64]),
        tensor("a.weight_scale_inv", DType::F32, &[1, 1]),
        tensor("b.weight", DType::I8, &[64, 64]),
    ];
    let found = layers(&catalog(tensors, None), &ww(Conv::Pool));
    assert!(found.layers.iter().all(|l| l.dequantise.is_none() && l.note.is_some()));
    assert_eq!(found.layers.iter().map(|l| l.layer_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((found.skipped[0].layer_id, found.skipped[0].reason), (None, SkipReason::Scale));
}
