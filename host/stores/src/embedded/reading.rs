//! Reads a data folder that cannot be written, because it is read-only or its disk is full. SQLite wants to write even
//! for reading: it writes the index (`-shm`) of the log (`-wal`), which holds the changes that are not in the database
//! file yet. If that index exists, SQLite can read without writing. If there is no log, or the log is empty, the
//! database file alone is complete, and no process changes it while we hold the writer lock.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::sync::lock;
use rusqlite::{Connection, OpenFlags};

use super::io_error;
use super::schema::{self, sql_error};

/// A way to read records.
pub(crate) enum Reader {
    /// A usual SQLite connection, which reads while another connection writes.
    Beside(Mutex<Connection>),
    /// The database file alone, opened anew for each query.
    Alone(ImmutableDatabase),
}

impl Reader {
    pub(crate) fn read<T>(
        &self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Beside(db) => query(&lock(db)).map_err(|e| sql_error(operation, e)),
            Self::Alone(database) => database.read(operation, query),
        }
    }

    /// Opens a folder in which nothing may be changed.
    ///
    /// # Errors
    /// `Refused` if the log holds changes that cannot be read, or if the database has no tables yet. `Newer` and
    /// `Corrupt` as for any open.
    pub(crate) fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("dovetail.db");
        let what = format!("open the database {}, to read only", path.display());
        schema::refuse_no_file(&path, &what)?;
        // The first writer makes this file. If it does not exist, there is no writer to wait for.
        let writer_lock = match File::open(data.join("dovetail.lock")) {
            Ok(writer_lock) => Some(writer_lock),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("open", &data.join("dovetail.lock"), e)),
        };
        // SQLite does not write an existing index. If no other process is here, it builds the index in memory.
        let beside = open(&path, "&readonly_shm=1").and_then(|db| schema::standing(&db).map(|standing| (db, standing)));
        let (reader, standing) = match beside {
            Ok((db, standing)) => (Self::Beside(Mutex::new(db)), standing),
            Err(error) => {
                let database = ImmutableDatabase { path, writer_lock };
                if database.log_holds_changes()? {
                    let StoreError { operation, source, .. } = sql_error(&what, error);
                    let remedy = "changes stand in `dovetail.db-wal` that cannot be read without writing beside it: \
                                  make room, or copy the folder to where you may write and name the copy with --data";
                    return Err(StoreError {
                        operation: format!("{operation}: {remedy}"),
                        source,
                        ..StoreError::plain(StoreErrorKind::Refused, "")
                    });
                }
                let standing = database.read(&what, schema::standing)?;
                (Self::Alone(database), standing)
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

/// A database file that no process changes now.
pub(crate) struct ImmutableDatabase {
    path: PathBuf,
    writer_lock: Option<File>,
}

impl ImmutableDatabase {
    fn log_holds_changes(&self) -> Result<bool, StoreError> {
        let path = self.path.with_extension("db-wal");
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(meta.len() > 0),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io_error("look for", &path, e)),
        }
    }

    /// Runs one query under a shared writer lock. Other processes can write between two queries; during a query they
    /// wait.
    fn read<T>(
        &self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let locked = self.writer_lock.as_ref().map(|writer_lock| writer_lock.lock_shared()).transpose();
        locked.map_err(|e| {
            StoreError::new(StoreErrorKind::Unavailable, "wait until no process writes to the database", e)
        })?;
        let answer = match self.log_holds_changes() {
            Ok(false) => {
                open(&self.path, "&immutable=1").and_then(|db| query(&db)).map_err(|e| sql_error(operation, e))
            }
            // Another process writes here after all. The next command can read beside it.
            Ok(true) => Err(StoreError::plain(
                StoreErrorKind::Unavailable,
                format!("{operation}: another process changes the database"),
            )),
            Err(error) => Err(error),
        };
        if let Some(writer_lock) = &self.writer_lock {
            drop(writer_lock.unlock());
        }
        answer
    }
}

/// Opens the path as a URI, with its special characters escaped.
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
