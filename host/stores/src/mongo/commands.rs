//! The number of commands that a MongoDB has answered, counted by that MongoDB: for measurements.

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use mongodb::bson::{Bson, Document, doc};

use super::{MongoMeta, check};

impl MongoMeta {
    /// The commands that the server of this URL has answered since it started. The count includes this request and its
    /// connection, the members of its replica set, and all other clients. No database is taken for a fleet.
    ///
    /// # Errors
    /// As [`MongoMeta::open`]. `Refused` without the right to ask (the role `clusterMonitor`).
    pub fn commands_answered(url: &str) -> Result<u64, StoreError> {
        let check::Opened { database, address, last_error, .. } = check::open(url, Some(1))?;
        let status = database.run_command(doc! { "serverStatus": 1 }).run().map_err(|e| {
            let (kind, why) = last_error.explained(&e);
            let why = if kind == StoreErrorKind::Refused {
                format!("{why}, and to count commands `clusterMonitor`")
            } else {
                why
            };
            StoreError::new(kind, format!("ask the metadata store at {address} for its statistics"), why)
        })?;
        Ok(answered(&status))
    }
}

/// The sum of `metrics.commands.NAME.total` in the answer to `serverStatus`.
fn answered(status: &Document) -> u64 {
    let commands = status.get_document("metrics").and_then(|metrics| metrics.get_document("commands"));
    let total = |command: &Bson| match command.as_document()?.get("total")? {
        Bson::Int64(total) => u64::try_from(*total).ok(),
        Bson::Int32(total) => u64::try_from(*total).ok(),
        _ => None,
    };
    commands.map_or(0, |commands| commands.values().filter_map(total).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_every_kind_are_counted() {
        // The format of MongoDB 7.
        let commands = doc! {
            "<UNKNOWN>": 1_i64, "find": { "failed": 1_i64, "total": 5_i64 },
            "hello": { "failed": 0_i64, "total": 2_i32 },
            "update": { "arrayFilters": 0_i64, "failed": 0_i64, "pipeline": 0_i64, "total": 4_i64 },
        };
        assert_eq!(answered(&doc! { "metrics": { "commands": commands } }), 11);
        assert_eq!(answered(&doc! {}), 0);
    }
}
