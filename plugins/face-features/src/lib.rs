//! Makes a vector and 68 landmarks of each face with the host's default models.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let Input { image, faces_array } = input;
    if faces_array.is_empty() {
        return Ok(Output { faces_with_features: Vec::new() });
    }
    let boxes: Vec<Rect> = faces_array.iter().map(|face| face.bbox).collect();
    let landmarks = Landmarker::open(None)?.locate(&image, &boxes)?;
    let vectors = Embedder::open(None)?.embed(&image, &boxes)?;

    let findings = vectors.into_iter().zip(landmarks);
    let faces_with_features: Vec<_> = faces_array
        .iter()
        .zip(findings)
        .map(|(face, (vector, points))| describe(face.face_id, vector, points))
        .collect();
    for face in &faces_with_features {
        if let Some(error) = &face.error {
            logging::log(
                log::Level::Warn,
                "face left out",
                &[("face_id", face.face_id.into()), ("error", error.as_str().into())],
            );
        }
    }
    Ok(Output { faces_with_features })
}

type PerFace<T> = std::result::Result<T, Failure>;

fn describe(face_id: u32, vector: PerFace<Vec<f32>>, points: PerFace<Vec<Point>>) -> FaceFeatures {
    let mut errors = Vec::new();
    let mut note = |failure: Failure| errors.push(failure.message);
    let feature_vector = vector.map_err(&mut note).ok();
    let landmarks = points.map_err(&mut note).ok().map(|points| points.iter().map(|p| (p.x, p.y)).collect());
    // Both models usually fail for the same reason.
    errors.dedup();
    FaceFeatures {
        face_id,
        feature_dimension: feature_vector.as_ref().map(|v| v.len() as u32),
        feature_vector,
        landmarks,
        error: (!errors.is_empty()).then(|| errors.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure {
            code: "empty_area".into(),
            message: message.into(),
            retryable: false,
            retry_after_ms: None,
            details: vec![],
        }
    }

    #[test]
    fn the_dimension_is_that_of_the_vector() {
        let face = describe(2, Ok(vec![0.5; 3]), Ok(vec![Point { x: 1.0, y: 2.0 }]));
        assert_eq!(
            (face.face_id, face.feature_dimension, face.landmarks, face.error),
            (2, Some(3), Some(vec![(1.0, 2.0)]), None)
        );
    }

    #[test]
    fn a_face_that_fails_says_why_and_keeps_what_is_known() {
        let half = describe(0, Err(failure("no square")), Ok(vec![]));
        assert_eq!(
            (half.feature_vector, half.feature_dimension, half.landmarks, half.error.as_deref()),
            (None, None, Some(vec![]), Some("no square"))
        );
        let none = describe(0, Err(failure("a")), Err(failure("b")));
        assert_eq!(none.error.as_deref(), Some("a; b"));
    }
}
