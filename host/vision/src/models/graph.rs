//! Builds an ONNX graph layer by layer, tracks the shape of every map, and writes the graph as a file.
//!
//! The builder offers only what OpenCV 4.6's importer reads correctly (found by trying): opset 10, in which `Clip` and
//! `Pad` have their arguments as attributes; explicit pads; `kernel_shape` on every convolution; fully connected layers
//! as 1x1 convolutions; a free first axis, so that one blob may hold any number of faces. Callers pass filters as
//! TensorFlow stores them (HWIO); the builder converts them to OIHW.

use super::protobuf::Message;
use super::weights::Tensor;

const IR_VERSION: i64 = 7;
const OPSET: i64 = 10;
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The padding of a convolution or a pool, with TensorFlow's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pad {
    /// The output has `ceil(size / stride)` pixels; an odd pixel of padding goes to the end.
    Same,
    /// No padding.
    Valid,
}

impl Pad {
    /// Pixels of padding before and after the map, on each axis.
    fn around(self, size: usize, kernel: usize, stride: usize) -> (usize, usize) {
        match self {
            Self::Valid => (0, 0),
            Self::Same => {
                let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
                (total / 2, total - total / 2)
            }
        }
    }
}

/// An intermediate result: `side` x `side` pixels with `channels` channels. (Every map of these networks is square.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    name: String,
    pub(crate) channels: usize,
    pub(crate) side: usize,
}

enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Text(&'a str),
    Ints(Vec<i64>),
}

/// A graph under construction.
pub(crate) struct Graph {
    name: &'static str,
    side: usize,
    turned: bool,
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    outputs: Vec<Message>,
}

/// The description of an input or output (`ValueInfoProto`): f32 of the shape `[N, dims...]`.
fn value(name: &str, dims: &[usize]) -> Message {
    let mut shape = Message::new();
    let mut batch = Message::new();
    batch.text(2, "N");
    shape.message(1, &batch);
    for &d in dims {
        let mut dim = Message::new();
        dim.int(1, d as i64);
        shape.message(1, &dim);
    }
    let (mut tensor, mut kind, mut info) = (Message::new(), Message::new(), Message::new());
    tensor.int(1, FLOAT);
    tensor.message(2, &shape);
    kind.message(1, &tensor);
    info.text(1, name);
    info.message(2, &kind);
    info
}

fn ints(values: &[usize]) -> Attribute<'static> {
    Attribute::Ints(values.iter().map(|&v| v as i64).collect())
}

impl Graph {
    /// A graph with one input `input` of the shape `[N, 3, side, side]`, and that input.
    pub(crate) fn new(name: &'static str, side: usize) -> (Self, Map) {
        let graph =
            Self { name, side, turned: false, nodes: Vec::new(), initializers: Vec::new(), outputs: Vec::new() };
        (graph, Map { name: "input".to_owned(), channels: 3, side })
    }

    /// The same graph for a picture that is turned by 180 degrees. All maps and filters are turned too, so each value
    /// is computed from the same values as without the turn. An odd pixel of padding then lies before the map. With
    /// stride 2 that equals one pixel on both sides, because the last pixel is never read. OpenCV's convolutions
    /// support only equal padding on both sides; with unequal padding OpenCV first copies the whole map.
    pub(crate) fn turned(name: &'static str, side: usize) -> (Self, Map) {
        let (graph, input) = Self::new(name, side);
        (Self { turned: true, ..graph }, input)
    }

    /// Pixels of padding before and after a map, and the side of the resulting map.
    fn around(&self, pad: Pad, side: usize, k: usize, stride: usize) -> (usize, usize, usize) {
        let (before, after) = pad.around(side, k, stride);
        let out = (side + before + after - k) / stride + 1;
        if !self.turned {
            return (before, after, out);
        }
        let (before, after) = (after, before);
        let alike = (side + 2 * before - k) / stride + 1 == out;
        (before, if alike { before } else { after }, out)
    }

    fn initializer(&mut self, dims: &[usize], kind: i64, raw: &[u8]) -> String {
        let name = format!("c{}", self.initializers.len());
        let mut tensor = Message::new();
        for &d in dims {
            tensor.int(1, d as i64);
        }
        tensor.int(2, kind);
        tensor.text(8, &name);
        tensor.bytes(9, raw);
        self.initializers.push(tensor);
        name
    }

    fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len(), "dims and values");
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(dims, FLOAT, &raw)
    }

    fn node(&mut self, op: &str, inputs: &[&str], out: Option<&str>, attributes: &[(&str, Attribute)]) -> String {
        let out = out.map_or_else(|| format!("{}_{}", op.to_lowercase(), self.nodes.len()), str::to_owned);
        let mut node = Message::new();
        for input in inputs {
            node.text(1, input);
        }
        node.text(2, &out);
        node.text(3, &out);
        node.text(4, op);
        for (name, value) in attributes {
            let mut a = Message::new();
            a.text(1, name);
            let kind = match value {
                Attribute::Float(v) => {
                    a.float(2, *v);
                    1
                }
                Attribute::Int(v) => {
                    a.int(3, *v);
                    2
                }
                Attribute::Text(v) => {
                    a.text(4, v);
                    3
                }
                Attribute::Ints(v) => {
                    for &v in v {
                        a.int(8, v);
                    }
                    7
                }
            };
            a.int(20, kind);
            node.message(5, &a);
        }
        self.nodes.push(node);
        out
    }

    /// A convolution; `hwio` is `[k, k, in, out]`.
    pub(crate) fn conv(&mut self, x: &Map, hwio: &Tensor, bias: Option<&[f32]>, stride: usize, pad: Pad) -> Map {
        self.conv_named(x, hwio, bias, stride, pad, None)
    }

    /// A convolution whose result is the graph's output `out`, if that is given.
    pub(crate) fn conv_named(
        &mut self,
        x: &Map,
        hwio: &Tensor,
        bias: Option<&[f32]>,
        stride: usize,
        pad: Pad,
        out: Option<&str>,
    ) -> Map {
        let [k, _, cin, cout] = hwio.shape4();
        debug_assert_eq!(cin, x.channels, "channels of {}", x.name);
        let mut oihw = vec![0.0; hwio.values.len()];
        for (at, &v) in hwio.values.iter().enumerate() {
            let (place, o) = (at / cout, at % cout);
            let (yx, i) = (self.place(place / cin, k), place % cin);
            oihw[(o * cin + i) * k * k + yx] = v;
        }
        let w = self.floats(&[cout, cin, k, k], &oihw);
        self.convolve(x, w, bias, (k, stride, pad), (cout, 1), out)
    }

    /// A depthwise convolution with multiplier 1; `filters` is `[k, k, channels, 1]`.
    pub(crate) fn depthwise(&mut self, x: &Map, filters: &Tensor, bias: Option<&[f32]>, stride: usize) -> Map {
        let [k, _, c, _] = filters.shape4();
        debug_assert_eq!(c, x.channels, "channels of {}", x.name);
        let mut planes = vec![0.0; filters.values.len()];
        for (at, &v) in filters.values.iter().enumerate() {
            planes[at % c * k * k + self.place(at / c, k)] = v;
        }
        let w = self.floats(&[c, 1, k, k], &planes);
        self.convolve(x, w, bias, (k, stride, Pad::Same), (c, c), None)
    }

    /// The position of a filter's value `yx` among its `k * k` values.
    fn place(&self, yx: usize, k: usize) -> usize {
        if self.turned { k * k - 1 - yx } else { yx }
    }

    fn convolve(
        &mut self,
        x: &Map,
        w: String,
        bias: Option<&[f32]>,
        (k, stride, pad): (usize, usize, Pad),
        (channels, group): (usize, usize),
        out: Option<&str>,
    ) -> Map {
        let (before, after, side) = self.around(pad, x.side, k, stride);
        let bias = bias.map(|b| self.floats(&[channels], b));
        let inputs: Vec<&str> = [x.name.as_str(), w.as_str()].into_iter().chain(bias.as_deref()).collect();
        let attributes = [
            ("kernel_shape", ints(&[k, k])),
            ("strides", ints(&[stride, stride])),
            ("pads", ints(&[before, before, after, after])),
            ("dilations", ints(&[1, 1])),
            ("group", Attribute::Int(group as i64)),
        ];
        let name = self.node("Conv", &inputs, out, &attributes);
        Map { name, channels, side }
    }

    fn same_shape(&mut self, op: &str, x: &Map, attributes: &[(&str, Attribute)]) -> Map {
        Map { name: self.node(op, &[&x.name], None, attributes), ..*x }
    }

    pub(crate) fn relu(&mut self, x: &Map) -> Map {
        self.same_shape("Relu", x, &[])
    }

    pub(crate) fn relu6(&mut self, x: &Map) -> Map {
        self.same_shape("Clip", x, &[("min", Attribute::Float(0.0)), ("max", Attribute::Float(6.0))])
    }

    pub(crate) fn leaky_relu(&mut self, x: &Map, alpha: f32) -> Map {
        self.same_shape("LeakyRelu", x, &[("alpha", Attribute::Float(alpha))])
    }

    pub(crate) fn add(&mut self, a: &Map, b: &Map) -> Map {
        debug_assert_eq!((a.channels, a.side), (b.channels, b.side), "{} + {}", a.name, b.name);
        Map { name: self.node("Add", &[&a.name, &b.name], None, &[]), ..*a }
    }

    fn pool(&mut self, op: &str, x: &Map, k: usize, stride: usize, pad: Pad) -> Map {
        let (before, after, side) = self.around(pad, x.side, k, stride);
        let attributes = [
            ("kernel_shape", ints(&[k, k])),
            ("strides", ints(&[stride, stride])),
            ("pads", ints(&[before, before, after, after])),
        ];
        let name = self.node(op, &[&x.name], None, &attributes);
        Map { name, channels: x.channels, side }
    }

    pub(crate) fn max_pool(&mut self, x: &Map, k: usize, stride: usize, pad: Pad) -> Map {
        self.pool("MaxPool", x, k, stride, pad)
    }

    pub(crate) fn average_pool(&mut self, x: &Map, k: usize, stride: usize) -> Map {
        self.pool("AveragePool", x, k, stride, Pad::Valid)
    }

    /// Appends zeros: `channels` channels after the last, `rows` rows below and as many columns on the right.
    pub(crate) fn pad(&mut self, x: &Map, channels: usize, rows: usize) -> Map {
        let attributes = [
            ("mode", Attribute::Text("constant")),
            ("value", Attribute::Float(0.0)),
            ("pads", ints(&[0, 0, 0, 0, 0, channels, rows, rows])),
        ];
        let name = self.node("Pad", &[&x.name], None, &attributes);
        Map { name, channels: x.channels + channels, side: x.side + rows }
    }

    /// A fully connected layer on a 1x1 map, as the graph's output `out` of the shape `[N, n]`; `weights` is `[in, n]`.
    pub(crate) fn dense(&mut self, x: &Map, weights: &Tensor, bias: Option<&[f32]>, out: &str) {
        let y = self.dense_inner(x, weights, bias);
        self.flat(&y, Some(out));
        self.output(out, &[y.channels]);
    }

    /// A fully connected layer followed by a softmax, as the graph's output `out`.
    pub(crate) fn dense_softmax(&mut self, x: &Map, weights: &Tensor, bias: Option<&[f32]>, out: &str) {
        let y = self.dense_inner(x, weights, bias);
        let logits = self.flat(&y, None);
        self.node("Softmax", &[&logits], Some(out), &[("axis", Attribute::Int(1))]);
        self.output(out, &[y.channels]);
    }

    fn dense_inner(&mut self, x: &Map, weights: &Tensor, bias: Option<&[f32]>) -> Map {
        debug_assert_eq!(x.side, 1, "a fully connected layer reads a 1x1 map");
        let shape = vec![1, 1, weights.shape[0], weights.shape[1]];
        self.conv(x, &Tensor { shape, values: weights.values.clone() }, bias, 1, Pad::Valid)
    }

    fn flat(&mut self, x: &Map, out: Option<&str>) -> String {
        let shape = self.reshape_to(&[x.channels]);
        self.node("Reshape", &[&x.name, &shape], out, &[])
    }

    /// The constant `[-1, dims...]`. The -1 stands for the batch: with a fixed 1 the importer would fold the batch axis
    /// away.
    fn reshape_to(&mut self, dims: &[usize]) -> String {
        let raw: Vec<u8> =
            std::iter::once(-1_i64).chain(dims.iter().map(|&d| d as i64)).flat_map(i64::to_le_bytes).collect();
        self.initializer(&[dims.len() + 1], INT64, &raw)
    }

    /// The pixels of all maps as rows of `width` values, map after map, as the output `out` of the shape `[N, rows,
    /// width]`. Returns the number of rows.
    pub(crate) fn rows(&mut self, maps: &[Map], width: usize, out: &str) -> usize {
        let mut names = Vec::new();
        let mut total = 0;
        for map in maps {
            let n = map.side * map.side * map.channels / width;
            let transposed = self.node("Transpose", &[&map.name], None, &[("perm", ints(&[0, 2, 3, 1]))]);
            let shape = self.reshape_to(&[n, width]);
            names.push(self.node("Reshape", &[&transposed, &shape], None, &[]));
            total += n;
        }
        let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
        self.node("Concat", &inputs, Some(out), &[("axis", Attribute::Int(1))]);
        self.output(out, &[total, width]);
        total
    }

    /// Declares an output of the graph, of the shape `[N, dims...]`.
    pub(crate) fn output(&mut self, name: &str, dims: &[usize]) {
        self.outputs.push(value(name, dims));
    }

    /// The graph as the content of an ONNX file.
    pub(crate) fn finish(self) -> Vec<u8> {
        let Self { name, side, nodes, initializers, outputs, turned: _ } = self;
        let mut graph = Message::new();
        for node in &nodes {
            graph.message(1, node);
        }
        graph.text(2, name);
        for tensor in &initializers {
            graph.message(5, tensor);
        }
        graph.message(11, &value("input", &[3, side, side]));
        for output in &outputs {
            graph.message(12, output);
        }
        let (mut opset, mut model) = (Message::new(), Message::new());
        opset.text(1, "");
        opset.int(2, OPSET);
        model.int(1, IR_VERSION);
        model.text(2, "dovetail");
        model.message(7, &graph);
        model.message(8, &opset);
        model.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_pixel_last() {
        assert_eq!(Pad::Same.around(512, 3, 2), (0, 1));
        assert_eq!(Pad::Same.around(13, 2, 1), (0, 1));
        assert_eq!(Pad::Same.around(112, 3, 1), (1, 1));
        assert_eq!(Pad::Valid.around(416, 3, 1), (0, 0));
    }

    #[test]
    fn where_the_picture_is_turned_an_odd_pixel_costs_no_copy() {
        let (turned, straight) = (Graph::turned("t", 512).0, Graph::new("t", 512).0);
        for (side, k, stride, there, then) in [
            (512, 3, 2, (0, 1, 256), (1, 1, 256)),
            (2, 3, 2, (0, 1, 1), (1, 1, 1)),
            (64, 3, 1, (1, 1, 64), (1, 1, 64)),
            // With an odd side the last pixel is read, so padding on both sides is not equivalent.
            (13, 2, 1, (0, 1, 13), (1, 0, 13)),
        ] {
            assert_eq!(straight.around(Pad::Same, side, k, stride), there);
            assert_eq!(turned.around(Pad::Same, side, k, stride), then);
        }
        assert_eq!([straight.place(0, 3), turned.place(0, 3), turned.place(8, 3), turned.place(0, 1)], [0, 8, 0, 0]);
    }

    #[test]
    fn filters_are_turned_from_hwio_to_oihw() {
        let (mut graph, mut x) = Graph::new("t", 4);
        x.channels = 2;
        // One pixel, two input channels, three output channels: [i][o] becomes [o][i].
        let w = Tensor { shape: vec![1, 1, 2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let y = graph.conv(&x, &w, None, 1, Pad::Valid);
        assert_eq!((y.channels, y.side), (3, 4));
        let raw: Vec<u8> = [1.0_f32, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = graph.finish();
        assert!(file.windows(raw.len()).any(|w| w == raw), "the filter in OIHW order");
    }
}
