//! The chunks of PNG and WebP files: facts that the decoders of crate `image` do not report, or report only for chunks
//! before the picture's data. Every length is checked, because the file is untrusted.

/// Bytes of a PNG file's signature.
const PNG_SIGNATURE: usize = 8;
/// Bytes of a RIFF file's header: signature, size and kind.
const RIFF_HEADER: usize = 12;

/// Bits of the first byte of `VP8X`: the file has EXIF metadata, XMP metadata, or frames of an animation.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;
const ANIMATION: u8 = 0x02;

type Chunk<'a> = ([u8; 4], &'a [u8]);

/// The chunks of a PNG file whose checksums are right, up to the first incomplete chunk.
pub(crate) fn of_png(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = file.get(PNG_SIGNATURE..).unwrap_or_default();
    let chunks = std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (body, after) = after.split_at_checked(length.checked_add(4)?)?;
        let (crc, after) = after.split_first_chunk::<4>()?;
        rest = after;
        Some((body, u32::from_be_bytes(*crc)))
    });
    chunks.filter_map(|(body, crc)| {
        let (kind, content) = body.split_first_chunk::<4>()?;
        // The decoder itself checks the checksum of the picture's data.
        let right = kind == b"IDAT" || crc32fast::hash(body) == crc;
        right.then_some((*kind, content))
    })
}

/// The number of frames that a PNG file declares. `None` if the file is not animated.
pub(crate) fn png_frames(file: &[u8]) -> Option<u32> {
    let before_data = of_png(file).take_while(|(kind, _)| kind != b"IDAT");
    let mut counts = before_data.filter(|(kind, _)| kind == b"acTL");
    counts.find_map(|(_, content)| content.first_chunk::<4>()).map(|count| u32::from_be_bytes(*count))
}

/// The consecutive chunks of a RIFF file, or of one frame in it.
fn riff(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (content, after) = after.split_at_checked(length)?;
        // A chunk of an odd length is padded by one byte; the padding of the last chunk may be missing.
        rest = after.get(length % 2..).unwrap_or_default();
        Some((*kind, content))
    })
}

/// The chunks of an extended WebP file, up to the first incomplete chunk. A simple WebP file gives none.
pub(crate) fn of_webp(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let chunks = file.get(RIFF_HEADER..).filter(|chunks| chunks.starts_with(b"VP8X")).unwrap_or_default();
    riff(chunks)
}

/// The offset and the value of the flags of an extended WebP file.
fn webp_flags(file: &[u8]) -> Option<(usize, u8)> {
    let at = RIFF_HEADER + 8;
    of_webp(file).next()?.1.first().map(|flags| (at, *flags))
}

/// The kinds of metadata that a WebP file declares but does not contain. The decoder refuses such a file.
pub(crate) fn webp_lacks(file: &[u8]) -> Vec<&'static str> {
    let Some((_, flags)) = webp_flags(file) else { return Vec::new() };
    let has = |wanted: &[u8; 4]| of_webp(file).any(|(kind, _)| kind == *wanted);
    [(EXIF, b"EXIF", "EXIF"), (XMP, b"XMP ", "XMP")]
        .into_iter()
        .filter(|(flag, kind, _)| flags & flag != 0 && !has(kind))
        .map(|(_, _, name)| name)
        .collect()
}

/// The same file with the flags for metadata cleared.
pub(crate) fn webp_without_promises(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    if let Some((at, flags)) = webp_flags(&file) {
        file[at] = flags & !(EXIF | XMP);
    }
    file
}

/// A still picture from an animated WebP file. `None` unless the file has exactly one frame, which covers the whole
/// picture.
pub(crate) fn webp_still(file: &[u8]) -> Option<Vec<u8>> {
    let (_, flags) = webp_flags(file)?;
    let (_, header) = of_webp(file).next()?;
    let mut frames = of_webp(file).filter(|(kind, _)| kind == b"ANMF");
    let (frame, more) = (frames.next()?.1, frames.next());
    // A frame begins with its position, size, duration and flags. The sizes are written as in the `VP8X` header: three
    // bytes each, minus one.
    let (place, frame) = frame.split_at_checked(16)?;
    let whole = place[..6] == [0; 6] && Some(&place[6..12]) == header.get(4..10);
    if flags & ANIMATION == 0 || more.is_some() || !whole {
        return None;
    }
    let mut chunks = Vec::with_capacity(frame.len() + 18);
    let mut push = |kind: [u8; 4], content: &[u8]| {
        chunks.extend(kind);
        chunks.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        chunks.extend(content);
        chunks.extend(&[0][..content.len() % 2]);
    };
    push(*b"VP8X", &[&[flags & !(ANIMATION | EXIF | XMP)], &header[1..]].concat());
    riff(frame).for_each(|(kind, content)| push(kind, content));
    let size = u32::try_from(chunks.len() + 4).ok()?;
    Some([&b"RIFF"[..], &size.to_le_bytes(), b"WEBP", &chunks].concat())
}
