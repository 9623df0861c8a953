//! What `config.json` says of a model's attention heads and quantisation. Every answer is optional: the file is
//! untrusted, often absent, and names its fields differently for each model type.

use serde_json::Value;

/// `config.json` as seen from one tensor: a vision tower has its own section.
#[derive(Clone, Copy)]
pub(super) struct Config<'a> {
    root: Option<&'a Value>,
    vision: bool,
}

/// Output rows of q, of k, and of v.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadRows {
    /// Rows of q: heads · head_dim.
    pub(super) q: u64,
    /// Rows of k, and of v: key-value heads · head_dim.
    pub(super) kv: u64,
    /// The same heads for keys and values as for queries.
    pub(super) all_equal: bool,
}

const TEXT_SECTIONS: [&str; 4] = ["text_config", "llm_config", "language_config", "model"];

impl<'a> Config<'a> {
    /// The configuration as it concerns the tensor of this name.
    pub(super) fn of(root: Option<&'a Value>, tensor: &str) -> Self {
        let name = tensor.to_lowercase();
        Self { root, vision: name.contains("vision") || name.contains("visual") }
    }

    fn field(&self, key: &str) -> Option<&'a Value> {
        let root = self.root?;
        if self.vision
            && let Some(section) = root.get("vision_config")
        {
            return section.get(key);
        }
        root.get(key).or_else(|| TEXT_SECTIONS.iter().find_map(|section| root.get(section)?.get(key)))
    }

    fn number(&self, keys: &[&str]) -> Option<u64> {
        keys.iter().find_map(|key| self.field(key)?.as_u64()).filter(|&number| number > 0)
    }

    /// Whether the field is there and true.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.field(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// `model_type`, or nothing.
    pub(super) fn model_type(&self) -> &'a str {
        self.field("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Rows of q, k and v, where the file tells the number of heads and their size.
    pub(super) fn head_rows(&self) -> Option<HeadRows> {
        let heads = self.number(&["num_attention_heads", "n_head", "n_heads", "num_heads"])?;
        let width = || self.number(&["hidden_size", "n_embd", "d_model", "embed_dim"]);
        let size = self.number(&["head_dim", "kv_channels", "d_kv"]).or_else(|| {
            let width = width()?;
            (width % heads == 0).then(|| width / heads)
        })?;
        let kv_heads = self.kv_heads().unwrap_or(heads);
        Some(HeadRows {
            q: heads.checked_mul(size)?,
            kv: kv_heads.checked_mul(size)?,
            all_equal: kv_heads == heads,
        })
    }

    fn kv_heads(&self) -> Option<u64> {
        if self.flag("multi_query") && !self.flag("new_decoder_architecture") {
            return Some(1);
        }
        self.number(&["num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"])
    }

    /// Rows and columns of the blocks that share a scale: `quantization_config.weight_block_size`, else 128 × 128
    /// as in DeepSeek-V3 (arXiv 2412.19437, section 3.3.2).
    pub(super) fn weight_block_size(&self) -> (u64, u64) {
        let sizes = self.field("quantization_config").and_then(|section| section.get("weight_block_size"));
        let at = |i: usize| sizes?.get(i)?.as_u64().filter(|&size| size > 0);
        match (at(0), at(1)) {
            (Some(rows), Some(cols)) => (rows, cols),
            _ => (128, 128),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(config: &Value, tensor: &str) -> Option<(u64, u64)> {
        Config::of(Some(config), tensor).head_rows().map(|rows| (rows.q, rows.kv))
    }

    #[test]
    fn heads_under_the_names_that_models_use() {
        let llama = json!({"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096});
        assert_eq!(rows(&llama, "a"), Some((4096, 1024)));
        assert_eq!(rows(&json!({"n_head": 12, "n_embd": 768}), "a"), Some((768, 768)));
        let gemma = json!({"text_config": {"num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "hidden_size": 2304}, "vision_config": {"num_heads": 16, "hidden_size": 1280}});
        assert_eq!(rows(&gemma, "model.layers.0.x"), Some((2048, 1024)));
        assert_eq!(rows(&gemma, "visual.blocks.0.attn.qkv"), Some((1280, 1280)));
        assert_eq!(
            rows(&json!({"n_head": 71, "hidden_size": 4544, "multi_query": true}), "a"),
            Some((4544, 64))
        );
    }

    #[test]
    fn nonsense_gives_nothing() {
        for config in [
            json!(null),
            json!([1]),
            json!({"n_head": 0, "n_embd": 8}),
            json!({"n_head": -2, "n_embd": 8}),
            json!({"n_head": "12", "n_embd": 768}),
            json!({"n_head": 7, "n_embd": 768}),
            json!({"n_head": u64::MAX, "head_dim": 2}),
        ] {
            assert_eq!(rows(&config, "a"), None, "{config}");
        }
    }

    #[test]
    fn block_size_comes_from_the_file_or_is_128() {
        let set = json!({"quantization_config": {"weight_block_size": [64, 32]}});
        assert_eq!(Config::of(Some(&set), "a").weight_block_size(), (64, 32));
        let zero = json!({"quantization_config": {"weight_block_size": [0, 32]}});
        assert_eq!(Config::of(Some(&zero), "a").weight_block_size(), (128, 128));
        assert_eq!(Config::of(None, "a").weight_block_size(), (128, 128));
    }
}
