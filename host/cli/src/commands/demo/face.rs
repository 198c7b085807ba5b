//! The parts of the face pipeline's output that the demo shows. The types of the output are the pipeline's own: a part
//! that another pipeline leaves out is shown as unknown.

use dovetail_service::documents::RunDocument;
use dovetail_service::drawing::Annotation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One face of the pipeline's output.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Face {
    #[serde(deserialize_with = "lenient")]
    face_id: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    detection: Option<Detection>,
    #[serde(deserialize_with = "lenient")]
    attributes: Option<Attributes>,
    #[serde(deserialize_with = "lenient")]
    features: Option<Features>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detection {
    /// Left, top, width and height, in pixels.
    #[serde(deserialize_with = "lenient")]
    bbox: Vec<f64>,
    #[serde(deserialize_with = "lenient")]
    confidence: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    #[serde(deserialize_with = "lenient")]
    age: Option<Age>,
    #[serde(deserialize_with = "lenient")]
    gender: Option<Gender>,
    #[serde(deserialize_with = "lenient")]
    emotion: Option<Emotion>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Age {
    #[serde(deserialize_with = "lenient")]
    estimated_age: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gender {
    #[serde(deserialize_with = "lenient")]
    predicted_gender: Option<String>,
    #[serde(deserialize_with = "lenient")]
    confidence: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Emotion {
    #[serde(deserialize_with = "lenient")]
    dominant_emotion: Option<String>,
    #[serde(deserialize_with = "lenient")]
    confidence: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Features {
    /// Points in pixels.
    #[serde(deserialize_with = "lenient")]
    landmarks: Vec<Vec<f64>>,
}

/// The output of the face pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Faces {
    faces: Vec<Value>,
}

/// The faces of a run. A face of an unexpected type is shown as unknown.
pub(super) fn all_in(document: &RunDocument) -> Vec<Face> {
    let output = Faces::deserialize(&document.output).unwrap_or_default();
    output.faces.iter().map(|face| Face::deserialize(face).unwrap_or_default()).collect()
}

/// Reads a part of a face. A part of an unexpected type is unknown, and does not hide the other parts.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(reader: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(reader)?).unwrap_or_default())
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0}%", value * 100.0))
}

impl Face {
    fn age(&self) -> Option<f64> {
        self.attributes.as_ref()?.age.as_ref()?.estimated_age
    }

    /// The gender, and the model's confidence.
    fn gender(&self) -> (&str, Option<f64>) {
        let gender = self.attributes.as_ref().and_then(|all| all.gender.as_ref());
        let word = gender.and_then(|gender| gender.predicted_gender.as_deref());
        (word.unwrap_or("-"), gender.and_then(|gender| gender.confidence))
    }

    fn emotion(&self) -> Option<(&str, Option<f64>)> {
        let emotion = self.attributes.as_ref()?.emotion.as_ref()?;
        Some((emotion.dominant_emotion.as_deref().unwrap_or("-"), emotion.confidence))
    }

    /// The cells of a row: number, box, confidence, age, gender, emotion.
    pub(super) fn row(&self) -> Vec<String> {
        let bbox = self.detection.iter().flat_map(|detection| &detection.bbox).map(|side| format!("{side:.0}"));
        let (gender, sure) = self.gender();
        let (emotion, emotion_sure) = self.emotion().unwrap_or(("-", None));
        vec![
            self.face_id.map_or_else(String::new, |id| id.to_string()),
            bbox.collect::<Vec<_>>().join(" "),
            percent(self.detection.as_ref().and_then(|detection| detection.confidence)),
            self.age().map_or_else(|| "-".to_owned(), |age| format!("{age:.1}")),
            format!("{gender} {}", percent(sure)),
            format!("{emotion} {}", percent(emotion_sure)),
        ]
    }

    /// Box, landmarks and a label such as `#0 female 27` / `happy 94%`. None if the box is incomplete.
    #[expect(clippy::cast_possible_truncation, reason = "pixels of a picture")]
    pub(super) fn annotation(&self) -> Option<Annotation> {
        let [x, y, width, height] = self.detection.as_ref()?.bbox[..] else { return None };
        let points = self.features.iter().flat_map(|features| &features.landmarks);
        let points = points.filter_map(|point| match point[..] {
            [x, y] => Some((x as f32, y as f32)),
            _ => None,
        });
        let age = self.age().map_or_else(String::new, |age| format!(" {age:.0}"));
        let mut lines = vec![format!("#{} {}{age}", self.face_id.unwrap_or_default(), self.gender().0)];
        if let Some((emotion, sure)) = self.emotion() {
            lines.push(format!("{emotion} {}", percent(sure)));
        }
        let bbox = [x as f32, y as f32, width as f32, height as f32];
        Some(Annotation { bbox, points: points.collect(), lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn face(value: Value) -> Face {
        Face::deserialize(value).unwrap()
    }

    #[test]
    fn a_face_becomes_a_box_with_points_and_two_lines() {
        let drawn = face(json!({ "face_id": 3, "detection": {"bbox": [1, 2.5, 30, 40], "confidence": 0.99},
            "attributes": {"age": {"estimated_age": 26.6}, "gender": {"predicted_gender": "female"},
                "emotion": {"dominant_emotion": "happy", "confidence": 0.944}},
            "features": {"landmarks": [[1, 2], [3, 4]]} }));
        let drawn = drawn.annotation().unwrap();
        assert_eq!(drawn.bbox, [1.0, 2.5, 30.0, 40.0]);
        assert_eq!((drawn.points.len(), drawn.lines), (2, vec!["#3 female 27".to_owned(), "happy 94%".to_owned()]));
        assert!(face(json!({ "face_id": 0, "detection": {"bbox": [1, 2]} })).annotation().is_none());
    }

    #[test]
    fn a_face_without_attributes_is_shown_as_far_as_it_is_known() {
        let face =
            face(json!({ "face_id": 0, "detection": {"bbox": [1, 2, 3, 4], "confidence": 0.9}, "attributes": null }));
        let other = Face::deserialize(json!({ "face_id": "x", "detection": {"bbox": [1, 2, 3, 4], "confidence": "?"},
            "features": {"landmarks": null} }));
        assert_eq!(other.unwrap().annotation().unwrap().bbox, [1.0, 2.0, 3.0, 4.0], "odd parts hide no other");
        assert_eq!(face.row(), ["0", "1 2 3 4", "90%", "-", "- -", "- -"]);
    }
}
