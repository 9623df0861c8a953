//! One layer's eigenvalues.

use super::data::internal;
use crate::Result;
use npyz::WriterBuilder;
use serde_json::json;

/// One eigenvalue a line, ascending, in full precision.
pub fn esd_text(eigenvalues: &[f64]) -> String {
    eigenvalues.iter().map(|value| format!("{value:?}\n")).collect()
}

/// Eigenvalues and where they come from.
#[derive(Debug, Clone, Copy)]
pub struct Esd<'a> {
    /// Name of the layer.
    pub layer: &'a str,
    /// How they were found: gram, svd or randomized.
    pub method: &'a str,
    /// Absolute error to expect of each.
    pub noise_floor: f64,
    /// The eigenvalues, ascending.
    pub eigenvalues: &'a [f64],
    /// How many the layer has, if these are the largest alone.
    pub num_evals: Option<u64>,
    /// A bound for the error of each, if these are the largest alone and it is known.
    pub errors: Option<&'a [f64]>,
}

/// An object with the fields of [`Esd`]; the last two only where they are known.
///
/// # Errors
/// `Internal` if they cannot be written as JSON.
pub fn esd_json(esd: &Esd<'_>) -> Result<String> {
    let mut object = json!({
        "layer": esd.layer,
        "method": esd.method,
        "noise_floor": esd.noise_floor,
        "eigenvalues": esd.eigenvalues,
    });
    if let Some(num_evals) = esd.num_evals {
        object["num_evals"] = json!(num_evals);
    }
    if let Some(errors) = esd.errors {
        object["errors"] = json!(errors);
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
