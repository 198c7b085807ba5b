//! The six networks of `@vladmandic/face-api`, layer by layer, as ONNX graphs.
//!
//! Source: the TypeScript files in `src/` of that package. Every batch norm and every scale layer is folded into the
//! convolution before it (in f64), so that only convolutions, additions, activations and pools remain. The graphs do
//! not normalise pixels: the manifest has the means and the scale.

use super::graph::{Graph, Map, Pad};
use super::weights::{Tensor, Weights, WeightsError};

type Built = Result<Vec<u8>, WeightsError>;

/// `values[i] * by[i % by.len()]`, in f64: scales each output channel. Output channels are the last axis; in depthwise
/// filters they are the last axis but one, and the last axis has length 1.
fn scaled(t: &Tensor, by: &[f64]) -> Tensor {
    let values = t.values.iter().zip(by.iter().cycle()).map(|(&v, s)| (f64::from(v) * s) as f32).collect();
    Tensor { shape: t.shape.clone(), values }
}

fn f64s(t: &Tensor) -> impl Iterator<Item = f64> + '_ {
    t.values.iter().map(|&v| f64::from(v))
}

/// `ssd_mobilenetv1`: 512x512, turned by 180 degrees ([`Graph::turned`]: without the turn, OpenCV makes four padded
/// copies, which take 17 MB and a tenth of the time). Output `pred` `[N, 5118, 5]`: ty, tx, th, tw and the face's
/// logit. Also returns the anchors in the order of the rows: 5118 times ymin, xmin, ymax, xmax, as fractions of the
/// square before the turn, in little-endian f32.
pub(crate) fn ssd_mobilenetv1(w: &Weights) -> Result<(Vec<u8>, Vec<u8>), WeightsError> {
    // The value in the frozen graph: 0.001 rounded to f32. Some variances are 4e-36, so the exact value matters.
    const EPSILON: f64 = 0.001_000_000_047_497_451_3;
    let (mut g, mut x) = Graph::turned("ssd_mobilenetv1", 512);

    let pointwise = |g: &mut Graph, x: &Map, prefix: &str, stride: usize| -> Result<Map, WeightsError> {
        let bias = w.get(&format!("{prefix}/convolution_bn_offset"))?;
        let y = g.conv(x, w.get(&format!("{prefix}/weights"))?, Some(&bias.values), stride, Pad::Same);
        Ok(g.relu6(&y))
    };
    x = pointwise(&mut g, &x, "MobilenetV1/Conv2d_0_pointwise", 2)?;
    let mut maps = Vec::new();
    for i in 1..=13 {
        let p = format!("MobilenetV1/Conv2d_{i}_depthwise");
        let bn = |part: &str| w.get(&format!("{p}/BatchNorm/{part}"));
        let k: Vec<f64> = f64s(bn("gamma")?)
            .zip(f64s(bn("moving_variance")?))
            .map(|(gamma, var)| gamma / (var + EPSILON).sqrt())
            .collect();
        let bias: Vec<f32> = f64s(bn("beta")?)
            .zip(f64s(bn("moving_mean")?))
            .zip(&k)
            .map(|((beta, mean), k)| (beta - mean * k) as f32)
            .collect();
        let stride = if matches!(i, 2 | 4 | 6 | 12) { 2 } else { 1 };
        let y = g.depthwise(&x, &scaled(w.get(&format!("{p}/depthwise_weights"))?, &k), Some(&bias), stride);
        let y = g.relu6(&y);
        x = pointwise(&mut g, &y, &format!("MobilenetV1/Conv2d_{i}_pointwise"), 1)?;
        if i == 11 {
            maps.push(x.clone());
        }
    }
    maps.push(x.clone());
    for i in 0..8 {
        x = pointwise(&mut g, &x, &format!("Prediction/Conv2d_{i}_pointwise"), 1 + i % 2)?;
        if i % 2 == 1 {
            maps.push(x.clone());
        }
    }
    let mut predictions = Vec::new();
    for (i, map) in maps.iter().enumerate() {
        let part = |name: &str| w.get(&format!("Prediction/BoxPredictor_{i}/{name}"));
        let boxes = (part("BoxEncodingPredictor/weights")?, part("BoxEncodingPredictor/biases")?);
        let classes = (part("ClassPredictor/weights")?, part("ClassPredictor/biases")?);
        // Five values for each anchor: its four codes, and class 1 of three (background, face, unused).
        let merge = |boxes: &[f32], classes: &[f32]| -> Vec<f32> {
            boxes
                .chunks_exact(4)
                .zip(classes.chunks_exact(3))
                .flat_map(|(b, c)| [b[0], b[1], b[2], b[3], c[1]])
                .collect()
        };
        let bias = merge(&boxes.1.values, &classes.1.values);
        let filters =
            Tensor { shape: vec![1, 1, map.channels, bias.len()], values: merge(&boxes.0.values, &classes.0.values) };
        predictions.push(g.conv(map, &filters, Some(&bias), 1, Pad::Same));
    }
    let rows = g.rows(&predictions, 5, "pred");
    let anchors = w.get("Output/extra_dim")?;
    if anchors.values.len() != rows * 4 {
        let what = format!("{rows} rows and {} anchors", anchors.values.len() / 4);
        return Err(WeightsError::Shape { network: "ssd_mobilenetv1", what });
    }
    // The file lists the anchors map by map, and cell by cell from the top left. The rows of each map begin at the
    // bottom right.
    let mut turned: Vec<f32> = Vec::with_capacity(anchors.values.len());
    let mut rest = &anchors.values[..];
    for map in &predictions {
        let per_cell = map.channels / 5 * 4;
        let (of_map, after) = rest.split_at(map.side * map.side * per_cell);
        turned.extend(of_map.rchunks_exact(per_cell).flatten().copied());
        rest = after;
    }
    Ok((g.finish(), turned.into_iter().flat_map(|v| v.to_le_bytes()).collect()))
}

/// A depthwise 3x3 without bias or activation, then a pointwise 1x1 with bias.
fn separable(g: &mut Graph, w: &Weights, x: &Map, prefix: &str, stride: usize) -> Result<Map, WeightsError> {
    let d = g.depthwise(x, w.get(&format!("{prefix}/depthwise_filter"))?, None, stride);
    let bias = w.get(&format!("{prefix}/bias"))?;
    Ok(g.conv(&d, w.get(&format!("{prefix}/pointwise_filter"))?, Some(&bias.values), 1, Pad::Same))
}

/// A convolution with its bias.
fn plain(g: &mut Graph, w: &Weights, x: &Map, prefix: &str, stride: usize, pad: Pad) -> Result<Map, WeightsError> {
    let bias = w.get(&format!("{prefix}/bias"))?;
    Ok(g.conv(x, w.get(&format!("{prefix}/filters"))?, Some(&bias.values), stride, pad))
}

/// `tiny_face_detector`: `side` is 416 or another multiple of 32; output `pred` `[N, 25, side/32, side/32]`:
/// channel = anchor * 5 + (tx, ty, tw, th, objectness).
pub(crate) fn tiny_face_detector(w: &Weights, side: usize) -> Built {
    const SLOPE: f32 = 0.1;
    let (mut g, input) = Graph::new("tiny_face_detector", side);
    let y = plain(&mut g, w, &input, "conv0", 1, Pad::Valid)?;
    let mut x = g.leaky_relu(&y, SLOPE);
    for i in 1..6 {
        let y = g.max_pool(&x, 2, 2, Pad::Same);
        let y = separable(&mut g, w, &y, &format!("conv{i}"), 1)?;
        x = g.leaky_relu(&y, SLOPE);
    }
    x = g.max_pool(&x, 2, 1, Pad::Same);
    let bias = w.get("conv8/bias")?;
    let y = g.conv_named(&x, w.get("conv8/filters")?, Some(&bias.values), 1, Pad::Valid, Some("pred"));
    g.output("pred", &[y.channels, y.side, y.side]);
    Ok(g.finish())
}

/// The common layers of the landmark network and the expression network, each with its own weights: four dense blocks
/// and an average pool.
fn dense_blocks(g: &mut Graph, w: &Weights, input: Map) -> Result<Map, WeightsError> {
    let mut x = input;
    for i in 0..4 {
        let p = |layer: &str| format!("dense{i}/{layer}");
        let y = if i == 0 { plain(g, w, &x, &p("conv0"), 2, Pad::Same)? } else { separable(g, w, &x, &p("conv0"), 2)? };
        let first = g.relu(&y);
        let y = separable(g, w, &first, &p("conv1"), 1)?;
        let mut sum = g.add(&first, &y);
        for layer in ["conv2", "conv3"] {
            let active = g.relu(&sum);
            let y = separable(g, w, &active, &p(layer), 1)?;
            sum = g.add(&sum, &y);
        }
        x = g.relu(&sum);
    }
    Ok(g.average_pool(&x, 7, 2))
}

/// `face_landmark_68`: 112x112; output `points` `[N, 136]`: x0, y0, x1, y1, ... as fractions of the square.
pub(crate) fn face_landmark_68(w: &Weights) -> Built {
    let (mut g, input) = Graph::new("face_landmark_68", 112);
    let x = dense_blocks(&mut g, w, input)?;
    g.dense(&x, w.get("fc/weights")?, Some(&w.get("fc/bias")?.values), "points");
    Ok(g.finish())
}

/// `face_expression`: 112x112; output `prob` `[N, 7]`: neutral, happy, sad, angry, fearful, disgusted, surprised.
pub(crate) fn face_expression(w: &Weights) -> Built {
    let (mut g, input) = Graph::new("face_expression", 112);
    let x = dense_blocks(&mut g, w, input)?;
    g.dense_softmax(&x, w.get("fc/weights")?, Some(&w.get("fc/bias")?.values), "prob");
    Ok(g.finish())
}

/// `age_gender` (a small Xception): 112x112; output `age_gender` `[N, 3]`: years, male logit, female logit.
pub(crate) fn age_gender(w: &Weights) -> Built {
    let (mut g, input) = Graph::new("age_gender", 112);
    let reduction = |g: &mut Graph, x: &Map, p: &str, activate: bool| -> Result<Map, WeightsError> {
        let y = if activate { g.relu(x) } else { x.clone() };
        let y = separable(g, w, &y, &format!("{p}/separable_conv0"), 1)?;
        let y = g.relu(&y);
        let y = separable(g, w, &y, &format!("{p}/separable_conv1"), 1)?;
        let y = g.max_pool(&y, 3, 2, Pad::Same);
        let side = plain(g, w, x, &format!("{p}/expansion_conv"), 2, Pad::Same)?;
        Ok(g.add(&y, &side))
    };
    let y = plain(&mut g, w, &input, "entry_flow/conv_in", 2, Pad::Same)?;
    let x = g.relu(&y);
    let x = reduction(&mut g, &x, "entry_flow/reduction_block_0", false)?;
    let mut x = reduction(&mut g, &x, "entry_flow/reduction_block_1", true)?;
    for block in 0..2 {
        let mut y = x.clone();
        for i in 0..3 {
            let active = g.relu(&y);
            y = separable(&mut g, w, &active, &format!("middle_flow/main_block_{block}/separable_conv{i}"), 1)?;
        }
        x = g.add(&y, &x);
    }
    let x = reduction(&mut g, &x, "exit_flow/reduction_block", true)?;
    let y = separable(&mut g, w, &x, "exit_flow/separable_conv", 1)?;
    let y = g.relu(&y);
    let y = g.average_pool(&y, 7, 2);
    // One output with both heads side by side, because OpenCV's `forward` returns only the last of several outputs.
    let (age, gender) = (w.get("fc/age/weights")?, w.get("fc/gender/weights")?);
    let values: Vec<f32> =
        age.values.iter().zip(gender.values.chunks_exact(2)).flat_map(|(&a, g)| [a, g[0], g[1]]).collect();
    let heads = Tensor { shape: vec![age.shape[0], 3], values };
    let bias: Vec<f32> = [&w.get("fc/age/bias")?.values[..], &w.get("fc/gender/bias")?.values].concat();
    g.dense(&y, &heads, Some(&bias), "age_gender");
    Ok(g.finish())
}

/// `face_recognition` (dlib's ResNet): 150x150; output `descriptor` `[N, 128]`, not normalised.
pub(crate) fn face_recognition(w: &Weights) -> Built {
    let (mut g, input) = Graph::new("face_recognition", 150);
    let conv = |g: &mut Graph, x: &Map, p: &str, stride: usize, pad: Pad| -> Result<Map, WeightsError> {
        let scale: Vec<f64> = f64s(w.get(&format!("{p}/scale/weights"))?).collect();
        let shift = w.get(&format!("{p}/scale/biases"))?;
        let bias: Vec<f32> = f64s(w.get(&format!("{p}/conv/bias"))?)
            .zip(&scale)
            .zip(f64s(shift))
            .map(|((b, s), shift)| (b * s + shift) as f32)
            .collect();
        Ok(g.conv(x, &scaled(w.get(&format!("{p}/conv/filters"))?, &scale), Some(&bias), stride, pad))
    };
    let two = |g: &mut Graph, x: &Map, p: &str, stride: usize, pad: Pad| -> Result<Map, WeightsError> {
        let y = conv(g, x, &format!("{p}/conv1"), stride, pad)?;
        let y = g.relu(&y);
        conv(g, &y, &format!("{p}/conv2"), 1, Pad::Same)
    };
    let residual = |g: &mut Graph, x: &Map, p: &str| -> Result<Map, WeightsError> {
        let y = two(g, x, p, 1, Pad::Same)?;
        let sum = g.add(&y, x);
        Ok(g.relu(&sum))
    };
    let down = |g: &mut Graph, x: &Map, p: &str| -> Result<Map, WeightsError> {
        let mut y = two(g, x, p, 2, Pad::Valid)?;
        let mut s = g.average_pool(x, 2, 2);
        // VALID convolutions lose a row and a column that the pool keeps (3 instead of 4, 1 instead of 2).
        if s.side != y.side {
            y = g.pad(&y, 0, s.side - y.side);
        }
        if s.channels != y.channels {
            s = g.pad(&s, y.channels - s.channels, 0);
        }
        let sum = g.add(&s, &y);
        Ok(g.relu(&sum))
    };
    let y = conv(&mut g, &input, "conv32_down", 2, Pad::Valid)?;
    let y = g.relu(&y);
    let mut x = g.max_pool(&y, 3, 2, Pad::Valid);
    for p in ["conv32_1", "conv32_2", "conv32_3"] {
        x = residual(&mut g, &x, p)?;
    }
    for (first, others) in [
        ("conv64_down", &["conv64_1", "conv64_2", "conv64_3"][..]),
        ("conv128_down", &["conv128_1", "conv128_2"]),
        ("conv256_down", &["conv256_1", "conv256_2"]),
        ("conv256_down_out", &[]),
    ] {
        x = down(&mut g, &x, first)?;
        for p in others {
            x = residual(&mut g, &x, p)?;
        }
    }
    let side = x.side;
    let y = g.average_pool(&x, side, 1);
    g.dense(&y, w.get("fc")?, None, "descriptor");
    Ok(g.finish())
}
