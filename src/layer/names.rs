//! A tensor's name, taken apart: the layer it belongs to and the words on the way there.

use crate::format::Catalog;
use std::collections::HashMap;

/// Where each tensor stands in the catalog, by name.
pub(super) type Index<'a> = HashMap<&'a str, usize>;

/// The catalog's tensors by name.
pub(super) fn index(catalog: &Catalog) -> Index<'_> {
    catalog.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.as_str(), i)).collect()
}

/// The layer's name: the tensor's without `.qweight` and `.weight` at its end (WeightWatcher's `longname`).
pub(super) fn layer_name(tensor: &str) -> &str {
    let name = strip(tensor, ".qweight");
    strip(name, ".weight")
}

fn strip<'a>(name: &'a str, suffix: &str) -> &'a str {
    name.strip_suffix(suffix).filter(|rest| !rest.is_empty()).unwrap_or(name)
}

/// The name in lower case, cut at its dots and slashes; never empty.
pub(super) fn words(name: &str) -> Vec<String> {
    name.to_lowercase().split(['.', '/']).map(str::to_owned).collect()
}

/// The last word of the tensor's name, e.g. `weight`, `bias`, `in_proj_weight`; in lower case.
pub(super) fn last_word(name: &str) -> String {
    name.rsplit(['.', '/']).next().unwrap_or(name).to_lowercase()
}

/// Whether the word is a number, such as the `3` of `layers.3`.
pub(super) fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// Shapes as people write them: `[64, 1, 3]`.
pub(super) fn shape_text(shape: &[u64]) -> String {
    format!("{shape:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_the_tensor_without_its_weight() {
        for (tensor, layer) in [
            ("a.b.weight", "a.b"),
            ("a.b.weight.qweight", "a.b"),
            ("a.b.qweight", "a.b"),
            ("lstm.weight_ih_l0", "lstm.weight_ih_l0"),
            ("attn.in_proj_weight", "attn.in_proj_weight"),
            ("weight", "weight"),
            (".weight", ".weight"),
            ("", ""),
        ] {
            assert_eq!(layer_name(tensor), layer, "{tensor}");
        }
    }

    #[test]
    fn numbers_are_ascii_digits() {
        assert!(is_number("12"));
        assert!(!is_number("") && !is_number("-1") && !is_number("١") && !is_number("1a"));
    }
}
