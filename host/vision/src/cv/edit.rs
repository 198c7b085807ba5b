//! Cutting and resampling pictures.

use dovetail_core::vision::{Image, Rect, Size, VisionError};
use opencv::core::{Mat, MatTraitConst, MatTraitConstManual};
use opencv::imgproc;

use super::failed;

/// The part of the picture that `area` touches, rounded outwards to whole pixels.
///
/// # Errors
/// `Invalid` with `empty_area` if no pixel lies inside the picture, or if a number of `area` is not finite.
pub(super) fn crop(image: &Image, area: Rect) -> Result<Image, VisionError> {
    let Size { width, height } = image.size();
    let empty = || {
        let Rect { x, y, width: w, height: h } = area;
        VisionError::invalid(
            "empty_area",
            format!("no pixel of the area ({x}, {y}, {w}, {h}) lies inside the picture of {width} x {height} pixels"),
        )
    };
    if ![area.x, area.y, area.width, area.height].iter().all(|v| v.is_finite()) {
        return Err(empty());
    }
    // f64, because the sum of two finite f32 can overflow in f32.
    let range = |start: f32, extent: f32, limit: u32| {
        let (start, end) = (f64::from(start), f64::from(start) + f64::from(extent));
        let (first, last) = (start.max(0.0).floor(), end.min(f64::from(limit)).ceil());
        (extent > 0.0 && last > first).then_some((first as usize, last as usize))
    };
    let (Some((left, right)), Some((top, bottom))) =
        (range(area.x, area.width, width), range(area.y, area.height, height))
    else {
        return Err(empty());
    };
    let stride = width as usize * 3;
    let rows = image.pixels()[top * stride..bottom * stride].chunks_exact(stride);
    let mut pixels = Vec::with_capacity((right - left) * (bottom - top) * 3);
    rows.for_each(|row| pixels.extend_from_slice(&row[left * 3..right * 3]));
    let size = Size { width: (right - left) as u32, height: (bottom - top) as u32 };
    Image::new(pixels, size).ok_or_else(empty)
}

/// Resamples the picture to `to`: `INTER_AREA` if both sides shrink, else `INTER_LINEAR`.
///
/// # Errors
/// `Unavailable` if OpenCV fails.
pub(super) fn resize(image: &Image, to: Size) -> Result<Image, VisionError> {
    let size = image.size();
    let flat =
        Mat::new_rows_cols_with_data(size.height as i32, size.width as i32 * 3, image.pixels()).map_err(failed)?;
    let source = flat.reshape(3, size.height as i32).map_err(failed)?;
    let how =
        if to.width < size.width && to.height < size.height { imgproc::INTER_AREA } else { imgproc::INTER_LINEAR };
    let mut out = Mat::default();
    imgproc::resize(&source, &mut out, opencv::core::Size::new(to.width as i32, to.height as i32), 0.0, 0.0, how)
        .map_err(failed)?;
    let odd = || VisionError::unavailable("opencv_failed", "OpenCV returned a picture of the wrong size");
    Image::new(out.data_bytes().map_err(failed)?.to_vec(), to).ok_or_else(odd)
}
