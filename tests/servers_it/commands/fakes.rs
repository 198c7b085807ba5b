//! Servers with properties that the real servers here cannot have: an old Redis, a bucket that may only be read, a
//! MongoDB user without rights, a certificate for another name.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::tls::TlsServer;

/// Serves each connection on a thread of its own; returns the port.
fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            std::thread::spawn(move || each(stream));
        }
    });
    port
}

/// The words of one command; `None` at the end of the connection.
fn command(reader: &mut impl std::io::BufRead) -> Option<Vec<String>> {
    let mut number = |mark: char| -> Option<usize> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim().strip_prefix(mark)?.parse().ok()
    };
    let words = number('*')?;
    let mut found = Vec::new();
    for _ in 0..words {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length: usize = line.trim().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(length);
        found.push(String::from_utf8(word).ok()?);
    }
    Some(found)
}

/// A Redis that reports this version, and answers OK to every other command.
pub(super) fn redis(version: &'static str) -> u16 {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(words) = command(&mut reader) {
            let info = format!("redis_version:{version}\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n");
            let answer = if words[0].eq_ignore_ascii_case("info") {
                format!("${}\r\n{info}\r\n", info.len())
            } else {
                "+OK\r\n".to_owned()
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// An S3 server whose bucket is empty and may only be read.
pub(super) fn s3_read_only() -> u16 {
    serve(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            if std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).is_err() {
                return;
            }
            let answer = if first.starts_with("PUT") {
                let body = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";
                format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            } else if first.starts_with("HEAD") {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
            } else if first.contains("list-type=2") {
                let body = "<ListBucketResult></ListBucketResult>";
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            } else {
                let body = "<Error><Code>NoSuchKey</Code></Error>";
                format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A server whose certificate is for `name`, and which sends nothing else. Returns its port, and the certificate as
/// PEM.
pub(super) fn tls(name: &str) -> (u16, String) {
    let (server, pem) = TlsServer::of(name);
    let port = serve(move |stream| {
        // A client that does not trust the certificate closes the connection.
        let mut asked = [0; 64];
        drop(server.serve(stream).read(&mut asked));
    });
    (port, pem)
}

/// A BSON document, built of its elements.
#[derive(Default)]
struct Bson(Vec<u8>);

impl Bson {
    fn element(mut self, kind: u8, name: &str, value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        let length = i32::try_from(value.len()).unwrap() + 1;
        self.element(2, name, &[&length.to_le_bytes()[..], value.as_bytes(), &[0]].concat())
    }

    fn number(self, name: &str, value: i32) -> Self {
        self.element(16, name, &value.to_le_bytes())
    }

    fn yes(self, name: &str) -> Self {
        self.element(8, name, &[1])
    }

    /// Adds the field `ok`, which every answer has.
    fn ok(self, ok: bool) -> Self {
        self.element(1, "ok", &f64::from(u8::from(ok)).to_le_bytes())
    }

    fn document(self) -> Vec<u8> {
        let length = i32::try_from(self.0.len()).unwrap() + 5;
        [&length.to_le_bytes()[..], &self.0, &[0]].concat()
    }
}

/// The answer of a MongoDB 7 with access control to a command. `may` names the commands that this user may use; they
/// find no documents.
fn answer(command: &str, may: &[&str]) -> Vec<u8> {
    match command.to_ascii_lowercase().as_str() {
        "hello" | "ismaster" => {
            let limits = [
                ("maxBsonObjectSize", 16 << 20),
                ("maxMessageSizeBytes", 48_000_000),
                ("maxWriteBatchSize", 100_000),
                ("maxWireVersion", 21),
            ];
            let hello =
                Bson::default().yes("isWritablePrimary").yes("ismaster").yes("helloOk").number("minWireVersion", 0);
            limits.into_iter().fold(hello, |hello, (name, value)| hello.number(name, value)).ok(true)
        }
        // Commands that every user may use.
        "buildinfo" => Bson::default().text("version", "7.0.2").ok(true),
        "ping" | "endsessions" => Bson::default().ok(true),
        "find" if may.contains(&"find") => {
            let cursor = Bson::default().element(18, "id", &0_i64.to_le_bytes()).text("ns", "d.c").element(
                4,
                "firstBatch",
                &Bson::default().document(),
            );
            Bson::default().element(3, "cursor", &cursor.document()).ok(true)
        }
        _ => {
            let why = format!("not authorized on d to execute command {{ {command}: \"c\" }}");
            Bson::default().text("errmsg", &why).number("code", 13).text("codeName", "Unauthorized").ok(false)
        }
    }
    .document()
}

/// A MongoDB whose user may use only the commands in `may` (`find` or none), beside those that every user may use.
pub(super) fn mongodb(may: &'static [&'static str]) -> u16 {
    const QUERY: i32 = 2004;
    const MESSAGE: i32 = 2013;
    serve(move |mut stream| {
        let number = |bytes: &[u8], at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        loop {
            let mut head = [0; 16];
            if stream.read_exact(&mut head).is_err() {
                return;
            }
            let mut body = vec![0; usize::try_from(number(&head, 0)).unwrap() - head.len()];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            // The position of the command's document: it follows the flags and the other fields of each of the two
            // forms.
            let document = match number(&head, 12) {
                QUERY => 4 + body[4..].iter().position(|byte| *byte == 0).unwrap() + 1 + 8,
                MESSAGE => 5,
                other => panic!("no message of this kind is expected: {other}"),
            };
            // The document's first element has the command's name.
            let name = &body[document + 5..];
            let name = String::from_utf8_lossy(&name[..name.iter().position(|byte| *byte == 0).unwrap()]).into_owned();
            let answer = answer(&name, may);
            let (kind, before) = if number(&head, 12) == QUERY {
                // The flags, the cursor, the first document's position, and the number of documents.
                (
                    1_i32,
                    [&8_i32.to_le_bytes()[..], &0_i64.to_le_bytes(), &0_i32.to_le_bytes(), &1_i32.to_le_bytes()]
                        .concat(),
                )
            } else {
                (MESSAGE, vec![0; 5])
            };
            let length = i32::try_from(head.len() + before.len() + answer.len()).unwrap();
            let reply =
                [&length.to_le_bytes()[..], &1_i32.to_le_bytes(), &head[4..8], &kind.to_le_bytes(), &before, &answer]
                    .concat();
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    })
}
