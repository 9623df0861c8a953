//! The table for people.

use crate::analysis::{LayerReport, ModelReport, Status, Summary, distance_from_range};
use crate::error::printable;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};
use std::fmt::Write;

/// One rule, below the header.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// How the table looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableOptions {
    /// Colours by escape codes.
    pub colour: bool,
    /// The layers farthest from 2 ≤ alpha ≤ 6 first, instead of the model's order.
    pub worst_first: bool,
    /// A line for every skipped tensor, instead of a count by reason.
    pub show_skipped: bool,
}

/// One model's report: a line about the model, the layers, what was skipped, the summary.
pub fn table(report: &ModelReport, options: &TableOptions) -> String {
    let mut rows: Vec<&LayerReport> = report.layers.iter().collect();
    if options.worst_first {
        rows.sort_by(|a, b| distance_from_range(b).total_cmp(&distance_from_range(a)));
    }
    let shown = rows.iter().filter(|row| row.status != Status::Skipped);
    let mut layers = new_table(options.colour);
    layers.set_header(header(report));
    for row in shown {
        layers.add_row(line(row, report));
    }
    align(&mut layers);
    let summary = &report.summary;
    let (uri, format) = (printable(&report.model.uri), report.model.format);
    let mut text = format!("{uri} ({format}, {} tensors)\n{layers}\n", summary.tensors);
    text.push_str(&skipped(report, &rows, options));
    text.push_str(&summary_lines(summary));
    text
}

/// A table in the house's style: one rule, below the header.
pub(crate) fn new_table(colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn header(report: &ModelReport) -> Vec<&'static str> {
    let mut names =
        vec!["layer", "type", "N × M", "alpha", "±", "D", "tail", "λmax", "stable rank", "entropy"];
    if report.options.method.is_randomized() {
        names.push("certificate");
    }
    if report.options.erg {
        names.push("ERG gap");
    }
    if report.options.mp {
        names.push("spikes");
    }
    if report.options.randomize {
        names.push("traps");
    }
    names.push("");
    names
}

fn line(row: &LayerReport, report: &ModelReport) -> Vec<Cell> {
    let name = match row.slice_id {
        Some(slice) if !row.name.ends_with([']', ')']) => format!("{}:{slice}", row.name),
        _ => row.name.clone(),
    };
    let size = match (row.n, row.m, row.rf) {
        (Some(n), Some(m), Some(rf)) if rf > 1 => format!("{n} × {m} × {rf}"),
        (Some(n), Some(m), _) => format!("{n} × {m}"),
        _ => String::new(),
    };
    let spikes = |count: Option<i64>| count.map(|c| c.to_string()).unwrap_or_default();
    let mut cells = vec![
        Cell::new(printable(&name)),
        Cell::new(row.layer_type.clone().unwrap_or_default()),
        Cell::new(size),
        coloured(number(row.fit.alpha), row.warning.as_deref()),
        Cell::new(number(row.fit.sigma)),
        Cell::new(number(row.fit.d)),
        Cell::new(spikes(row.fit.num_pl_spikes)),
        Cell::new(number(row.esd.lambda_max)),
        Cell::new(number(row.norms.stable_rank)),
        Cell::new(number(row.norms.entropy)),
    ];
    if report.options.method.is_randomized() {
        let certificate = row.partial.as_ref().and_then(|partial| partial.certificate);
        cells.push(Cell::new(certificate.unwrap_or_default()));
    }
    if report.options.erg {
        cells.push(Cell::new(spikes(row.erg.as_ref().and_then(|erg| erg.erg_gap))));
    }
    if report.options.mp {
        cells.push(Cell::new(spikes(row.mp.as_ref().and_then(|mp| mp.num_spikes))));
    }
    if report.options.randomize {
        cells.push(Cell::new(spikes(row.random.as_ref().and_then(|random| random.num_traps))));
    }
    cells.push(match row.status {
        Status::Success => coloured(row.warning.clone().unwrap_or_default(), row.warning.as_deref()),
        _ => Cell::new(why(row)).fg(Color::Red),
    });
    cells
}

fn why(row: &LayerReport) -> String {
    let reason = row.reason.as_deref().unwrap_or("failed");
    row.detail.as_ref().map_or_else(|| reason.to_owned(), |detail| format!("{reason}: {}", printable(detail)))
}

fn coloured(text: String, warning: Option<&str>) -> Cell {
    match warning {
        Some("over-trained") => Cell::new(text).fg(Color::Magenta),
        Some("under-trained") => Cell::new(text).fg(Color::Yellow),
        _ => Cell::new(text),
    }
}

fn align(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index > 1 && index < last {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Four significant digits, without an exponent where that is short.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(0.0) => "0".to_owned(),
        Some(x) if (1e-3..1e5).contains(&x.abs()) => {
            let digits = (3 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
            format!("{x:.digits$}")
        }
        Some(x) => format!("{x:.3e}"),
    }
}

fn skipped(report: &ModelReport, rows: &[&LayerReport], options: &TableOptions) -> String {
    let summary = &report.summary;
    if summary.skipped == 0 {
        return String::new();
    }
    let counts: Vec<String> =
        summary.skipped_by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let mut text = format!("skipped {}: {}", summary.skipped, counts.join(", "));
    if options.show_skipped {
        for row in rows.iter().filter(|row| row.status == Status::Skipped) {
            let _ =
                write!(text, "\n  {} {:?} {}: {}", printable(&row.tensor), row.shape, row.dtype, why(row));
        }
    } else {
        text.push_str(" (--show-skipped lists them)");
    }
    text.push('\n');
    text
}

fn summary_lines(summary: &Summary) -> String {
    let mut text = format!(
        "analysed {} layers, {:.1} % of {} parameters; failed {}; over-trained {} (alpha < 2), under-trained {} (alpha > 6)\n",
        summary.layers_analysed,
        100.0 * summary.coverage,
        summary.parameters,
        summary.layers_failed,
        summary.over_trained,
        summary.under_trained
    );
    let means: Vec<String> =
        summary.means.iter().map(|(name, mean)| format!("{name} {}", number(Some(*mean)))).collect();
    if !means.is_empty() {
        let _ = writeln!(text, "means: {}", means.join(", "));
    }
    let roles: Vec<String> = summary
        .by_role
        .iter()
        .filter_map(|(role, means)| Some(format!("{role} {}", number(Some(*means.get("alpha")?)))))
        .collect();
    if !roles.is_empty() {
        let _ = writeln!(text, "alpha by role: {}", roles.join(", "));
    }
    let worst: Vec<String> = summary
        .worst
        .iter()
        .take(3)
        .map(|w| format!("{} ({})", printable(&w.name), number(Some(w.alpha))))
        .collect();
    if !worst.is_empty() {
        let _ = writeln!(text, "look first at: {}", worst.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{ModelIdentity, Options, Timings, Tool, Worst};

    /// Names come from the model's file: an escape sequence in one must not reach the terminal.
    #[test]
    fn names_from_the_file_are_escaped() {
        let name = "a\u{1b}[31m\nb".to_owned();
        let row = |status| LayerReport {
            name: name.clone(),
            tensor: name.clone(),
            detail: Some(name.clone()),
            status,
            ..LayerReport::default()
        };
        let worst = vec![Worst { name: name.clone(), alpha: 1.0, warning: String::new() }];
        let report = ModelReport {
            schema_version: 1,
            tool: Tool::default(),
            model: ModelIdentity {
                uri: name.clone(),
                format: "safetensors",
                files: Vec::new(),
                metadata: std::collections::BTreeMap::new(),
                notes: Vec::new(),
            },
            options: Options::default(),
            summary: Summary { skipped: 1, worst, ..Summary::default() },
            layers: vec![row(Status::Failed), row(Status::Success), row(Status::Skipped)],
            timings: Timings::default(),
        };
        let text = table(&report, &TableOptions { show_skipped: true, ..TableOptions::default() });
        assert!(!text.contains('\u{1b}'), "{text:?}");
        // the title, three rows with two details (the second row has none to show), the layer to look at first
        assert_eq!(text.matches("a\\u{1b}[31m\\nb").count(), 7, "{text}");
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        let shown: Vec<String> = [0.0, 2.31882, 14.39008, 824.895, 30522.4, 0.0123456, 1.5e-9, 3.2e12]
            .into_iter()
            .map(|x| number(Some(x)))
            .collect();
        assert_eq!(shown, ["0", "2.319", "14.39", "824.9", "30522", "0.01235", "1.500e-9", "3.200e12"]);
        assert_eq!(number(None), "");
    }
}
