//! `demo`: the face pipeline on a folder of photographs, one after the other, with a table and an annotated picture of
//! each.
//!
//! Registry and models are set up before, by ordinary commands.

mod results;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Point, Rect, Vision, VisionError};
use dovetail_vision::{Annotation, Opencv, annotate};
use serde_json::{Value, json};

use crate::args::Demo;
use crate::commands::wait::how_to_go_on;
use crate::error::{Error, Exit};
use crate::inputs::{Expected, Given, Loaded, MAX_PHOTOGRAPH, photographs, read};
use crate::output::{Format, pretty};
use crate::paths::Shown as _;
use crate::show;
use crate::table::{count, indented, table};
use crate::wire::App;
use crate::work::Session;

pub(crate) fn run(args: &Demo, app: &App) -> Result<Exit, Error> {
    let photographs = photographs(&args.photographs, "no_files")?;
    let published = dovetail_flow::pipeline(app.parts_to_read()?, &args.pipeline)?;
    crate::grants::of_steps(&app.config, &published.pipeline.steps)?;
    let expected = Expected::of_pipeline(&published.pipeline);
    let image = expected.ty("image")?;
    let (folder, results) = results::plan(&args.out, &photographs, args.force)?;
    let parts = app.parts()?;
    let mut session = Session::begin(app, photographs.len(), app.config.jobs)?;
    let vision = app.vision()?;
    folder.begin()?;
    let (mut failed, mut faces_found, mut documents) = (0, 0, Vec::new());
    let began = Instant::now();
    for (photograph, result) in photographs.iter().zip(&results) {
        if session.interrupted() {
            app.output.note("interrupted; the same command begins again");
            return Ok(Exit::Interrupted);
        }
        let mut loaded = Loaded::read(&Given::default(), &expected)?;
        loaded.set_file("image", image, photograph)?;
        let inputs = published.pipeline.resolve_inputs(&loaded.values).map_err(|errors| expected.misfits(&errors))?;
        loaded.store(&inputs, parts.blobs.as_ref())?;
        let id = dovetail_flow::new_run_id()?;
        dovetail_flow::submit(parts, &published, &inputs, &id)?;
        session.work(std::slice::from_ref(&id), |_| Ok(()))?;
        let document = dovetail_flow::document(parts, &id)?;
        let state = document.get("state").and_then(Value::as_str).unwrap_or_default();
        if session.interrupted() && !matches!(state, "succeeded" | "failed" | "cancelled") {
            app.output.note(&how_to_go_on(app, &id));
            return Ok(Exit::Interrupted);
        }
        let text = format!("{}\n", pretty(&document));
        let faces = document.pointer("/output/faces").and_then(Value::as_array).cloned().unwrap_or_default();
        folder.write(&result.document, text.as_bytes())?;
        if state == "succeeded" {
            folder.write(&result.picture, &drawn(&vision, photograph, &faces)?)?;
        } else {
            failed += 1;
        }
        faces_found += faces.len();
        if app.output.format == Format::Text {
            app.output.text(&photograph_text(photograph, &document, &faces));
        }
        documents.push(document);
    }
    let (all, seconds) = (photographs.len(), began.elapsed().as_secs_f64());
    app.output.result(
        || json!({ "runs": documents, "summary": { "photographs": all, "faces": faces_found, "failed": failed, "total_time_ms": (seconds * 1000.0).round() } }),
        || {
            let (photographs, faces) = (count(all, "photograph"), count(faces_found, "face"));
            format!("{photographs}, {faces} in {seconds:.1} s; results and annotated pictures are in {}\n", args.out.shown())
        },
    );
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

fn number(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64)
}

fn word<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0}%", value * 100.0))
}

fn photograph_text(photograph: &Path, document: &Value, faces: &[Value]) -> String {
    let name = photograph.file_name().map(OsStr::shown).unwrap_or_default();
    if let Some(error) = document.get("error").filter(|error| !error.is_null()) {
        return format!(
            "{name}: {}\n{}",
            word(document, "/state"),
            indented(&show::failure(error, document.get("run_id").and_then(Value::as_str)), 2)
        );
    }
    let time = word(document, "/processing_summary/total_time");
    let speedup = number(document, "/processing_summary/parallel_speedup")
        .map_or_else(String::new, |ratio| format!(", parallel speed-up {ratio:.2}"));
    let plural = if faces.len() == 1 { "" } else { "s" };
    let head = format!("{name}: {} face{plural} in {time}{speedup}\n", faces.len());
    let row = |face: &Value| {
        let bbox = face.pointer("/detection/bbox").and_then(Value::as_array);
        let bbox = bbox
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .map(|side| format!("{side:.0}"))
            .collect::<Vec<_>>()
            .join(" ");
        vec![
            face.get("face_id").map_or_else(String::new, ToString::to_string),
            bbox,
            percent(number(face, "/detection/confidence")),
            number(face, "/attributes/age/estimated_age").map_or_else(|| "-".to_owned(), |age| format!("{age:.1}")),
            format!(
                "{} {}",
                word(face, "/attributes/gender/predicted_gender"),
                percent(number(face, "/attributes/gender/confidence"))
            ),
            format!(
                "{} {}",
                word(face, "/attributes/emotion/dominant_emotion"),
                percent(number(face, "/attributes/emotion/confidence"))
            ),
        ]
    };
    let rows: Vec<_> = faces.iter().map(row).collect();
    let faces = if rows.is_empty() {
        String::new()
    } else {
        indented(&table(&[" face", "x y width height", " confidence", " age", "gender", "emotion"], &rows), 2)
    };
    format!("{head}{faces}\n")
}

/// Boxes, landmarks and labels such as `#0 female 27` / `happy 94%`, upon the upright picture.
fn drawn(vision: &Opencv, photograph: &Path, faces: &[Value]) -> Result<Vec<u8>, Error> {
    let bytes = read(photograph, MAX_PHOTOGRAPH)?;
    let stop = Stop::never();
    let mut bytes_once = Some(bytes);
    let digest = Digest::of(bytes_once.as_deref().unwrap_or_default());
    let mut give = || {
        bytes_once.take().ok_or_else(|| VisionError::unavailable("asked_twice", "the photograph was asked for twice"))
    };
    let image = vision.open(&digest, &mut give, &stop)?;
    let drawn = annotate(&image, &faces.iter().filter_map(annotation).collect::<Vec<_>>())?;
    Ok(vision.encode(&drawn, "image/jpeg", Some(90), &stop)?)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels of a picture")]
fn annotation(face: &Value) -> Option<Annotation> {
    let numbers = |value: &Value| {
        value.as_array().map(|items| items.iter().filter_map(Value::as_f64).map(|n| n as f32).collect::<Vec<_>>())
    };
    let bbox = numbers(face.pointer("/detection/bbox")?)?;
    let [x, y, width, height] = bbox[..] else { return None };
    let landmarks = face.pointer("/features/landmarks").and_then(Value::as_array);
    let points = landmarks.into_iter().flatten().filter_map(&numbers).filter_map(|point| match point[..] {
        [x, y] => Some(Point { x, y }),
        _ => None,
    });
    let id = face.get("face_id").and_then(Value::as_u64).unwrap_or_default();
    let age = number(face, "/attributes/age/estimated_age").map_or_else(String::new, |age| format!(" {age:.0}"));
    let mut lines = vec![format!("#{id} {}{age}", word(face, "/attributes/gender/predicted_gender"))];
    if face.pointer("/attributes/emotion").is_some() {
        lines.push(format!(
            "{} {}",
            word(face, "/attributes/emotion/dominant_emotion"),
            percent(number(face, "/attributes/emotion/confidence"))
        ));
    }
    Some(Annotation { bbox: Rect { x, y, width, height }, points: points.collect(), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_becomes_a_box_with_points_and_two_lines() {
        let face = json!({ "face_id": 3, "detection": {"bbox": [1, 2.5, 30, 40], "confidence": 0.99},
            "attributes": {"age": {"estimated_age": 26.6}, "gender": {"predicted_gender": "female"}, "emotion": {"dominant_emotion": "happy", "confidence": 0.944}},
            "features": {"landmarks": [[1, 2], [3, 4]]} });
        let drawn = annotation(&face).unwrap();
        assert_eq!(drawn.bbox, Rect { x: 1.0, y: 2.5, width: 30.0, height: 40.0 });
        assert_eq!((drawn.points.len(), drawn.lines), (2, vec!["#3 female 27".to_owned(), "happy 94%".to_owned()]));
        assert_eq!(annotation(&json!({ "face_id": 0, "detection": {"bbox": [1, 2]} })), None);
    }

    #[test]
    fn a_face_without_attributes_is_shown_as_far_as_it_is_known() {
        let document =
            json!({ "state": "succeeded", "processing_summary": {"total_time": "0.10s", "parallel_speedup": 1.5} });
        let text = photograph_text(
            Path::new("a/b.jpg"),
            &document,
            &[json!({ "face_id": 0, "detection": {"bbox": [1, 2, 3, 4], "confidence": 0.9}, "attributes": null })],
        );
        assert!(text.starts_with("b.jpg: 1 face in 0.10s, parallel speed-up 1.50\n"), "{text}");
        assert!(text.contains("0  1 2 3 4                  90%    -  - -"), "{text}");
    }
}
