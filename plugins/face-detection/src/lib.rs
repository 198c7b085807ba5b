//! Finds the faces of an image with one of the host's detectors, and numbers them. Later steps name a face by its
//! number.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let min_confidence = input.min_confidence.map(checked).transpose()?;
    let detector = Detector::open(input.detector.as_deref())?;
    if let Some(least) = min_confidence {
        detector.set_min_confidence(least);
    }
    let faces_array = numbered(detector.detect(&input.image)?);
    logging::log(log::Level::Info, "detected", &[("faces", faces_array.len().into())]);
    Ok(Output { faces_array })
}

/// Refuses a confidence out of range: the host would clamp it, and so hide a mistake in the pipeline.
fn checked(min_confidence: f32) -> Result<f32> {
    if (0.0..=1.0).contains(&min_confidence) {
        Ok(min_confidence)
    } else {
        Err(invalid_input("bad_min_confidence", "`min_confidence` should be a number from 0 to 1")
            .with("field", "min_confidence"))
    }
}

/// Numbers the faces in the detector's order, the most confident first.
fn numbered(found: Vec<Detection>) -> Vec<Face> {
    (0..).zip(found).map(|(face_id, Detection { bbox, confidence })| Face { face_id, bbox, confidence }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, confidence: f32) -> Detection {
        Detection { bbox: Rect { x, y: 0.0, width: 1.0, height: 1.0 }, confidence }
    }

    #[test]
    fn faces_are_numbered_in_the_detectors_order() {
        let faces = numbered(vec![at(2.0, 0.9), at(1.0, 0.6)]);
        let told: Vec<_> = faces.iter().map(|f| (f.face_id, f.bbox.x, f.confidence)).collect();
        assert_eq!(told, [(0, 2.0, 0.9), (1, 1.0, 0.6)]);
        assert!(numbered(vec![]).is_empty());
    }

    #[test]
    fn a_confidence_is_from_0_to_1() {
        for good in [0.0, 0.5, 1.0] {
            assert_eq!(checked(good), Ok(good));
        }
        for bad in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            let error = checked(bad).unwrap_err();
            assert_eq!(error.code(), "bad_min_confidence");
            assert!(error.message().contains("`min_confidence`"), "{error:?}");
        }
    }
}
