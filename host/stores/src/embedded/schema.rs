//! The database file: its tables, its version, and how it is opened.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::Kind;
use dovetail_core::scarce::Scarce;
use rusqlite::config::DbConfig;
use rusqlite::ffi::{SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE};
use rusqlite::{Connection, ErrorCode};

use super::presence::boot_id;

/// The version of the tables. Every change of the tables raises it, and a file of a newer version is refused.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE records (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, key));
CREATE TABLE open_runs (id INTEGER PRIMARY KEY, run TEXT NOT NULL, generation INTEGER NOT NULL, \
    steps INTEGER NOT NULL DEFAULT 0,
    UNIQUE (run, generation));
CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, generation INTEGER NOT NULL, \
    step TEXT NOT NULL,
    needs TEXT NOT NULL, attempt INTEGER NOT NULL, crashes INTEGER NOT NULL, verify INTEGER NOT NULL, \
    due INTEGER NOT NULL,
    owner TEXT, token INTEGER NOT NULL DEFAULT 0, expires INTEGER NOT NULL DEFAULT 0, lane TEXT NOT NULL DEFAULT '',
    turn INTEGER NOT NULL DEFAULT 0, UNIQUE (run, generation, step));
CREATE TABLE lanes (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX jobs_next ON jobs (turn, id) WHERE owner IS NULL;
CREATE INDEX jobs_leased ON jobs (owner) WHERE owner IS NOT NULL;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('token', '0'), ('boot', '');
";

/// The index for the kinds that are listed in insertion order. Outcomes and attempts are not in it, because an index
/// costs each of them a page. The tables are the same with and without the index, so it has no version.
const LISTED: &str = "
DROP INDEX IF EXISTS records_by_kind;
CREATE INDEX IF NOT EXISTS records_listed ON records (kind, id) WHERE kind IN ('run', 'plugin', 'pipeline', 'model');
";

/// The statement that lists all records of a kind, oldest first (`ASC`) or newest first (`DESC`), at most `?1` of them.
/// SQLite uses the partial index only if the statement repeats the condition of the index word for word.
pub(crate) fn list_all(kind: Kind, order: &str) -> String {
    let listed = match kind {
        Kind::Run | Kind::Plugin | Kind::Pipeline | Kind::Model => {
            " AND kind IN ('run', 'plugin', 'pipeline', 'model')"
        }
        _ => "",
    };
    format!("SELECT key, value FROM records WHERE kind = '{}'{listed} ORDER BY id {order} LIMIT ?1", kind.name())
}

/// The change from version 1: lanes (sets of requirements), the order of runs among jobs, and the number of an open
/// run's steps.
const FROM_1: &str = "
ALTER TABLE open_runs ADD COLUMN steps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lane TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
DROP INDEX jobs_free;
CREATE INDEX jobs_next ON jobs (turn, id) WHERE owner IS NULL;
CREATE TABLE lanes (name TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// The resource that the system refused, for errors in which SQLite says only that it cannot open or read a file.
fn refused(error: &rusqlite::Error) -> Option<Scarce> {
    match error.sqlite_error_code()? {
        ErrorCode::OutOfMemory => Some(Scarce::Memory),
        // Try to open a file descriptor now: an error tells the reason. If it works again, SQLite's error stays as it
        // is.
        ErrorCode::CannotOpen | ErrorCode::SystemIoFailure => {
            File::open("/dev/null").err().and_then(|error| Scarce::of_io(&error))
        }
        _ => None,
    }
}

/// Wraps an SQLite error, with the operation that failed and the error's kind.
pub(crate) fn sql_error(operation: &str, error: rusqlite::Error) -> StoreError {
    if let Some(refused) = refused(&error) {
        return StoreError::new(StoreErrorKind::Unavailable, format!("{operation}: {error}"), refused);
    }
    // SQLite reports a full disk for its files. For the shared memory beside them it reports only that the file could
    // not be made or grow.
    if let Some(code @ (SQLITE_IOERR_SHMOPEN | SQLITE_IOERR_SHMSIZE)) =
        error.sqlite_error().map(|error| error.extended_code)
    {
        let operation =
            format!("{operation}: the file -shm beside the database cannot grow (is the disk full? then make room)");
        // Missing rights also prevent the making of the file.
        let kind = if code == SQLITE_IOERR_SHMSIZE { StoreErrorKind::Full } else { StoreErrorKind::Refused };
        return StoreError::new(kind, operation, error);
    }
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return StoreError::new(StoreErrorKind::Full, format!("{operation} (make room on its disk)"), error);
    }
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => StoreErrorKind::Refused,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, operation, error)
}

/// Opens `data/dovetail.db` and makes the missing parts of it. The writer lock is taken only if something
/// must be written: once for a new folder, and once after each start of the machine.
pub(crate) fn open(data: &Path, writer_lock: &File) -> Result<Connection, StoreError> {
    let path = data.join("dovetail.db");
    let what = format!("open the database {}", path.display());
    let sql = |e| sql_error(&what, e);
    refuse_no_file(&path, &what)?;
    let mut db = Connection::open(&path).map_err(sql)?;
    db.busy_timeout(Duration::from_secs(30)).map_err(sql)?;
    if standing(&db).map_err(sql)?.is_some_and(|(version, boot)| version == VERSION && boot == boot_id()) {
        return set_up(db).map_err(sql);
    }
    writer_lock.lock().map_err(|e| StoreError::new(StoreErrorKind::Unavailable, what.clone(), e))?;
    let prepared = prepare(&mut db, &what);
    drop(writer_lock.unlock());
    prepared?;
    set_up(db).map_err(sql)
}

/// Refuses a path that is no file. SQLite reports a folder as a failing disk, and waits forever for the other end of a
/// pipe.
pub(crate) fn refuse_no_file(path: &Path, what: &str) -> Result<(), StoreError> {
    match std::fs::metadata(path) {
        Ok(about) if !about.is_file() => {
            let kind = if about.is_dir() { "a folder" } else { "no file" };
            let why = format!("it is {kind}, and should be a file: move it away, or name another data folder");
            Err(StoreError::new(StoreErrorKind::Corrupt, what, why))
        }
        // The file may not exist yet. SQLite reports every other error.
        _ => Ok(()),
    }
}

/// The version of the tables, and the boot to which the times of leases belong. `None` if there are no tables yet.
pub(crate) fn standing(db: &Connection) -> rusqlite::Result<Option<(i64, String)>> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Nothing else is known about the tables of a newer version.
    if version == 0 || version > VERSION {
        return Ok((version > VERSION).then(|| (version, String::new())));
    }
    let boot = db.query_row("SELECT value FROM facts WHERE name = 'boot'", [], |row| row.get(0))?;
    Ok(Some((version, boot)))
}

/// Refuses tables of a newer version, about which nothing is known.
pub(crate) fn refuse_newer(known: Option<&(i64, String)>, what: &str) -> Result<(), StoreError> {
    match known {
        Some((version, _)) if *version > VERSION => {
            let why = format!(
                "its version is {version}, this dovetail knows {VERSION}: use the version that made it, or a newer one"
            );
            Err(StoreError::new(StoreErrorKind::Newer, what, why))
        }
        _ => Ok(()),
    }
}

fn set_up(db: Connection) -> rusqlite::Result<Connection> {
    // Every commit is on the disk before its answer, so that no acknowledged outcome is lost.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.set_prepared_statement_cache_capacity(64);
    // Without this setting SQLite plans a statement with `LIMIT ?` anew at every use, because of the bound number.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(db)
}

fn prepare(db: &mut Connection, what: &str) -> Result<(), StoreError> {
    let sql = |e| sql_error(what, e);
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
    // Another process may have prepared the database since our first check.
    let known = standing(&tx).map_err(sql)?;
    refuse_newer(known.as_ref(), what)?;
    let change = match &known {
        None => TABLES,
        Some((1, _)) => FROM_1,
        Some(_) => "",
    };
    tx.execute_batch(change).map_err(sql)?;
    tx.execute_batch(LISTED).map_err(sql)?;
    tx.pragma_update(None, "user_version", VERSION).map_err(sql)?;
    // Leases and delays are in the time of a clock that starts with the machine.
    let boot = boot_id();
    if known.is_none_or(|(_, known)| known != boot) {
        tx.execute("UPDATE jobs SET due = 0, verify = 1, crashes = crashes + (owner IS NOT NULL), owner = NULL", [])
            .map_err(sql)?;
        tx.execute("UPDATE facts SET value = ?1 WHERE name = 'boot'", [&boot]).map_err(sql)?;
    }
    tx.commit().map_err(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the index SQLite reads and sorts all runs to list the newest twenty.
    #[test]
    fn lists_are_read_by_their_index() {
        let db = set_up(Connection::open_in_memory().unwrap()).unwrap();
        db.execute_batch(TABLES).unwrap();
        db.execute_batch(LISTED).unwrap();
        for kind in [Kind::Run, Kind::Plugin, Kind::Pipeline, Kind::Model] {
            for order in ["ASC", "DESC"] {
                let sql = format!("EXPLAIN QUERY PLAN {}", list_all(kind, order));
                let mut statement = db.prepare(&sql).unwrap();
                let plan = statement.query_map([20], |row| row.get(3)).unwrap();
                let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
                assert_eq!(plan, ["SEARCH records USING INDEX records_listed (kind=?)"], "{kind:?} {order}");
            }
        }
    }

    #[test]
    fn a_statement_with_a_limit_is_planned_once() {
        let db = set_up(Connection::open_in_memory().unwrap()).unwrap();
        let mut statement = db.prepare("SELECT 1 LIMIT ?1").unwrap();
        for limit in 1..5 {
            assert!(statement.exists([limit]).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
