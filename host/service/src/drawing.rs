//! Annotated pictures: boxes, points and labels upon a photograph.

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Point, Rect, Vision, VisionError};
use dovetail_vision::{Opencv, annotate};

use crate::{Error, Service};

/// Something that is drawn upon a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Left, top, width and height, in pixels.
    pub bbox: [f32; 4],
    /// x and y, in pixels.
    pub points: Vec<(f32, f32)>,
    pub lines: Vec<String>,
}

/// Draws upon pictures.
pub struct Drawing {
    vision: Opencv,
}

impl Service {
    /// Draws with the OpenCV of this machine.
    ///
    /// # Errors
    /// If OpenCV cannot be used.
    pub fn drawing(&self) -> Result<Drawing, Error> {
        Ok(Drawing { vision: self.vision()? })
    }
}

impl Drawing {
    /// The upright picture of these bytes with the annotations, as a JPEG of quality 90.
    ///
    /// # Errors
    /// If the bytes are no picture.
    pub fn annotated(&self, picture: &[u8], annotations: &[Annotation]) -> Result<Vec<u8>, Error> {
        let stop = Stop::never();
        let digest = Digest::of(picture);
        let mut bytes = Some(picture.to_vec());
        let mut give = || {
            bytes.take().ok_or_else(|| VisionError::unavailable("asked_twice", "the photograph was asked for twice"))
        };
        let image = self.vision.open(&digest, &mut give, &stop)?;
        let all: Vec<_> = annotations.iter().map(Annotation::to_vision).collect();
        Ok(self.vision.encode(&annotate(&image, &all)?, "image/jpeg", Some(90), &stop)?)
    }
}

impl Annotation {
    fn to_vision(&self) -> dovetail_vision::Annotation {
        let [x, y, width, height] = self.bbox;
        dovetail_vision::Annotation {
            bbox: Rect { x, y, width, height },
            points: self.points.iter().map(|(x, y)| Point { x: *x, y: *y }).collect(),
            lines: self.lines.clone(),
        }
    }
}
