//! The one integration binary; each module is one concern.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

// Models whose bytes lie: every item on headers and indexes of the list of hostile inputs, with its exact message.
mod hostile;
