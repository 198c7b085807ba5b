//! Servers that real ones cannot be made to be here: an old Redis, a bucket that may only be read, a certificate for another name.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Serves each connection on a thread of its own; the port.
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

/// The words of one command, or none at the end.
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

/// A Redis that says to be of this version, and yes to everything else.
pub(super) fn redis(version: &'static str) -> u16 {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(words) = command(&mut reader) {
            let info = format!("redis_version:{version}\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n");
            let answer = if words[0].eq_ignore_ascii_case("info") { format!("${}\r\n{info}\r\n", info.len()) } else { "+OK\r\n".to_owned() };
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

/// A server whose certificate is for `name`, and which says nothing more. Its port, and the certificate as PEM.
pub(super) fn tls(name: &str) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = made.cert.pem();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let port = serve(move |stream| {
        let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        // Whoever does not trust us hangs up.
        let mut asked = [0; 64];
        drop(tls.read(&mut asked));
    });
    (port, pem)
}
