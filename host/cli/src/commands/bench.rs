//! `bench`: measures this machine, or with `--servers` the servers of a fleet from this machine.

use std::sync::mpsc;

use dovetail_bench::{BenchDocument, BenchRequest, Figure, Interruption, meaning};
use dovetail_service::{Error, Shutdown};

use crate::app::App;
use crate::args;
use crate::exit::Exit;
use crate::output::value;
use crate::signals::{self, SignalWords};
use crate::table::table;

const WORDS: SignalWords =
    SignalWords { drain: "interrupted: the stores of the measurement are being removed", abort: "interrupted again" };

pub(crate) fn run(args: &args::Bench, app: &App) -> Result<Exit, Error> {
    let request = BenchRequest {
        servers: args.servers,
        growth: args.growth,
        only: args.only.clone(),
        quick: args.quick,
        rounds: args.rounds,
        size: args.size,
        photographs: args.photographs.clone(),
        workers: args.workers,
    };
    let shutdown = Shutdown::default();
    let (tell, signal) = mpsc::channel();
    let _listening = signals::listen(shutdown.clone(), WORDS, move |note| {
        tracing::warn!("{note}");
        tell.send(()).ok();
    })?;
    let measured =
        dovetail_bench::run(&app.service, &request, Interruption { shutdown, signal }, &mut |n, all, name| {
            if app.output.interactive {
                app.output.in_place(&format!("{n} of {all}: {name}"));
            }
        });
    app.output.clear();
    let Some(document) = measured? else { return Ok(Exit::Interrupted) };
    app.output.result(&document, || text(&request, &document));
    Ok(Exit::Done)
}

fn text(request: &BenchRequest, document: &BenchDocument) -> String {
    let machine = value(&document.machine);
    let fact = |(name, value): (&String, &serde_json::Value)| {
        format!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let facts: Vec<String> = machine.as_object().into_iter().flatten().map(fact).collect();
    let row = |figure: &Figure| {
        let Figure { name, value, unit, low, high } = figure;
        vec![
            name.clone(),
            value.to_string(),
            unit.clone(),
            low.to_string(),
            high.to_string(),
            meaning(request, name).to_owned(),
        ]
    };
    let titles = ["figure", " value", "unit", " low", " high", "what it is"];
    let figures = table(&titles, &document.figures.iter().map(row).collect::<Vec<_>>());
    let mut text = format!("{}\n\n{figures}", facts.join("\n"));
    // Figures that are missing for the same reason share a line.
    for part in document.not_measured.chunk_by(|one, other| one.why == other.why) {
        let names: Vec<&str> = part.iter().map(|missing| missing.name.as_str()).collect();
        let why = part.first().map_or_else(String::new, |missing| {
            format!("{}{}", missing.why, missing.help.as_ref().map_or_else(String::new, |help| format!("; {help}")))
        });
        text.push_str(&format!("\nnot measured: {}: {why}\n", names.join(", ")));
    }
    text
}
