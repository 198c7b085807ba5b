//! Plugin packages: a zip with `plugin.toml`, `component.wasm`, `wit/`, `README.md` and `examples/*.json`. They are
//! written deterministically and read within limits, because a package is untrusted until it has been read.
//!
//! This module does not inspect the component; [`crate::Compiler::describe`] does.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use dovetail_core::manifest::{Manifest, show_size};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::refusal::Refusal;

/// The largest package as stored, in bytes.
pub const MAX_PACKAGE: u64 = 64 << 20;
/// The largest total of all entries unpacked, in bytes.
pub const MAX_UNPACKED: u64 = 128 << 20;
/// The most entries.
pub const MAX_ENTRIES: usize = 256;
/// The most unpacked bytes for each packed byte of an entry (for entries over 64 KiB).
pub const MAX_RATIO: u64 = 200;
/// The largest component, in bytes.
pub const MAX_COMPONENT: u64 = 64 << 20;
/// The largest other entry, in bytes.
pub const MAX_TEXT: u64 = 1 << 20;
/// The most bytes of an untrusted name or text that a refusal quotes.
const MAX_SHOWN: usize = 120;
/// Unpacked size up to which an entry's ratio is not limited, in bytes.
const SMALL: u64 = 64 << 10;

/// The bits of a Unix mode with the type of file, and the type of a regular file.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
/// The length of the record that ends a zip without a comment, and its signature.
const END: usize = 22;
const END_MARK: &[u8] = b"PK\x05\x06";
/// The largest data descriptor after an entry whose sizes were unknown when it was packed, in bytes.
const DESCRIPTOR: u64 = 24;

const MANIFEST: &str = "plugin.toml";
const COMPONENT: &str = "component.wasm";
const README: &str = "README.md";

/// The content of a package.
#[derive(Debug, Clone)]
pub struct Package {
    /// The parsed `plugin.toml`.
    pub manifest: Manifest,
    /// The text of `plugin.toml`.
    pub manifest_text: String,
    /// The content of `component.wasm`.
    pub component: Vec<u8>,
    /// Names below `wit/`, with the texts.
    pub wit: BTreeMap<String, String>,
    /// The text of `README.md`.
    pub readme: Option<String>,
    /// Names below `examples/`, with the JSON texts.
    pub examples: BTreeMap<String, String>,
}

/// The parts from which a package is made.
#[derive(Debug, Clone, Copy)]
pub struct PackageContent<'p> {
    /// The text of `plugin.toml`.
    pub manifest: &'p str,
    /// The content of `component.wasm`.
    pub component: &'p [u8],
    /// Names below `wit/`, with the texts.
    pub wit: &'p BTreeMap<String, String>,
    /// The text of `README.md`.
    pub readme: Option<&'p str>,
    /// Names below `examples/`, with the JSON texts.
    pub examples: &'p BTreeMap<String, String>,
}

/// Makes a package. The same parts give the same bytes on every machine.
///
/// # Errors
/// The refusals of [`Package::read`]; `bad_package` if the zip cannot be written.
pub fn pack(content: PackageContent<'_>) -> Result<Vec<u8>, Refusal> {
    let mut entries: BTreeMap<String, &[u8]> = BTreeMap::new();
    entries.insert(MANIFEST.to_owned(), content.manifest.as_bytes());
    entries.insert(COMPONENT.to_owned(), content.component);
    if let Some(readme) = content.readme {
        entries.insert(README.to_owned(), readme.as_bytes());
    }
    entries.extend(content.wit.iter().map(|(name, text)| (format!("wit/{name}"), text.as_bytes())));
    entries.extend(content.examples.iter().map(|(name, text)| (format!("examples/{name}"), text.as_bytes())));
    // Levels over 9 use Zopfli, in plain Rust. The compressor of lower levels takes shortcuts that depend on the
    // processor.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(14))
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644);
    let write = || -> zip::result::ZipResult<Vec<u8>> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &entries {
            zip.start_file(name.as_str(), options)?;
            zip.write_all(bytes)?;
        }
        Ok(zip.finish()?.into_inner())
    };
    let bytes =
        write().map_err(|error| Refusal::new("bad_package", format!("the package cannot be written: {error}"), ""))?;
    // A package that cannot be read is not written.
    Package::read(&bytes)?;
    Ok(bytes)
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new("bad_package", message, "make packages with `dovetail task pack`")
}

/// Shortens and cleans an untrusted text for a message. The beginning of a long name identifies it.
fn short(text: &str) -> String {
    crate::text::clean(&crate::text::truncate(text, MAX_SHOWN))
}

/// The role of an entry in the package.
enum EntryRole<'n> {
    Manifest,
    Component,
    Readme,
    Wit(&'n str),
    Example(&'n str),
}

/// The role of an entry by its name, or the refusal of a name without a role.
fn entry_role(name: &str) -> Result<EntryRole<'_>, Refusal> {
    let shown = short(name);
    if name.is_empty()
        || name.len() > 255
        || name.starts_with('/')
        || name.contains(['\\', '\0', ':'])
        || name.chars().any(char::is_control)
    {
        return Err(bad(format!("the entry `{shown}` is not a plain relative path")));
    }
    if name.strip_suffix('/').is_some_and(|folder| !folder.split('/').any(|part| matches!(part, "" | "." | ".."))) {
        let help = "make packages with `dovetail task pack`; `zip -D` leaves folders out";
        return Err(Refusal::new(
            "bad_package",
            format!("the entry `{shown}` is a folder: a package may contain only files"),
            help,
        ));
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad(format!("the entry `{shown}` leads out of the package")));
    }
    Ok(match name.split_once('/') {
        None if name == MANIFEST => EntryRole::Manifest,
        None if name == COMPONENT => EntryRole::Component,
        None if name == README => EntryRole::Readme,
        Some(("wit", rest)) if rest.ends_with(".wit") => EntryRole::Wit(rest),
        Some(("examples", rest)) if rest.ends_with(".json") && !rest.contains('/') => EntryRole::Example(rest),
        _ => {
            let known = "plugin.toml, component.wasm, README.md, wit/*.wit and examples/*.json";
            return Err(bad(format!("the entry `{shown}` is none of {known}")));
        }
    })
}

impl Package {
    /// Reads a package.
    ///
    /// # Errors
    /// A refusal that names the entry: too many or too large, packed too tightly, leading out of the package,
    /// duplicate, a link, encrypted, unknown, missing, or unreadable.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() as u64 > MAX_PACKAGE {
            return Err(bad(format!(
                "the package has {} bytes; at most {} are allowed",
                bytes.len(),
                show_size(MAX_PACKAGE)
            )));
        }
        let mut zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| bad(format!("the package is not a zip file: {}", short(&error.to_string()))))?;
        if zip.len() > MAX_ENTRIES {
            return Err(bad(format!("the package has {} entries; at most {MAX_ENTRIES} are allowed", zip.len())));
        }
        // Refuses duplicate names, entries that share bytes, and headers that contradict the directory, so that every
        // reader sees the same content.
        zip.validate_header_consistency()
            .map_err(|error| bad(format!("the package contradicts itself: {}", short(&error.to_string()))))?;
        if !is_whole_file(bytes, &mut zip)? {
            return Err(bad(
                "the package has bytes that belong to no entry: before, within or after its zip, or in a comment",
            ));
        }
        let (mut manifest, mut component, mut readme) = (None, None, None);
        let (mut wit, mut examples) = (BTreeMap::new(), BTreeMap::new());
        let (mut left, mut seen) = (MAX_UNPACKED, BTreeMap::new());
        for index in 0..zip.len() {
            let (name, content) = entry(&mut zip, index, &mut left)?;
            one_case(&mut seen, &name)?;
            let text = |content: Vec<u8>| {
                String::from_utf8(content).map_err(|_| bad(format!("the entry `{name}` is not UTF-8 text")))
            };
            match entry_role(&name)? {
                EntryRole::Manifest => manifest = Some(text(content)?),
                EntryRole::Component => component = Some(content),
                EntryRole::Readme => readme = Some(text(content)?),
                EntryRole::Wit(rest) => drop(wit.insert(rest.to_owned(), text(content)?)),
                EntryRole::Example(rest) => drop(examples.insert(rest.to_owned(), text(content)?)),
            }
        }
        let manifest_text = manifest.ok_or_else(|| bad("the package has no `plugin.toml`"))?;
        let component = component.ok_or_else(|| bad("the package has no `component.wasm`"))?;
        let manifest = Manifest::parse(&manifest_text)
            .map_err(|errors| Refusal::new("bad_manifest", format!("plugin.toml: {errors}"), "correct plugin.toml"))?;
        Ok(Self { manifest, manifest_text, component, wit, readme, examples })
    }
}

/// Whether the zip fills the whole file: the entries from the first byte on without gaps, then their directory, then
/// the end record without a comment. Any other bytes would change the package's digest without being read.
fn is_whole_file(bytes: &[u8], zip: &mut ZipArchive<Cursor<&[u8]>>) -> Result<bool, Refusal> {
    let Some(end) = bytes.len().checked_sub(END) else { return Ok(false) };
    let number = |at: usize| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let (size, directory) = (number(end + 12), number(end + 16));
    let ends = bytes[end..].starts_with(END_MARK) && bytes[end + 20..] == [0, 0];
    if !ends || directory + size != end as u64 || zip.central_directory_start() != directory || zip.offset() != 0 {
        return Ok(false);
    }
    let mut entries = Vec::with_capacity(zip.len());
    for index in 0..zip.len() {
        let raw = zip.by_index_raw(index).map_err(|error| bad(format!("entry {index} cannot be read: {error}")))?;
        let data = raw.data_start().unwrap_or_else(|| raw.header_start());
        entries.push((raw.header_start(), data.saturating_add(raw.compressed_size())));
    }
    entries.sort_unstable();
    let mut at = 0;
    for (begin, end) in entries.into_iter().chain([(directory, directory)]) {
        // A data descriptor may follow an entry whose sizes were unknown when it was packed.
        // `validate_header_consistency` checks that entries do not overlap.
        if begin.saturating_sub(at) > DESCRIPTOR || (at == 0 && begin != 0) {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// Refuses names that differ only in case, because file systems unpack them differently. `seen` maps every path and
/// folder in lower case to its first spelling.
fn one_case(seen: &mut BTreeMap<String, String>, name: &str) -> Result<(), Refusal> {
    for (end, _) in name.match_indices('/').chain([(name.len(), "")]) {
        let path = &name[..end];
        let first = seen.entry(path.to_lowercase()).or_insert_with(|| path.to_owned());
        if first != path {
            return Err(bad(format!("the names `{first}` and `{path}` differ only in case")));
        }
    }
    Ok(())
}

/// Unpacks one entry. Returns its name and content. `left` is the rest of [`MAX_UNPACKED`].
fn entry(zip: &mut ZipArchive<Cursor<&[u8]>>, index: usize, left: &mut u64) -> Result<(String, Vec<u8>), Refusal> {
    let raw = zip.by_index_raw(index).map_err(|error| bad(format!("entry {index} cannot be read: {error}")))?;
    let name = std::str::from_utf8(raw.name_raw())
        .map_err(|_| bad(format!("the name of entry {index} is not UTF-8")))?
        .to_owned();
    let limit = match entry_role(&name)? {
        EntryRole::Component => MAX_COMPONENT,
        EntryRole::Manifest | EntryRole::Readme | EntryRole::Wit(_) | EntryRole::Example(_) => MAX_TEXT,
    };
    if raw.encrypted() {
        return Err(bad(format!("the entry `{name}` is encrypted")));
    }
    // The type of file in the Unix mode. It is 0 if the zip was made on another system.
    let is_special = raw.unix_mode().is_some_and(|mode| !matches!(mode & FILE_TYPE, 0 | REGULAR));
    if raw.is_symlink() || raw.is_dir() || is_special {
        return Err(bad(format!("the entry `{name}` is not a regular file")));
    }
    if !matches!(raw.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(bad(format!("the entry `{name}` is packed by {}; only deflate is supported", raw.compression())));
    }
    let packed = raw.compressed_size();
    drop(raw);
    // The sizes in the package are not trusted; only the unpacked bytes count.
    let ratio_limit = packed.saturating_mul(MAX_RATIO).max(SMALL);
    let most = limit.min(*left).min(ratio_limit);
    let mut content = Vec::new();
    let mut unpacked =
        zip.by_index(index).map_err(|error| bad(format!("the entry `{name}` cannot be read: {error}")))?.take(most + 1);
    unpacked
        .read_to_end(&mut content)
        .map_err(|error| bad(format!("the entry `{name}` cannot be unpacked: {error}")))?;
    if content.len() as u64 > most {
        let why = if most == limit {
            format!("is larger than {}", show_size(limit))
        } else if most == ratio_limit {
            format!("is packed more than {MAX_RATIO} to 1")
        } else {
            format!("makes the package larger than {} unpacked", show_size(MAX_UNPACKED))
        };
        return Err(bad(format!("the entry `{name}` {why}")));
    }
    *left -= content.len() as u64;
    Ok((name, content))
}
