//! Between the crate's types and `spectrald.v1`: what came over a wire or from a disk is checked, never trusted.
//!
//! Everything survives the way there and back bit for bit, so that a report made of messages prints the same bytes as
//! one made in this process. What comes in fails with `InvalidArgument` and the name of the field.

mod identity;
mod options;
mod row;
mod summary;
mod words;

#[cfg(test)]
mod tests;

pub use options::{options_from_proto, options_to_proto};
