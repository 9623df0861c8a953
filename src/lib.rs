//! spectrald audits the weights of neural networks without data.
//!
//! Weights flow one way:
//!
//! ```text
//! source → format → tensor → layer → spectrum → fit → metrics → analysis → plan → run → render
//! store → job → telemetry → config → guard → rpc → coordinator → worker → cli
//! ```
//!
//! | module | takes | gives |
//! |---|---|---|
//! | [`source`] | a URI | objects whose byte ranges can be read, pinned to one version |
//! | [`format`] | objects | a [`format::Catalog`]: every tensor's name, dtype, shape and byte range; no data |
//! | [`tensor`] | stored bytes | rows of numbers |
//! | [`layer`] | a catalog | [`layer::Layer`]s: which tensors are weight matrices and how they unfold; why others are not |
//! | [`spectrum`] | rows of numbers | the eigenvalues of WᵀW, with their noise floor |
//! | [`fit`] | eigenvalues | power law, Marchenko-Pastur |
//! | [`metrics`] | eigenvalues | norms, ranks, entropy, ERG, traps, vectors |
//! | [`analysis`] | one layer and the options | one [`analysis::LayerReport`]; all of them make a [`analysis::ModelReport`] |
//! | [`plan`] | layers | tasks with their cost and peak memory, from shapes alone |
//! | [`run`] | a plan | reports: the plan carried out in this process by threads within a byte budget |
//! | [`render`] | reports | table, json, jsonl, csv, npy |
//! | [`store`] | records | records that survive a kill: sled, a journal, checksums, exports |
//! | [`job`] | reports of workers | leases: a table of jobs, units and workers, without a clock |
//! | [`telemetry`] | events | logs, traces, metrics, the HTTP port |
//! | [`config`] | file, environment, flags | a configuration, or every mistake at once |
//! | [`guard`] | connections, calls, URIs | who calls and whether he may; the root that a URI is under |
//! | [`rpc`] | messages | rows, options, errors, and back; the client |
//! | [`coordinator`] | requests | plans, leases, rows, reports |
//! | [`worker`] | leases | results |
//! | [`cli`] | what was typed | the above, and an exit code |
//!
//! A module imports only from modules above it in this table; `tests/layering.rs` checks it.

pub mod error;

pub mod source;

pub mod format;

pub mod tensor;

pub mod layer;

pub mod spectrum;

pub mod fit;

pub mod metrics;

pub mod analysis;

pub mod plan;

pub mod run;

pub mod render;

pub mod store;

pub mod job;

pub mod telemetry;

pub mod config;

pub mod guard;

pub mod rpc;

pub mod coordinator;

pub mod worker;

pub mod cli;

pub use error::{Error, ErrorKind, Result};
