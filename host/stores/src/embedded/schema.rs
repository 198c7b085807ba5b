//! The database file: its tables, its version, and how it is opened.

use std::path::Path;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use rusqlite::{Connection, ErrorCode};

use super::make_folder;
use super::presence::boot_id;

/// Raised with every change of the tables; a file of a newer version is refused.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE records (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, key));
CREATE INDEX records_by_kind ON records (kind, id);
CREATE TABLE open_runs (id INTEGER PRIMARY KEY, run TEXT NOT NULL, generation INTEGER NOT NULL, UNIQUE (run, generation));
CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, generation INTEGER NOT NULL, step TEXT NOT NULL,
    needs TEXT NOT NULL, attempt INTEGER NOT NULL, crashes INTEGER NOT NULL, verify INTEGER NOT NULL, due INTEGER NOT NULL,
    owner TEXT, token INTEGER NOT NULL DEFAULT 0, expires INTEGER NOT NULL DEFAULT 0, UNIQUE (run, generation, step));
CREATE INDEX jobs_free ON jobs (id) WHERE owner IS NULL;
CREATE INDEX jobs_leased ON jobs (owner) WHERE owner IS NOT NULL;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('token', '0'), ('boot', '');
";

/// With what was tried and how to react.
pub(crate) fn sql_error(operation: &str, error: rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::DiskFull | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => StoreErrorKind::Refused,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, operation, error)
}

/// Opens `data/dovetail.db`, making what is missing.
pub(crate) fn open(data: &Path) -> Result<Connection, StoreError> {
    make_folder(data)?;
    let path = data.join("dovetail.db");
    let what = format!("open the database {}", path.display());
    let sql = |e| sql_error(&what, e);
    let mut db = Connection::open(&path).map_err(sql)?;
    db.busy_timeout(Duration::from_secs(30)).map_err(sql)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    // Every commit is on the disk when it is answered: an acknowledged outcome is never lost.
    db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    db.set_prepared_statement_cache_capacity(64);
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    if version > VERSION {
        let why = format!("its version is {version}, this dovetail knows {VERSION}: use the version that made it, or a newer one");
        return Err(StoreError::new(StoreErrorKind::Newer, what, why));
    }
    if version == 0 {
        tx.execute_batch(TABLES).map_err(sql)?;
        tx.pragma_update(None, "user_version", VERSION).map_err(sql)?;
    }
    // Leases and delays are told by a clock that starts with the machine.
    let boot = boot_id();
    let known: String = tx.query_row("SELECT value FROM facts WHERE name = 'boot'", [], |row| row.get(0)).map_err(sql)?;
    if known != boot {
        tx.execute("UPDATE jobs SET due = 0, verify = 1, crashes = crashes + (owner IS NOT NULL), owner = NULL", []).map_err(sql)?;
        tx.execute("UPDATE facts SET value = ?1 WHERE name = 'boot'", [&boot]).map_err(sql)?;
    }
    tx.commit().map_err(sql)?;
    Ok(db)
}
