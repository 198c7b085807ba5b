//! The URL of a MongoDB, the explanation of its errors with remedies, and, for `doctor`, the server's report about
//! itself and its behaviour in a race.

use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::sync::lock;
use dovetail_core::url::without_credentials;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{Acknowledgment, ClientOptions, ServerAddress, Tls, WriteConcern};
use mongodb::sync::{Client, Collection, Database};

use super::{is_duplicate, parameters};
use crate::check::{ServerReport, certificate, millis, unknown_host};

/// Defaults if the URL says nothing else: the time limit for finding a server, the time limit for a connection, and the
/// interval of checks of each server. A server that vanished is detected after the sum of the last two at the latest.
/// Then the driver gives up every connection to it, with all waiting operations: it has no time limit for one
/// operation.
const SELECT: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(4);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A connection that was unused for this long is not used again, unless the URL says otherwise.
const IDLE: Duration = Duration::from_secs(60);
/// The oldest supported major version: the first in which a replica set acknowledges, by default, only writes that most
/// of its members have.
const OLDEST: u32 = 5;
pub(super) const UPGRADE: &str = "upgrade it";
/// The number of threads that insert the same `_id` at once.
const RACERS: usize = 64;

/// The parts of a URL, and a client for it.
pub(super) struct Opened {
    pub(super) database: Database,
    /// `host:port/database`.
    pub(super) address: String,
    pub(super) last_error: LastServerError,
    hosts: Vec<String>,
    encrypted: bool,
    concern: Option<WriteConcern>,
    /// Whether the URL says `directConnection=true`.
    pub(super) direct: bool,
}

fn bad_url(url: &str, error: &Error) -> StoreError {
    const FORM: &str = "write mongodb://[user:password@]host[:port]/database";
    // A password with an unescaped `/` or `:` can be anywhere in the driver's error for the whole URL. The error for
    // the URL without credentials is harmless.
    let plain = without_credentials(url);
    let why = match ClientOptions::parse(&plain).run() {
        _ if plain == url => error.kind.to_string(),
        Err(error) => error.kind.to_string(),
        Ok(_) => "its user or password cannot be read: in them, write `/` as %2F, `:` as %3A, `@` as %40, `%` as %25"
            .to_owned(),
    };
    StoreError::new(
        StoreErrorKind::Invalid,
        "open the metadata store",
        format!("its URL cannot be used: {why}; {FORM}"),
    )
}

/// Reads the URL without contacting the server. `pool` is the most connections; `None` leaves it to the URL and the
/// driver.
pub(super) fn open(url: &str, pool: Option<u32>) -> Result<Opened, StoreError> {
    let invalid = |why: &str| StoreError::new(StoreErrorKind::Invalid, "open the metadata store", why.to_owned());
    if let Some(why) = parameters::flaw(url) {
        return Err(invalid(&format!("its URL cannot be used: {why}")));
    }
    let mut options = ClientOptions::parse(url).run().map_err(|e| bad_url(url, &e))?;
    let concern = options.write_concern.clone();
    if concern.as_ref().is_some_and(|concern| concern.w == Some(Acknowledgment::Nodes(0))) {
        return Err(invalid("its URL says `w=0`: records would be lost in silence; leave it out"));
    }
    let name = options.default_database.clone();
    let name = name.ok_or_else(|| invalid("its URL names no database: write mongodb://host[:port]/DATABASE"))?;
    let select = *options.server_selection_timeout.get_or_insert(SELECT);
    options.connect_timeout.get_or_insert(CONNECT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    // Firewalls drop connections that are silent for long without telling either side.
    options.max_idle_time.get_or_insert(IDLE);
    let direct = options.direct_connection == Some(true);
    options.max_pool_size = pool.or(options.max_pool_size);
    options.app_name.get_or_insert_with(|| "dovetail".to_owned());
    let last_error = LastServerError { select, last: Arc::default() };
    let listener = last_error.clone();
    options.sdam_event_handler = Some(EventHandler::callback(move |event| listener.observe(&event)));
    let encrypted = matches!(options.tls, Some(Tls::Enabled(_)));
    let host = |address: &ServerAddress| match address {
        ServerAddress::Tcp { host, .. } => host.clone(),
        other => other.to_string(),
    };
    let hosts = options.hosts.iter().map(host).collect();
    let names: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
    let address = format!("{}/{name}", names.join(","));
    let client = Client::with_options(options).map_err(|e| invalid(&e.kind.to_string()))?;
    Ok(Opened { database: client.database(&name), address, last_error, hosts, encrypted, concern, direct })
}

/// The last reason why a server could not be reached. The driver keeps trying, and its final error does not tell the
/// reason.
#[derive(Clone)]
pub(super) struct LastServerError {
    /// The time limit for finding a server.
    select: Duration,
    last: Arc<Mutex<Option<ErrorKind>>>,
}

impl LastServerError {
    fn observe(&self, event: &SdamEvent) {
        let reason = match event {
            SdamEvent::ServerHeartbeatFailed(failed) => Some((*failed.failure.kind).clone()),
            SdamEvent::ServerHeartbeatSucceeded(_) => None,
            _ => return,
        };
        *lock(&self.last) = reason;
    }

    /// The kind of the error, and its text with a remedy. It never contains the driver's whole text, which describes
    /// every server in more detail than is needed.
    pub(super) fn explained(&self, error: &Error) -> (StoreErrorKind, String) {
        use StoreErrorKind::{Refused, Unavailable};
        const RIGHTS: &str = "give this user the role `readWrite` on this database";
        match &*error.kind {
            ErrorKind::ServerSelection { .. } => {
                let reason = lock(&self.last).clone();
                reason.map_or_else(|| unanswered(self.select), |kind| unreachable_for(&kind, self.select))
            }
            ErrorKind::Authentication { message, .. } => {
                let message = message.lines().next().unwrap_or_default();
                (
                    Refused,
                    format!(
                        "{message}: correct user and password in the URL (percent-encoded); where the user was made \
                         in another database, add ?authSource=admin"
                    ),
                )
            }
            ErrorKind::Command(e) => match e.code {
                13 => (Refused, format!("{}: {RIGHTS}", e.message)),
                18 => (Refused, format!("{}: correct user and password in the URL", e.message)),
                20 | 10107 => {
                    (Refused, format!("{}: name the whole replica set in the URL (?replicaSet=NAME)", e.message))
                }
                _ => (Unavailable, error.kind.to_string()),
            },
            ErrorKind::Write(WriteFailure::WriteError(e)) if e.code == 13 => {
                (Refused, format!("{}: {RIGHTS}", e.message))
            }
            kind => unreachable_for(kind, self.select),
        }
    }
}

fn unanswered(within: Duration) -> (StoreErrorKind, String) {
    let why = format!(
        "no answer within {} s: is the server a MongoDB, and does the URL say ?tls=true exactly if the server \
         speaks TLS? Or is the server frozen, overloaded, or behind a firewall?",
        within.as_secs_f64()
    );
    (StoreErrorKind::Unavailable, why)
}

fn unreachable_for(kind: &ErrorKind, within: Duration) -> (StoreErrorKind, String) {
    use StoreErrorKind::{Refused, Unavailable};
    match kind {
        ErrorKind::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => unanswered(within),
        ErrorKind::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            (Unavailable, format!("{e}: is it running, and are host and port right?"))
        }
        ErrorKind::Io(e) => {
            let text = e.to_string();
            if let Some(why) = certificate(&text, "name the authority that has signed it with ?tlsCAFile=FILE") {
                return (Refused, why);
            }
            let help = unknown_host(&text).unwrap_or(
                "if every connection fails like this: is the server a MongoDB, and does the URL say ?tls=true exactly \
                 if the server speaks TLS?",
            );
            (Unavailable, format!("{text}: {help}"))
        }
        ErrorKind::InvalidTlsConfig { message, .. } => {
            (Refused, format!("{message}: correct the TLS parameters of the URL"))
        }
        other => (Unavailable, other.to_string()),
    }
}

/// The server's version, or the reason why it is not supported.
pub(super) fn version(info: &Document) -> Result<String, String> {
    let version = info.get_str("version").unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < OLDEST {
        Err(format!("it is MongoDB {version}; {OLDEST} or later is needed"))
    } else {
        Ok(version.to_owned())
    }
}

/// Whether `buildInfo` comes from FerretDB, the server that stands in for MongoDB in tests.
pub(super) fn is_stand_in(info: &Document) -> bool {
    info.contains_key("ferretdbVersion")
}

/// The reason why a server must not be used directly: the driver reads from it even while it is a secondary.
pub(super) fn unfit_alone(hello: &Document) -> Option<&'static str> {
    let writable = hello.get_bool("isWritablePrimary").or_else(|_| hello.get_bool("ismaster")).unwrap_or(true);
    (!writable || hello.get_array("hosts").map_or(0, Vec::len) > 1).then_some(
        "the URL says `directConnection=true`, and the server is one of several of a replica set: dovetail \
         would read from a secondary that is behind; name the replica set instead (?replicaSet=NAME)",
    )
}

/// Adds to `report` what the answer to `hello` tells.
fn judge(hello: &Document, stand_in: bool, concern: Option<&WriteConcern>, report: &mut ServerReport) {
    let journal = concern.is_some_and(|concern| concern.journal == Some(true));
    let one = concern.is_some_and(|concern| concern.w == Some(Acknowledgment::Nodes(1)));
    let writable = hello.get_bool("isWritablePrimary").or_else(|_| hello.get_bool("ismaster")).unwrap_or(true);
    if let Ok(set) = hello.get_str("setName") {
        let members = hello.get_array("hosts").map_or(0, Vec::len);
        report.found.push_str(&format!(", replica set {set} of {members}"));
        if one {
            let found = "the URL says `w=1`: a failover rolls back the records that only the old primary \
                         has, and their steps run again";
            report.warning(found, "leave `w` out: then a record is acknowledged when a majority of the members has it");
        }
    } else if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        report.found.push_str(", sharded");
    } else if stand_in {
        report.found.push_str(", a stand-in for tests (FerretDB)");
        report.warning(
            "it is not a MongoDB: lists read whole collections, and become slow with thousands of runs",
            "use MongoDB 5 or later where results matter",
        );
    } else {
        report.found.push_str(if journal { ", standalone with its journal" } else { ", standalone" });
        let lost = if journal { "" } else { "if its machine fails, the records of the last 100 ms are lost, and " };
        let found = format!("a standalone server: {lost}nothing works while it is down");
        let journal = if journal { "" } else { ", or at least add ?journal=true to the URL" };
        report.warning(found, format!("make it a replica set of three{journal}"));
    }
    if !writable {
        report.problem("it takes no writes", "name the primary, or the whole replica set with ?replicaSet=NAME");
    }
}

/// Inserts the same `_id` from many threads. Returns how many were told that their insert was the first.
fn race(collection: &Collection<Document>) -> Result<usize, Error> {
    let start = Barrier::new(RACERS);
    let insert = |number: usize| {
        start.wait();
        match collection.insert_one(doc! { "_id": "probe", "n": i64::try_from(number).unwrap_or_default() }).run() {
            Ok(_) => Ok(1),
            Err(e) if is_duplicate(&e) => Ok(0),
            Err(e) => Err(e),
        }
    };
    std::thread::scope(|threads| {
        let racers: Vec<_> = (0..RACERS).map(|number| threads.spawn(move || insert(number))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap_or(Ok(0))).sum()
    })
}

/// Connects as a worker does, but takes the database for no fleet.
pub(crate) fn check(url: &str, fleet: &str, clock: &dyn Clock) -> Result<ServerReport, StoreError> {
    let Opened { database, address, last_error, hosts, encrypted, concern, direct } =
        open(url, u32::try_from(RACERS).ok())?;
    let fail = |operation: &str, error: &Error| {
        let (kind, why) = last_error.explained(error);
        StoreError::new(kind, format!("{operation} the metadata store at {address}"), why)
    };
    let info = database.run_command(doc! { "buildInfo": 1 }).run().map_err(|e| fail("ask", &e))?;
    let (asked, asked_ms) = (Instant::now(), clock.wall_ms());
    let hello = database.run_command(doc! { "hello": 1 }).run().map_err(|e| fail("ask", &e))?;
    let trip = asked.elapsed();
    let mut report = ServerReport::default();
    match version(&info) {
        Ok(version) => report.found = format!("MongoDB {version} at {address}"),
        Err(why) => {
            report.found = format!("a server at {address}");
            report.problem(why, UPGRADE);
        }
    }
    judge(&hello, is_stand_in(&info), concern.as_ref(), &mut report);
    if let Some(why) = unfit_alone(&hello).filter(|_| direct) {
        report.problem(why, "leave `directConnection` out");
    }
    report.found.push_str(&format!(", answers in {}", millis(trip)));
    if let Ok(theirs) = hello.get_datetime("localTime") {
        let half = trip.as_millis() as i64 / 2;
        let ours = i64::try_from(asked_ms).unwrap_or(i64::MAX).saturating_add(half);
        report.clock(theirs.timestamp_millis().saturating_sub(ours), half.unsigned_abs() + 5);
    }
    let facts: Collection<Document> = database.collection("facts");
    let owner = facts.find_one(doc! { "_id": "fleet" }).run().map_err(|e| fail("read", &e))?;
    match owner.as_ref().and_then(|owner| owner.get_str("name").ok()) {
        None => {
            report.unused = true;
            report.found.push_str(", used by no fleet yet");
        }
        Some(owner) if owner == fleet => report.found.push_str(&format!(", of the fleet `{fleet}`")),
        Some(owner) => {
            let found = format!("this database belongs to the fleet `{owner}`, this is `{fleet}`");
            report.problem(found, format!("name another database, or set `fleet = \"{owner}\"`"));
        }
    }
    // Another `doctor` that runs at the same time uses another collection.
    let probe: Collection<Document> = database.collection(&format!("doctor_{}_{asked_ms}", std::process::id()));
    let raced = race(&probe);
    let removed = probe.drop().run();
    match raced.map_err(|e| fail("write to", &e))? {
        1 => report.found.push_str(&format!(", inserts are atomic ({RACERS} at once)")),
        winners => {
            let found = format!(
                "inserts are not atomic: {winners} of {RACERS} threads were told that they were the first with \
                 one `_id`"
            );
            report.problem(found, "use MongoDB 5 or later: no record of dovetail is safe on this server");
        }
    }
    if let Err(error) = removed {
        let (_, why) = last_error.explained(&error);
        report.warning(
            format!("the collection `{}`, in which inserts were tried, could not be removed: {why}", probe.name()),
            "remove it by hand",
        );
    }
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    report.network(encrypted, &hosts, "add ?tls=true to the URL and let MongoDB speak TLS");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(url: &str) -> String {
        let error = open(url, None).map(drop).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid, "{url}");
        let why = error.source.as_ref().map_or_else(String::new, ToString::to_string);
        assert!(!why.contains("SECRET") && !format!("{error:?}").contains("SECRET"), "{why}");
        why
    }

    #[test]
    fn a_url_that_is_none_is_told_without_its_password() {
        assert!(why("mongodb://u:SECRET@host:port/db").contains("got port"));
        assert!(why("mongodb://u:SEC/SECRET@host/db").contains("write `/` as %2F"));
        assert!(why("mongodb://u:SECRET@host").contains("names no database"));
        assert!(why("mongodb://u:SECRET@host/db?w=0").contains("`w=0`"));
        assert!(why("mongodb:SECRET").contains("write mongodb://"));
    }

    fn judged(hello: &Document, url: &str) -> ServerReport {
        let mut report = ServerReport::default();
        judge(hello, false, open(url, None).unwrap().concern.as_ref(), &mut report);
        report
    }

    #[test]
    fn what_is_lost_where_is_told() {
        let set = doc! { "setName": "rs0", "hosts": ["a", "b", "c"], "isWritablePrimary": true };
        let report = judged(&set, "mongodb://h/d");
        assert_eq!((report.found.as_str(), report.issues.len()), (", replica set rs0 of 3", 0));
        assert!(judged(&set, "mongodb://h/d?w=1").issues[0].found.contains("`w=1`"));
        let alone = judged(&doc! { "isWritablePrimary": true }, "mongodb://h/d");
        assert!(
            alone.is_usable()
                && alone.issues[0].found.contains("last 100 ms")
                && alone.issues[0].remedy.contains("journal=true"),
            "{alone:?}"
        );
        let journal = judged(&doc! { "isWritablePrimary": true }, "mongodb://h/d?journal=true");
        assert!(
            !journal.issues[0].found.contains("100 ms") && journal.issues[0].remedy.ends_with("replica set of three"),
            "{journal:?}"
        );
        let secondary = judged(&doc! { "setName": "rs0", "hosts": ["a"], "isWritablePrimary": false }, "mongodb://h/d");
        assert!(!secondary.is_usable(), "{secondary:?}");
    }

    #[test]
    fn one_of_several_is_not_asked_directly() {
        let set = |hosts: &[&str], primary: bool| {
            let hosts: Vec<&str> = hosts.to_vec();
            unfit_alone(&doc! { "setName": "rs0", "hosts": hosts, "isWritablePrimary": primary }).is_some()
        };
        assert!(set(&["a", "b", "c"], true) && set(&["a"], false));
        assert!(!set(&["a"], true) && unfit_alone(&doc! { "ismaster": true }).is_none());
        let direct = |url| open(url, None).unwrap().direct;
        assert!(direct("mongodb://h/d?directConnection=true") && !direct("mongodb://h/d"));
    }

    #[test]
    fn what_a_url_says_of_times_takes_effect() {
        let started = Instant::now();
        // No server listens on this port.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let opened = open(&format!("mongodb://127.0.0.1:{port}/d?serverSelectionTimeoutMS=300"), None).unwrap();
        let error = opened.database.run_command(doc! { "ping": 1 }).run().unwrap_err();
        let took = started.elapsed();
        assert!(matches!(*error.kind, ErrorKind::ServerSelection { .. }), "{error}");
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
        assert!(unanswered(opened.last_error.select).1.starts_with("no answer within 0.3 s:"));
        assert!(why("mongodb://h/d?readPreference=secondary").contains("behind the primary"));
        assert!(why("mongodb://h/d?serverSelectionTimeoutMS=soon").contains("non-negative integer"));
    }

    #[test]
    fn old_servers_are_refused() {
        assert_eq!(version(&doc! { "version": "7.0.2" }), Ok("7.0.2".to_owned()));
        assert!(version(&doc! { "version": "4.4.29" }).unwrap_err().contains("4.4.29"));
        assert!(version(&doc! {}).is_err());
    }
}
