//! Plain data that exist with and without OpenCV: the faces to draw on a picture, and the header of an image file.

use dovetail_core::vision::{Point, Rect, Size};

/// One face to draw. Coordinates are pixels of the picture; parts outside the picture are not drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// The face's box.
    pub bbox: Rect,
    /// The landmarks, drawn as dots; may be empty.
    pub points: Vec<Point>,
    /// The lines of the label; may be empty. Characters other than printable ASCII are drawn as `?`, because OpenCV's
    /// font has no others.
    pub lines: Vec<String>,
}

/// The content of an image file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// `image/jpeg`, `image/png`, `image/webp` or `image/bmp`.
    pub media_type: &'static str,
    /// The size as stored, in pixels. EXIF orientation may swap width and height.
    pub size: Size,
}
