//! Makes a component from a core module and the WIT of its world, without a toolchain for tasks. The host's own
//! measurements use it.
//!
//! The host's interfaces are available under their names; the given text must define everything else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::component::componentize;
use crate::refusal::Refusal;

/// The host's packages, each after the packages that it names.
const HOST: [(&str, &str); 2] = [
    ("task.wit", include_str!("../../../wit/task/task.wit")),
    ("vision.wit", include_str!("../../../wit/vision/vision.wit")),
];

/// Makes a component of the core module `module`, which must have the imports and exports of the world `world` in the
/// package `wit`.
///
/// # Errors
/// `bad_wit` if the text cannot be parsed or has no such world; otherwise the errors of [`componentize`].
pub fn componentize_world(wit: &str, world: &str, module: &[u8]) -> Result<Vec<u8>, Refusal> {
    let embed = || -> Result<Vec<u8>, String> {
        let mut resolve = Resolve { all_features: true, ..Resolve::default() };
        for (name, text) in HOST {
            resolve.push_str(name, text).map_err(|e| format!("{e:#}"))?;
        }
        let package = resolve.push_str("world.wit", wit).map_err(|e| format!("{e:#}"))?;
        let world = resolve.select_world(&[package], Some(world)).map_err(|e| format!("{e:#}"))?;
        let mut module = module.to_vec();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(|e| format!("{e:#}"))?;
        Ok(module)
    };
    // The parser, like the encoder, may panic on malformed input.
    let embedded = catch_unwind(AssertUnwindSafe(embed)).unwrap_or_else(|_| Err("it is damaged".to_owned()));
    let refuse = |why: String| {
        let message = crate::text::message(&format!("the WIT of `{world}` cannot be used: {why}"));
        Refusal::new(
            "bad_wit",
            message,
            "correct the text; the host's own packages are dovetail:task and dovetail:vision",
        )
    };
    componentize(&embedded.map_err(refuse)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIT: &str = "package a:b@1.0.0; interface task { \
        use dovetail:task/types@0.1.0.{task-error}; run: func() -> result<_, task-error>; }
        world it { export task; }";

    #[test]
    fn a_module_becomes_a_component_of_its_world() {
        let module = wat::parse_str(
            "(module (memory (export \"memory\") 1)
                (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export \"a:b/task@1.0.0#run\") (result i32) unreachable))",
        );
        let component = componentize_world(WIT, "it", &module.unwrap()).unwrap();
        assert_eq!(component[4..8], [0x0d, 0, 1, 0], "the layer of components");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let empty = wat::parse_str("(module)").unwrap();
        assert_eq!(componentize_world("package a:b", "it", &empty).unwrap_err().code, "bad_wit");
        assert_eq!(componentize_world(WIT, "other", &empty).unwrap_err().code, "bad_wit");
        assert_eq!(componentize_world(WIT, "it", &empty).unwrap_err().code, "invalid_component");
        assert_eq!(componentize_world(WIT, "it", b"text").unwrap_err().code, "not_wasm");
    }
}
