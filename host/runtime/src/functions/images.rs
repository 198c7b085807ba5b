//! `dovetail:vision/images`: pictures that stay in the host.

use dovetail_core::vision as port;
use wasmtime::component::Resource;

use crate::bindings::dovetail::vision::images::{self, Rect, Size};
use crate::handles::{Artifact, Image};
use crate::state::{HostResult, State, end};

/// Converts a box of the guest to the port's type.
pub(crate) fn rect(area: &Rect) -> port::Rect {
    port::Rect { x: area.x, y: area.y, width: area.width, height: area.height }
}

impl images::Host for State {}

impl images::HostImage for State {
    fn open(&mut self, source: Resource<Artifact>) -> HostResult<Resource<Image>> {
        self.host("dovetail:vision/images.image.open", |state| {
            let reference = state.table.get(&source)?.reference.clone();
            state.push_image(|state| state.decode(&reference))
        })
    }

    /// The function has no error to return: a picture that cannot be decoded ends the attempt as invalid input.
    fn size(&mut self, this: Resource<Image>) -> wasmtime::Result<Size> {
        self.host("dovetail:vision/images.image.size", |state| {
            let port::Size { width, height } = state.pixels(&this).map_err(end)?.size();
            Ok(Size { width, height })
        })
    }

    fn crop(&mut self, this: Resource<Image>, area: Rect) -> HostResult<Resource<Image>> {
        self.host("dovetail:vision/images.image.crop", |state| {
            let pixels = state.pixels(&this)?;
            state.check_stop()?;
            state.push_image(|state| state.vision.crop(&pixels, rect(&area)).map_err(|error| state.vision_fault(error)))
        })
    }

    fn resize(&mut self, this: Resource<Image>, to: Size) -> HostResult<Resource<Image>> {
        self.host("dovetail:vision/images.image.resize", |state| {
            let pixels = state.pixels(&this)?;
            let to = port::Size { width: to.width, height: to.height };
            state.push_image(|state| {
                state.vision.resize(&pixels, to, &state.stop).map_err(|error| state.vision_fault(error))
            })
        })
    }

    fn encode(
        &mut self,
        this: Resource<Image>,
        media_type: String,
        quality: Option<u8>,
    ) -> HostResult<Resource<Artifact>> {
        self.host("dovetail:vision/images.image.encode", |state| {
            let pixels = state.pixels(&this)?;
            let bytes = state
                .vision
                .encode(&pixels, &media_type, quality, &state.stop)
                .map_err(|error| state.vision_fault(error))?;
            state.store_artifact(media_type, &bytes)
        })
    }

    fn drop(&mut self, this: Resource<Image>) -> wasmtime::Result<()> {
        let image = self.table.delete(this)?;
        self.release_image(&image);
        Ok(())
    }
}
