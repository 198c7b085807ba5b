//! `gc`: removes old runs, blobs that no record refers to, and unused compiled code.

use std::time::Duration;

use dovetail_core::manifest::show_duration_ms;
use dovetail_core::retention::YOUNG;
use dovetail_flow::{Collected, Keep};

use crate::documents::{Amount, GcDocument, GcFormat, RemovedBlobs};
use crate::{Error, Service};

/// How long `gc` keeps runs, blobs and compiled code.
#[derive(Debug, Clone, Copy)]
pub struct Collection {
    /// How long a run, with its values, pictures and logs, is kept after its end.
    pub keep_runs: Duration,
    /// How long a blob that no record refers to is kept after it was written.
    pub keep_blobs: Duration,
    /// How long compiled code is kept on this machine after its last use.
    pub keep_compiled: Duration,
    /// Only report what would be removed.
    pub dry_run: bool,
}

impl Service {
    /// Removes old runs, blobs and compiled code. None if there is no data folder yet.
    ///
    /// # Errors
    /// `too_soon`, `foreign_blobs`; a store's failure.
    pub fn collect(&self, what: &Collection) -> Result<Option<GcDocument>, Error> {
        if !self.has_data()? {
            return Ok(None);
        }
        let ports = if what.dry_run { self.ports_to_read()? } else { self.ports()? };
        // A step that runs now may have written younger blobs, which no record names before the step ends. Storing a
        // blob again does not make it younger.
        if what.keep_blobs < YOUNG && (!ports.ledger.workers()?.is_empty() || !ports.ledger.open_runs(1)?.is_empty()) {
            let keep = show_duration_ms(u64::try_from(what.keep_blobs.as_millis()).unwrap_or(u64::MAX));
            let message =
                format!("blobs kept for only {keep}: this could remove a blob that a running step has just written");
            return Err(Error::usage("too_soon", message).help(
                "keep them for 1h or more, or wait until no run is open and no worker lives (`dovetail runs list`, \
                 `dovetail workers list`)",
            ));
        }
        let archive = self.archive(what.dry_run)?;
        let blobs = dovetail_stores::open_removable_blobs(self.settings.blobs.url(), &self.settings.data)?;
        // A data folder may be older than the feature of owners of blobs. Its blobs belong to its own records.
        if self.settings.is_together() && !what.dry_run {
            dovetail_flow::own_blobs(&*ports.ledger, &*blobs, true)?;
        }
        let keep = Keep { runs: what.keep_runs, blobs: what.keep_blobs };
        let gone = dovetail_flow::collect(ports, &*archive, &*blobs, &keep, &self.settings.data, what.dry_run)?;
        let (number, bytes) = self.compiler()?.remove_unused(what.keep_compiled, what.dry_run)?;
        Ok(Some(GcDocument::of(what.dry_run, &gone, Amount { number, bytes })))
    }
}

impl GcDocument {
    /// The document if there is no data folder.
    #[must_use]
    pub fn nothing(dry_run: bool) -> Self {
        Self::of(dry_run, &Collected::default(), Amount::default())
    }

    fn of(dry_run: bool, gone: &Collected, compiled: Amount) -> Self {
        let amount = |kind: &str| gone.blobs.get(kind).map(|gone| Amount { number: gone.number, bytes: gone.bytes });
        Self {
            format: GcFormat::V1,
            dry_run,
            runs: gone.runs,
            records: gone.records,
            blobs: RemovedBlobs {
                packages: amount("packages"),
                artifacts: amount("artifacts"),
                models: amount("models"),
                values: amount("values"),
                logs: amount("logs"),
            },
            unfinished_bytes: gone.abandoned_bytes,
            compiled,
        }
    }
}
