//! `model.toml`: what a model computes, how pixels are prepared for it, and how its output is read.
//!
//! Users write a manifest for their own ONNX file or cascade ([`super::ModelStore::add`]). The store writes a manifest
//! for every model that it installs, and adds the digests of the files. [`Manifest::parse`] checks everything that can
//! be checked without running the network.
//!
//! | `kind` | `output` | the network's output |
//! |---|---|---|
//! | `detector` | `boxes` | `[N, K, 5]`: left, top, right, bottom as fractions of the input square; score 0..1 |
//! | `detector` | `ssd_anchors` | `[N, A, 5]`: ty, tx, th, tw and a logit for each of A anchors (import only) |
//! | `detector` | `yolo_grid` | `[N, 5 * anchors, g, g]`: tx, ty, tw, th, logit for each anchor of each cell |
//! | `detector` | `cascade` | none: the file is a cascade for `detectMultiScale` |
//! | `landmarker` | `points` | `[N, 136]`: x0, y0, x1, y1, ... as fractions of the input square |
//! | `age_gender_estimator` | `age_gender` | `[N, 3]`: years, male logit, female logit |
//! | `emotion_classifier` | `probabilities` or `logits` | `[N, labels]` |
//! | `embedder` | `vector` | `[N, D]` |
//!
//! `ssd_anchors` needs a file of anchors, which only the import writes. The input side of `yolo_grid` is 32 g pixels.
//! `points` are 68 points in iBUG 300-W order.
//!
//! The input is always `[N, 3, side, side]`, f32, with `(pixel - mean) * scale`.

use super::import::FACE_API_PACKAGE;
use dovetail_core::id::Digest;
use dovetail_core::vision::{Model, ModelKind};
use serde::{Deserialize, Serialize};

/// The largest manifest that is read, in bytes. The number is arbitrary; the manifests of the imported models have
/// under 2 KiB.
pub const MAX_MANIFEST: u64 = 64 << 10;
/// The largest model file that is installed, in bytes. The number is arbitrary; the imported files have at most 22 MB.
pub const MAX_FILE: u64 = 512 << 20;

/// The most faces in one pass. The pass checks the caller's [`Stop`](dovetail_core::stop::Stop) only between batches,
/// and memory grows with the batch.
pub const MAX_BATCH: u32 = 4;

/// The description of one model; the table above lists what each output means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub kind: ModelKind,
    /// 1 to 64 of a-z, 0-9, `_` and `-`.
    pub name: String,
    /// Other names of the model, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The model's origin, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The model's licence, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The meaning of an emotion classifier's outputs, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How the output is read.
    pub output: Output,
    /// Only for `yolo_grid`: width and height of each anchor, in cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anchors: Vec<[f64; 2]>,
    /// Only for detectors with a network: a box that overlaps a better box by more than this (intersection over union)
    /// is dropped. 0.5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<f64>,
    /// How pixels are prepared. Required for every model except a cascade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// Faces in one pass, 1 to 4. By default 4 for an embedder and 2 for other models. 1 for a network whose first axis
    /// is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// The part of the picture that the network sees. Required for every model except detectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// The model's files. The store writes this list; a user leaves it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// How the network's output is read; the table above lists the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Boxes,
    SsdAnchors,
    YoloGrid,
    Cascade,
    Points,
    AgeGender,
    Probabilities,
    Logits,
    Vector,
}

/// The conversion from a picture to the network's input. The part of the picture is padded with black to a square, then
/// resampled to `side` (bilinear, without half-pixel centres, as TensorFlow did before 2.0).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels, 16 to 1024.
    pub side: u32,
    /// The mean of each channel, in the order of `channels`.
    pub mean: [f32; 3],
    /// The factor of `(pixel - mean)`; finite and not 0.
    pub scale: f32,
    #[serde(default)]
    pub channels: Channels,
    /// The network sees the square turned by 180 degrees. Only for `ssd_anchors`, whose anchors give the position of
    /// each output row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub turned: bool,
}

/// The order of the network's input channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    #[default]
    Rgb,
    Bgr,
}

/// The part of the picture that a face's network sees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// The area that the crop is computed from.
    pub from: CropFrom,
    /// The crop is wider on each side by this fraction of the box, 0 to 2. 0 by default.
    #[serde(default)]
    pub margin: f64,
}

/// The area that a crop is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropFrom {
    /// The detection's box.
    Detection,
    /// The smallest box around the 68 points.
    Landmarks,
    /// The square that dlib's embedder expects, from the centres of the eyes and of the mouth. It takes no margin.
    EyesAndMouth,
}

/// One installed file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub role: Role,
    /// sha256 of the file.
    pub digest: Digest,
    /// The file's size.
    pub bytes: u64,
}

/// The role of a file in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The network, as ONNX.
    Network,
    /// ymin, xmin, ymax, xmax of every anchor as little-endian f32, as fractions of the square.
    Anchors,
    /// OpenCV's XML for faces from the front, or for the objects that a user's detector finds.
    Cascade,
    /// OpenCV's XML for faces from the left; the detector also applies it to the mirrored picture.
    ProfileCascade,
}

impl Manifest {
    /// Faces in one pass. By default embedders take [`MAX_BATCH`] faces, because that saves 4 % of their time over two
    /// at once. Other models would save 1 % and take 13 MB more memory (docs/performance.md).
    #[cfg_attr(not(feature = "opencv"), expect(dead_code, reason = "without OpenCV there are no passes"))]
    pub(crate) fn faces_at_once(&self) -> usize {
        let default = if self.kind == ModelKind::Embedder { MAX_BATCH } else { MAX_BATCH / 2 };
        self.batch.unwrap_or(default) as usize
    }

    /// Whether the model was imported by `models pull`, by its manifest.
    #[cfg_attr(not(feature = "opencv"), expect(dead_code, reason = "without OpenCV no network is loaded"))]
    pub(crate) fn is_imported(&self) -> bool {
        let package = FACE_API_PACKAGE.rsplit_once('@').map_or(FACE_API_PACKAGE, |(name, _)| name);
        self.source.as_deref().is_some_and(|source| source.starts_with(package))
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// A sentence that names the wrong key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|err| err.to_string().trim_end().to_owned())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The model as core describes it. `digest` is the sha256 of the installed manifest, which contains the digests of
    /// the files.
    #[must_use]
    pub fn model(&self, digest: Digest) -> Model {
        let Self { kind, name, aliases, labels, .. } = self.clone();
        Model { kind, name, digest, aliases, labels, landmarker: None }
    }

    /// Whether the model's crops are computed from a landmarker's points.
    #[must_use]
    pub fn needs_landmarks(&self) -> bool {
        self.crop.is_some_and(|crop| crop.from != CropFrom::Detection)
    }

    /// The file with this role.
    #[must_use]
    pub fn file(&self, role: Role) -> Option<&File> {
        self.files.iter().find(|f| f.role == role)
    }

    fn check(&self) -> Result<(), String> {
        for name in std::iter::once(&self.name).chain(&self.aliases) {
            if !valid_name(name) {
                return Err(format!(
                    "`{name}` is not a model name: 1 to 64 of a-z, 0-9, `_` and `-`, starting with a letter or digit"
                ));
            }
        }
        if self.aliases.len() > 16 {
            return Err("`aliases` has more than 16 entries".to_owned());
        }
        let fits = match self.kind {
            ModelKind::Detector => {
                matches!(self.output, Output::Boxes | Output::SsdAnchors | Output::YoloGrid | Output::Cascade)
            }
            ModelKind::Landmarker => self.output == Output::Points,
            ModelKind::AgeGenderEstimator => self.output == Output::AgeGender,
            ModelKind::EmotionClassifier => matches!(self.output, Output::Probabilities | Output::Logits),
            ModelKind::Embedder => self.output == Output::Vector,
        };
        if !fits {
            return Err(format!("`output = {}` does not fit `kind = {}`", show(&self.output), show(&self.kind)));
        }
        self.check_input()?;
        self.check_crop()?;
        if self.batch.is_some_and(|n| !(1..=MAX_BATCH).contains(&n)) {
            return Err(format!("`batch` must be 1 to {MAX_BATCH}"));
        }
        let classifier = self.kind == ModelKind::EmotionClassifier;
        if classifier == self.labels.is_empty()
            || self.labels.len() > 64
            || self.labels.iter().any(|l| l.is_empty() || l.len() > 64)
        {
            return Err(
                "`labels` has 1 to 64 names of 1 to 64 bytes for an emotion classifier and is absent for other models"
                    .to_owned(),
            );
        }
        if self.labels.iter().enumerate().any(|(i, l)| self.labels[..i].contains(l)) {
            return Err("`labels` names one label twice".to_owned());
        }
        let grid = self.output == Output::YoloGrid;
        let positive = |a: &[f64; 2]| a.iter().all(|v| v.is_finite() && *v > 0.0);
        if grid == self.anchors.is_empty() || self.anchors.len() > 16 || !self.anchors.iter().all(positive) {
            return Err(
                "`anchors` has 1 to 16 pairs of positive numbers for `yolo_grid` and is absent for other outputs"
                    .to_owned(),
            );
        }
        if self.overlap.is_some_and(|v| !(0.0..=1.0).contains(&v)) {
            return Err("`overlap` is a fraction, 0 to 1".to_owned());
        }
        if self.overlap.is_some() && (self.kind != ModelKind::Detector || self.output == Output::Cascade) {
            return Err("`overlap` is only for detectors with a network".to_owned());
        }
        Ok(())
    }

    fn check_input(&self) -> Result<(), String> {
        let Some(Input { side, mean, scale, channels: _, turned }) = &self.input else {
            return if self.output == Output::Cascade {
                Ok(())
            } else {
                Err("`[input]` with side, mean and scale is missing".to_owned())
            };
        };
        if self.output == Output::Cascade {
            return Err("`[input]` is not for cascades: they use the grey picture".to_owned());
        }
        if !(16..=1024).contains(side) {
            return Err(format!("`input.side` is {side}: it must be 16 to 1024 pixels"));
        }
        if self.output == Output::YoloGrid && side % 32 != 0 {
            return Err(format!("`input.side` is {side}: for `yolo_grid` it must be a multiple of 32"));
        }
        if *turned && self.output != Output::SsdAnchors {
            return Err("`input.turned` is only for `ssd_anchors`".to_owned());
        }
        if !mean.iter().all(|v| v.is_finite()) || !scale.is_finite() || *scale == 0.0 {
            return Err("`input.mean` and `input.scale` are finite numbers, and `scale` is not 0".to_owned());
        }
        Ok(())
    }

    fn check_crop(&self) -> Result<(), String> {
        let Some(Crop { from, margin }) = &self.crop else {
            return if self.kind == ModelKind::Detector {
                Ok(())
            } else {
                Err("`[crop]` with from and margin is missing".to_owned())
            };
        };
        match (self.kind, from) {
            (ModelKind::Detector, _) => {
                return Err("`[crop]` is not for detectors: they use the whole picture".to_owned());
            }
            (ModelKind::Landmarker, CropFrom::Landmarks | CropFrom::EyesAndMouth) => {
                return Err(
                    "`crop.from` of a landmarker is `detection`: there are no points before it has run".to_owned()
                );
            }
            _ => {}
        }
        if !(0.0..=2.0).contains(margin) {
            return Err("`crop.margin` is a fraction of the box, 0 to 2".to_owned());
        }
        // The points come back as fractions of the detection's box, so the network must see exactly that box.
        if *margin != 0.0 && (*from == CropFrom::EyesAndMouth || self.kind == ModelKind::Landmarker) {
            return Err("`crop.margin` is 0 for landmarkers and for `eyes_and_mouth`".to_owned());
        }
        Ok(())
    }
}

fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// A value as it is written in TOML.
fn show(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMOTIONS: &str = "kind = 'emotion_classifier'\nname = 'mine'\nlabels = ['calm', 'other']\noutput = 'logits'\n\
        [input]\nside = 64\nmean = [127.5, 127.5, 127.5]\nscale = 0.0078\n[crop]\nfrom = 'landmarks'\nmargin = 0.1\n";

    #[test]
    fn a_manifest_reads_what_it_writes() {
        let manifest = Manifest::parse(EMOTIONS).unwrap();
        assert_eq!(manifest.input.unwrap().channels, Channels::Rgb);
        assert_eq!(Manifest::parse(&toml::to_string(&manifest).unwrap()).unwrap(), manifest);
    }

    #[test]
    fn the_examples_of_the_documentation_are_good() {
        let page = include_str!("../../../../docs/models.md");
        let examples: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let parsed: Vec<Manifest> = examples.into_iter().map(|example| Manifest::parse(example).unwrap()).collect();
        assert_eq!(parsed.iter().map(|m| m.output).collect::<Vec<_>>(), [Output::Cascade, Output::Logits]);
        // The page's table has every output that a user may name, with its kind.
        let rows = [
            (ModelKind::Detector, Output::Boxes),
            (ModelKind::Detector, Output::YoloGrid),
            (ModelKind::Detector, Output::Cascade),
            (ModelKind::Landmarker, Output::Points),
            (ModelKind::AgeGenderEstimator, Output::AgeGender),
            (ModelKind::EmotionClassifier, Output::Probabilities),
            (ModelKind::Embedder, Output::Vector),
        ];
        for (kind, output) in rows {
            let row = format!("| `{}` | `{}`", show(&kind), show(&output)).replace('"', "");
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        for (from, to, says) in [
            ("name = 'mine'", "name = '../mine'", "not a model name"),
            ("name = 'mine'", "name = 'mine'\nthreshold = 3", "threshold"),
            ("labels = ['calm', 'other']", "", "`labels`"),
            ("labels = ['calm', 'other']", "labels = ['calm', 'calm']", "twice"),
            ("output = 'logits'", "output = 'points'", "does not fit"),
            ("output = 'logits'", "output = 'logits'\noverlap = 0.5", "`overlap`"),
            ("output = 'logits'", "output = 'logits'\nanchors = [[1.0, 1.0]]", "`anchors`"),
            ("side = 64", "side = 5000", "`input.side`"),
            ("scale = 0.0078", "scale = nan", "`input.scale`"),
            ("scale = 0.0078", "scale = 0.0", "`input.scale`"),
            ("scale = 0.0078", "", "scale"),
            ("scale = 0.0078", "scale = 0.0078\nturned = true", "`input.turned`"),
            ("margin = 0.1", "margin = -1.0", "`crop.margin`"),
            ("[crop]\nfrom = 'landmarks'\nmargin = 0.1\n", "", "`[crop]`"),
            ("from = 'landmarks'", "from = 'eyes_and_mouth'", "`crop.margin`"),
        ] {
            assert!(EMOTIONS.contains(from));
            let err = Manifest::parse(&EMOTIONS.replace(from, to)).unwrap_err();
            assert!(err.contains(says), "{to}: {err}");
        }
    }
}
