//! Feeds a fuzz target with mutations of a corpus: the same inputs for the same seed. The mutator sees no coverage,
//! because libFuzzer needs a nightly compiler. Instead it uses the structure of its corpus: it swaps, repeats and
//! splices parts of the corpus's files.
//!
//! A short run is part of the tests. With `DOVETAIL_FUZZ_SECONDS` a run takes that long, from a seed that it prints;
//! `./justw fuzz` does that.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "seeds and figures are printed for people")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Numbers at the limits of integer types, at which programs often fail.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
/// The largest input, in bytes.
const MAX_INPUT: usize = 256 << 10;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }

    /// A range within `length` items, mostly a short one.
    fn part(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let most = if self.below(4) == 0 { length - from } else { (length - from).min(16) };
        (from, from + self.below(most + 1))
    }
}

/// Makes one change of `bytes`.
fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let (from, to) = random.part(bytes.len());
    match random.below(12) {
        0 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        1 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        2 => {
            let edge = EDGES[random.below(EDGES.len())];
            let width = [1, 2, 4, 8][random.below(4)];
            let number = if random.below(2) == 0 {
                edge.to_le_bytes()[..width].to_vec()
            } else {
                edge.to_be_bytes()[8 - width..].to_vec()
            };
            for (byte, new) in bytes.iter_mut().skip(from).zip(number) {
                *byte = new;
            }
        }
        3 => drop(bytes.drain(from..to)),
        4 => bytes.truncate(to),
        5 => {
            let part = bytes[from..to].repeat(1 + random.below(8));
            bytes.splice(from..from, part);
        }
        6 => {
            let other = &corpus[random.below(corpus.len())];
            let (a, b) = random.part(other.len());
            bytes.splice(from..to, other[a..b].iter().copied());
        }
        // Words and quoted texts replace others: the text stays well formed, and its meaning changes.
        7 | 8 => put(bytes, &corpus[random.below(corpus.len())], random, |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
        }),
        9 => put(bytes, &corpus[random.below(corpus.len())], random, |byte| !matches!(byte, b'"' | b'\n')),
        10 => {
            let digits = EDGES[random.below(EDGES.len())].to_string();
            bytes.splice(from..to, digits.into_bytes());
        }
        _ => bytes[from..to].reverse(),
    }
    bytes.truncate(MAX_INPUT);
}

/// Replaces one run of bytes that satisfy `such` with another such run.
fn put(bytes: &mut Vec<u8>, from: &[u8], random: &mut Random, such: impl Fn(u8) -> bool) {
    let mut run = |bytes: &[u8]| {
        let at = random.below(bytes.len());
        let before = bytes[..at].iter().rev().take_while(|byte| such(**byte)).count();
        let behind = bytes[at..].iter().take_while(|byte| such(**byte)).count();
        at - before..at + behind
    };
    let (old, new) = (run(bytes), run(from));
    bytes.splice(old, from[new].iter().copied());
}

/// Gives `target` every input of the corpus unchanged, and then `short` mutations, or as many as the time allows.
///
/// # Panics If the target panics. The input is then kept in `folder`, and the message names the file.
pub(crate) fn fuzz(name: &str, folder: &str, corpus: &[Vec<u8>], short: usize, target: impl Fn(&[u8])) {
    let seconds = std::env::var("DOVETAIL_FUZZ_SECONDS")
        .ok()
        .map(|text| text.parse().expect("DOVETAIL_FUZZ_SECONDS is a number"));
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
    let mut random = Random(if until.is_some() { now | 1 } else { 0x9e37_79b9_7f4a_7c15 });
    println!("{name}: seed {}", random.0);
    let mut tried = 0_usize;
    while tried < corpus.len() || until.map_or(tried < corpus.len() + short, |until| Instant::now() < until) {
        let mut input = corpus[if tried < corpus.len() { tried } else { random.below(corpus.len()) }].clone();
        if tried >= corpus.len() {
            for _ in 0..=random.below(6) {
                mutate(&mut input, corpus, &mut random);
            }
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            let path = std::path::Path::new(folder).join(format!("{name}-{tried}"));
            std::fs::write(&path, &input).expect("the input can be kept");
            eprintln!("{name}: input {tried} is kept in {}", path.display());
            std::panic::resume_unwind(panic);
        }
        tried += 1;
    }
    println!("{name}: {tried} inputs");
}

/// The contents of the files in a folder, which is named by its path from the repository's root.
pub(crate) fn files(folder: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("there is a corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

#[test]
fn a_target_that_fails_is_noticed_and_its_input_is_kept() {
    let corpus = [b"a harmless text".to_vec()];
    let found = catch_unwind(|| {
        fuzz("noticed", env!("CARGO_TARGET_TMPDIR"), &corpus, 10_000, |input| assert!(!input.contains(&b'!')));
    });
    assert!(found.is_err(), "ten thousand inputs, and in none of them the one byte");
    let kept = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).expect("a folder").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        path.file_name()?.to_str()?.starts_with("noticed-").then_some(path)
    });
    let kept: Vec<_> = kept.collect();
    assert!(!kept.is_empty() && kept.iter().all(|path| std::fs::read(path).expect("a file").contains(&b'!')));
    for path in kept {
        std::fs::remove_file(path).expect("it can be removed");
    }
}
