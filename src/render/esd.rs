//! One layer's eigenvalues.

use super::data::internal;
use crate::Result;
use npyz::WriterBuilder;
use serde_json::json;

/// One eigenvalue a line, ascending, in full precision.
pub fn esd_text(eigenvalues: &[f64]) -> String {
    eigenvalues.iter().map(|value| format!("{value:?}\n")).collect()
}

/// An object with the layer's name, how the eigenvalues were found, their noise floor, and `eigenvalues`; if these
/// are the largest alone, `num_evals`, how many there are, and `errors`, a bound for each.
///
/// # Errors
/// `Internal` if they cannot be written as JSON.
pub fn esd_json(layer: &str, spectrum: &crate::spectrum::Spectrum) -> Result<String> {
    let mut object = json!({
        "layer": layer,
        "method": spectrum.method(),
        "noise_floor": spectrum.noise_floor(),
        "eigenvalues": spectrum.pooled(),
    });
    if let Some(partial) = &spectrum.partial {
        object["num_evals"] = json!(partial.order);
        object["errors"] = json!(partial.errors);
    }
    let mut text = serde_json::to_string_pretty(&object).map_err(|e| internal(&e))?;
    text.push('\n');
    Ok(text)
}

/// A one-dimensional `<f8` array in NumPy's .npy format.
///
/// # Errors
/// `Internal` if the array cannot be written.
pub fn esd_npy(eigenvalues: &[f64]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(&[eigenvalues.len() as u64]);
    let mut writer = options.writer(&mut bytes).begin_nd().map_err(|e| internal(&e))?;
    writer.extend(eigenvalues.iter().copied()).map_err(|e| internal(&e))?;
    writer.finish().map_err(|e| internal(&e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_is_read_back_by_its_own_header() {
        let bytes = esd_npy(&[1.5, 2.5, 1e-300]).unwrap();
        let array = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(array.shape(), &[3]);
        assert_eq!(array.into_vec::<f64>().unwrap(), [1.5, 2.5, 1e-300]);
    }

    #[test]
    fn text_keeps_every_bit() {
        let values = [0.1 + 0.2, 5e-324, 1.797e308];
        let text = esd_text(&values);
        let back: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(back, values);
    }
}
