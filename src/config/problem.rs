//! Mistakes of a configuration, collected so that all of them are reported at once.

use super::Origin;
use crate::error::printable;
use crate::{Error, Result};
use std::fmt;

/// Mistakes found so far. Each is one line: `file:line: field: what` (or the variable or flag instead of the file).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    /// With the place in the order of reports.
    found: Vec<((u8, usize), String)>,
    /// Found, but beyond [`MOST`].
    more: usize,
}

/// Lines of one report: a file of another kind is wrong everywhere.
const MOST: usize = 200;

impl Problems {
    /// Adds a mistake in `field`, whose value came from `origin`.
    pub fn add(&mut self, origin: &Origin, field: &str, what: impl fmt::Display) {
        self.add_general(origin, format!("{}: {what}", printable(field)));
    }

    /// Adds a mistake that belongs to no field, such as a file that cannot be read.
    pub fn add_general(&mut self, origin: &Origin, what: impl fmt::Display) {
        let line = printable(&format!("{origin}: {what}"));
        if self.is_full() {
            self.more += 1;
            return;
        }
        // Two rules may find the same mistake.
        if !self.found.iter().any(|(_, other)| *other == line) {
            self.found.push((origin.order(), line));
        }
    }

    /// The mistakes, one line each: those of a file by its lines, then those of variables, flags and defaults.
    pub fn lines(&self) -> Vec<String> {
        let mut found = self.found.clone();
        found.sort_by_key(|(order, _)| *order);
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        found.into_iter().map(|(_, line)| line).chain(more).collect()
    }

    /// Whether no more lines will be shown.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Nothing, or all mistakes as one error.
    ///
    /// # Errors
    /// `InvalidArgument`; its [`Error::message`] has one line a mistake. (`Display` of an error is one line and cuts
    /// long text short: a front end prints the message of this error, whose lines are free of control characters.)
    pub fn into_result(self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(Error::invalid(self.lines().join("\n"))) }
    }
}
