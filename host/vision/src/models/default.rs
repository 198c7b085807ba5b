//! Which model a kind means where none is named: the one rule by which every process chooses.

use dovetail_core::executor::{ModelUse, Models};
use dovetail_core::vision::ModelKind;

use super::store::Installed;

/// The default model of the kind; where it is not installed, the first one of the kind by name.
fn default_name(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Detector => "ssd_mobilenetv1",
        ModelKind::Landmarker => "face_landmark_68",
        ModelKind::AgeGenderEstimator => "age_gender",
        ModelKind::EmotionClassifier => "face_expression",
        ModelKind::Embedder => "face_recognition",
    }
}

/// The model that the kind means where none is named. `installed` may be in any order.
#[must_use]
pub fn default_model(installed: &[Installed], kind: ModelKind) -> Option<&Installed> {
    let called = |one: &Installed, name: &str| one.model.name == name || one.model.aliases.iter().any(|a| a == name);
    let of_kind = || installed.iter().filter(|one| one.model.kind == kind);
    let default = of_kind().find(|one| called(one, default_name(kind)));
    default.or_else(|| of_kind().min_by(|a, b| a.model.name.cmp(&b.model.name)))
}

/// The models that a run gets for these kinds, with the landmarker that others of them need. Kinds of which there is
/// none, and names that are no kind, are left out.
#[must_use]
pub fn default_models<'k>(installed: &[Installed], kinds: impl IntoIterator<Item = &'k str>) -> Models {
    let mut chosen = Models::new();
    let mut choose = |one: &Installed| {
        let used = ModelUse { name: one.model.name.clone(), digest: one.model.digest };
        chosen.insert(one.model.kind.name().to_owned(), used);
    };
    for name in kinds {
        let kind = ModelKind::ALL.into_iter().find(|kind| kind.name() == name);
        let Some(model) = kind.and_then(|kind| default_model(installed, kind)) else { continue };
        choose(model);
        if model.manifest.needs_landmarks()
            && let Some(landmarker) = default_model(installed, ModelKind::Landmarker)
        {
            choose(landmarker);
        }
    }
    chosen
}
