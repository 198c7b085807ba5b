//! [`MetaStore`] on MongoDB 5 or later: a collection for each kind of record, with the record's key as `_id`.
//!
//! Safety rests only on inserts with a unique `_id` and on reads by key: there is no update, transaction or session.
//! The other fields of a document are `v` (the record) and `n` (a number that grows with time, for the order of lists).

pub(crate) mod check;
mod commands;
mod parameters;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::ledger::{Kind, Listing, Record, RunKey};
use dovetail_core::meta::{MetaStore, Put};
use dovetail_core::retention::{Archive, RecordVisitor};
use mongodb::IndexModel;
use mongodb::action::Find;
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::error::{Error, ErrorKind};
use mongodb::sync::{Collection, Database};

/// The error code for a duplicate `_id`.
const DUPLICATE: i32 = 11000;
/// The most documents in one `insert_many`, keys in one query, or documents in one batch of an answer.
const BATCH: usize = 500;
/// The most bytes of values in one request. The server accepts 16 MiB.
const REQUEST: usize = 8 << 20;
/// From this many keys on, the stand-in for tests (FerretDB) is asked for all in one query. It finds one key by its
/// index, but reads the whole collection for several: with 10,000 records that takes as long as about 50 single reads.
/// (Each write removes ended runs from the index of open runs. A read of all open runs for each removal kept the
/// stand-in busy.)
const STAND_IN_TOGETHER: usize = 50;

/// The kinds that are listed in insertion order. Outcomes and attempts are not, because an index costs each of them a
/// page.
const LISTED: [Kind; 4] = [Kind::Run, Kind::Plugin, Kind::Pipeline, Kind::Model];
/// The `_id` of the fact that the indexes for lists exist.
const INDEXED: &str = "indexes";

/// The records of a fleet in one database.
pub struct MongoMeta {
    database: Database,
    /// `host:port/database`, for errors: never the password.
    address: String,
    /// The last reason why the server could not be reached.
    last_error: check::LastServerError,
    last: AtomicI64,
    clock: std::sync::Arc<dyn Clock>,
    /// From this many keys on, records are read or removed in one request.
    together_from: usize,
    /// The fleet that owns this database, or will own it with the first write.
    fleet: String,
    /// Whether the database certainly belongs to this fleet.
    taken: AtomicBool,
    /// Whether the database has the indexes for lists, or does not need them.
    indexed: AtomicBool,
}

impl MongoMeta {
    /// Connects to `mongodb://[user:password@]host[:port]/database`. A database without a fleet becomes this fleet's
    /// with the first write, so a process that only reads, or that is refused for another reason, takes no database.
    ///
    /// # Errors
    /// `Invalid` for a URL that cannot be used. `Refused` for wrong credentials, a server that is too old, or a
    /// database of another fleet. `Unavailable` if no server answers.
    pub fn open(url: &str, fleet: &str, clock: std::sync::Arc<dyn Clock>) -> Result<Self, StoreError> {
        let check::Opened { database, address, last_error, direct, .. } = check::open(url, None)?;
        let (last, taken, fleet) = (AtomicI64::new(0), AtomicBool::new(false), fleet.to_owned());
        let indexed = AtomicBool::new(false);
        let mut meta = Self { database, address, last_error, last, clock, together_from: 2, fleet, taken, indexed };
        if check::is_stand_in(&meta.check_version()?) {
            meta.together_from = STAND_IN_TOGETHER;
            // The stand-in sorts whole collections, whatever indexes they have.
            meta.indexed = AtomicBool::new(true);
        }
        if direct {
            meta.check_alone()?;
        }
        meta.taken = AtomicBool::new(meta.is_ours()?);
        Ok(meta)
    }

    /// Removes the database with all its contents: for measurements and tests, each in a database of its own.
    ///
    /// # Errors
    /// `Unavailable` if the server does not answer. `Refused` without the right to remove the database.
    pub fn forget_everything(&self) -> Result<(), StoreError> {
        self.database.drop().run().map_err(|e| self.error("remove", e))
    }

    /// Sets the number of keys from which on records are read or removed in one request. [`Self::open`] chooses the
    /// faster way for the server. Public only for tests, which need both ways on one server.
    #[doc(hidden)]
    #[must_use]
    pub fn reading_together_from(mut self, keys: usize) -> Self {
        self.together_from = keys;
        self
    }

    /// The server's answer to `buildInfo`, if its version is supported.
    fn check_version(&self) -> Result<Document, StoreError> {
        let info = self.database.run_command(doc! { "buildInfo": 1 }).run().map_err(|e| self.error("ask", e))?;
        match check::version(&info) {
            Ok(_) => Ok(info),
            Err(why) => {
                let why = format!("{why}: {}", check::UPGRADE);
                Err(StoreError::new(
                    StoreErrorKind::Refused,
                    format!("use the metadata store at {}", self.address),
                    why,
                ))
            }
        }
    }

    fn check_alone(&self) -> Result<(), StoreError> {
        let hello = self.database.run_command(doc! { "hello": 1 }).run().map_err(|e| self.error("ask", e))?;
        let refused = |why| {
            let operation = format!("use the metadata store at {}", self.address);
            Err(StoreError::new(StoreErrorKind::Refused, operation, why))
        };
        check::unfit_alone(&hello).map_or(Ok(()), refused)
    }

    /// Whether this fleet owns the database. A database belongs to one fleet: two would list and run each other's work.
    fn is_ours(&self) -> Result<bool, StoreError> {
        let Some(found) = self.fact("fleet")? else { return Ok(false) };
        let (fleet, owner) = (&self.fleet, found.get_str("name").unwrap_or_default());
        if owner == fleet {
            return Ok(true);
        }
        let why = format!(
            "it belongs to the fleet `{owner}`, this is `{fleet}`: name another database, or set `fleet = \"{owner}\"`"
        );
        Err(StoreError::new(StoreErrorKind::Refused, format!("use the metadata store at {}", self.address), why))
    }

    fn fact(&self, name: &str) -> Result<Option<Document>, StoreError> {
        let facts: Collection<Document> = self.database.collection("facts");
        facts.find_one(doc! { "_id": name }).run().map_err(|e| self.error("read", e))
    }

    /// Makes, once for each database, the indexes for lists in insertion order. If they cannot be made, the store
    /// works, and lists of many records are slow.
    fn index(&self) -> Result<(), StoreError> {
        if self.fact(INDEXED)?.is_none() {
            let collections = LISTED.map(|kind| self.collection(kind));
            for collection in collections.iter().chain([&self.open_collection()]) {
                let index = IndexModel::builder().keys(doc! { "n": 1 }).build();
                match collection.create_index(index).run().map_err(|e| self.error("make an index in", e)) {
                    Ok(_) => {}
                    Err(error) if error.kind == StoreErrorKind::Unavailable => return Err(error),
                    Err(error) => {
                        tracing::warn!(err = &error as &dyn std::error::Error, "lists of many records will be slow");
                        return Ok(());
                    }
                }
            }
            let facts: Collection<Document> = self.database.collection("facts");
            match facts.insert_one(doc! { "_id": INDEXED, "version": 1 }).run() {
                Ok(_) => {}
                Err(e) if is_duplicate(&e) => {}
                Err(e) => return Err(self.error("write to", e)),
            }
        }
        Ok(())
    }

    /// Makes sure, before a write, that the database belongs to this fleet and has its indexes.
    fn take(&self) -> Result<(), StoreError> {
        if self.taken.load(Ordering::Acquire) {
            if !self.indexed.load(Ordering::Acquire) {
                self.index()?;
                self.indexed.store(true, Ordering::Release);
            }
            return Ok(());
        }
        let facts: Collection<Document> = self.database.collection("facts");
        match facts.insert_one(doc! { "_id": "fleet", "name": &self.fleet }).run() {
            Ok(_) => {}
            // Another fleet may have inserted its name first.
            Err(e) if is_duplicate(&e) => drop(self.is_ours()?),
            Err(e) => return Err(self.error("write to", e)),
        }
        self.taken.store(true, Ordering::Release);
        self.take()
    }

    fn error(&self, operation: &str, error: Error) -> StoreError {
        let (kind, why) = self.last_error.explained(&error);
        StoreError::new(kind, format!("{operation} the metadata store at {}", self.address), why).of(Store::Records)
    }

    fn collection(&self, kind: Kind) -> Collection<Document> {
        self.database.collection(&format!("{}s", kind.name()))
    }

    fn open_collection(&self) -> Collection<Document> {
        self.database.collection("open_runs")
    }

    /// A number that grows within this process: milliseconds shifted left by 20 bits, plus a counter.
    fn next(&self) -> i64 {
        let now = i64::try_from(self.clock.wall_ms()).unwrap_or(i64::MAX >> 20) << 20;
        let take = |last: i64| Some(now.max(last + 1));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }

    fn rows(&self, operation: &str, query: Find<'_, Document>) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = query.run().map_err(|e| self.error(operation, e))?;
        let mut found = Vec::new();
        for row in rows {
            let row = row.map_err(|e| self.error(operation, e))?;
            if let (Ok(key), Some(value)) = (row.get_str("_id"), value_of(&row)) {
                found.push((key.to_owned(), value));
            }
        }
        Ok(found)
    }

    fn in_order(&self, query: Find<'_, Document>, newest_first: bool) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for row in query.run().map_err(|e| self.error("list", e))? {
            let row = row.map_err(|e| self.error("list", e))?;
            if let (Ok(key), Some(value)) = (row.get_str("_id"), value_of(&row)) {
                found.push((row.get_i64("n").unwrap_or_default(), key.to_owned(), value));
            }
        }
        found.sort_by_key(|(n, ..)| *n);
        if newest_first {
            found.reverse();
        }
        Ok(found.into_iter().map(|(_, key, value)| (key, value)).collect())
    }

    /// Removes the given keys, like reads: one by one if they are few, otherwise in one request for each batch.
    fn delete(&self, collection: &Collection<Document>, keys: &[String]) -> Result<(), StoreError> {
        if keys.len() < self.together_from.max(2) {
            for key in keys {
                collection.delete_one(doc! { "_id": key }).run().map_err(|e| self.error("write to", e))?;
            }
            return Ok(());
        }
        for part in keys.chunks(BATCH) {
            collection
                .delete_many(doc! { "_id": { "$in": part.to_vec() } })
                .run()
                .map_err(|e| self.error("write to", e))?;
        }
        Ok(())
    }

    fn delete_any(&self, collection: &Collection<Document>, any: Vec<Document>) -> Result<(), StoreError> {
        if any.is_empty() {
            return Ok(());
        }
        collection.delete_many(doc! { "$or": any }).run().map(drop).map_err(|e| self.error("write to", e))
    }

    /// Inserts the documents. Returns the positions of those whose `_id` existed before.
    fn insert(&self, collection: &Collection<Document>, documents: &[Document]) -> Result<Vec<usize>, StoreError> {
        match collection.insert_many(documents).ordered(false).run() {
            Ok(_) => Ok(Vec::new()),
            Err(error) => {
                if let ErrorKind::InsertMany(many) = &*error.kind
                    && many.write_concern_error.is_none()
                    && let Some(failed) = &many.write_errors
                    && failed.iter().all(|e| e.code == DUPLICATE)
                {
                    return Ok(failed.iter().map(|e| e.index).collect());
                }
                Err(self.error("write to", error))
            }
        }
    }
}

fn is_duplicate(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Write(mongodb::error::WriteFailure::WriteError(e)) if e.code == DUPLICATE)
}

fn value_of(document: &Document) -> Option<Vec<u8>> {
    match document.get("v") {
        Some(Bson::Binary(binary)) => Some(binary.bytes.clone()),
        _ => None,
    }
}

impl MetaStore for MongoMeta {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.take()?;
        let mut answers = vec![Put::Created; records.len()];
        let mut kinds: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            kinds.entry(record.kind).or_default().push(at);
        }
        for (kind, places) in kinds {
            let collection = self.collection(kind);
            for part in places.chunks(BATCH) {
                let document = |at: &usize| {
                    let record = &records[*at];
                    let v = Binary { subtype: BinarySubtype::Generic, bytes: record.value.clone() };
                    doc! { "_id": &record.key, "v": v, "n": self.next() }
                };
                let documents: Vec<Document> = part.iter().map(document).collect();
                for taken in self.insert(&collection, &documents)? {
                    let at = part.get(taken).copied().unwrap_or_default();
                    let current = self.get(kind, std::slice::from_ref(&records[at].key))?.pop().flatten();
                    answers[at] = Put::Exists(current.unwrap_or_default());
                }
            }
        }
        Ok(answers)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let collection = self.collection(kind);
        if keys.len() < self.together_from.max(2) {
            let one = |key: &String| {
                let found = collection.find_one(doc! { "_id": key }).run().map_err(|e| self.error("read", e))?;
                Ok(found.as_ref().and_then(value_of))
            };
            return keys.iter().map(one).collect();
        }
        let mut values = Vec::with_capacity(keys.len());
        for part in keys.chunks(BATCH) {
            // The rows come in any order, and a key that is asked for twice comes once. The batch size gets all rows in
            // one answer, as far as they fit.
            let query = collection
                .find(doc! { "_id": { "$in": part.to_vec() } })
                .batch_size(u32::try_from(part.len()).unwrap_or(u32::MAX));
            let found: BTreeMap<String, Vec<u8>> = self.rows("read", query)?.into_iter().collect();
            values.extend(part.iter().map(|key| found.get(key).cloned()));
        }
        Ok(values)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let filter = if listing.prefix.is_empty() {
            doc! {}
        } else {
            // All keys with this prefix: below the prefix followed by the last character of Unicode.
            doc! { "_id": { "$gte": &listing.prefix, "$lt": format!("{}\u{10FFFF}", listing.prefix) } }
        };
        let order = if listing.newest_first { -1 } else { 1 };
        let collection = self.collection(kind);
        if !listing.prefix.is_empty() && listing.limit == usize::MAX {
            // The records of one run are few. Find them by their keys and sort them here: with a sort in the query the
            // server may read all records in that order instead.
            return self.in_order(collection.find(filter), listing.newest_first);
        }
        let mut query = collection.find(filter).sort(doc! { "n": order });
        if let Ok(limit) = i64::try_from(listing.limit)
            && limit < i64::from(i32::MAX)
        {
            query = query.limit(limit);
        }
        self.rows("list", query)
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.take()?;
        for part in runs.chunks(BATCH) {
            let documents: Vec<Document> = part.iter().map(|run| doc! { "_id": run.key(), "n": self.next() }).collect();
            self.insert(&self.open_collection(), &documents)?;
        }
        Ok(())
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        let keys: Vec<String> = runs.iter().map(RunKey::key).collect();
        self.delete(&self.open_collection(), &keys)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
        let rows = self
            .open_collection()
            .find(doc! {})
            .sort(doc! { "n": 1 })
            .limit(limit)
            .run()
            .map_err(|e| self.error("list", e))?;
        let mut found = Vec::new();
        for row in rows {
            let row = row.map_err(|e| self.error("list", e))?;
            match row.get_str("_id").ok().and_then(RunKey::parse) {
                Some(run) => found.push(run),
                // A run that this version cannot read must not hide the others.
                None => tracing::warn!(?row, "an open run cannot be read by this version of dovetail"),
            }
        }
        Ok(found)
    }
}

impl Archive for MongoMeta {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
        self.rows(
            "list",
            self.collection(kind).find(doc! { "_id": { "$gt": after } }).sort(doc! { "_id": 1 }).limit(limit),
        )
    }

    fn each(&self, kind: Kind, visit: &mut RecordVisitor<'_>) -> Result<(), StoreError> {
        // One query: the stand-in reads the whole collection for each page.
        let collection = self.collection(kind);
        let rows = collection.find(doc! {}).sort(doc! { "_id": 1 }).batch_size(BATCH as u32);
        for row in rows.run().map_err(|e| self.error("list", e))? {
            let row = row.map_err(|e| self.error("list", e))?;
            if let (Ok(key), Some(Bson::Binary(value))) = (row.get_str("_id"), row.get("v")) {
                visit(key.to_owned(), &value.bytes)?;
            }
        }
        Ok(())
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        self.delete(&self.collection(kind), keys)
    }

    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let collection = self.collection(kind);
        let same = |(key, value): &(String, Vec<u8>)| {
            doc! { "_id": key, "v": Binary { subtype: BinarySubtype::Generic, bytes: value.clone() } }
        };
        if found.len() < self.together_from.max(2) {
            for found in found {
                collection.delete_one(same(found)).run().map_err(|e| self.error("write to", e))?;
            }
            return Ok(());
        }
        let (mut together, mut bytes) = (Vec::new(), 0);
        for record in found {
            if together.len() == BATCH || bytes + record.1.len() > REQUEST {
                self.delete_any(&collection, std::mem::take(&mut together))?;
                bytes = 0;
            }
            bytes += record.1.len();
            together.push(same(record));
        }
        self.delete_any(&collection, together)
    }
}
