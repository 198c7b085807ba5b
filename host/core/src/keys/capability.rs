//! Names of capabilities: jobs require them, and workers advertise them.

use std::fmt;

use crate::executor::ModelUse;

/// The prefix of a capability to use a model. `model:ssd_mobilenetv1` means any content of that name;
/// `model:ssd_mobilenetv1@sha256:...` means exactly this content ([`exact_model`]).
pub const MODEL: &str = "model:";
/// The prefix of a capability to use some model of a kind: `model_kind:detector`.
pub const MODEL_KIND: &str = "model_kind:";
/// The prefix of a capability to run networks in an engine: `engine:opencv`, `engine:onnxruntime@1.28.0`.
const ENGINE: &str = "engine:";
/// The number of characters of a digest that people are shown, as in `dovetail models list`.
const SHOWN: usize = 19;

/// The parsed name of a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability<'a> {
    /// `clocks`: the worker gives this grant to its tasks.
    Grant(&'a str),
    /// `model:NAME`: the worker has a model of this name.
    Model(&'a str),
    /// `model:NAME@DIGEST`: the worker has the model of this name with exactly this content.
    ExactModel { name: &'a str, digest: &'a str },
    /// `model_kind:KIND`: the worker has some model of this kind.
    ModelKind(&'a str),
    /// `engine:NAME` or `engine:NAME@VERSION`: the worker runs networks in this engine
    /// ([`crate::required_engine::RequiredEngine`]).
    Engine(&'a str),
}

impl<'a> Capability<'a> {
    /// Parses a name. Every text is the name of a capability: a text without a known prefix is a grant.
    #[must_use]
    pub fn parse(name: &'a str) -> Self {
        if let Some(kind) = name.strip_prefix(MODEL_KIND) {
            return Self::ModelKind(kind);
        }
        if let Some(engine) = name.strip_prefix(ENGINE) {
            return Self::Engine(engine);
        }
        match name.strip_prefix(MODEL) {
            Some(model) => match model.split_once('@') {
                Some((name, digest)) => Self::ExactModel { name, digest },
                None => Self::Model(model),
            },
            None => Self::Grant(name),
        }
    }

    /// A phrase for people: `the grant clocks`, `the model ssd_mobilenetv1`, `a model of the kind detector`.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Grant(name) => format!("the grant {name}"),
            Self::Model(name) => format!("the model {name}"),
            Self::ExactModel { name, digest } => {
                format!("the model {name} ({})", digest.get(..SHOWN).unwrap_or(digest))
            }
            Self::ModelKind(kind) => format!("a model of the kind {kind}"),
            Self::Engine(engine) => format!("the engine {}", engine.replacen('@', " ", 1)),
        }
    }
}

impl fmt::Display for Capability<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(name) => f.write_str(name),
            Self::Model(name) => write!(f, "{MODEL}{name}"),
            Self::ExactModel { name, digest } => write!(f, "{MODEL}{name}@{digest}"),
            Self::ModelKind(kind) => write!(f, "{MODEL_KIND}{kind}"),
            Self::Engine(engine) => write!(f, "{ENGINE}{engine}"),
        }
    }
}

/// The name of the capability to use exactly this model.
#[must_use]
pub fn exact_model(model: &ModelUse) -> String {
    Capability::ExactModel { name: &model.name, digest: &model.digest.to_string() }.to_string()
}

/// Whether the name is that of a grant, not of a model or an engine.
#[must_use]
pub fn is_grant(name: &str) -> bool {
    matches!(Capability::parse(name), Capability::Grant(_))
}

/// A phrase for people for the capability of this name ([`Capability::in_words`]).
#[must_use]
pub fn capability_in_words(name: &str) -> String {
    Capability::parse(name).in_words()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn every_name_is_read_as_what_it_was_made_of() {
        let digest = Digest::of(b"m").to_string();
        for name in ["a", "ssd_mobilenetv1", "yunet-2023mar", "v1.5"] {
            for capability in [
                Capability::Grant(name),
                Capability::Model(name),
                Capability::ExactModel { name, digest: &digest },
                Capability::ModelKind(name),
                Capability::Engine(name),
            ] {
                let text = capability.to_string();
                assert_eq!(Capability::parse(&text), capability);
                assert_eq!(is_grant(&text), capability == Capability::Grant(name), "{text}");
            }
        }
        let model = ModelUse::new("m", Digest::of(b"m"));
        assert_eq!(exact_model(&model), format!("model:m@{digest}"));
    }

    #[test]
    fn people_are_told_a_part_of_a_digest() {
        let digest = Digest::of(b"m").to_string();
        assert_eq!(capability_in_words("clocks"), "the grant clocks");
        assert_eq!(capability_in_words("model:m"), "the model m");
        assert_eq!(capability_in_words(&format!("model:m@{digest}")), format!("the model m ({})", &digest[..19]));
        assert_eq!(capability_in_words("model:m@short"), "the model m (short)");
        assert_eq!(capability_in_words("model_kind:detector"), "a model of the kind detector");
        assert_eq!(capability_in_words("engine:opencv"), "the engine opencv");
        assert_eq!(capability_in_words("engine:onnxruntime@1.28.0"), "the engine onnxruntime 1.28.0");
    }
}
