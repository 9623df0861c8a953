//! The one integration binary: each module is a subject, `support` holds the servers that they use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

// Reads of local files and object stores: pins, faults, credentials.
mod source;
// Servers in the test process: a real S3 and one that misbehaves as told.
mod support;
