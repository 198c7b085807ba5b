//! The keys of an S3 server, and their sources. `Debug` does not show them, and errors contain no secret.

use std::fmt;
use std::path::Path;

use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};

/// An access key with its secret key, and a session token if the keys are temporary.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(not shown)")
    }
}

const ACCESS_KEY: &str = "DOVETAIL_S3_ACCESS_KEY";
const SECRET_KEY: &str = "DOVETAIL_S3_SECRET_KEY";
const SESSION_TOKEN: &str = "DOVETAIL_S3_SESSION_TOKEN";

impl Credentials {
    /// Permanent keys.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), session_token: None }
    }

    /// Adds the session token of temporary keys.
    #[must_use]
    pub fn with_session_token(self, token: impl Into<String>) -> Self {
        Self { session_token: Some(token.into()), ..self }
    }

    /// Reads `DOVETAIL_S3_ACCESS_KEY`, `DOVETAIL_S3_SECRET_KEY` and the optional `DOVETAIL_S3_SESSION_TOKEN`. Returns
    /// `None` if none of them is set.
    ///
    /// # Errors
    /// `Invalid` if only one of the two keys is set, or a value is not UTF-8.
    pub fn from_env() -> Result<Option<Self>, StoreError> {
        let invalid = |why: String| {
            StoreError::new(StoreErrorKind::Invalid, "read the S3 credentials from the environment", why)
                .of(Store::Blobs)
        };
        let read = |name: &str| match std::env::var(name) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(invalid(format!("{name} is not UTF-8 text"))),
        };
        match (read(ACCESS_KEY)?, read(SECRET_KEY)?, read(SESSION_TOKEN)?) {
            (None, None, None) => Ok(None),
            (Some(access_key), Some(secret_key), session_token) => {
                Ok(Some(Self { access_key, secret_key, session_token }))
            }
            (access_key, ..) => {
                let missing = if access_key.is_none() { ACCESS_KEY } else { SECRET_KEY };
                Err(invalid(format!(
                    "{missing} is not set, but others of {ACCESS_KEY}, {SECRET_KEY} and {SESSION_TOKEN} are: set both \
                     keys, or none"
                )))
            }
        }
    }

    /// Reads a file with a line `access_key=...`, a line `secret_key=...` and, for temporary keys, a line
    /// `session_token=...`. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// `Invalid` if the file does not exist, cannot be read, or has other content. The error does not repeat the
    /// content.
    pub fn from_file(path: &Path) -> Result<Self, StoreError> {
        let operation = || format!("read the S3 credentials from {}", path.display());
        let invalid = |why: Box<dyn std::error::Error + Send + Sync>| {
            StoreError::new(StoreErrorKind::Invalid, operation(), why).of(Store::Blobs)
        };
        let text = std::fs::read_to_string(path).map_err(|e| invalid(e.into()))?;
        let refused = |why: String| invalid(why.into());
        let mut found: [Option<String>; 3] = [None, None, None];
        const NAMES: [&str; 3] = ["access_key", "secret_key", "session_token"];
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').map_or(("", ""), |(name, value)| (name.trim(), value.trim()));
            let Some(place) = NAMES.iter().position(|known| *known == name) else {
                return Err(refused(format!(
                    "line {number} is none of `access_key=...`, `secret_key=...` and `session_token=...`"
                )));
            };
            if value.is_empty() || found[place].replace(value.to_owned()).is_some() {
                return Err(refused(format!("line {number}: `{name}` is empty, or given twice")));
            }
        }
        match found {
            [Some(access_key), Some(secret_key), session_token] => Ok(Self { access_key, secret_key, session_token }),
            [None, ..] => Err(refused("there is no line `access_key=...`".to_owned())),
            [_, None, _] => Err(refused("there is no line `secret_key=...`".to_owned())),
        }
    }

    /// The reason why the keys cannot be right for any server: they would break the header that carries them.
    #[cfg(feature = "s3")]
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        let odd = |text: &str| text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic());
        if odd(&self.access_key) || self.access_key.contains(['/', ',']) {
            return Some("the access key is empty, or has characters that no access key has");
        }
        if odd(&self.secret_key) || self.session_token.as_deref().is_some_and(odd) {
            return Some(
                "the secret key or the session token is empty, or has blanks or other characters that no key has",
            );
        }
        None
    }

    /// The keys as rust-s3 takes them.
    #[cfg(feature = "s3")]
    pub(crate) fn for_signing(&self) -> s3::creds::Credentials {
        let mut credentials = s3::creds::Credentials::anonymous().expect("needs neither a file nor the environment");
        credentials.access_key = Some(self.access_key.clone());
        credentials.secret_key = Some(self.secret_key.clone());
        credentials.session_token = self.session_token.clone();
        credentials
    }

    /// `text` without the secret key and the session token, in case a server repeats one. The access key is a name, not
    /// a secret: it may be part of the bucket's name, and an operator must read which key was refused.
    #[cfg(feature = "s3")]
    pub(crate) fn removed_from(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in [Some(&self.secret_key), self.session_token.as_ref()].into_iter().flatten() {
            text = text.replace(secret.as_str(), "***");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Credentials, StoreError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Credentials::from_file(file.path())
    }

    #[test]
    fn a_file_is_read() {
        let read = file("# keys of the fleet\naccess_key = AK\n\nsecret_key=a/b+c==\n").unwrap();
        assert_eq!(read, Credentials::new("AK", "a/b+c=="));
        assert_eq!(
            file("secret_key=s\naccess_key=a\nsession_token=t").unwrap(),
            Credentials::new("a", "s").with_session_token("t")
        );
    }

    #[test]
    fn a_bad_file_is_refused_without_repeating_it() {
        for (text, says) in [
            ("access_key=HIDDEN1\n", "no line `secret_key="),
            ("secret_key=HIDDEN1\n", "no line `access_key="),
            ("access_key=a\nHIDDEN1\n", "line 2 is none of"),
            ("access_key=a\nsecret=HIDDEN1\n", "line 2 is none of"),
            ("access_key=a\nsecret_key=HIDDEN1\nsecret_key=HIDDEN2", "line 3: `secret_key` is empty, or given twice"),
            ("access_key=\nsecret_key=HIDDEN1", "line 1: `access_key` is empty"),
        ] {
            let error = file(text).unwrap_err();
            let why = error.source.as_ref().unwrap().to_string();
            assert!(why.contains(says), "{why}");
            assert!(!format!("{error:?}").contains("HIDDEN"), "{error:?}");
        }
        assert_eq!(Credentials::from_file(Path::new("no/such/file")).unwrap_err().kind, StoreErrorKind::Invalid);
    }

    #[cfg(feature = "s3")]
    #[test]
    fn secrets_are_removed_and_names_are_not() {
        let keys = Credentials::new("dovetail", "s3cr3t").with_session_token("t0k3n");
        assert_eq!(
            keys.removed_from("list the bucket `dovetail-test`: s3cr3t, t0k3n"),
            "list the bucket `dovetail-test`: ***, ***"
        );
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?}", Credentials::new("HIDDEN1", "HIDDEN2").with_session_token("HIDDEN3"));
        assert!(!shown.contains("HIDDEN"), "{shown}");
    }
}
