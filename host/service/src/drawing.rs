//! Annotated pictures: boxes, points and labels on a photograph.

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Point, Rect, Vision, VisionError};
use dovetail_vision::{Opencv, annotate};

use crate::{Error, Service};

/// A box with points and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Left, top, width and height, in pixels.
    pub bbox: [f32; 4],
    /// x and y, in pixels.
    pub points: Vec<(f32, f32)>,
    /// The lines of the label.
    pub lines: Vec<String>,
}

/// Draws annotations with OpenCV.
pub struct Drawing {
    vision: Opencv,
}

impl Service {
    /// A drawing with this machine's OpenCV.
    ///
    /// # Errors
    /// As [`Service::vision`].
    pub fn drawing(&self) -> Result<Drawing, Error> {
        Ok(Drawing { vision: self.vision()? })
    }
}

impl Drawing {
    /// Decodes `picture`, turns it upright and draws the annotations: a JPEG file of quality 90.
    ///
    /// # Errors
    /// If the bytes are no picture, or if OpenCV fails.
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
