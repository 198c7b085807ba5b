//! Identities: content digests and run IDs. They are newtypes, so that neither can be confused with a name.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// The SHA-256 digest of some bytes. Identifies packages, artifacts, images and models. The text form is `sha256:` and
/// 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest of all bytes of `reader`. Holds at most 64 KiB of them at a time.
    ///
    /// # Errors
    /// The error of the reader.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<Self> {
        let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; 64 << 10]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// 64 lower-case hex digits without the prefix, for file names and object keys.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The digest with these raw bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Two lower-case digits per byte. Every record contains several digests, so this avoids the cost of the formatting
/// machinery.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid digest: expected `sha256:` and 64 hex digits")]
pub struct BadDigest(String);

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.chars().take(80).collect());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" })
    }
}

/// The ID of one execution of a pipeline: a UUID that the submitter makes, either from the time and random bits, or
/// from an idempotency key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Arc<str>);

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RunId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "run_id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        })
    }
}

impl RunId {
    /// An ID of 16 bytes, from randomness or from a digest. The text form is `8-4-4-4-12` lower-case hex digits.
    #[must_use]
    pub fn from_bytes(b: [u8; 16]) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        Self(Arc::from(&*Uuid::from_bytes(b).hyphenated().encode_lower(&mut text)))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a run ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid run ID: expected 8-4-4-4-12 hex digits, as `dovetail runs list` shows them")]
pub struct BadRunId(String);

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        // One ID has one text: `Uuid` also reads capitals, braces, URNs and digits without hyphens.
        let is_ours = text.len() == Hyphenated::LENGTH && !text.bytes().any(|b| b.is_ascii_uppercase());
        if is_ours && Uuid::try_parse(text).is_ok() {
            Ok(Self(text.into()))
        } else {
            Err(BadRunId(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{digest}\""));
    }

    #[test]
    fn a_digest_of_a_reader_is_that_of_its_bytes() {
        for length in [0, 1, (64 << 10) - 1, 64 << 10, 200_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            assert_eq!(Digest::of_reader(&mut bytes.as_slice()).unwrap(), Digest::of(&bytes), "{length}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "sha256:", "sha256:zz", &"A".repeat(64), &format!("sha1:{}", "0".repeat(64))] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        for text in [
            "",
            "x",
            "../../etc/passwd",
            "00000000-0000-0000-0000-00000000000G",
            "00000000-0000-0000-0000-00000000000A",
            "000000000000000000000000000000000000",
            "00000000000000000000000000000000",
            "{00000000-0000-0000-0000-000000000000}",
            "urn:uuid:00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-00000000000\u{e9}",
            "00000000-0000-0000-0000-0000000000\u{e9}",
            "0000000000000-0000-0000-0000-00000000",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_id_reads_what_it_writes() {
        let id = RunId::from_bytes([0xab; 16]);
        assert_eq!(id.as_str().parse::<RunId>(), Ok(id));
        let id = RunId::from_bytes(std::array::from_fn(|n| n as u8 * 0x11));
        assert_eq!(id.as_str(), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
