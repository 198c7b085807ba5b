//! The chunks of PNG and WebP files: what the decoders of crate `image` do not tell, or tell only of those before the
//! picture's data. Every length is checked: the file is anybody's.

/// What the header of a PNG file begins with.
const PNG_SIGNATURE: usize = 8;
/// Signature, size and kind of a RIFF file.
const RIFF_HEADER: usize = 12;

/// Bits of the first byte of `VP8X`: there are metadata of this kind, or frames.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;
const ANIMATION: u8 = 0x02;

type Chunk<'a> = ([u8; 4], &'a [u8]);

/// The chunks of a PNG file whose checksums are right, as far as the file goes.
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
        // Of the picture's own data the decoder checks it.
        let right = kind == b"IDAT" || crc32fast::hash(body) == crc;
        right.then_some((*kind, content))
    })
}

/// Frames that a PNG file says it has; none if it is not animated.
pub(crate) fn png_frames(file: &[u8]) -> Option<u32> {
    let before_data = of_png(file).take_while(|(kind, _)| kind != b"IDAT");
    let mut counts = before_data.filter(|(kind, _)| kind == b"acTL");
    counts.find_map(|(_, content)| content.first_chunk::<4>()).map(|count| u32::from_be_bytes(*count))
}

/// Chunks one after the other, as in a RIFF file and in a frame of it.
fn riff(mut rest: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (content, after) = after.split_at_checked(length)?;
        // One of an odd length is padded; the last one need not be.
        rest = after.get(length % 2..).unwrap_or_default();
        Some((*kind, content))
    })
}

/// The chunks of an extended WebP file, as far as the file goes; of another one none.
pub(crate) fn of_webp(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let chunks = file.get(RIFF_HEADER..).filter(|chunks| chunks.starts_with(b"VP8X")).unwrap_or_default();
    riff(chunks)
}

/// The flags of an extended WebP file, and where they stand in it.
fn webp_flags(file: &[u8]) -> Option<(usize, u8)> {
    let at = RIFF_HEADER + 8;
    of_webp(file).next()?.1.first().map(|flags| (at, *flags))
}

/// Metadata that a WebP file promises and does not have: the decoder refuses such a file.
pub(crate) fn webp_lacks(file: &[u8]) -> Vec<&'static str> {
    let Some((_, flags)) = webp_flags(file) else { return Vec::new() };
    let has = |wanted: &[u8; 4]| of_webp(file).any(|(kind, _)| kind == *wanted);
    [(EXIF, b"EXIF", "EXIF"), (XMP, b"XMP ", "XMP")]
        .into_iter()
        .filter(|(flag, kind, _)| flags & flag != 0 && !has(kind))
        .map(|(_, _, name)| name)
        .collect()
}

/// The same file, promising no metadata.
pub(crate) fn webp_without_promises(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    if let Some((at, flags)) = webp_flags(&file) {
        file[at] = flags & !(EXIF | XMP);
    }
    file
}

/// A still picture from a WebP file that is animated and has one frame, as large as the whole.
pub(crate) fn webp_still(file: &[u8]) -> Option<Vec<u8>> {
    let (_, flags) = webp_flags(file)?;
    let (_, header) = of_webp(file).next()?;
    let mut frames = of_webp(file).filter(|(kind, _)| kind == b"ANMF");
    let (frame, more) = (frames.next()?.1, frames.next());
    // Place, size, duration and flags; the sizes are written as in the header: three bytes each, less one.
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
