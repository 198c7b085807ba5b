//! The backends behind the ports of dovetail-core. This is the only crate that names a database.
//!
//! So far: the embedded one, SQLite and files in one data folder, with nothing to install. It remembers and decides nothing.

mod embedded;

pub use embedded::files::FileBlobs;
pub use embedded::sqlite::SqliteLedger;
