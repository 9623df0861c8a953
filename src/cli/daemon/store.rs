//! `spectrald store`: a store that no coordinator uses.

use crate::cli::args::{DataDir, StoreArgs, StoreCommand};
use crate::store::{self, Records, Space, Store, StoreOptions};
use crate::{Error, ErrorKind, Result};
use bytesize::ByteSize;
use std::process::ExitCode;

/// `spectrald store`.
pub(in crate::cli) fn store(args: &StoreArgs) -> Result<ExitCode> {
    match &args.command {
        StoreCommand::Verify(at) => verify(at),
        StoreCommand::Stats(at) => stats(at),
        StoreCommand::Export { at, output } => {
            let store = open(at)?;
            let report = match output {
                Some(file) => store.export_to(file),
                None => store.export(),
            }?;
            corrupt(&report.bad);
            anstream::println!("{} records in {}", report.records, report.path.display());
            Ok(code(report.bad.is_empty()))
        }
        StoreCommand::Import { at, file } => {
            // Into a new store as well: that is how a backup comes back.
            let (store, _) = Store::open(&at.data_dir, &StoreOptions::default())?;
            let report = store.import(file)?;
            anstream::println!("{} records from {}", report.records, report.path.display());
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Compact(at) => {
            exists(at)?;
            let done = store::compact(&at.data_dir, &StoreOptions::default())?;
            let (before, after) = (ByteSize(done.before), ByteSize(done.after));
            anstream::println!("{} records; {before} before, {after} after", done.records);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Opening makes a store where there is none; these commands are for one that is there.
fn exists(at: &DataDir) -> Result<()> {
    if at.data_dir.join("db").is_dir() {
        return Ok(());
    }
    let message = "there is no store here (no folder 'db')";
    Err(Error::new(ErrorKind::NotFound, message).in_file(at.data_dir.to_string_lossy()))
}

fn open(at: &DataDir) -> Result<Store> {
    exists(at)?;
    let (store, opened) = Store::open(&at.data_dir, &StoreOptions::default())?;
    for line in opened.warnings() {
        anstream::eprintln!("warning: {line}");
    }
    Ok(store)
}

fn verify(at: &DataDir) -> Result<ExitCode> {
    let store = open(at)?;
    let verified = store.verify()?;
    corrupt(&verified.bad);
    let (records, bad) = (verified.records, verified.bad.len());
    anstream::println!("{records} records, {bad} corrupt");
    Ok(code(verified.bad.is_empty()))
}

fn corrupt(bad: &[store::BadRecord]) {
    for record in bad {
        let key: String = record.key.iter().map(|byte| format!("{byte:02x}")).collect();
        let error = Error::malformed(&record.why).in_field(format!("{} 0x{key}", record.space.name()));
        anstream::eprintln!("corrupt: {error}");
    }
}

fn code(is_sound: bool) -> ExitCode {
    if is_sound { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn stats(at: &DataDir) -> Result<ExitCode> {
    let store = open(at)?;
    let stats = store.stats()?;
    let health = store.health();
    for space in Space::ALL {
        let usage = health.space(space);
        anstream::println!("{:<8} {:>10} records {:>12}", space.name(), usage.entries, ByteSize(usage.bytes));
    }
    let free = ByteSize(health.free_bytes);
    anstream::println!("on disk {}, {free} free", ByteSize(health.database_bytes));
    anstream::println!(
        "set aside as corrupt: {}; in quarantine: {}",
        stats.set_aside,
        ByteSize(stats.quarantine_bytes)
    );
    for export in &stats.exports {
        anstream::println!("export {}", export.display());
    }
    Ok(ExitCode::SUCCESS)
}
