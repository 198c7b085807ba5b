//! Estimates age, gender and emotion of each face with the host's default models. The host finds the landmarks that
//! both models need.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let Input { image, faces_array } = input;
    if faces_array.is_empty() {
        return Ok(Output { faces_with_attributes: Vec::new() });
    }
    let boxes: Vec<Rect> = faces_array.iter().map(|face| face.bbox).collect();
    let ages = AgeGenderEstimator::open(None)?.estimate(&image, &boxes)?;
    let classifier = EmotionClassifier::open(None)?;
    let labels = Labels::new(classifier.labels())?;
    let emotions = classifier.classify(&image, &boxes)?;

    let estimates = ages.into_iter().zip(emotions);
    let faces_with_attributes: Vec<_> = faces_array
        .iter()
        .zip(estimates)
        .map(|(face, (age, emotion))| describe(face.face_id, age, emotion, &labels))
        .collect();
    for face in &faces_with_attributes {
        if let Some(error) = &face.error {
            logging::log(
                log::Level::Warn,
                "face left out",
                &[("face_id", face.face_id.into()), ("error", error.as_str().into())],
            );
        }
    }
    Ok(Output { faces_with_attributes })
}

type PerFace<T> = std::result::Result<T, Failure>;

fn describe(face_id: u32, age: PerFace<AgeAndGender>, emotion: PerFace<Vec<f32>>, labels: &Labels) -> FaceAttributes {
    let mut errors = Vec::new();
    let mut note = |failure: Failure| errors.push(failure.message);
    let age_and_gender = age.map_err(&mut note).ok();
    let emotion = emotion.map_err(&mut note).ok().map(|probabilities| labels.emotion(&probabilities));
    // Both models usually fail for the same reason.
    errors.dedup();
    FaceAttributes {
        face_id,
        age: age_and_gender.map(|a| Age { estimated_age: a.age, confidence: a.age_confidence }),
        gender: age_and_gender.map(|a| gender(a.female)),
        emotion,
        error: (!errors.is_empty()).then(|| errors.join("; ")),
    }
}

fn gender(female: f32) -> Gender {
    if female >= 0.5 {
        Gender { predicted_gender: PredictedGender::Female, confidence: female }
    } else {
        Gender { predicted_gender: PredictedGender::Male, confidence: 1.0 - female }
    }
}

/// The positions of the emotions among a model's labels: models may order their labels differently.
struct Labels {
    names: Vec<String>,
    /// The positions of the seven emotions, in the order of [`EMOTIONS`].
    positions: [usize; 7],
}

const EMOTIONS: [&str; 7] = ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"];

impl Labels {
    fn new(names: Vec<String>) -> Result<Self> {
        let mut positions = [0; 7];
        for (position, emotion) in positions.iter_mut().zip(EMOTIONS) {
            *position = names.iter().position(|name| name == emotion).ok_or_else(|| {
                failed(
                    "missing_label",
                    format!("the emotion model does not know `{emotion}`: its labels are {}", names.join(", ")),
                )
            })?;
        }
        Ok(Self { names, positions })
    }

    fn emotion(&self, probabilities: &[f32]) -> Emotion {
        // The host returns one probability for each label.
        let of = |position: usize| probabilities.get(position).copied().unwrap_or_default();
        let [neutral, happy, sad, angry, fearful, disgusted, surprised] = self.positions.map(of);
        // Of equal probabilities, the first label counts.
        let dominant = (0..self.names.len()).rev().max_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or_default();
        Emotion {
            dominant_emotion: self.names.get(dominant).cloned().unwrap_or_default(),
            confidence: of(dominant),
            probabilities: EmotionProbabilities { neutral, happy, sad, angry, fearful, disgusted, surprised },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Result<Labels> {
        Labels::new(names.iter().map(|n| (*n).to_owned()).collect())
    }

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
    fn probabilities_go_by_label_and_not_by_position() {
        let labels = labels(&["surprised", "happy", "neutral", "sad", "angry", "disgusted", "fearful"]).unwrap();
        let emotion = labels.emotion(&[0.1, 0.5, 0.2, 0.05, 0.04, 0.03, 0.08]);
        assert_eq!((emotion.dominant_emotion.as_str(), emotion.confidence), ("happy", 0.5));
        let expected = EmotionProbabilities {
            neutral: 0.2,
            happy: 0.5,
            sad: 0.05,
            angry: 0.04,
            fearful: 0.08,
            disgusted: 0.03,
            surprised: 0.1,
        };
        assert_eq!(emotion.probabilities, expected);
    }

    #[test]
    fn a_model_may_know_more_but_not_less() {
        let mut names = EMOTIONS.to_vec();
        names.push("contempt");
        let emotion = labels(&names).unwrap().emotion(&[0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.8]);
        assert_eq!(emotion.dominant_emotion, "contempt");

        let error = labels(&EMOTIONS[..6]).map(|l| l.names).unwrap_err();
        assert_eq!(error.code(), "missing_label");
        assert!(error.message().contains("`surprised`") && error.message().contains("neutral, happy"), "{error:?}");
    }

    #[test]
    fn the_probability_of_the_predicted_gender_is_told() {
        assert_eq!(gender(0.75), Gender { predicted_gender: PredictedGender::Female, confidence: 0.75 });
        assert_eq!(gender(0.25), Gender { predicted_gender: PredictedGender::Male, confidence: 0.75 });
    }

    #[test]
    fn a_face_that_fails_says_why_once_and_keeps_what_is_known() {
        let labels = labels(&EMOTIONS).unwrap();
        let age = AgeAndGender { age: 30.0, age_confidence: 0.9, female: 0.2 };
        let half = describe(3, Ok(age), Err(failure("outside")), &labels);
        assert_eq!(
            (half.face_id, half.age.unwrap().estimated_age, half.emotion, half.error.as_deref()),
            (3, 30.0, None, Some("outside"))
        );
        let none = describe(4, Err(failure("outside")), Err(failure("outside")), &labels);
        assert_eq!((none.age, none.gender, none.error.as_deref()), (None, None, Some("outside")));
        let all = describe(5, Ok(age), Ok(vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), &labels);
        assert_eq!((all.emotion.unwrap().dominant_emotion.as_str(), all.error), ("neutral", None));
    }
}
