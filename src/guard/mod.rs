//! Who may: connections, callers, deadlines, and what jobs may name.
//!
//! A connection is accepted by [`Listener`] (caps, TLS, the peer's certificate); each call then passes
//! [`DeadlineLayer`] and [`GuardLayer`], which ask [`Policy`] who calls and whether the method's role is his, before
//! a byte of the message is read. [`Roots`] says which URIs a job may name.

mod client;
mod deadline;
mod layer;
mod listen;
mod policy;
mod required;
mod role;
mod roots;
mod slots;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod watched;

pub use client::{client_tls, read_token};
pub use deadline::{Deadline, DeadlineLayer, DeadlineService};
pub use layer::{GuardLayer, GuardService};
pub use listen::{Incoming, Io, ListenOptions, Listener, PeerInfo};
pub use policy::{Caller, DOMAIN, How, Policy, Refusal};
pub use required::{METHODS, Required, required};
pub use role::{Role, Roles};
pub use roots::{Allowed, Roots};
pub use slots::Counts;
pub use tokens::{Tokens, is_token_name, new_token};
