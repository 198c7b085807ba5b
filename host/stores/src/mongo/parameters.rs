//! The parameters of a `mongodb://` URL. Each one takes effect or is refused by its name, with the reason: the driver
//! ignores some silently, and others allow stale reads, which no caller can tolerate.

/// How a parameter is treated.
enum ParameterRule {
    /// The driver does what its value says, whatever the value.
    Taken,
    /// The driver does what its value says, if the value is one of these.
    TakenAs(&'static [&'static str], &'static str),
    Refused(&'static str),
}

use ParameterRule::{Refused, Taken, TakenAs};

const OLD: &str = "a secondary may be behind the primary, and a record that was written would be missing: leave it out";
const NO_EFFECT: &str = "it would have no effect: leave it out";

/// All known parameters, in lower case, because the driver ignores case.
const KNOWN: &[(&str, ParameterRule)] = &[
    ("appname", Taken),
    ("authmechanism", Taken),
    ("authmechanismproperties", Taken),
    ("authsource", Taken),
    ("connecttimeoutms", Taken),
    // If it is true, `super::MongoMeta::open` checks the role of the server.
    ("directconnection", Taken),
    ("heartbeatfrequencyms", Taken),
    ("journal", Taken),
    ("localthresholdms", Taken),
    ("maxconnecting", Taken),
    ("maxidletimems", Taken),
    ("maxpoolsize", Taken),
    ("minpoolsize", Taken),
    (
        "readconcernlevel",
        TakenAs(
            &["local", "linearizable"],
            "with another level reads may be old, and a record that was just written would be missing: \
             leave it out, or write `local` or `linearizable`",
        ),
    ),
    ("readpreference", TakenAs(&["primary"], OLD)),
    ("replicaset", Taken),
    ("retryreads", Taken),
    ("retrywrites", Taken),
    ("servermonitoringmode", Taken),
    ("serverselectiontimeoutms", Taken),
    ("ssl", Taken),
    ("tls", Taken),
    ("tlsallowinvalidcertificates", Taken),
    ("tlscafile", Taken),
    ("tlscertificatekeyfile", Taken),
    ("tlsinsecure", Taken),
    // `super::check::open` refuses 0.
    ("w", Taken),
    ("wtimeoutms", Taken),
    ("adaptiveretries", Refused(NO_EFFECT)),
    ("compressors", Refused("this dovetail is built without compression: leave it out")),
    ("enableoverloadretargeting", Refused(NO_EFFECT)),
    ("gssapiservicename", Refused("this dovetail is built without GSSAPI: leave it out")),
    ("loadbalanced", Refused("behind a load balancer a dead server is not found out: name the servers themselves")),
    ("maxadaptiveretries", Refused(NO_EFFECT)),
    ("maxstalenessseconds", Refused(OLD)),
    ("proxyhost", Refused("this dovetail is built without SOCKS proxies: leave it out")),
    ("proxypassword", Refused("this dovetail is built without SOCKS proxies: leave it out")),
    ("proxyport", Refused("this dovetail is built without SOCKS proxies: leave it out")),
    ("proxyusername", Refused("this dovetail is built without SOCKS proxies: leave it out")),
    ("readpreferencetags", Refused(OLD)),
    (
        "sockettimeoutms",
        Refused("the driver has no such limit; a server that is silent is found out by `heartbeatFrequencyMS`"),
    ),
    ("srvmaxhosts", Refused("it belongs to `mongodb+srv://`, which is not known here: name the servers")),
    ("srvservicename", Refused("it belongs to `mongodb+srv://`, which is not known here: name the servers")),
    ("timeoutms", Refused(NO_EFFECT)),
    ("tlsallowinvalidhostnames", Refused("a certificate must hold for the host in the URL: leave it out")),
    ("tlscertificatekeyfilepassword", Refused("give `tlsCertificateKeyFile` a file whose key has no password")),
    ("tlsdisablecertificaterevocationcheck", Refused(NO_EFFECT)),
    ("tlsdisableocspendpointcheck", Refused(NO_EFFECT)),
    ("uuidrepresentation", Refused("records have no UUIDs: leave it out")),
    ("waitqueuemultiple", Refused(NO_EFFECT)),
    ("waitqueuetimeoutms", Refused("the driver does nothing with it: leave it out")),
    ("zlibcompressionlevel", Refused("this dovetail is built without compression: leave it out")),
];

/// The reason why the parameters of `url` are refused. It repeats no part that can be a password with an unescaped `?`.
pub(super) fn flaw(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    if rest.contains('#') {
        return Some("nothing may follow `#` in it (in a password or a name write %23)".to_owned());
    }
    let (_, parameters) = rest.split_once('?')?;
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = name.len() <= 40 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
        let fate = KNOWN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, fate)| fate);
        match fate {
            Some(Taken) => {}
            Some(TakenAs(values, _)) if values.iter().any(|known| value.eq_ignore_ascii_case(known)) => {}
            Some(TakenAs(_, why) | Refused(why)) => return Some(format!("the parameter `{name}`: {why}")),
            None if plain => return Some(format!("there is no parameter `{name}`")),
            None => return Some("it has a parameter with an odd name (in a password `?` is written %3F)".to_owned()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &str) -> Option<String> {
        flaw(&format!("mongodb://h/d?{parameters}"))
    }

    #[test]
    fn reads_that_may_be_old_are_refused() {
        for parameters in [
            "readPreference=secondary",
            "readPreference=nearest",
            "readPreference=primaryPreferred",
            "readPreference=secondaryPreferred",
            "readPreference=secondary&readPreferenceTags=dc:a",
            "maxStalenessSeconds=120&readPreference=primary",
        ] {
            let why = of(parameters).unwrap_or_else(|| panic!("{parameters} is taken"));
            assert!(why.contains("behind the primary") && why.contains("leave it out"), "{why}");
        }
        for parameters in ["readConcernLevel=majority", "readConcernLevel=available", "readconcernlevel=snapshot"] {
            let why = of(parameters).unwrap_or_else(|| panic!("{parameters} is taken"));
            assert!(why.contains("reads may be old") && why.contains("`linearizable`"), "{why}");
        }
        for taken in ["readPreference=primary", "readConcernLevel=local", "readConcernLevel=linearizable"] {
            assert_eq!(of(taken), None);
        }
    }

    #[test]
    fn every_other_parameter_is_taken_or_refused_by_its_name() {
        assert_eq!(of(""), None);
        assert_eq!(of("replicaSet=rs0&authSource=admin&w=majority&journal=true&tls=true"), None);
        assert_eq!(of("serverSelectionTimeoutMS=900&connectTimeoutMS=800&heartbeatFrequencyMS=700"), None);
        for (name, fate) in KNOWN {
            if let Refused(why) = fate {
                assert_eq!(of(&format!("{name}=1")), Some(format!("the parameter `{name}`: {why}")));
            }
            assert_eq!(*name, name.to_lowercase());
        }
        assert_eq!(of("socketTimeoutM=5"), Some("there is no parameter `socketTimeoutM`".to_owned()));
        assert_eq!(flaw("mongodb://h/d?w=1#x").map(|why| why.contains("`#`")), Some(true));
        for hidden in [flaw("mongodb://u:12?HIDDEN@h/d"), flaw("mongodb://u:12#HIDDEN@h/d"), of("HID-DEN=1")] {
            assert!(!hidden.unwrap().contains("HID"));
        }
    }
}
