//! What to compute. The server checks it as the command line does: `analysis::Asked`.

use crate::analysis::{Asked, Compat, Field, Naming, Options};
use crate::layer::Conv;
use crate::rpc::proto::v1;
use crate::spectrum::MethodChoice;
use crate::{Error, Result};

/// The options of a request, and its patterns of layers, for [`crate::layer::filter`].
///
/// # Errors
/// `InvalidArgument` with the field's path in the request, such as `options.method`.
pub fn options_from_proto(options: Option<&v1::AnalysisOptions>) -> Result<(Options, Vec<String>)> {
    let asked = options.map(asked).transpose()?.unwrap_or_default();
    let options = asked.options(Naming::Fields)?;
    Ok((options, asked.layers))
}

/// A request's options: every default written out, so that they mean the same to a server whose defaults differ.
pub fn options_to_proto(options: &Options, layers: &[String]) -> v1::AnalysisOptions {
    let operator = options.layers.conv == Conv::Operator;
    v1::AnalysisOptions {
        compat: v1::Compat::from(options.compat).into(),
        layers: layers.to_vec(),
        conv: v1::Conv::from(options.layers.conv).into(),
        grid: operator.then_some(options.layers.grid),
        split_gates: options.layers.split_gates,
        split_fused: options.layers.split_fused,
        method: options.method.to_string(),
        erg: options.erg,
        mp: options.mp,
        randomize: options.randomize,
        vectors: options.vectors,
        seed: options.seed,
        min_evals: Some(options.layers.min_evals),
        max_evals: options.layers.max_evals,
        max_n: options.layers.max_n,
    }
}

fn asked(options: &v1::AnalysisOptions) -> Result<Asked> {
    Ok(Asked {
        compat: compat_of(options.compat)?,
        layers: options.layers.clone(),
        conv: conv_of(options.conv)?,
        grid: options.grid,
        split_gates: options.split_gates,
        split_fused: options.split_fused,
        method: method_of(&options.method)?,
        erg: options.erg,
        mp: options.mp,
        randomize: options.randomize,
        vectors: options.vectors,
        seed: options.seed,
        min_evals: options.min_evals,
        max_evals: options.max_evals,
        max_n: options.max_n,
    })
}

fn unknown(number: i32, field: Field) -> Error {
    Error::invalid(format!("{number} is no value that we know")).in_field(Naming::Fields.name(field))
}

fn compat_of(number: i32) -> Result<Compat> {
    match v1::Compat::try_from(number) {
        Ok(v1::Compat::Unspecified) => Ok(Compat::None),
        Ok(v1::Compat::Ww077) => Ok(Compat::Ww077),
        Err(_) => Err(unknown(number, Field::Compat)),
    }
}

fn conv_of(number: i32) -> Result<Conv> {
    match v1::Conv::try_from(number) {
        Ok(v1::Conv::Unspecified | v1::Conv::Pool) => Ok(Conv::Pool),
        Ok(v1::Conv::Slices) => Ok(Conv::Slices),
        Ok(v1::Conv::Flatten) => Ok(Conv::Flatten),
        Ok(v1::Conv::Operator) => Ok(Conv::Operator),
        Err(_) => Err(unknown(number, Field::Conv)),
    }
}

fn method_of(text: &str) -> Result<MethodChoice> {
    if text.is_empty() {
        return Ok(MethodChoice::default());
    }
    let wrong =
        |why: String| Error::invalid(format!("'{text}': {why}")).in_field(Naming::Fields.name(Field::Method));
    text.parse().map_err(wrong)
}

impl From<Compat> for v1::Compat {
    fn from(compat: Compat) -> Self {
        match compat {
            Compat::None => Self::Unspecified,
            Compat::Ww077 => Self::Ww077,
        }
    }
}

impl From<Conv> for v1::Conv {
    fn from(conv: Conv) -> Self {
        match conv {
            Conv::Pool => Self::Pool,
            Conv::Slices => Self::Slices,
            Conv::Flatten => Self::Flatten,
            Conv::Operator => Self::Operator,
        }
    }
}
