//! What can be drawn upon a picture, and what is known of a file before it is decoded: plain data, the same with and
//! without OpenCV.

use dovetail_core::vision::{Point, Rect, Size};

/// One face to be drawn. Coordinates are pixels of the picture; what lies outside is not drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    pub bbox: Rect,
    /// Dots, in the order of the landmarks; may be empty.
    pub points: Vec<Point>,
    /// The label, one line an entry; may be empty. Characters other than printable ASCII are drawn as `?`: OpenCV's
    /// font has no others.
    pub lines: Vec<String>,
}

/// What the header of an image file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// `image/jpeg`, `image/png`, `image/webp` or `image/bmp`.
    pub media_type: &'static str,
    /// As stored; EXIF orientation may swap the two.
    pub size: Size,
}
