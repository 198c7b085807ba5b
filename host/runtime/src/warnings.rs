//! Warnings about files that an attempt opened and could use although they violate their format.

use std::collections::BTreeSet;

use dovetail_core::Digest;
use dovetail_core::blobs::ArtifactRef;

use crate::text::{clean, truncate};

/// The most pictures of an attempt whose warnings are kept; further warnings are counted.
const MAX_PICTURES: usize = 16;
/// The longest name of a picture in a warning and the longest warning, in bytes.
const MAX_NAME: usize = 200;
const MAX_WARNING: usize = 1 << 10;

/// The warnings of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    lines: Vec<String>,
    pictures: BTreeSet<Digest>,
    /// Warnings that were not kept. A picture that is opened twice counts twice.
    more: u64,
}

impl Warnings {
    /// Adds a warning about the file of a picture. Each picture has one warning, however often the attempt opens it.
    pub(crate) fn of_picture(&mut self, reference: &ArtifactRef, warning: &str) {
        if self.pictures.contains(&reference.digest) {
            return;
        }
        if self.lines.len() == MAX_PICTURES {
            self.more += 1;
            return;
        }
        self.pictures.insert(reference.digest);
        let name = match &reference.name {
            Some(name) => format!("`{}`", clean(&truncate(name, MAX_NAME))),
            None => reference.digest.to_string(),
        };
        self.lines.push(format!("picture {name}: {}", clean(&truncate(warning, MAX_WARNING))));
    }

    /// The warnings in the order in which the pictures were opened, and the number of further ones.
    pub(crate) fn into_lines(self) -> Vec<String> {
        let mut lines = self.lines;
        if self.more > 0 {
            lines.push(format!("{} further warnings about pictures were not kept", self.more));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(content: &str, name: Option<&str>) -> ArtifactRef {
        let digest = Digest::of(content.as_bytes());
        ArtifactRef { digest, media_type: "image/jpeg".to_owned(), name: name.map(str::to_owned) }
    }

    #[test]
    fn a_picture_has_one_warning_with_its_name_or_its_digest() {
        let mut warnings = Warnings::default();
        for _ in 0..3 {
            warnings.of_picture(&picture("a", Some("a\u{1b}[31m.jpg")), "libjpeg warned: x");
            warnings.of_picture(&picture("b", None), "libjpeg warned: y\nz");
        }
        let digest = Digest::of(b"b");
        assert_eq!(
            warnings.into_lines(),
            ["picture `a[31m.jpg`: libjpeg warned: x".to_owned(), format!("picture {digest}: libjpeg warned: y z")]
        );
    }

    #[test]
    fn the_bounds_are_obeyed_and_violated() {
        let mut warnings = Warnings::default();
        for i in 0..MAX_PICTURES {
            warnings.of_picture(&picture(&i.to_string(), None), "w");
        }
        let mut more = Warnings::default();
        for i in 0..MAX_PICTURES + 2 {
            more.of_picture(&picture(&i.to_string(), Some(&"n".repeat(5000))), &"w".repeat(5000));
        }
        assert_eq!(warnings.into_lines().len(), MAX_PICTURES);
        let more = more.into_lines();
        assert_eq!(more.len(), MAX_PICTURES + 1);
        assert!(more.iter().all(|line| line.len() < MAX_NAME + MAX_WARNING + 20), "{}", more[0].len());
        assert!(more[MAX_PICTURES].contains("2 further"), "{}", more[MAX_PICTURES]);
    }
}
