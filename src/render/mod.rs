//! Reports → text: a table for people; json, jsonl and csv for programs; spectra as text, json and npy.

mod data;
mod describe;
mod esd;
mod table;

pub use data::{csv, json, jsonl};
pub use describe::{DescribeRow, Description, describe_csv, describe_json, describe_rows, describe_table};
pub use esd::{Esd, esd_json, esd_npy, esd_text};
pub use table::{TableOptions, table};
pub(crate) use table::{new_table, number};
