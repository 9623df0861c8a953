//! Weights that hold several matrices side by side: q, k and v; gate and up; the gates of a recurrent cell.

use super::config::Config;
use super::names::{Index, last_word, layer_name, words};
use super::unfold::{Part, col_bands, row_bands};
use crate::format::{Catalog, Tensor};

/// The parts of a weight, or why it stays whole.
pub(super) type Cut = Result<Vec<Part>, String>;

/// Whether this two-dimensional weight belongs to a recurrent layer, by torch's names: `weight_ih_l0`,
/// `weight_hh_l0_reverse`, `weight_ih` (a cell).
pub(super) fn is_recurrent(name: &str) -> bool {
    let last = last_word(name);
    last.starts_with("weight_ih") || last.starts_with("weight_hh")
}

/// The gates of an LSTM or GRU weight, in torch's order along the rows.
///
/// # Errors
/// A note if this is neither, or the rows do not divide.
pub(super) fn gates(catalog: &Catalog, index: &Index<'_>, tensor: &Tensor) -> Cut {
    let [rows, cols] = tensor.shape[..] else { return Err("not a matrix".to_owned()) };
    let names: &[&'static str] = match gate_count(catalog, index, tensor) {
        Some(4) => &["gate_i", "gate_f", "gate_g", "gate_o"],
        Some(3) => &["gate_r", "gate_z", "gate_n"],
        Some(_) => return Err("not split: a plain recurrent layer has no gates".to_owned()),
        None => return Err("not split: neither an LSTM (4 gates) nor a GRU (3) by name or shape".to_owned()),
    };
    let count = names.len() as u64;
    if !rows.is_multiple_of(count) {
        return Err(format!("not split: {rows} rows are no multiple of {count} gates"));
    }
    let views = row_bands(cols, &vec![rows / count; names.len()]);
    let parts = names.iter().zip(views).zip(0..).map(|((name, view), gate)| Part {
        suffix: format!(".{name}"),
        role: None,
        slice_id: Some(gate),
        matrices: vec![view],
    });
    Ok(parts.collect())
}

/// 4 for an LSTM, 3 for a GRU, 1 for a plain RNN: rows over hidden size, else the name.
fn gate_count(catalog: &Catalog, index: &Index<'_>, tensor: &Tensor) -> Option<u64> {
    let rows = *tensor.shape.first()?;
    let sibling = |ending: &str| {
        let name = tensor.name.replace("weight_ih", ending).replace("weight_hh", ending);
        let found = catalog.tensors.get(*index.get(name.as_str())?)?;
        found.shape.get(1).copied().filter(|&hidden| hidden > 0)
    };
    // With a projection (`weight_hr`, [proj, hidden]) the columns of `weight_hh` are those of the projection.
    if let Some(hidden) = sibling("weight_hr").or_else(|| sibling("weight_hh"))
        && rows % hidden == 0
        && matches!(rows / hidden, 1 | 3 | 4)
    {
        return Some(rows / hidden);
    }
    let path = words(&tensor.name);
    let named = |part: &str| path.iter().any(|word| word.contains(part));
    match (named("lstm"), named("gru")) {
        (true, _) => Some(4),
        (_, true) => Some(3),
        _ => None,
    }
}

/// Gate and up projection of a gated MLP, one above the other.
///
/// # Errors
/// A note if the rows are odd.
pub(super) fn gate_up(tensor: &Tensor) -> Cut {
    let [rows, cols] = tensor.shape[..] else { return Err("not a matrix".to_owned()) };
    if !rows.is_multiple_of(2) {
        return Err(format!("not split: {rows} rows have no halves"));
    }
    Ok(named_parts(&["gate", "up"], row_bands(cols, &[rows / 2, rows / 2])))
}

/// q, k and v of a fused attention weight; as second the note on how they were told, if it is a guess.
///
/// # Errors
/// A note why the weight stays whole.
pub(super) fn qkv(catalog: &Catalog, tensor: &Tensor) -> Result<(Vec<Part>, Option<String>), String> {
    let [rows, cols] = tensor.shape[..] else { return Err("not a matrix".to_owned()) };
    let config = Config::of(catalog.config.as_ref(), &tensor.name);
    let words = words(layer_name(&tensor.name));
    let leaf = words.last().map(String::as_str).unwrap_or_default();
    if heads_interleaved(leaf, config) {
        return Err("not split: q, k and v alternate head by head, which is not one matrix each".to_owned());
    }
    let transposed = is_transposed(leaf, rows, cols, config);
    let (out, inputs) = if transposed { (cols, rows) } else { (rows, cols) };
    let (lengths, note) = qkv_lengths(out, inputs, config)?;
    let views = if transposed { col_bands(rows, cols, &lengths) } else { row_bands(cols, &lengths) };
    Ok((named_parts(&["q", "k", "v"], views), note))
}

fn named_parts(names: &[&'static str], views: Vec<super::MatrixView>) -> Vec<Part> {
    let parts = names.iter().zip(views).zip(0..).map(|((&name, view), number)| Part {
        suffix: format!(".{name}"),
        role: Some(name),
        slice_id: Some(number),
        matrices: vec![view],
    });
    parts.collect()
}

fn qkv_lengths(out: u64, inputs: u64, config: Config<'_>) -> Result<([u64; 3], Option<String>), String> {
    let heads = config.head_rows();
    if let Some(heads) = heads
        && heads.kv.checked_mul(2).and_then(|kv| kv.checked_add(heads.q)) == Some(out)
    {
        return Ok(([heads.q, heads.kv, heads.kv], None));
    }
    if !out.is_multiple_of(3) {
        return Err(format!(
            "not split: {out} outputs fit neither config.json's heads nor three equal parts"
        ));
    }
    let thirds = [out / 3; 3];
    match heads {
        _ if inputs.checked_mul(3) == Some(out) => Ok((thirds, None)),
        Some(heads) if !heads.all_equal => Err(format!(
            "not split: {out} outputs are not {} + 2 · {} as config.json's heads say",
            heads.q, heads.kv
        )),
        _ => Ok((thirds, Some("cut in equal thirds: config.json does not tell the heads".to_owned()))),
    }
}

/// Layouts [heads, 3, head_dim] and their like. GPT-NeoX, BLOOM, Falcon and Persimmon interleave under
/// `query_key_value`, InternLM2 under `wqkv`, CodeGen under `qkv_proj`, GPT-BigCode under `c_attn`; Falcon and
/// GPT-BigCode with one key-value head (`multi_query`) do not, nor does ChatGLM.
fn heads_interleaved(leaf: &str, config: Config<'_>) -> bool {
    let model = config.model_type();
    let one_kv_head = config.flag("multi_query") && !config.flag("new_decoder_architecture");
    match leaf {
        "query_key_value" => {
            !(model.contains("glm") || (one_kv_head && model.to_lowercase().contains("falcon")))
        }
        "wqkv" => model.contains("internlm2"),
        "qkv_proj" => model == "codegen",
        "c_attn" => model == "gpt_bigcode" && !one_kv_head,
        _ => false,
    }
}

/// Whether the weight is stored in × out, as GPT-2's `Conv1D` does.
fn is_transposed(leaf: &str, rows: u64, cols: u64, config: Config<'_>) -> bool {
    const MODELS: [&str; 4] = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"];
    let wide = rows.checked_mul(3) == Some(cols);
    let tall = cols.checked_mul(3) == Some(rows);
    leaf == "c_attn" && (wide || (MODELS.contains(&config.model_type()) && !tall))
}

/// Whether the three-dimensional weight holds one matrix an expert.
pub(super) fn is_fused_experts(name: &str) -> bool {
    words(name).iter().any(|word| word.contains("expert") || word == "moe" || word.ends_with("_moe"))
}
