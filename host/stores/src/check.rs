//! Checks each server of a fleet, for `doctor`: its kind, its settings, and what should be changed. A check changes
//! nothing except for a probe that it removes again, and it binds no server to a fleet.

use std::time::Duration;

use dovetail_core::blobs::StoreError;
use dovetail_core::clock::Clock;

use crate::{Credentials, S3Blobs, open};

/// Difference of two clocks in milliseconds above which `doctor` warns: times of different machines are then hard to
/// compare.
const CLOCKS_APART: u64 = 2_000;
/// Difference of two clocks in milliseconds above which S3 servers refuse signatures.
const SIGNATURES_END: u64 = 15 * 60_000;

/// The result of a check of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// The server and its settings in one line, without passwords.
    pub found: String,
    /// The things that should be changed.
    pub issues: Vec<ServerIssue>,
    /// No fleet has written to this server yet.
    pub unused: bool,
}

/// One thing that should be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIssue {
    /// Whether the server does not work like this, or loses work. Otherwise it works, and could be better.
    pub grave: bool,
    /// The fault, in words for an operator.
    pub found: String,
    /// What the operator should do about it.
    pub remedy: String,
}

impl ServerReport {
    /// Whether a fleet can use the server: no remark is grave.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.issues.iter().any(|issue| issue.grave)
    }

    pub(crate) fn problem(&mut self, found: impl Into<String>, remedy: impl Into<String>) {
        self.issues.push(ServerIssue { grave: true, found: found.into(), remedy: remedy.into() });
    }

    pub(crate) fn warning(&mut self, found: impl Into<String>, remedy: impl Into<String>) {
        self.issues.push(ServerIssue { grave: false, found: found.into(), remedy: remedy.into() });
    }

    /// Adds the difference between the server's clock and ours: `ahead_ms`, with an error of at most `within_ms`.
    pub(crate) fn clock(&mut self, ahead_ms: i64, within_ms: u64) {
        let apart = ahead_ms.unsigned_abs();
        let word = if ahead_ms < 0 { "behind" } else { "ahead" };
        if apart <= within_ms {
            self.found.push_str(", clocks agree");
            return;
        }
        let shown = if apart < 10_000 { format!("{apart} ms") } else { format!("{} s", apart / 1000) };
        self.found.push_str(&format!(", its clock is {shown} {word}"));
        if apart > CLOCKS_APART + within_ms {
            let than = if ahead_ms < 0 { "behind" } else { "ahead of" };
            let found = format!("its clock is {shown} {than} this machine's");
            self.warning(found, "synchronize every machine with the same time servers (chrony or systemd-timesyncd)");
        }
    }

    /// Warns if the connection is not encrypted and a host is not this machine.
    pub(crate) fn network(&mut self, encrypted: bool, hosts: &[&str], remedy: &str) {
        if !encrypted && !hosts.iter().all(|host| is_this_machine(host)) {
            self.warning(
                "the connection is not encrypted",
                format!("{remedy}, unless the network between this machine and the server is private"),
            );
        }
    }
}

/// The remedy for an unknown host name. `None` if the error text tells of something else.
pub(crate) fn unknown_host(text: &str) -> Option<&'static str> {
    let says =
        ["failed to lookup address", "Name or service not known", "dns error"].iter().any(|words| text.contains(words));
    says.then_some("is the host in the URL right, and does this machine know its name (DNS, /etc/hosts)?")
}

/// Explains an error text in which `rustls` rejects a server's certificate, and adds the remedy. `trust` tells how this
/// machine is made to trust a certificate. `None` if the error text tells of something else.
pub(crate) fn certificate(text: &str, trust: &str) -> Option<String> {
    let (_, why) = text.split_once("invalid peer certificate: ")?;
    let why = match why {
        _ if why.contains("CaUsedAsEndEntity") => {
            "it is the certificate of an authority: let that authority sign a certificate for the server \
             (`CA:FALSE`), and use the signed one"
        }
        _ if why.contains("UnknownIssuer") => "no authority that this machine trusts has signed it",
        _ if why.contains("Expired") => "it has expired: renew it, if this machine's clock is right",
        _ if why.contains("NotValidYet") => "it is not valid yet: set this machine's clock, if that is wrong",
        _ if why.contains("BadSignature") => "its signature is not that of the authority it names",
        why => why,
    };
    Some(format!(
        "the server's certificate is not accepted: {why}. The certificate must hold for the host in the URL; {trust}"
    ))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Checks the queue of a fleet (`redis://...`).
///
/// # Errors
/// `Invalid` for a URL that cannot be used, `Unavailable` or `Refused` if the server cannot be asked, each with its
/// remedy.
pub fn check_window(url: &str, clock: &dyn Clock) -> Result<ServerReport, StoreError> {
    match url.split_once(':') {
        #[cfg(feature = "redis")]
        Some(("redis" | "rediss", _)) => crate::redis::check::check(url, clock),
        _ => {
            let _ = clock;
            Err(open::unknown_window())
        }
    }
}

/// Checks the records of a fleet (`mongodb://...`). A race of inserts in a collection of its own tests whether inserts
/// are atomic.
///
/// # Errors
/// As [`check_window`].
pub fn check_meta(url: &str, fleet: &str, clock: &dyn Clock) -> Result<ServerReport, StoreError> {
    match url.split_once(':') {
        #[cfg(feature = "mongodb")]
        Some(("mongodb", _)) => crate::mongo::check::check(url, fleet, clock),
        _ => {
            let _ = (fleet, clock);
            Err(open::unknown_meta())
        }
    }
}

/// Checks a remote blob store (`s3://...`): writes, reads and removes a small object. Returns the store, too, without a
/// cache.
///
/// # Errors
/// As [`check_window`].
pub fn check_blobs(url: &str, clock: &dyn Clock) -> Result<(ServerReport, S3Blobs), StoreError> {
    let far = S3Blobs::open(url, Credentials::from_env()?)?;
    let checked = far.check(clock)?;
    let server = checked.server.as_deref().unwrap_or("a server that does not name itself");
    let found =
        format!("{} ({server}): writes, reads and removes; reads in {}", checked.address, millis(checked.round_trip));
    let mut report = ServerReport { found, ..ServerReport::default() };
    if let Some(ahead_ms) = checked.clock_ahead_ms {
        // The server tells its time in whole seconds.
        report.clock(ahead_ms, 600);
        if ahead_ms.unsigned_abs() > SIGNATURES_END / 2 {
            report.problem(
                "the clocks are nearly too far apart for signatures",
                "set this machine's clock: beyond 15 minutes every request is refused",
            );
        }
    }
    if checked.unencrypted {
        report.warning(
            "the connection is not encrypted",
            "use an https:// endpoint, unless the network between this machine and the server is private",
        );
    }
    Ok((report, far))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_told_and_judged() {
        let mut report = ServerReport::default();
        report.clock(-3, 5);
        assert_eq!((report.found.as_str(), report.issues.len()), (", clocks agree", 0));
        let mut report = ServerReport::default();
        report.clock(700, 5);
        assert_eq!((report.found.as_str(), report.issues.len()), (", its clock is 700 ms ahead", 0));
        let mut report = ServerReport::default();
        report.clock(-90_000, 5);
        assert_eq!((report.found.as_str(), report.issues.len()), (", its clock is 90 s behind", 1));
        assert!(report.is_usable() && report.issues[0].found.contains("90 s behind this machine's"), "{report:?}");
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_in_words() {
        for (raw, says) in [
            ("Other(OtherError(CaUsedAsEndEntity))", "it is the certificate of an authority"),
            ("UnknownIssuer", "no authority that this machine trusts has signed it"),
            ("certificate not valid for name \"a\"; certificate is only valid for b", "not valid for name \"a\""),
        ] {
            let explained = certificate(&format!("invalid peer certificate: {raw}"), "trusted are few").unwrap();
            assert!(
                explained.contains(says) && explained.contains("hold for the host in the URL; trusted are few"),
                "{explained}"
            );
            assert!(!explained.contains("OtherError") && !explained.contains("Issuer"), "{explained}");
        }
        assert_eq!(certificate("connection refused", ""), None);
    }

    #[test]
    fn only_what_leaves_the_machine_must_be_encrypted() {
        for (encrypted, hosts, issues) in [
            (false, &["127.0.0.1", "localhost", "::1", "/run/redis.sock"][..], 0),
            (false, &["127.0.0.1", "db.example.com"], 1),
            (true, &["db.example.com"], 0),
        ] {
            let mut report = ServerReport::default();
            report.network(encrypted, hosts, "use TLS");
            assert_eq!(report.issues.len(), issues, "{hosts:?}");
        }
    }
}
