//! Installs models in the form in which they are published: the six networks of `@vladmandic/face-api`, and Debian's
//! Haar cascades.
//!
//! The import reads folders. The caller fetches and unpacks the package (`npm pack`, `tar`).

use std::path::Path;

use dovetail_core::id::Digest;
use dovetail_core::vision::{Model, ModelKind};

use super::manifest::{Channels, Crop, CropFrom, Input, MAX_FILE, Manifest, Output, Role};
use super::networks;
use super::store::{Candidate, ModelError, ModelStore, check, read_bounded};
use super::weights::{Weights, WeightsError};
use crate::{EngineOptions, Engines};

/// The argument for `npm pack`. Licence: MIT.
pub const FACE_API_PACKAGE: &str = "@vladmandic/face-api@1.7.15";
/// The folder in which Debian's and Ubuntu's package `opencv-data` installs the cascades.
pub const HAAR_FOLDER: &str = "/usr/share/opencv4/haarcascades";

const SOURCE_FACE_API: &str = "@vladmandic/face-api";
const SOURCE_HAAR: &str = "opencv-data";

/// A source file of the package, in its folder `model/`, and the file's sha256.
type Pinned = (&'static str, &'static str);

struct Source {
    name: &'static str,
    manifest: Pinned,
    weights: Pinned,
}

/// The digests are those of the published package: `npm pack @vladmandic/face-api@1.7.15`, then `sha256sum
/// package/model/*`.
const SOURCES: [Source; 6] = [
    Source {
        name: "ssd_mobilenetv1",
        manifest: (
            "ssd_mobilenetv1_model-weights_manifest.json",
            "888f744dffbc84f5f060d1f8427d9742341943a2dfaaf9205d10029b7e7a2955",
        ),
        weights: ("ssd_mobilenetv1_model.bin", "2835640602d53718aa6ae9a42896327eaa21beefed056c218d32ca7d79e1e2f8"),
    },
    Source {
        name: "tiny_face_detector",
        manifest: (
            "tiny_face_detector_model-weights_manifest.json",
            "5d1af4849ac48d5b985f4a9b16010c512353ddd6fcc63d50fd0bc9e9e64296e5",
        ),
        weights: ("tiny_face_detector_model.bin", "b7503ce7df31039b1c43316a9b865cab6a70dd748cc602d3fa28b551503c3871"),
    },
    Source {
        name: "face_landmark_68",
        manifest: (
            "face_landmark_68_model-weights_manifest.json",
            "ca4886639f86e99b39fed0c155f81b63317225773bd9616716e887b0153389c9",
        ),
        weights: ("face_landmark_68_model.bin", "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b"),
    },
    Source {
        name: "age_gender",
        manifest: (
            "age_gender_model-weights_manifest.json",
            "74b60bf3ebf981bf4e661e9cca3a185614e10b25d797118b62e2a68d3ff2569f",
        ),
        weights: ("age_gender_model.bin", "49f92bbc0afef2342c4385e4a2b0acb6d7a727c6f0aa539499719a81acf9abaa"),
    },
    Source {
        name: "face_expression",
        manifest: (
            "face_expression_model-weights_manifest.json",
            "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
        ),
        weights: ("face_expression_model.bin", "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d"),
    },
    Source {
        name: "face_recognition",
        manifest: (
            "face_recognition_model-weights_manifest.json",
            "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
        ),
        weights: ("face_recognition_model.bin", "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"),
    },
];

/// Reads a source file and compares it with its pinned digest.
fn pinned(folder: &Path, (name, sha256): Pinned) -> Result<Vec<u8>, ModelError> {
    let path = folder.join(name);
    let bytes = read_bounded(&path, MAX_FILE)?;
    let (expected, found) = (sha256.parse().expect("the pins are digests"), Digest::of(&bytes));
    if expected == found { Ok(bytes) } else { Err(ModelError::WrongDigest { path, expected, found }) }
}

fn manifest(
    kind: ModelKind,
    name: &str,
    alias: Option<&str>,
    output: Output,
    input: Option<Input>,
    crop: Option<Crop>,
) -> Manifest {
    Manifest {
        kind,
        name: name.to_owned(),
        aliases: alias.into_iter().map(str::to_owned).collect(),
        source: Some(FACE_API_PACKAGE.to_owned()),
        license: Some("MIT".to_owned()),
        labels: Vec::new(),
        output,
        anchors: Vec::new(),
        overlap: None,
        input,
        batch: None,
        crop,
        files: Vec::new(),
    }
}

/// The mean of the four networks that see a face.
const FACE_MEAN: [f32; 3] = [122.782, 117.001, 104.298];

/// Converts the network to ONNX, and writes the manifest for it.
fn convert(name: &'static str, w: &Weights) -> Result<Candidate, WeightsError> {
    let input = |side, mean, divisor: f32| {
        Some(Input { side, mean, scale: 1.0 / divisor, channels: Channels::Rgb, turned: false })
    };
    let face = |side| input(side, FACE_MEAN, 255.0);
    let crop = |from, margin| Some(Crop { from, margin });
    let (manifest, network, anchors) = match name {
        "ssd_mobilenetv1" => {
            let (network, anchors) = networks::ssd_mobilenetv1(w)?;
            let input = input(512, [127.5; 3], 127.5).map(|input| Input { turned: true, ..input });
            let m = manifest(ModelKind::Detector, name, Some("ssd"), Output::SsdAnchors, input, None);
            (Manifest { overlap: Some(0.5), ..m }, network, Some(anchors))
        }
        "tiny_face_detector" => {
            let m = manifest(
                ModelKind::Detector,
                name,
                Some("tiny"),
                Output::YoloGrid,
                input(416, [117.001, 114.697, 97.404], 255.0),
                None,
            );
            let anchors = vec![
                [1.603_231, 2.094_468],
                [6.041_143, 7.080_126],
                [2.882_459, 3.518_061],
                [4.266_906, 5.178_857],
                [9.041_765, 10.663_08],
            ];
            (Manifest { overlap: Some(0.4), anchors, ..m }, networks::tiny_face_detector(w, 416)?, None)
        }
        "face_landmark_68" => {
            let m =
                manifest(ModelKind::Landmarker, name, None, Output::Points, face(112), crop(CropFrom::Detection, 0.0));
            (m, networks::face_landmark_68(w)?, None)
        }
        "age_gender" => {
            let m = manifest(
                ModelKind::AgeGenderEstimator,
                name,
                None,
                Output::AgeGender,
                face(112),
                crop(CropFrom::Landmarks, 0.1),
            );
            (m, networks::age_gender(w)?, None)
        }
        "face_expression" => {
            let m = manifest(
                ModelKind::EmotionClassifier,
                name,
                None,
                Output::Probabilities,
                face(112),
                crop(CropFrom::Landmarks, 0.1),
            );
            let labels =
                ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"].map(str::to_owned).to_vec();
            (Manifest { labels, ..m }, networks::face_expression(w)?, None)
        }
        _ => {
            let m =
                manifest(ModelKind::Embedder, name, None, Output::Vector, face(150), crop(CropFrom::EyesAndMouth, 0.0));
            (m, networks::face_recognition(w)?, None)
        }
    };
    let files = std::iter::once((Role::Network, network)).chain(anchors.map(|a| (Role::Anchors, a))).collect();
    Ok(Candidate { manifest, files })
}

impl ModelStore {
    /// Installs the six networks from an unpacked [`FACE_API_PACKAGE`]; `package` is the folder that contains `model/`.
    /// Before it writes anything, it compares every source file with its pinned sha256 and converts every network.
    /// Models of an earlier import are replaced.
    ///
    /// # Errors
    /// `Io` (for example, a file is missing), `WrongDigest`, `Weights`, `NameTaken` (by a user's model). After an error
    /// other than a failed write, nothing is installed.
    pub fn import_face_api(&self, package: &Path) -> Result<Vec<Model>, ModelError> {
        let folder = package.join("model");
        let mut candidates = Vec::new();
        for Source { name, manifest, weights } in SOURCES {
            let (manifest, blob) = (pinned(&folder, manifest)?, pinned(&folder, weights)?);
            let failed = |source| ModelError::Weights { network: name, source };
            let tensors = Weights::read(&manifest, &blob).map_err(failed)?;
            candidates.push(convert(name, &tensors).map_err(failed)?);
        }
        self.install(candidates, Some(SOURCE_FACE_API))
    }

    /// Installs the model `haar` from the folder of OpenCV's cascades ([`HAAR_FOLDER`]): one cascade for frontal faces
    /// and one for profiles. No digest is pinned, because the files come from the operating system's signed package, in
    /// any version. The model's digest tells the versions apart.
    ///
    /// # Errors
    /// `Io`, `Unusable`, `NameTaken`; `Unavailable` in a build without OpenCV.
    pub fn import_haar(&self, cascades: &Path) -> Result<Model, ModelError> {
        let front = cascades.join("haarcascade_frontalface_alt.xml");
        let profile = cascades.join("haarcascade_profileface.xml");
        let manifest = Manifest {
            source: Some(SOURCE_HAAR.to_owned()),
            license: Some("Intel License Agreement for Open Source Computer Vision Library".to_owned()),
            ..manifest(ModelKind::Detector, "haar", None, Output::Cascade, None, None)
        };
        let files = vec![
            (Role::Cascade, read_bounded(&front, MAX_FILE)?),
            (Role::ProfileCascade, read_bounded(&profile, MAX_FILE)?),
        ];
        let candidate = Candidate { manifest, files };
        // Cascades have no network, so no engine is opened.
        check(&candidate, &front, &Engines::new(EngineOptions::opencv(1)))?;
        self.install(vec![candidate], Some(SOURCE_HAAR)).map(|mut models| models.remove(0))
    }
}
