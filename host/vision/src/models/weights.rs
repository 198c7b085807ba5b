//! Reads the weight files of tensorflow.js: a JSON manifest, and binary files that contain the tensors one after the
//! other.
//!
//! A tensor with `quantization` has one byte for each value (`value = byte * scale + min`, computed in f64). A tensor
//! without it has little-endian f32 or i32. A tensor begins where the previous one ends, without alignment.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Values in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Tensor {
    /// The shape of a convolution's filters.
    pub(crate) fn shape4(&self) -> [usize; 4] {
        // The networks ask for the shape only of tensors that have four dimensions in the pinned files.
        <[usize; 4]>::try_from(self.shape.as_slice()).expect("filters have four dimensions in the pinned files")
    }
}

#[derive(Debug, Deserialize)]
struct Group {
    weights: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    quantization: Option<Quantization>,
}

#[derive(Debug, Deserialize)]
struct Quantization {
    scale: f64,
    min: f64,
    dtype: String,
}

/// Why a weight file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("the manifest is not readable")]
    Manifest(#[source] serde_json::Error),
    #[error("tensor `{tensor}` is of type `{dtype}`, which is not supported")]
    Type { tensor: String, dtype: String },
    #[error("tensor `{tensor}` ends after the end of the file, which has {bytes} bytes")]
    Short { tensor: String, bytes: usize },
    #[error("{left} bytes remain after the last tensor")]
    Long { left: usize },
    #[error("tensor `{0}` is missing")]
    Missing(String),
    #[error("the parts of {network} do not fit: {what}")]
    Shape { network: &'static str, what: String },
}

/// All tensors of one network, by name.
#[derive(Debug)]
pub(crate) struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// Reads all tensors. `blob` is the concatenation of the manifest's binary files.
    ///
    /// # Errors
    /// `Manifest`; `Type`; `Short` if the blob ends within a tensor; `Long` if bytes remain after the last tensor.
    pub(crate) fn read(manifest: &[u8], blob: &[u8]) -> Result<Self, WeightsError> {
        let groups: Vec<Group> = serde_json::from_slice(manifest).map_err(WeightsError::Manifest)?;
        let mut rest = blob;
        let mut tensors = BTreeMap::new();
        for entry in groups.into_iter().flat_map(|g| g.weights) {
            let count = entry.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            let dtype = entry.quantization.as_ref().map_or(entry.dtype.as_str(), |q| q.dtype.as_str());
            let width = match dtype {
                "uint8" => 1,
                "float32" | "int32" => 4,
                other => return Err(WeightsError::Type { tensor: entry.name, dtype: other.to_owned() }),
            };
            let split = count.and_then(|n| n.checked_mul(width)).and_then(|bytes| rest.split_at_checked(bytes));
            let Some((raw, after)) = split else {
                return Err(WeightsError::Short { tensor: entry.name, bytes: blob.len() });
            };
            let values = match &entry.quantization {
                Some(q) => raw.iter().map(|&b| (f64::from(b) * q.scale + q.min) as f32).collect(),
                None => raw
                    .chunks_exact(4)
                    .map(|b| {
                        let bytes = [b[0], b[1], b[2], b[3]];
                        if entry.dtype == "int32" {
                            i32::from_le_bytes(bytes) as f32
                        } else {
                            f32::from_le_bytes(bytes)
                        }
                    })
                    .collect(),
            };
            tensors.insert(entry.name, Tensor { shape: entry.shape, values });
            rest = after;
        }
        if rest.is_empty() { Ok(Self(tensors)) } else { Err(WeightsError::Long { left: rest.len() }) }
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Tensor, WeightsError> {
        self.0.get(name).ok_or_else(|| WeightsError::Missing(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"[{"paths": ["a.bin"], "weights": [
        {"name": "q", "shape": [3], "dtype": "float32", "quantization": {"scale": 0.5, "min": -1.0, "dtype": "uint8"}},
        {"name": "f", "shape": [1, 1], "dtype": "float32"}]}]"#;

    #[test]
    fn quantised_and_unaligned_tensors_are_read() {
        let blob = [&[0_u8, 1, 4][..], &2.5_f32.to_le_bytes()].concat();
        let weights = Weights::read(MANIFEST.as_bytes(), &blob).unwrap();
        assert_eq!(weights.get("q").unwrap().values, [-1.0, -0.5, 1.0]);
        assert_eq!(weights.get("f").unwrap().values, [2.5]);
        assert!(matches!(weights.get("x"), Err(WeightsError::Missing(_))));
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        assert!(matches!(Weights::read(MANIFEST.as_bytes(), &[0; 6]), Err(WeightsError::Short { .. })));
        assert!(matches!(Weights::read(MANIFEST.as_bytes(), &[0; 8]), Err(WeightsError::Long { left: 1 })));
        assert!(matches!(Weights::read(b"{}", &[]), Err(WeightsError::Manifest(_))));
    }
}
