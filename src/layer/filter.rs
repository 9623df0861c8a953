//! Which layers a user's patterns leave.

use super::{Layer, Layers, SkipReason, Skipped};
use crate::{Error, Result};
use wildmatch::WildMatch;

/// Keeps the layers whose name matches one of `patterns` (`*` and `?` are wild); the others are skipped as
/// [`SkipReason::Filtered`]. Without patterns all stay. `field` names the option in messages.
///
/// # Errors
/// `InvalidArgument` if a pattern matches no layer: a mistake worth telling.
pub fn filter(layers: &mut Layers, patterns: &[String], field: &str) -> Result<()> {
    if patterns.is_empty() {
        return Ok(());
    }
    let wild: Vec<WildMatch> = patterns.iter().map(|p| WildMatch::new(p)).collect();
    for (pattern, wild) in patterns.iter().zip(&wild) {
        if !layers.layers.iter().any(|layer| wild.matches(&layer.name)) {
            return Err(Error::invalid(format!("no layer matches '{pattern}'")).in_field(field));
        }
    }
    let all = std::mem::take(&mut layers.layers);
    let (kept, left): (Vec<Layer>, Vec<Layer>) =
        all.into_iter().partition(|layer| wild.iter().any(|w| w.matches(&layer.name)));
    layers.layers = kept;
    layers.skipped.extend(left.into_iter().map(|layer| Skipped {
        tensor: layer.tensor,
        layer_id: Some(layer.layer_id),
        name: layer.name,
        reason: SkipReason::Filtered,
        detail: "its name matches no pattern".to_owned(),
    }));
    layers.skipped.sort_by_key(|skipped| skipped.tensor); // stable: the parts of a tensor stay in order
    Ok(())
}
