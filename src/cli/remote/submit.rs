//! `spectrald submit` and `spectrald watch`.

use super::target::{client, target};
use super::wait::until_ended;
use super::{block_on, json, tables};
use crate::cli::args::{ListFormat, SubmitArgs, WatchArgs};
use crate::cli::progress::Bar;
use crate::cli::{interrupt, output, reports};
use crate::error::printable;
use crate::rpc::client::{Client, Target, failure};
use crate::rpc::convert::options_to_proto;
use crate::rpc::proto::v1;
use crate::source::{self, SourceOptions};
use crate::{Error, Result};
use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

/// `spectrald submit`.
pub(in crate::cli) fn submit(args: &SubmitArgs) -> Result<ExitCode> {
    let options = options_to_proto(&args.what.options()?, &args.what.filters);
    let report = args.report();
    output::check(report.output.as_deref())?;
    check_request_id(args)?;
    let target = target(&args.server)?;
    let named =
        args.models.iter().map(|model| named(model, &target, args.upload)).collect::<Result<Vec<_>>>()?;
    block_on(async {
        let client = Client::connect(&target)?;
        let mut models = Vec::new();
        for named in &named {
            models.push(at_coordinator(&client, named, args.quiet).await?);
        }
        if !args.wait {
            return ask_only(&client, args, &models, &options).await;
        }
        let ids = RefCell::new(Vec::new());
        let work = async {
            for model in &models {
                let analysis = client.create(request(args, model, &options)).await?;
                ids.borrow_mut().push(analysis.id);
            }
            let mut found = Vec::new();
            let all = ids.borrow().clone();
            for id in &all {
                until_ended(&client, id, args.quiet, |_| Ok(())).await?;
                found.push(client.report(id).await?);
            }
            Ok::<_, crate::Error>(found)
        };
        let mut signals = interrupt::Signals::listen()?;
        let found = tokio::select! {
            found = work => found?,
            () = signals.next() => return Ok(interrupted(&ids.borrow())),
        };
        reports::notes(&found);
        reports::print(&found, &report)
    })
}

/// Asks, and prints the id of each analysis as soon as it is accepted; or, to validate only, what it would take.
async fn ask_only(
    client: &Client,
    args: &SubmitArgs,
    models: &[String],
    options: &v1::AnalysisOptions,
) -> Result<ExitCode> {
    for model in models {
        let analysis = client.create(request(args, model, options)).await?;
        let line = if args.validate_only { tables::plan_line(model, &analysis) } else { analysis.id };
        output::write(format!("{}\n", printable(&line)).as_bytes(), None)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &SubmitArgs, model: &str, options: &v1::AnalysisOptions) -> v1::CreateAnalysisRequest {
    v1::CreateAnalysisRequest {
        model: model.to_owned(),
        options: Some(options.clone()),
        request_id: args.request_id.clone().unwrap_or_default(),
        validate_only: args.validate_only,
        keep_spectra: args.keep_spectra,
        priority: args.priority,
    }
}

fn check_request_id(args: &SubmitArgs) -> Result<()> {
    let wrong = |message: String| Err(Error::invalid(message).in_field("--request-id"));
    match &args.request_id {
        Some(id) if uuid::Uuid::parse_str(id).is_err() => wrong(format!("'{id}' is not a UUID")),
        Some(_) if args.models.len() > 1 => wrong("names one analysis; submit one model with it".to_owned()),
        _ => Ok(()),
    }
}

/// What the coordinator is to read, or is to be sent first.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Uri(String),
    Sent(String),
}

/// A model as the coordinator is to read it. A path means the same to a coordinator of this machine once it is
/// absolute; to another one the model is sent.
fn named(model: &str, target: &Target, upload: bool) -> Result<Named> {
    if model.contains("://") {
        return Ok(Named::Uri(model.to_owned()));
    }
    if upload || !target.is_loopback()? {
        return Ok(Named::Sent(model.to_owned()));
    }
    let absolute = std::path::absolute(Path::new(model))
        .map_err(|e| Error::invalid(format!("cannot be made absolute: {e}")).in_file(model))?;
    let text = absolute.into_os_string().into_string();
    text.map(Named::Uri).map_err(|_| Error::invalid("the path is not text").in_file(model))
}

/// The URI under which the coordinator has a model; it is sent first if need be.
async fn at_coordinator(client: &Client, named: &Named, quiet: bool) -> Result<String> {
    let path = match named {
        Named::Uri(uri) => return Ok(uri.clone()),
        Named::Sent(path) => path,
    };
    let source = source::open(path, &SourceOptions::default())?;
    let bar = Bar::new(!quiet && output::stderr_is_terminal());
    let sent = client.upload(source.as_ref(), &|done, all| bar.bytes(done, all)).await;
    bar.clear();
    sent.map_err(|error| error.in_model(path))
}

/// Ctrl-C ends the waiting, not the analyses.
fn interrupted(ids: &[String]) -> ExitCode {
    for id in ids {
        let id = printable(id);
        anstream::eprintln!(
            "interrupted: analysis {id} goes on; `spectrald watch {id}` follows it, `spectrald cancel {id}` ends it"
        );
    }
    if ids.is_empty() {
        anstream::eprintln!(
            "interrupted before the coordinator answered; `spectrald jobs` shows what it accepted"
        );
    }
    ExitCode::from(130)
}

/// `spectrald watch`.
pub(in crate::cli) fn watch(args: &WatchArgs) -> Result<ExitCode> {
    block_on(async {
        let client = client(&args.server)?;
        let each = |message: &v1::WatchAnalysisResponse| match args.format {
            ListFormat::Table => Ok(()),
            ListFormat::Json => output::write(json::watched(message)?.as_bytes(), None),
        };
        let mut signals = interrupt::Signals::listen()?;
        let analysis = tokio::select! {
            analysis = until_ended(&client, &args.id, args.quiet, each) => analysis?,
            () = signals.next() => return Ok(interrupted(std::slice::from_ref(&args.id))),
        };
        if args.format == ListFormat::Table {
            output::write(tables::ended_line(&analysis).as_bytes(), None)?;
        }
        failure(&analysis).map_or(Ok(ExitCode::SUCCESS), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_absolute_for_this_machine_and_sent_to_another() {
        let here = Target { addr: "localhost:1".to_owned(), ..Target::default() };
        let there = Target { addr: "host:1".to_owned(), ..Target::default() };
        let uri = |model: &str, target| match named(model, target, false).unwrap() {
            Named::Uri(uri) => uri,
            Named::Sent(path) => panic!("{path} would be sent"),
        };
        assert_eq!(uri("s3://b/m", &there), "s3://b/m");
        assert_eq!(uri("/m/x", &here), "/m/x");
        assert!(uri("x.safetensors", &here).ends_with("/x.safetensors"));
        assert!(Path::new(&uri("./x", &here)).is_absolute());
        assert_eq!(named("m/x", &there, false).unwrap(), Named::Sent("m/x".to_owned()));
        assert_eq!(named("m/x", &here, true).unwrap(), Named::Sent("m/x".to_owned()));
    }
}
