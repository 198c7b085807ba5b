//! `gc`: removes what is old: runs, blobs that nothing refers to, compiled code that nobody uses.

use std::time::Duration;

use dovetail_core::manifest::show_duration_ms;
use dovetail_core::retention::YOUNG;
use dovetail_flow::{Collected, Keep};
use serde_json::{Value, json};

use crate::args::GcArgs;
use crate::error::{Error, Exit};
use crate::table::{bytes, table};
use crate::wire::App;

pub(crate) fn run(args: &GcArgs, app: &App) -> Result<Exit, Error> {
    if !app.has_data()? {
        app.output
            .result(|| document(args, &Collected::default(), (0, 0)), || "there is nothing here yet\n".to_owned());
        return Ok(Exit::Done);
    }
    let parts = if args.dry_run { app.parts_to_read()? } else { app.parts()? };
    // Younger ones may belong to a step that runs now: its outcome names them when it ends; and storing them again does
    // not make them younger.
    if args.keep_blobs < YOUNG && (!parts.ledger.workers()?.is_empty() || !parts.ledger.open_runs(1)?.is_empty()) {
        let keep = show_duration_ms(millis(args.keep_blobs));
        return Err(Error::usage("too_soon", format!("--keep-blobs {keep} could remove what a step that runs now has just written"))
            .help("keep them for 1h or more, or wait until no run is open and no worker lives (`dovetail runs list`, `dovetail workers list`)"));
    }
    let archive = app.archive(args.dry_run)?;
    let shelf = dovetail_stores::open_shelf(app.config.blobs.url(), &app.config.data)?;
    // In a data folder of its own that is older than the note of whose the blobs are, nobody else's are expected.
    if app.config.is_together() && !args.dry_run {
        dovetail_flow::own_blobs(&*parts.ledger, &*shelf, true)?;
    }
    let keep = Keep { runs: args.keep_runs, blobs: args.keep_blobs };
    let gone = dovetail_flow::collect(parts, &*archive, &*shelf, &keep, &app.config.data, args.dry_run)?;
    let code = app.compiler()?.remove_unused(args.keep_compiled, args.dry_run)?;
    app.output.result(|| document(args, &gone, code), || shown(args, &gone, code));
    Ok(Exit::Done)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn document(args: &GcArgs, gone: &Collected, (files, size): (u64, u64)) -> Value {
    let amount = |number: u64, bytes: u64| json!({ "number": number, "bytes": bytes });
    let blobs: serde_json::Map<String, Value> =
        gone.blobs.iter().map(|(kind, gone)| ((*kind).to_owned(), amount(gone.number, gone.bytes))).collect();
    json!({
        "format": "dovetail.gc/1",
        "dry_run": args.dry_run,
        "runs": gone.runs,
        "records": gone.records,
        "blobs": blobs,
        "unfinished_bytes": gone.abandoned_bytes,
        "compiled": amount(files, size),
    })
}

fn shown(args: &GcArgs, gone: &Collected, (files, size): (u64, u64)) -> String {
    let mut rows = vec![vec!["runs".to_owned(), gone.runs.to_string(), String::new()]];
    rows.push(vec!["records of them".to_owned(), gone.records.to_string(), String::new()]);
    rows.extend(
        gone.blobs.iter().map(|(kind, gone)| vec![(*kind).to_owned(), gone.number.to_string(), bytes(gone.bytes)]),
    );
    rows.push(vec!["unfinished blobs".to_owned(), String::new(), bytes(gone.abandoned_bytes)]);
    rows.push(vec!["compiled code".to_owned(), files.to_string(), bytes(size)]);
    table(&[if args.dry_run { "would be removed" } else { "removed" }, " number", " size"], &rows)
}
