//! From names to parts: what a weight does in its model (`q`, `up`, `embed`, …) and in which block.
//!
//! The tables hold the names used by the families BERT, LLaMA, Mistral, Mixtral, Qwen, Gemma, DeepSeek, GPT-2, NeoX,
//! BLOOM, Falcon, T5, ViT (timm and Hugging Face), Whisper, OPT, Mamba and LoRA. A name that is not there has no role.

use super::names::{Index, index, is_number, last_word, layer_name, words};
use super::{LayerType, unfold};
use crate::format::Catalog;
use std::collections::HashMap;

/// Names whose role needs no context.
const PLAIN: &[(&str, &[&str])] = &[
    ("q", &["q_proj", "query", "q", "wq", "to_q", "q_lin", "query_proj", "w_q", "q_proj_weight"]),
    ("k", &["k_proj", "key", "k", "wk", "to_k", "k_lin", "key_proj", "w_k", "k_proj_weight"]),
    ("v", &["v_proj", "value", "v", "wv", "to_v", "v_lin", "value_proj", "w_v", "v_proj_weight"]),
    ("o", &["o_proj", "to_out", "out_lin", "w_o"]),
    (
        "qkv",
        &[
            "qkv_proj",
            "query_key_value",
            "c_attn",
            "in_proj_weight",
            "wqkv",
            "qkv",
            "attn_qkv",
            "w_pack",
            "to_qkv",
            "in_proj_qkv",
        ],
    ),
    ("kv", &["kv_proj", "to_kv", "kv"]),
    ("q_a", &["q_a_proj", "wq_a"]),
    ("q_b", &["q_b_proj", "wq_b"]),
    ("kv_a", &["kv_a_proj_with_mqa", "kv_a_proj", "wkv_a"]),
    ("kv_b", &["kv_b_proj", "wkv_b"]),
    ("gate", &["gate_proj", "w1", "wi_0"]),
    ("up", &["up_proj", "w3", "fc1", "lin1", "c_fc", "dense_h_to_4h", "wi", "wi_1", "up"]),
    ("down", &["down_proj", "w2", "fc2", "lin2", "dense_4h_to_h", "down"]),
    ("gate_up", &["gate_up_proj", "gate_and_up_proj", "gate_up", "w13", "w12", "input_linear"]),
    ("down", &["output_linear"]),
    ("router", &["router", "shared_expert_gate", "wg"]),
    ("head", &["lm_head", "embed_out", "classifier", "score", "qa_outputs", "unembed", "heads"]),
    ("pooler", &["pooler"]),
];

/// Names of output projections, which are also used for other things.
const PROJECTIONS: [&str; 6] = ["proj", "c_proj", "out_proj", "wo", "o", "out"];

/// The part that a weight plays, where its name tells.
pub(super) fn role(tensor: &str, kind: LayerType, index: &Index<'_>) -> Option<&'static str> {
    let mut path = words(layer_name(tensor));
    if let Some(lora) = path.iter().find_map(|word| lora_role(word)) {
        return Some(lora);
    }
    match kind {
        LayerType::Embedding => return Some(embedding_role(&path)),
        LayerType::Recurrent => {
            return Some(if last_word(tensor).contains("_hh") { "hidden" } else { "input" });
        }
        _ => {}
    }
    while path.len() > 1 && path.last().is_some_and(|word| is_wrapper(word)) {
        path.pop();
    }
    let (leaf, parents) = path.split_last()?;
    let has_up = || index.contains_key(sibling(tensor, "up").as_str());
    plain(leaf)
        .or_else(|| projection(leaf, parents))
        .or_else(|| dense(leaf, parents))
        .or_else(|| gate(leaf, parents, has_up))
        .or_else(|| top_level(leaf, parents))
        .or_else(|| unfold::is_conv(kind).then_some("conv"))
}

fn plain(leaf: &str) -> Option<&'static str> {
    PLAIN.iter().find(|(_, leaves)| leaves.contains(&leaf)).map(|(role, _)| *role)
}

/// Words that stand between a module's name and its weight: PEFT's wrappers, positions in a `Sequential`.
fn is_wrapper(word: &str) -> bool {
    is_number(word) || matches!(word, "base_layer" | "default" | "modules_to_save" | "linear")
}

fn lora_role(word: &str) -> Option<&'static str> {
    match word {
        "lora_a" | "lora_embedding_a" => Some("lora_A"),
        "lora_b" | "lora_embedding_b" => Some("lora_B"),
        _ => None,
    }
}

fn embedding_role(path: &[String]) -> &'static str {
    let positional = |word: &String| word.contains("pos") || word == "wpe" || word.contains("relative_");
    if path.last().is_some_and(positional) { "pos_embed" } else { "embed" }
}

/// Which kind of sub-layer a module sits in: the nearest ancestor that tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Attention,
    Mlp,
    StateSpace,
    Neither,
}

fn within(parents: &[String]) -> Within {
    let tell = |word: &String| {
        if ["attn", "attention"].iter().any(|part| word.contains(part)) {
            Some(Within::Attention)
        } else if ["mlp", "ffn", "feed_forward", "feedforward", "densereludense", "densegated", "expert"]
            .iter()
            .any(|part| word.contains(part))
        {
            Some(Within::Mlp)
        } else if ["mixer", "mamba", "ssm"].iter().any(|part| word.contains(part)) {
            Some(Within::StateSpace)
        } else {
            None
        }
    };
    parents.iter().rev().find_map(tell).unwrap_or(Within::Neither)
}

fn projection(leaf: &str, parents: &[String]) -> Option<&'static str> {
    let place = within(parents);
    if place == Within::StateSpace {
        return match leaf {
            "in_proj" => Some("ssm_in"),
            "x_proj" => Some("ssm_x"),
            "dt_proj" => Some("ssm_dt"),
            "out_proj" => Some("ssm_out"),
            _ => None,
        };
    }
    match (PROJECTIONS.contains(&leaf), place) {
        (true, Within::Attention) => Some("o"),
        (true, Within::Mlp) => Some("down"),
        _ => None,
    }
}

/// BERT, ViT, NeoX, BLOOM and Falcon call many different layers `dense`.
fn dense(leaf: &str, parents: &[String]) -> Option<&'static str> {
    if leaf != "dense" {
        return None;
    }
    let parent = parents.last().map(String::as_str).unwrap_or_default();
    match (parent, within(parents)) {
        ("pooler", _) => Some("pooler"),
        ("intermediate", _) => Some("up"),
        (_, Within::Attention) => Some("o"),
        ("output", _) => Some("down"),
        _ => None,
    }
}

/// `mlp.gate` is the router of a mixture of experts; beside an `up` it is half of a gated MLP.
fn gate(leaf: &str, parents: &[String], has_up: impl Fn() -> bool) -> Option<&'static str> {
    let parent = parents.last().map(String::as_str).unwrap_or_default();
    match leaf {
        "gate" if has_up() || is_number(parent) || parent.contains("expert") => Some("gate"),
        "gate" => Some("router"),
        "layer" | "classifier" | "proj" if parent == "router" => Some("router"),
        _ => None,
    }
}

fn top_level(leaf: &str, parents: &[String]) -> Option<&'static str> {
    let parent = parents.last().map(String::as_str).unwrap_or_default();
    match leaf {
        "head" | "fc" | "output" | "proj_out" if parents.len() <= 1 && within(parents) == Within::Neither => {
            Some("head")
        }
        "decoder" if parent == "predictions" => Some("head"),
        _ => None,
    }
}

/// Name of the tensor beside this one whose last module is called `leaf`.
fn sibling(tensor: &str, leaf: &str) -> String {
    let layer = layer_name(tensor);
    let ending = tensor.strip_prefix(layer).unwrap_or_default();
    match layer.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}.{leaf}{ending}"),
        None => format!("{leaf}{ending}"),
    }
}

/// Whether the name is that of an embedding table: its last module says so, rather than one above it (which may
/// hold linear layers and norms as well).
pub(super) fn is_embedding(tensor: &str) -> bool {
    let path = words(layer_name(tensor));
    let is_table = |word: &String| {
        let other = ["proj", "mapping", "unembed", "embed_out", "norm", "token_gate"];
        let named = word.contains("embed") && !other.iter().any(|part| word.contains(part));
        named
            || matches!(word.as_str(), "wte" | "wpe" | "emb" | "codebook" | "relative_attention_bias")
            || word.ends_with("_emb")
            || word.starts_with("relative_position_bias")
    };
    match path.as_slice() {
        [] => false,
        [.., parent, leaf] if is_number(leaf) => {
            is_table(parent)
                && (parent.contains("embed_tokens") || matches!(parent.as_str(), "emb" | "embeddings"))
        }
        [first] => is_table(first) || first == "shared",
        [_, leaf] if leaf == "shared" => true,
        [.., leaf] => is_table(leaf),
    }
}

/// Number of the block or stage: the first number that follows a word such as `layers`, `h`, `blocks` or `stages`,
/// or that is written onto it (`layer3`, `block_2`).
pub(super) fn block(tensor: &str) -> Option<u64> {
    const WORDS: [&str; 6] = ["layers", "layer", "blocks", "block", "stages", "stage"];
    let names_blocks = |word: &str| word == "h" || WORDS.iter().any(|ending| word.ends_with(ending));
    let path = words(tensor);
    path.iter().zip(path.iter().skip(1).map(Some).chain([None])).find_map(|(word, next)| {
        if names_blocks(word) {
            return next.filter(|next| is_number(next))?.parse().ok();
        }
        let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = word.strip_prefix(stem).unwrap_or_default();
        let stem = stem.trim_end_matches('_');
        if WORDS.contains(&stem) || stem == "h" { number.parse().ok() } else { None }
    })
}

/// See [`super::tied_candidates`].
pub(super) fn tied_candidates(catalog: &Catalog) -> Vec<(usize, usize)> {
    let names = index(catalog);
    let mut first_of: HashMap<(&[u64], crate::format::DType), usize> = HashMap::new();
    let is_table =
        |i: usize| catalog.tensors.get(i).is_some_and(|t| t.shape.len() == 2 && is_embedding(&t.name));
    let positional = |name: &str| embedding_role(&words(layer_name(name))) == "pos_embed";
    let mut tables = Vec::new();
    let mut heads = Vec::new();
    for (i, tensor) in catalog.tensors.iter().enumerate().filter(|(_, tensor)| tensor.shape.len() == 2) {
        if is_table(i) && !positional(&tensor.name) {
            tables.push((i, tensor));
        } else if role(&tensor.name, LayerType::Dense, &names) == Some("head") {
            heads.push((i, tensor));
        }
    }
    let mut pairs = Vec::new();
    for (i, tensor) in tables {
        let first = *first_of.entry((tensor.shape.as_slice(), tensor.dtype)).or_insert(i);
        if first != i {
            pairs.push((first, i));
        }
    }
    for (i, tensor) in heads {
        if let Some(&first) = first_of.get(&(tensor.shape.as_slice(), tensor.dtype)) {
            pairs.push((first, i));
        }
    }
    pairs
}
