//! Removes the names from a component. The package becomes smaller, and backtraces have numbers instead of names of
//! functions.
//!
//! The walk over the sections of the binary format copies every byte of other sections unchanged. It decodes nothing
//! and reorders nothing.

use crate::refusal::Refusal;

/// The length of the magic number and the version.
const HEADER: usize = 8;
/// Numbers of sections: custom sections, and in a component the sections that contain a whole module or component.
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// The second half of a component's version field; in a module it is 0.
const COMPONENT_LAYER: [u8; 2] = [1, 0];
/// The deepest nesting of components, as in wasmtime.
const DEPTH: u32 = 100;
/// Custom sections with names and producers. No host depends on them.
const NAMES: [&[u8]; 3] = [b"name", b"component-name", b"producers"];

/// The same component without its name sections, also in the modules and components inside it.
///
/// # Errors
/// `not_wasm` if the sections' lengths do not add up.
pub fn strip(component: &[u8]) -> Result<Vec<u8>, Refusal> {
    walk(component, 0).ok_or_else(|| {
        Refusal::new(
            "not_wasm",
            "the component's sections do not add up, so its names cannot be removed",
            "build it again",
        )
    })
}

fn walk(bytes: &[u8], depth: u32) -> Option<Vec<u8>> {
    let (header, mut rest) = bytes.split_at_checked(HEADER)?;
    let is_component = header.get(6..8)? == COMPONENT_LAYER;
    if depth > DEPTH {
        return None;
    }
    let mut out = header.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = leb(after)?;
        let (body, after) = after.split_at_checked(length)?;
        rest = after;
        let kept = match id {
            CUSTOM => {
                let (length, text) = leb(body)?;
                let name = text.get(..length)?;
                if NAMES.contains(&name) { None } else { Some(body.to_vec()) }
            }
            CORE_MODULE | COMPONENT if is_component => Some(walk(body, depth + 1)?),
            _ => Some(body.to_vec()),
        };
        if let Some(body) = kept {
            out.push(id);
            push_leb(&mut out, body.len());
            out.extend(body);
        }
    }
    Some(out)
}

/// Reads an unsigned LEB128 of at most 32 bits. Returns the value and the remaining bytes.
fn leb(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

fn push_leb(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_and_the_rest_stays() {
        let with = wat::parse_str(
            r#"(component $outer
                (core module $inner (func $adds (export "f") (result i32) i32.const 7))
                (core instance $i (instantiate $inner)))"#,
        )
        .unwrap();
        let without = strip(&with).unwrap();
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has(&with, "adds") && has(&with, "component-name"));
        assert!(!has(&without, "adds") && !has(&without, "component-name"));
        assert!(without.len() < with.len());
        wasmtime::component::Component::from_binary(&wasmtime::Engine::default(), &without).unwrap();
        assert_eq!(strip(&without).unwrap(), without, "nothing is left to remove");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = wat::parse_str(r#"(component (core module (func (export "f"))))"#).unwrap();
        for end in [0, 7, whole.len() - 1] {
            assert_eq!(strip(&whole[..end]).unwrap_err().code, "not_wasm", "{end}");
        }
    }

    #[test]
    fn lengths_read_back_as_they_were_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX as usize] {
            let mut bytes = Vec::new();
            push_leb(&mut bytes, value);
            assert_eq!(leb(&bytes), Some((value, &[][..])));
        }
        assert_eq!(leb(&[0x80; 6]), None);
        assert_eq!(leb(&[0xff, 0xff, 0xff, 0xff, 0x7f]), None, "more than 32 bits");
    }
}
