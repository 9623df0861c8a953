//! Options as they are asked for, on the command line or over gRPC: what may be left out, what cannot be combined,
//! and what each is called there.

use super::options::{Compat, Options};
use crate::layer::{Conv, LayerOptions};
use crate::spectrum::MethodChoice;
use crate::{Error, Result};

/// Most patterns of layers in one request.
const MOST_PATTERNS: usize = 1000;

/// Longest pattern in bytes.
const LONGEST_PATTERN: usize = 1024;

/// What was asked for. `None` and `false`: left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whose numbers to give.
    pub compat: Compat,
    /// Patterns of layer names (`*` and `?` are wild); none: all layers.
    pub layers: Vec<String>,
    /// How convolutions unfold.
    pub conv: Conv,
    /// Points of the grid along each dimension of a kernel, 1 to 65,536.
    pub grid: Option<u64>,
    /// One layer a gate of a recurrent weight.
    pub split_gates: bool,
    /// One layer a part of a fused weight.
    pub split_fused: bool,
    /// How eigenvalues are found.
    pub method: MethodChoice,
    /// The ERG condition.
    pub erg: bool,
    /// The Marchenko-Pastur fit.
    pub mp: bool,
    /// The permuted matrix.
    pub randomize: bool,
    /// Localisation of the eigenvectors.
    pub vectors: bool,
    /// Seed of permutations and random blocks.
    pub seed: Option<u64>,
    /// Layers with fewer eigenvalues are skipped.
    pub min_evals: Option<u64>,
    /// Layers with more are skipped.
    pub max_evals: Option<u64>,
    /// Layers whose longer side is longer are skipped.
    pub max_n: Option<u64>,
}

/// What options are called in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// As flags of the command line.
    Flags,
    /// As fields of a request with `spectrald.v1.AnalysisOptions options`.
    Fields,
}

/// An option that a message can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of `Asked`")]
pub enum Field {
    Compat,
    Layers,
    Conv,
    Grid,
    SplitGates,
    SplitFused,
    Method,
    Erg,
    Mp,
    Randomize,
    Vectors,
    MinEvals,
    MaxEvals,
}

impl Naming {
    /// What `field` is called.
    pub fn name(self, field: Field) -> &'static str {
        let (flag, path) = match field {
            Field::Compat => ("--compat", "options.compat"),
            Field::Layers => ("--layers", "options.layers"),
            Field::Conv => ("--conv", "options.conv"),
            Field::Grid => ("--grid", "options.grid"),
            Field::SplitGates => ("--split-gates", "options.split_gates"),
            Field::SplitFused => ("--split-fused", "options.split_fused"),
            Field::Method => ("--method", "options.method"),
            Field::Erg => ("--erg", "options.erg"),
            Field::Mp => ("--mp", "options.mp"),
            Field::Randomize => ("--randomize", "options.randomize"),
            Field::Vectors => ("--vectors", "options.vectors"),
            Field::MinEvals => ("--min-evals", "options.min_evals"),
            Field::MaxEvals => ("--max-evals", "options.max_evals"),
        };
        match self {
            Self::Flags => flag,
            Self::Fields => path,
        }
    }

    /// What is typed to take convolutions as operators.
    fn operator(self) -> &'static str {
        match self {
            Self::Flags => "--conv operator",
            Self::Fields => "options.conv CONV_OPERATOR",
        }
    }
}

impl Asked {
    /// The options that follow, with defaults for what was left out.
    ///
    /// # Errors
    /// `InvalidArgument` with the option's name if options contradict each other or are out of range.
    pub fn options(&self, naming: Naming) -> Result<Options> {
        self.check(naming)?;
        let mut options = match self.compat {
            Compat::Ww077 => Options::ww_0_7_7(self.conv),
            Compat::None => Options {
                layers: LayerOptions { conv: self.conv, ..LayerOptions::default() },
                ..Options::default()
            },
        };
        let layers = &mut options.layers;
        layers.grid = self.grid.unwrap_or(layers.grid);
        layers.split_gates = self.split_gates;
        layers.split_fused = self.split_fused;
        layers.min_evals = self.min_evals.unwrap_or(layers.min_evals);
        layers.max_evals = self.max_evals.or(layers.max_evals);
        layers.max_n = self.max_n.or(layers.max_n);
        if layers.max_evals.is_some_and(|most| most < layers.min_evals) {
            let message = format!("is below {}", naming.name(Field::MinEvals));
            return Err(wrong(naming, Field::MaxEvals, message));
        }
        options.method = self.method;
        options.erg = self.erg;
        options.mp = self.mp;
        options.randomize = self.randomize;
        options.vectors = self.vectors;
        options.seed = self.seed;
        Ok(options)
    }

    fn check(&self, naming: Naming) -> Result<()> {
        self.check_patterns(naming)?;
        self.check_operator(naming)?;
        self.check_compat(naming)?;
        let whole = self.need_whole_spectrum(naming);
        if self.method.is_randomized() && !whole.is_empty() {
            let message = format!(
                "the largest eigenvalues alone do not give what {} needs, the whole spectrum; leave out one or the other",
                whole.join(", ")
            );
            let name = match naming {
                Naming::Flags => "--method randomized",
                Naming::Fields => naming.name(Field::Method),
            };
            return Err(Error::invalid(message).in_field(name));
        }
        Ok(())
    }

    fn check_patterns(&self, naming: Naming) -> Result<()> {
        if self.layers.len() > MOST_PATTERNS {
            let message = format!("{} patterns; at most {MOST_PATTERNS}", self.layers.len());
            return Err(wrong(naming, Field::Layers, message));
        }
        if let Some(long) = self.layers.iter().find(|pattern| pattern.len() > LONGEST_PATTERN) {
            let message = format!("a pattern of {} bytes; at most {LONGEST_PATTERN}", long.len());
            return Err(wrong(naming, Field::Layers, message));
        }
        Ok(())
    }

    /// What an operator cannot be combined with.
    fn check_operator(&self, naming: Naming) -> Result<()> {
        let operator = self.conv == Conv::Operator;
        if operator && self.compat == Compat::Ww077 {
            let message = format!(
                "WeightWatcher does not take convolutions as operators (its conv2d_fft is another thing); use \
                 pool or slices with {}",
                naming.name(Field::Compat)
            );
            return Err(wrong(naming, Field::Conv, message));
        }
        if operator && self.vectors {
            let message = format!(
                "the eigenvectors of an operator are not computed; leave it out with {}",
                naming.operator()
            );
            return Err(wrong(naming, Field::Vectors, message));
        }
        match self.grid {
            Some(_) if !operator => {
                let message = format!("is the grid of {} alone", naming.operator());
                Err(wrong(naming, Field::Grid, message))
            }
            Some(points) if !(1..=65_536).contains(&points) => {
                Err(wrong(naming, Field::Grid, format!("{points} is not in 1..=65536")))
            }
            _ => Ok(()),
        }
    }

    /// What WeightWatcher does not have.
    fn check_compat(&self, naming: Naming) -> Result<()> {
        if self.compat == Compat::None {
            return Ok(());
        }
        let compat = naming.name(Field::Compat);
        if self.split_gates || self.split_fused {
            let message = format!("WeightWatcher does not split tensors; leave it out with {compat}");
            let name = match (naming, self.split_gates) {
                (Naming::Flags, _) => "--split-gates, --split-fused",
                (Naming::Fields, true) => naming.name(Field::SplitGates),
                (Naming::Fields, false) => naming.name(Field::SplitFused),
            };
            return Err(Error::invalid(message).in_field(name));
        }
        if self.conv == Conv::Flatten {
            let message =
                format!("WeightWatcher does not flatten convolutions; use pool or slices with {compat}");
            return Err(wrong(naming, Field::Conv, message));
        }
        Ok(())
    }

    /// The options asked for that need the whole spectrum.
    fn need_whole_spectrum(&self, naming: Naming) -> Vec<&'static str> {
        let asked = [
            (Field::Compat, self.compat == Compat::Ww077),
            (Field::Erg, self.erg),
            (Field::Mp, self.mp),
            (Field::Randomize, self.randomize),
            (Field::Vectors, self.vectors),
        ];
        asked.into_iter().filter(|(_, on)| *on).map(|(field, _)| naming.name(field)).collect()
    }
}

fn wrong(naming: Naming, field: Field, message: String) -> Error {
    Error::invalid(message).in_field(naming.name(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options that contradict each other, and what is said of them on the command line and to a client.
    type Case = (Asked, &'static str, &'static str);

    fn operators() -> Vec<Case> {
        let operator = Asked { conv: Conv::Operator, ..Asked::default() };
        vec![
            (
                Asked { vectors: true, ..operator.clone() },
                "field '--vectors': the eigenvectors of an operator are not computed; leave it out with --conv operator",
                "field 'options.vectors': the eigenvectors of an operator are not computed; leave it out with options.conv CONV_OPERATOR",
            ),
            (
                Asked { compat: Compat::Ww077, ..operator.clone() },
                "field '--conv': WeightWatcher does not take convolutions as operators (its conv2d_fft is another thing); use pool or slices with --compat",
                "field 'options.conv': WeightWatcher does not take convolutions as operators (its conv2d_fft is another thing); use pool or slices with options.compat",
            ),
            (
                Asked { grid: Some(32), ..Asked::default() },
                "field '--grid': is the grid of --conv operator alone",
                "field 'options.grid': is the grid of options.conv CONV_OPERATOR alone",
            ),
            (
                Asked { grid: Some(0), ..operator },
                "field '--grid': 0 is not in 1..=65536",
                "field 'options.grid': 0 is not in 1..=65536",
            ),
        ]
    }

    fn weightwatcher() -> Vec<Case> {
        let compat = Asked { compat: Compat::Ww077, ..Asked::default() };
        vec![
            (
                Asked { split_fused: true, ..compat.clone() },
                "field '--split-gates, --split-fused': WeightWatcher does not split tensors; leave it out with --compat",
                "field 'options.split_fused': WeightWatcher does not split tensors; leave it out with options.compat",
            ),
            (
                Asked { conv: Conv::Flatten, ..compat },
                "field '--conv': WeightWatcher does not flatten convolutions; use pool or slices with --compat",
                "field 'options.conv': WeightWatcher does not flatten convolutions; use pool or slices with options.compat",
            ),
        ]
    }

    fn limits() -> Vec<Case> {
        let randomized = Asked { method: MethodChoice::Randomized(None), ..Asked::default() };
        vec![
            (
                Asked { erg: true, mp: true, ..randomized },
                "field '--method randomized': the largest eigenvalues alone do not give what --erg, --mp needs, the whole spectrum; leave out one or the other",
                "field 'options.method': the largest eigenvalues alone do not give what options.erg, options.mp needs, the whole spectrum; leave out one or the other",
            ),
            (
                Asked { max_evals: Some(2), ..Asked::default() },
                "field '--max-evals': is below --min-evals",
                "field 'options.max_evals': is below options.min_evals",
            ),
            (
                Asked { layers: vec![String::new(); 1001], ..Asked::default() },
                "field '--layers': 1001 patterns; at most 1000",
                "field 'options.layers': 1001 patterns; at most 1000",
            ),
            (
                Asked { layers: vec!["*".repeat(1025)], ..Asked::default() },
                "field '--layers': a pattern of 1025 bytes; at most 1024",
                "field 'options.layers': a pattern of 1025 bytes; at most 1024",
            ),
        ]
    }

    #[test]
    fn each_contradiction_is_told_in_the_words_of_the_asker() {
        for (asked, flags, fields) in [operators(), weightwatcher(), limits()].concat() {
            let message = |naming| asked.options(naming).unwrap_err().to_string();
            assert_eq!((message(Naming::Flags).as_str(), message(Naming::Fields).as_str()), (flags, fields));
        }
    }
}
