//! Crops areas of an image: the task takes an image, and returns new images and the image itself.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let Input { image, areas, size } = input;
    let mut crops = Vec::with_capacity(areas.len());
    for (n, area) in areas.iter().enumerate() {
        control::check()?;
        control::progress(n as f32 / areas.len() as f32, None);
        let crop = image.crop(area.bbox)?;
        crops.push(match size {
            Some(size) => crop.resize(size)?,
            None => crop,
        });
    }
    let sizes = crops.iter().map(Image::size).collect();
    Ok(Output { crops, sizes, image })
}
