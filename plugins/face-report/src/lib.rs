//! Joins detection, attributes and features of each face. The host tells the origin of each part, so no ID stands in
//! this file.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let sources =
        Sources { detection: origin("faces-array"), attributes: origin("attributes"), features: origin("features") };
    Ok(Output { faces: join(input, &sources)? })
}

/// The IDs of the values that the three lists came from.
struct Sources {
    detection: String,
    attributes: String,
    features: String,
}

fn origin(field: &str) -> String {
    context::origin(field).unwrap_or_else(|| "literal".to_owned())
}

fn join(input: Input, sources: &Sources) -> Result<Vec<Report>> {
    let Input { faces_array, attributes, features } = input;
    let faces: Vec<u32> = faces_array.iter().map(|f| f.face_id).collect();
    once("faces_array", &faces)?;
    let mut attributes = of_faces("attributes", &faces, attributes, |a| a.face_id)?;
    let mut features = of_faces("features", &faces, features, |f| f.face_id)?;
    let mut reports = Vec::with_capacity(faces.len());
    for ((face, attributes), features) in faces_array.into_iter().zip(&mut attributes).zip(&mut features) {
        reports.push(Report {
            face_id: face.face_id,
            detection: Detection {
                bbox: (face.bbox.x, face.bbox.y, face.bbox.width, face.bbox.height),
                confidence: face.confidence,
                source: sources.detection.clone(),
            },
            attributes: attributes.take().and_then(|a| whole_attributes(a, &sources.attributes)),
            features: features.take().and_then(|f| whole_features(f, &sources.features)),
        });
    }
    Ok(reports)
}

/// The entries in the order of `faces`; each face must have exactly one entry.
fn of_faces<T>(list: &str, faces: &[u32], entries: Vec<T>, id: impl Fn(&T) -> u32) -> Result<Vec<Option<T>>> {
    let ids: Vec<u32> = entries.iter().map(id).collect();
    let places = places(list, faces, &ids)?;
    let mut ordered: Vec<Option<T>> = faces.iter().map(|_| None).collect();
    for (entry, place) in entries.into_iter().zip(places) {
        ordered[place] = Some(entry);
    }
    Ok(ordered)
}

/// The position in `faces` of each of `ids`. An image has few faces, so a search for each is cheaper than a map.
fn places(list: &str, faces: &[u32], ids: &[u32]) -> Result<Vec<usize>> {
    once(list, ids)?;
    if let Some(id) = faces.iter().find(|id| !ids.contains(id)) {
        return Err(refuse("missing_face_id", list, *id, "is missing, though `faces_array` has it"));
    }
    let place = |id: &u32| {
        faces
            .iter()
            .position(|f| f == id)
            .ok_or_else(|| refuse("unknown_face_id", list, *id, "is not in `faces_array`"))
    };
    ids.iter().map(place).collect()
}

fn once(list: &str, ids: &[u32]) -> Result<()> {
    match ids.iter().enumerate().find(|(n, id)| ids[..*n].contains(id)) {
        Some((_, id)) => Err(refuse("duplicate_face_id", list, *id, "is there twice")),
        None => Ok(()),
    }
}

fn refuse(code: &str, list: &str, face: u32, what: &str) -> Error {
    invalid_input(code, format!("`{list}`: face {face} {what}")).with("face_id", face)
}

fn whole_attributes(face: FaceAttributes, source: &str) -> Option<Attributes> {
    Some(Attributes { age: face.age?, gender: face.gender?, emotion: face.emotion?, source: source.to_owned() })
}

fn whole_features(face: FaceFeatures, source: &str) -> Option<Features> {
    Some(Features {
        feature_vector: face.feature_vector?,
        feature_dimension: face.feature_dimension?,
        landmarks: face.landmarks?,
        source: source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources {
            detection: "output_001_faces_array".into(),
            attributes: "output_007_x".into(),
            features: "literal".into(),
        }
    }

    fn face(face_id: u32) -> Face {
        Face { face_id, bbox: Rect { x: face_id as f32, y: 2.0, width: 3.0, height: 4.0 }, confidence: 0.9 }
    }

    fn attributes(face_id: u32) -> FaceAttributes {
        let probabilities = EmotionProbabilities {
            neutral: 1.0,
            happy: 0.0,
            sad: 0.0,
            angry: 0.0,
            fearful: 0.0,
            disgusted: 0.0,
            surprised: 0.0,
        };
        FaceAttributes {
            face_id,
            age: Some(Age { estimated_age: 30.0 + face_id as f32, confidence: 0.9 }),
            gender: Some(Gender { predicted_gender: PredictedGender::Female, confidence: 0.8 }),
            emotion: Some(Emotion { dominant_emotion: "neutral".into(), confidence: 1.0, probabilities }),
            error: None,
        }
    }

    fn features(face_id: u32) -> FaceFeatures {
        FaceFeatures {
            face_id,
            feature_vector: Some(vec![face_id as f32]),
            feature_dimension: Some(1),
            landmarks: Some(vec![(1.0, 2.0)]),
            error: None,
        }
    }

    fn code(input: Input) -> (String, String) {
        let error = join(input, &sources()).unwrap_err();
        (error.code().to_owned(), error.message().to_owned())
    }

    #[test]
    fn parts_are_joined_by_face_and_not_by_position() {
        let input = Input {
            faces_array: vec![face(0), face(1)],
            attributes: vec![attributes(1), attributes(0)],
            features: vec![features(1), features(0)],
        };
        let faces = join(input, &sources()).unwrap();
        let told: Vec<_> = faces
            .iter()
            .map(|f| {
                (
                    f.face_id,
                    f.detection.bbox.0,
                    f.attributes.as_ref().unwrap().age.estimated_age,
                    f.features.as_ref().unwrap().feature_vector[0],
                )
            })
            .collect();
        assert_eq!(told, [(0, 0.0, 30.0, 0.0), (1, 1.0, 31.0, 1.0)]);
        assert_eq!(faces[0].detection.source, "output_001_faces_array");
        assert_eq!(faces[0].attributes.as_ref().unwrap().source, "output_007_x");
        assert_eq!(faces[0].features.as_ref().unwrap().source, "literal");
    }

    #[test]
    fn a_face_without_a_part_has_none_of_it() {
        let failed = FaceAttributes { emotion: None, error: Some("outside".into()), ..attributes(0) };
        let unknown = FaceFeatures {
            face_id: 0,
            feature_vector: None,
            feature_dimension: None,
            landmarks: None,
            error: Some("outside".into()),
        };
        let faces =
            join(Input { faces_array: vec![face(0)], attributes: vec![failed], features: vec![unknown] }, &sources())
                .unwrap();
        assert_eq!((faces[0].attributes.clone(), faces[0].features.clone()), (None, None));
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let with = |faces, attributes, features| Input { faces_array: faces, attributes, features };
        let told = |(code, message): &(String, String)| format!("{code}: {message}");
        assert_eq!(
            told(&code(with(vec![face(0)], vec![attributes(0)], vec![]))),
            "missing_face_id: `features`: face 0 is missing, though `faces_array` has it"
        );
        assert_eq!(
            told(&code(with(vec![face(0)], vec![attributes(0), attributes(0)], vec![features(0)]))),
            "duplicate_face_id: `attributes`: face 0 is there twice"
        );
        assert_eq!(code(with(vec![face(0), face(0)], vec![attributes(0)], vec![features(0)])).0, "duplicate_face_id");
        assert_eq!(
            told(&code(with(vec![], vec![attributes(7)], vec![]))),
            "unknown_face_id: `attributes`: face 7 is not in `faces_array`"
        );
    }
}
