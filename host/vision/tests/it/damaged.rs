//! Files that violate their format. A file that other programs open is opened with the pixels of OpenCV's `imread` and
//! a warning; a file whose data end early is refused. `../README.md` lists where the files come from.

use std::path::Path;

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Image, Rect, Size, Vision, VisionError};
use dovetail_vision::probe;

use crate::common::{open, photo_file, vision};

/// The digest of the RGB pixels that `imread` returns for `jpeg-base.jpg`, and for each file that is made from it.
const BASE: &str = "sha256:1ea491db8b958896072af95b8668e5d97ee44a261efe34348a132b0d8fb4491c";

pub(crate) fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(name)).unwrap()
}

fn pixels(image: &Image) -> String {
    Digest::of(image.pixels()).to_string()
}

fn refused(file: &[u8]) -> String {
    match open(file) {
        Err(VisionError::Invalid { code: "undecodable", message }) => message,
        other => panic!("{other:?}"),
    }
}

/// `jpeg-base.jpg` with `segment` in place of its first segment, which declares a JFIF file.
fn with_first_segment(segment: &[u8]) -> Vec<u8> {
    let base = file("jpeg-base.jpg");
    let length = usize::from(u16::from_be_bytes([base[4], base[5]]));
    [&base[..2], segment, &base[4 + length..]].concat()
}

/// An Adobe segment of version 200 with this colour transform.
fn adobe(transform: u8) -> Vec<u8> {
    [&b"\xff\xee\0\x0eAdobe\0\xc8\0\0\0\0"[..], &[transform]].concat()
}

#[test]
fn what_libjpeg_only_warns_of_is_opened_as_imread_does_and_told() {
    let (base, newer) = (file("jpeg-base.jpg"), with_first_segment(b"\xff\xe0\0\x10JFIF\0\x02\x01\0\0\x01\0\x01\0\0"));
    let behind_data = [&base[..base.len() - 2], &[0; 7], &base[base.len() - 2..]].concat();
    for (name, file, warning) in [
        ("scan parameters", file("jpeg-sos-params.jpg"), "Invalid SOS parameters"),
        ("no end marker", file("jpeg-no-eoi.jpg"), "Premature end of JPEG file"),
        ("stray zeros", file("jpeg-zeros-between-segments.jpg"), "16 extraneous bytes before marker 0xdb"),
        ("stray zeros behind the data", behind_data, "extraneous bytes before marker 0xd9"),
        ("JFIF 2.01", newer, "unknown JFIF revision number 2.01"),
        ("Adobe's transform 3", with_first_segment(&adobe(3)), "Unknown Adobe color transform code 3"),
    ] {
        assert_eq!(probe(&file).unwrap().size, Size { width: 96, height: 64 }, "{name}");
        let image = open(&file).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(pixels(&image), BASE, "{name}");
        let told = image.warning().unwrap_or_else(|| panic!("{name}: no warning"));
        assert!(told.starts_with("libjpeg warned: ") && told.contains(warning), "{name}: {told}");
        // A second caller gets the picture from the cache, with the same warning. A crop is another picture.
        assert_eq!(open(&file).unwrap().warning(), Some(told), "{name}");
        let part = vision().crop(&image, Rect { x: 0.0, y: 0.0, width: 9.0, height: 9.0 }).unwrap();
        let smaller = vision().resize(&image, Size { width: 9, height: 9 }, &Stop::never()).unwrap();
        assert_eq!((part.warning(), smaller.warning()), (None, None));
    }
    for (name, file) in [("base", base), ("Adobe's transform 1", with_first_segment(&adobe(1)))] {
        let image = open(&file).unwrap();
        assert_eq!((pixels(&image).as_str(), image.warning()), (BASE, None), "{name}");
    }
}

#[test]
fn several_kinds_of_warnings_are_told_together_and_each_once() {
    let mut all = file("jpeg-zeros-between-segments.jpg");
    all.truncate(all.len() - 2);
    let scan = all.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    // The byte after the three components is the scan's first coefficient.
    all[scan + 11] = 1;
    let quantisation = all.windows(2).rposition(|w| w == [0xff, 0xdb]).unwrap();
    let all = [&all[..quantisation], &[0; 5], &all[quantisation..]].concat();
    let image = open(&all).unwrap();
    let told = image.warning().unwrap();
    assert_eq!(pixels(&image), BASE);
    assert_eq!(told.matches("extraneous bytes").count(), 1, "{told}");
    assert!(told.contains("Invalid SOS parameters") && told.contains("Premature end"), "{told}");
}

#[test]
fn data_that_end_early_are_refused_wherever_they_are_cut_and_whatever_stands_behind() {
    for (name, file) in [
        ("base", file("jpeg-base.jpg")),
        // This file causes another warning first.
        ("odd scan parameters", file("jpeg-sos-params.jpg")),
        ("restarts", file("jpeg-restarts.jpg")),
        ("progressive", file("jpeg-progressive.jpg")),
    ] {
        let whole = open(&file).unwrap();
        let (mut early, mut complete) = (0, 0);
        for keep in 4..file.len() {
            for ending in [&b""[..], b"\xff\xd9", b"\xff\xd9\0\0\0\0"] {
                // A progressive file that is cut between two scans and ends with an end marker is complete, but
                // coarser.
                if name == "progressive" && !ending.is_empty() {
                    continue;
                }
                let cut = [&file[..keep], ending].concat();
                match open(&cut) {
                    Ok(image) => {
                        assert_eq!(image.pixels(), whole.pixels(), "{name}, {keep} of {} bytes", file.len());
                        complete += 1;
                    }
                    Err(VisionError::Invalid { code: "undecodable", message }) => {
                        early += usize::from(message.contains("its data end before the picture does"));
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        assert!(early > 100 && complete > 0, "{name}: {early} refused for that, {complete} complete");
    }
}

#[test]
fn an_interval_that_is_lost_between_restart_markers_is_a_warning() {
    let file = file("jpeg-restarts.jpg");
    let whole = open(&file).unwrap();
    let at = |n: u8| file.windows(2).position(|w| w == [0xff, 0xd0 + n]).unwrap();
    // One file lacks the third interval and its marker; the other has the marker but lacks most of the interval's data.
    let lost = [&file[..at(1)], &file[at(2)..]].concat();
    let short = [&file[..at(1) + 6], &file[at(2)..]].concat();
    for file in [lost, short] {
        let image = open(&file).unwrap();
        assert!(image.warning().is_some_and(|told| told.contains("Corrupt JPEG data")), "{:?}", image.warning());
        let apart = image.pixels().iter().zip(whole.pixels()).filter(|(a, b)| a != b).count();
        assert!(apart > 0 && apart < whole.pixels().len() / 2, "{apart} of {}", whole.pixels().len());
    }
}

#[test]
fn a_scan_whose_data_run_into_another_segment_ends_early() {
    let base = file("jpeg-base.jpg");
    let cut = [&base[..base.len() - 200], b"\xff\xfe\0\x04ab\xff\xd9"].concat();
    let why = refused(&cut);
    assert!(why.contains("its data end before the picture does"), "{why}");
}

#[test]
fn more_scans_than_are_allowed_are_refused_and_as_many_are_not() {
    let file = file("jpeg-progressive.jpg");
    let scans = file.windows(2).filter(|w| *w == [0xff, 0xda]).count();
    // The first scan repeated: it has the same data.
    let first = file.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let end = first + 2 + file[first + 2..].windows(2).position(|w| w[0] == 0xff && w[1] != 0).unwrap();
    let with = |more: usize| [&file[..end], &file[first..end].repeat(more), &file[end..]].concat();
    let image = open(&with(100 - scans)).unwrap();
    assert!(image.warning().is_some_and(|told| told.contains("Inconsistent progression")), "{:?}", image.warning());
    let why = refused(&with(101 - scans));
    assert!(why.contains("more than 100 scans"), "{why}");
}

#[test]
fn a_photograph_without_its_end_marker_is_whole() {
    let photo = photo_file("sample1.jpg");
    let whole = open(&photo).unwrap();
    let image = open(&photo[..photo.len() - 2]).unwrap();
    assert!(image.pixels() == whole.pixels() && whole.warning().is_none());
    assert!(image.warning().is_some_and(|told| told.contains("Premature end")));
}
