//! Commands that compute in this process.

use super::args::{AnalyzeArgs, DescribeArgs, DescribeFormat, EsdArgs, MeansArgs, WhatArgs};
use super::{interrupt, output, progress::Bar, reports};
use crate::analysis::{self, Field, LayerInput, Naming, Options};
use crate::layer::{self, Layer};
use crate::render::{self, Esd};
use crate::run::{self, Model, RunOptions};
use crate::source::{self, SourceOptions};
use crate::{Error, ErrorKind, Result, format};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// `spectrald analyze`.
pub(super) fn analyze(args: &AnalyzeArgs) -> Result<ExitCode> {
    let options = args.what.options()?;
    output::check(args.report.output.as_deref())?;
    let run = run_options(&args.means, interrupt::flag());
    let mut found = Vec::new();
    for uri in &args.models {
        let model = open(uri, &args.what, &options)?;
        let bar = Bar::new(!args.means.quiet && output::stderr_is_terminal());
        let report = run::analyze(&model, &options, &run, &bar);
        bar.clear();
        found.push(report.map_err(|e| e.in_model(&model.catalog.uri))?);
    }
    reports::print(&found, &args.report)
}

/// `spectrald describe`.
pub(super) fn describe(args: &DescribeArgs) -> Result<ExitCode> {
    let options = args.what.options()?;
    output::check(args.output.as_deref())?;
    let mut descriptions = Vec::new();
    for uri in &args.models {
        descriptions.push(render::describe_rows(&open(uri, &args.what, &options)?, &options));
    }
    let colour = output::stdout_has_colour(args.output.as_deref());
    let text = match args.format {
        DescribeFormat::Json => render::describe_json(&descriptions)?,
        DescribeFormat::Csv => render::describe_csv(&descriptions)?,
        DescribeFormat::Table => {
            let tables = descriptions.iter().map(|d| render::describe_table(d, colour));
            tables.collect::<Vec<_>>().join("\n")
        }
    };
    output::write(text.as_bytes(), args.output.as_deref())?;
    let nothing = descriptions.iter().any(|d| d.rows.iter().all(|row| row.action == "skip"));
    Ok(if nothing { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// `spectrald esd`.
pub(super) fn esd(args: &EsdArgs) -> Result<ExitCode> {
    let options = args.what.options()?;
    output::check(args.output.as_deref())?;
    let model = open(&args.model, &args.what, &options)?;
    let layer = find(&model, &args.layer)?;
    let cancel = interrupt::flag();
    let needed = crate::plan::cost(&model.catalog, layer, &options).peak_bytes;
    let run = run_options(&args.means, Arc::clone(&cancel));
    if needed > run.memory {
        return Err(run::needs_memory(needed, run.memory).in_tensor(&layer.name).in_file(&model.catalog.uri));
    }
    let placed = |e: Error| e.in_tensor(&layer.name).in_model(&model.catalog.uri);
    let mut input = LayerInput::open(&model.catalog, layer, &cancel).map_err(placed)?;
    input.threads = run.threads.min(2);
    let spectrum = analysis::layer_spectrum(&mut input, &options).map_err(placed)?;
    let values = spectrum.pooled();
    let esd = Esd {
        layer: &layer.name,
        method: spectrum.method().name(),
        noise_floor: spectrum.noise_floor(),
        eigenvalues: &values,
        num_evals: spectrum.partial.as_ref().map(|partial| partial.order as u64),
        errors: spectrum.partial.as_ref().map(|partial| partial.errors.as_slice()),
    };
    reports::print_esd(&esd, args.format, args.output.as_deref())
}

fn open(uri: &str, what: &WhatArgs, options: &Options) -> Result<Model> {
    let source = source::open(uri, &SourceOptions::default())?;
    let catalog = format::read_catalog(source.as_ref()).map_err(|e| e.in_model(source.uri()))?;
    reports::note(source.uri(), &catalog.notes);
    let mut layers = layer::layers(&catalog, &options.layers);
    layer::filter(&mut layers, &what.filters, Naming::Flags.name(Field::Layers))?;
    Ok(Model { catalog, layers })
}

fn find<'a>(model: &'a Model, name: &str) -> Result<&'a Layer> {
    let layers = &model.layers.layers;
    let tensor_name = |layer: &Layer| model.catalog.tensors.get(layer.tensor).map(|t| t.name.as_str());
    let found = layers.iter().find(|layer| layer.name == name);
    if let Some(layer) = found.or_else(|| layers.iter().find(|layer| tensor_name(layer) == Some(name))) {
        return Ok(layer);
    }
    if let Some(skipped) = model.layers.skipped.iter().find(|skipped| skipped.name == name) {
        let message = format!("is not analysed: {}: {}", skipped.reason.code(), skipped.detail);
        return Err(Error::invalid(message).in_tensor(name).in_file(&model.catalog.uri));
    }
    let near = layers.iter().max_by_key(|layer| common(&layer.name, name)).map(|layer| layer.name.as_str());
    let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
    let message = format!("no layer '{name}' among {}{hint}", layers.len());
    Err(Error::new(ErrorKind::NotFound, message).in_file(&model.catalog.uri))
}

/// Length of the common beginning and end of two names.
fn common(a: &str, b: &str) -> usize {
    let start = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let end = a.chars().rev().zip(b.chars().rev()).take_while(|(x, y)| x == y).count();
    start + end
}

fn run_options(means: &MeansArgs, cancel: Arc<AtomicBool>) -> RunOptions {
    let threads = means.threads.map(usize::from);
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = means.memory.map_or_else(run::default_memory, |size| size.as_u64());
    RunOptions { threads: threads.unwrap_or(available), memory, cancel }
}
