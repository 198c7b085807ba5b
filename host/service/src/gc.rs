//! `gc`: removes old runs, blobs that nothing refers to, and compiled code that nobody uses.

use std::time::Duration;

use dovetail_core::manifest::show_duration_ms;
use dovetail_core::retention::YOUNG;
use dovetail_flow::{Collected, Keep};

use crate::documents::{Amount, GcDocument, GcFormat, RemovedBlobs};
use crate::{Error, Service};

/// What to keep.
#[derive(Debug, Clone, Copy)]
pub struct Collection {
    /// How long a run is kept after its end, with its values, pictures and logs.
    pub keep_runs: Duration,
    /// How long a blob is kept that nothing refers to.
    pub keep_blobs: Duration,
    /// How long this machine keeps compiled code that was not used.
    pub keep_compiled: Duration,
    /// Say what would be removed, and remove nothing.
    pub dry_run: bool,
}

impl Service {
    /// Removes what need not be kept. None: there is no data folder yet.
    ///
    /// # Errors
    /// `too_soon`, `foreign_blobs`; a store's failure.
    pub fn collect(&self, what: &Collection) -> Result<Option<GcDocument>, Error> {
        if !self.has_data()? {
            return Ok(None);
        }
        let ports = if what.dry_run { self.ports_to_read()? } else { self.ports()? };
        // Younger blobs may belong to a step that runs now: its outcome names them when the step ends; and storing them
        // again does not make them younger.
        if what.keep_blobs < YOUNG && (!ports.ledger.workers()?.is_empty() || !ports.ledger.open_runs(1)?.is_empty()) {
            let keep = show_duration_ms(u64::try_from(what.keep_blobs.as_millis()).unwrap_or(u64::MAX));
            let message = format!("--keep-blobs {keep} could remove what a step that runs now has just written");
            return Err(Error::usage("too_soon", message).help(
                "keep them for 1h or more, or wait until no run is open and no worker lives (`dovetail runs list`, \
                 `dovetail workers list`)",
            ));
        }
        let archive = self.archive(what.dry_run)?;
        let shelf = dovetail_stores::open_removable_blobs(self.settings.blobs.url(), &self.settings.data)?;
        // A data folder of its own may be older than the note of the blobs' owner: no other records use its blobs.
        if self.settings.is_together() && !what.dry_run {
            dovetail_flow::own_blobs(&*ports.ledger, &*shelf, true)?;
        }
        let keep = Keep { runs: what.keep_runs, blobs: what.keep_blobs };
        let gone = dovetail_flow::collect(ports, &*archive, &*shelf, &keep, &self.settings.data, what.dry_run)?;
        let (number, bytes) = self.compiler()?.remove_unused(what.keep_compiled, what.dry_run)?;
        Ok(Some(GcDocument::of(what.dry_run, &gone, Amount { number, bytes })))
    }
}

impl GcDocument {
    /// Nothing was there.
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
