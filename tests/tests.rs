//! The one integration binary: each module is a subject, `support` holds what several use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

// Models whose bytes lie: every item on headers and indexes of the list of hostile inputs, with its exact message.
mod hostile;
// Reads of local files and object stores: pins, faults, credentials.
mod source;
// Servers in the test process: a real S3 and one that misbehaves as told.
mod support;
