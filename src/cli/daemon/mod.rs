//! The daemons, and the commands for those who keep them.

mod admin;
mod processes;
mod settings;
mod store;

pub(super) use admin::{config, token};
pub(super) use processes::{coordinator, serve, worker};
pub(super) use store::store;
