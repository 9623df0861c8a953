//! The coordinator: plans, leases, collects, remembers. One process, one data directory.
//!
//! A thin asynchronous shell around [`crate::job`] (what is leased to whom), [`crate::plan`] (what it takes) and
//! [`crate::store`] (what is known). Nothing is answered before it is durable.
//!
//! | file | what |
//! |---|---|
//! | `settings`, `sources` | what it is told; which models may be named |
//! | `core`, `live`, `clock` | the shared state; an analysis that has not ended |
//! | `create`, `planned`, `keys`, `admit` | a request → headers → units of work and their names → what is queued |
//! | `collect`, `rows`, `complete` | results → rows → the report |
//! | `restore` | after a start |
//! | `sums`, `arrivals`, `objects` | partial Gram matrices, eigenvalues; models of this machine |
//! | `analyses`, `watch`, `results`, `describe`, `uploads`, `workers`, `tasks` | the services |
//! | `view`, `page`, `load` | what people and autoscalers see |

mod admit;
mod analyses;
mod arrivals;
mod clock;
mod collect;
mod complete;
mod core;
mod create;
mod describe;
mod keys;
mod live;
mod load;
mod objects;
mod page;
mod planned;
mod restore;
mod results;
mod rows;
mod serve;
mod settings;
mod sources;
mod sums;
mod tasks;
mod uploads;
mod view;
mod watch;
mod workers;

pub use serve::Coordinator;
