//! `gc`: removes old runs, blobs that no record refers to, and unused compiled code.

use dovetail_service::Error;
use dovetail_service::documents::GcDocument;
use dovetail_service::gc::Collection;
use dovetail_service::words::bytes;

use crate::app::App;
use crate::args::GcArgs;
use crate::exit::Exit;
use crate::table::table;

pub(crate) fn run(args: &GcArgs, app: &App) -> Result<Exit, Error> {
    let collection = Collection {
        keep_runs: args.keep_runs,
        keep_blobs: args.keep_blobs,
        keep_compiled: args.keep_compiled,
        dry_run: args.dry_run,
    };
    match app.service.collect(&collection)? {
        Some(document) => app.output.result(&document, || shown(&document)),
        None => app.output.result(&GcDocument::nothing(args.dry_run), || "there is no data folder yet\n".to_owned()),
    }
    Ok(Exit::Done)
}

fn shown(gone: &GcDocument) -> String {
    let mut rows = vec![vec!["runs".to_owned(), gone.runs.to_string(), String::new()]];
    rows.push(vec!["records of them".to_owned(), gone.records.to_string(), String::new()]);
    let blobs = &gone.blobs;
    let by_kind = [
        ("artifacts", blobs.artifacts),
        ("logs", blobs.logs),
        ("models", blobs.models),
        ("packages", blobs.packages),
        ("values", blobs.values),
    ];
    for (kind, amount) in by_kind {
        rows.extend(amount.map(|gone| vec![kind.to_owned(), gone.number.to_string(), bytes(gone.bytes)]));
    }
    rows.push(vec!["unfinished blobs".to_owned(), String::new(), bytes(gone.unfinished_bytes)]);
    rows.push(vec!["compiled code".to_owned(), gone.compiled.number.to_string(), bytes(gone.compiled.bytes)]);
    table(&[if gone.dry_run { "would be removed" } else { "removed" }, " number", " size"], &rows)
}
