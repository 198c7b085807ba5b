//! The default model of each kind. Every process uses this rule.

use dovetail_core::executor::{ModelUse, ModelsByKind};
use dovetail_core::vision::ModelKind;

use super::store::Installed;

/// The name of the default model of the kind.
fn default_name(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Detector => "ssd_mobilenetv1",
        ModelKind::Landmarker => "face_landmark_68",
        ModelKind::AgeGenderEstimator => "age_gender",
        ModelKind::EmotionClassifier => "face_expression",
        ModelKind::Embedder => "face_recognition",
    }
}

/// The default model of the kind: the one with the default name or alias; if that is not installed, the first model of
/// the kind by name. `None` if no model of the kind is installed. `installed` may be in any order.
#[must_use]
pub fn default_model(installed: &[Installed], kind: ModelKind) -> Option<&Installed> {
    let called = |one: &Installed, name: &str| one.model.name == name || one.model.aliases.iter().any(|a| a == name);
    let of_kind = || installed.iter().filter(|one| one.model.kind == kind);
    let default = of_kind().find(|one| called(one, default_name(kind)));
    default.or_else(|| of_kind().min_by(|a, b| a.model.name.cmp(&b.model.name)))
}

/// The default models of these kinds, and the default landmarker if one of the models needs it. A kind without an
/// installed model is left out, and so is a name that is not a kind.
#[must_use]
pub fn default_models<'k>(installed: &[Installed], kinds: impl IntoIterator<Item = &'k str>) -> ModelsByKind {
    let mut chosen = ModelsByKind::new();
    let mut choose = |one: &Installed| {
        let used = ModelUse::new(&*one.model.name, one.model.digest);
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
