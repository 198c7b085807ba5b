//! Looking into a data folder in which nothing can be written: it is read-only, or its disk is full. SQLite wants to
//! write even to read, namely the index (`-shm`) of the log (`-wal`) in which changes stand before they are in the
//! database. Where that index is there, it can do without. Where there is no log, or nothing in it, the database alone
//! is the truth, and nobody changes it while we hold the writers' lock.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OpenFlags};

use super::io_error;
use super::schema::{self, sql_error};

/// Who reads records.
pub(crate) enum Reader {
    /// As SQLite means it: beside whoever writes.
    Beside(Mutex<Connection>),
    /// The database's file alone, opened anew for each question.
    Alone(Still),
}

impl Reader {
    pub(crate) fn read<T>(
        &self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Beside(db) => {
                query(&db.lock().unwrap_or_else(PoisonError::into_inner)).map_err(|e| sql_error(operation, e))
            }
            Self::Alone(still) => still.read(operation, query),
        }
    }

    /// Of a folder in which nothing is to be changed.
    ///
    /// # Errors
    /// `Refused` where the log holds changes and cannot be read; `Newer` and `Corrupt` as ever.
    pub(crate) fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("dovetail.db");
        let what = format!("open the database {}, to read only", path.display());
        schema::refuse_no_file(&path, &what)?;
        // Whoever writes made this file; without it there is nobody to wait for.
        let turn = match File::open(data.join("dovetail.lock")) {
            Ok(turn) => Some(turn),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("open", &data.join("dovetail.lock"), e)),
        };
        // Where the log's index is there it is not written, and made anew in memory if nobody else is here.
        let beside = open(&path, "&readonly_shm=1").and_then(|db| schema::standing(&db).map(|standing| (db, standing)));
        let (reader, standing) = match beside {
            Ok((db, standing)) => (Self::Beside(Mutex::new(db)), standing),
            Err(error) => {
                let still = Still { path, turn };
                if still.log_holds_changes()? {
                    let StoreError { operation, source, .. } = sql_error(&what, error);
                    let remedy = "changes stand in `dovetail.db-wal` that cannot be read without writing beside it: make room, or copy the folder to \
                                  where you may write and name the copy with --data";
                    return Err(StoreError {
                        operation: format!("{operation}: {remedy}"),
                        source,
                        ..StoreError::plain(StoreErrorKind::Refused, "")
                    });
                }
                let standing = still.read(&what, schema::standing)?;
                (Self::Alone(still), standing)
            }
        };
        schema::refuse_newer(standing.as_ref(), &what)?;
        if standing.is_none() {
            return Err(StoreError::new(
                StoreErrorKind::Refused,
                what,
                "it has no tables yet, and nothing can be written here",
            ));
        }
        Ok(reader)
    }
}

/// A database that nobody changes now.
pub(crate) struct Still {
    path: PathBuf,
    turn: Option<File>,
}

impl Still {
    fn log_holds_changes(&self) -> Result<bool, StoreError> {
        let path = self.path.with_extension("db-wal");
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(meta.len() > 0),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io_error("look for", &path, e)),
        }
    }

    /// Between two questions others may write; during one they wait for us, as for a writer.
    fn read<T>(
        &self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let locked = self.turn.as_ref().map(|turn| turn.lock_shared()).transpose();
        locked
            .map_err(|e| StoreError::new(StoreErrorKind::Unavailable, "wait until nobody writes to the database", e))?;
        let answer = match self.log_holds_changes() {
            Ok(false) => {
                open(&self.path, "&immutable=1").and_then(|db| query(&db)).map_err(|e| sql_error(operation, e))
            }
            // Somebody writes here after all: then the next command reads beside him.
            Ok(true) => Err(StoreError::plain(
                StoreErrorKind::Unavailable,
                format!("{operation}: another process changes the database"),
            )),
            Err(error) => Err(error),
        };
        if let Some(turn) = &self.turn {
            drop(turn.unlock());
        }
        answer
    }
}

/// As a URI, whose special characters are escaped.
fn open(path: &Path, option: &str) -> rusqlite::Result<Connection> {
    use std::os::unix::ffi::OsStrExt as _;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~".contains(b);
    let escaped: String = path
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|b| if plain(b) { char::from(*b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(format!("file:{escaped}?mode=ro{option}"), flags)?;
    db.busy_timeout(std::time::Duration::from_secs(30))?;
    Ok(db)
}
