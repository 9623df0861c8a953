//! Tests of who may, over real connections.

mod deadlines;
mod listening;
mod policies;
mod uris;
