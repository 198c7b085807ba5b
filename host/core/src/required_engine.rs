//! The engine that must run the networks of a run.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vision::Engine;

/// An engine by its name, and by its version unless any version will do: `onnxruntime` or `onnxruntime@1.28.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct RequiredEngine {
    name: String,
    version: Option<String>,
}

/// A text that is not `NAME` or `NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an engine, or a name and a version such as `onnxruntime@1.28.0`")]
pub struct BadEngine(String);

impl RequiredEngine {
    /// The name of the engine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this engine is the required one.
    #[must_use]
    pub fn is_met_by(&self, engine: &Engine) -> bool {
        self.name == engine.name && self.version.as_ref().is_none_or(|version| *version == engine.version)
    }

    /// All requirements that this engine meets: its name, and its name with its version. A version that no requirement
    /// can name is left out.
    #[must_use]
    pub fn all_met_by(engine: &Engine) -> Vec<Self> {
        let texts = [engine.name.clone(), format!("{}@{}", engine.name, engine.version)];
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl FromStr for RequiredEngine {
    type Err = BadEngine;

    fn from_str(text: &str) -> Result<Self, BadEngine> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        let of = |part: &str, allowed: &dyn Fn(char) -> bool| !part.is_empty() && part.chars().all(allowed);
        if !of(name, &is_name) || !version.is_none_or(|version| of(version, &is_version)) {
            return Err(BadEngine(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) })
    }
}

impl TryFrom<String> for RequiredEngine {
    type Error = BadEngine;

    fn try_from(text: String) -> Result<Self, BadEngine> {
        text.parse()
    }
}

impl From<RequiredEngine> for String {
    fn from(engine: RequiredEngine) -> Self {
        engine.to_string()
    }
}

impl fmt::Display for RequiredEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &str, version: &str) -> Engine {
        Engine { name: name.into(), version: version.into() }
    }

    #[test]
    fn a_requirement_is_met_by_the_name_and_by_the_version_if_it_has_one() {
        let of = |text: &str| text.parse::<RequiredEngine>().unwrap();
        let here = engine("onnxruntime", "1.28.0");
        for (text, met) in [
            ("onnxruntime", true),
            ("onnxruntime@1.28.0", true),
            ("onnxruntime@1.28", false),
            ("onnxruntime@1.27.0", false),
            ("opencv", false),
        ] {
            assert_eq!(of(text).is_met_by(&here), met, "{text}");
            assert_eq!(RequiredEngine::all_met_by(&here).contains(&of(text)), met, "{text}");
            assert_eq!(of(text).to_string(), text);
        }
        // A comma would split the stored list of a job's requirements.
        assert_eq!(RequiredEngine::all_met_by(&engine("opencv", "4.6.0,x")), [of("opencv")]);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "@", "onnxruntime@", "@1", "ONNX", "a b", "a@1,2", "a@1@2"] {
            assert_eq!(text.parse::<RequiredEngine>(), Err(BadEngine(text.into())), "{text}");
        }
        assert!(serde_json::from_str::<RequiredEngine>("\"a,b\"").is_err());
        assert_eq!(serde_json::from_str::<RequiredEngine>("\"opencv@4.6.0\"").unwrap().to_string(), "opencv@4.6.0");
    }
}
