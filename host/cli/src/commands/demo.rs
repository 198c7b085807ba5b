//! `demo`: runs the face pipeline on a folder of photographs, one after the other, and makes a table and an annotated
//! picture of each.
//!
//! Ordinary commands install the models and publish the pipeline before.

mod face;
mod results;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use dovetail_service::documents::{DemoDocument, DemoSummary, RunDocument, RunStatus};
use dovetail_service::files::{MAX_PHOTOGRAPH, photographs, read};
use dovetail_service::inputs::Inputs;
use dovetail_service::paths::Shown as _;
use dovetail_service::submit::PipelineName;
use dovetail_service::words::count;
use dovetail_service::{Error, Session, Shutdown, Work};

use self::face::Face;
use crate::app::App;
use crate::args::Demo;
use crate::commands::wait::{FRONT_DOOR, how_to_go_on, listen};
use crate::exit::Exit;
use crate::inputs::set_file;
use crate::output::{Format, pretty, value};
use crate::progress::Watcher;
use crate::show;
use crate::table::{indented, table};

pub(crate) fn run(args: &Demo, app: &App) -> Result<Exit, Error> {
    let photographs = photographs(&args.photographs, "no_files")?;
    let service = &app.service;
    let submission = service.submission(PipelineName::Published(&args.pipeline))?;
    submission.may_run_here()?;
    let image = submission.types.ty("image")?;
    let (folder, results) = results::plan(&args.out, &photographs, args.force)?;
    let shutdown = Shutdown::default();
    let watcher = Watcher::new(&app.output, photographs.len(), service.settings.is_fleet());
    let work = Work { front_door: FRONT_DOOR, jobs: service.settings.jobs, shutdown: &shutdown, observer: &watcher };
    let mut session = Session::begin(service, work)?;
    let listening = listen(app, &shutdown)?;
    let drawing = service.drawing()?;
    folder.begin()?;
    let (mut failed, mut faces_found, mut documents) = (0, 0, Vec::new());
    let began = Instant::now();
    for (photograph, result) in photographs.iter().zip(&results) {
        if listening.interrupted() {
            app.output.note("interrupted; run the same command to start again");
            return Ok(Exit::Interrupted);
        }
        let mut inputs = Inputs::default();
        set_file(&mut inputs, "image", image, photograph)?;
        let values = submission.check(&inputs)?;
        let run = submission.submit(&inputs, values, None)?;
        session.work(std::slice::from_ref(&run), |_| Ok(()))?;
        let document = service.run_document(&run)?;
        if listening.interrupted() && !document.state.is_over() {
            app.output.note(&how_to_go_on(app, &run));
            return Ok(Exit::Interrupted);
        }
        let faces = face::all_in(&document);
        folder.write(&result.document, format!("{}\n", pretty(&value(&document))).as_bytes())?;
        if document.state == RunStatus::Succeeded {
            let annotations: Vec<_> = faces.iter().filter_map(Face::annotation).collect();
            folder.write(&result.picture, &drawing.annotated(&read(photograph, MAX_PHOTOGRAPH)?, &annotations)?)?;
        } else {
            failed += 1;
        }
        faces_found += faces.len();
        if app.output.format == Format::Text {
            app.output.text(&photograph_text(photograph, &document, &faces));
        }
        documents.push(document);
    }
    let seconds = began.elapsed().as_secs_f64();
    let (photographs, faces) = (photographs.len(), faces_found);
    let summary = DemoSummary { photographs, faces, failed, total_time_ms: (seconds * 1000.0).round() };
    app.output.result(&DemoDocument { runs: documents, summary }, || {
        let (photographs, faces) = (count(photographs, "photograph"), count(faces, "face"));
        format!(
            "{photographs}, {faces} in {seconds:.1} s; results and annotated pictures are in {}\n",
            args.out.shown()
        )
    });
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

fn photograph_text(photograph: &Path, document: &RunDocument, faces: &[Face]) -> String {
    let name = photograph.file_name().map(OsStr::shown).unwrap_or_default();
    if let Some(failure) = show::run_failure(document) {
        return format!("{name}: {}\n{}", document.state.name(), indented(&failure, 2));
    }
    let summary = &document.processing_summary;
    let time = summary.total_time.as_deref().unwrap_or("-");
    let speedup = summary.parallel_speedup.map_or_else(String::new, |ratio| format!(", parallel speed-up {ratio:.2}"));
    let head = format!("{name}: {} in {time}{speedup}\n", count(faces.len(), "face"));
    let rows: Vec<_> = faces.iter().map(Face::row).collect();
    let faces = if rows.is_empty() {
        String::new()
    } else {
        indented(&table(&[" face", "x y width height", " confidence", " age", "gender", "emotion"], &rows), 2)
    };
    format!("{head}{faces}\n")
}
