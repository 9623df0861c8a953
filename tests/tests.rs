//! The one integration binary: each module is a subject, `support` holds what several use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

// The same numbers with any number of threads and any order of the tensors in the file.
mod bits;
// The program as it is typed: exit codes, exact messages, streams, files, signals.
mod cli;
// The client in Rust: reports, retries, watches over broken connections, TLS.
mod client;
// Coordinators and workers as processes that are killed, stopped and started again: nothing is lost.
#[cfg(unix)]
mod cluster;
// Compatibility mode against WeightWatcher's own tables for trained models.
mod golden;
// Models whose bytes lie: every item on headers and indexes of the list of hostile inputs, with its exact message.
mod hostile;
// Spectra of which only the largest eigenvalues are computed, by the commands.
mod randomized;
// What must not change a number; parts of tensors against the same parts cut by hand; tied embeddings.
mod invariance;
// The order of modules, who may import a runtime, and the length of files.
mod layering;
// Convolutions as operators: the command line, the plan, threads.
mod operator;
// The service over gRPC: who may call what, what is refused and how, uploads, secrets.
mod service;
// Reads of local files and object stores: pins, faults, credentials.
mod source;
// Whole models in a real S3 server: the same rows as from disk, and what goes wrong there.
mod stores;
// Servers in the test process: a real S3, one that misbehaves as told, a coordinator that answers from a list. Models, found and written.
mod support;
// Odd numbers and odd shapes in weights: each a defined row.
mod values;
