//! Encrypted connections: a trusted certificate works, and any other is refused.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _, StoreErrorKind};
use dovetail_stores::S3Blobs;

use crate::fake::{self, Fake, Reply};
use crate::tls_server::TlsServer;
use crate::{hidden, shown};

/// A server for the host `name` that accepts every request. Returns its port and its certificate as PEM.
fn start(name: &str) -> (u16, String) {
    let (server, pem) = TlsServer::of(name);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut tls = server.serve(stream);
            // A client that does not trust the certificate closes the connection.
            if fake::request(&mut tls).is_some() {
                let _gone = tls
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .and_then(|()| tls.flush());
                tls.conn.send_close_notify();
                let _gone = tls.flush();
            }
        }
    });
    (port, pem)
}

fn put(endpoint: &str) -> Result<Digest, dovetail_core::blobs::StoreError> {
    S3Blobs::open(&format!("s3://blobs?endpoint={endpoint}"), hidden()).unwrap().put(BlobKind::Log, b"x")
}

#[test]
fn an_unknown_certificate_is_refused_at_once() {
    let (port, _) = start("localhost");
    let error = put(&format!("https://localhost:{port}")).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    let text = shown(&error);
    assert!(text.contains("no TLS connection") && text.contains("certificate") && !text.contains("HIDDEN"), "{text}");
}

#[test]
fn a_server_without_tls_is_refused_at_once() {
    let fake = Fake::start(|_, _| Reply::of(200, b""));
    let error = put(&format!("https://{}", fake.address)).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(shown(&error).contains("is it a TLS server"), "{}", shown(&error));
}

/// The trusted certificates are read from the environment when a backend is opened, so this test runs itself again in a
/// process with such an environment.
#[test]
fn a_private_certificate_works_for_its_name_only() {
    const ENDPOINT: &str = "DOVETAIL_TEST_TLS_ENDPOINT";
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        match put(&endpoint) {
            Ok(_) => println!("it was accepted"),
            Err(e) => println!("it was {:?}: {}", e.kind, shown(&e)),
        }
        return;
    }
    let (port, pem) = start("localhost");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    for (host, says) in [("localhost", &["it was accepted"][..]), ("127.0.0.1", &["it was Refused", "not valid for"])] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::a_private_certificate_works_for_its_name_only", "--nocapture"])
            .env("SSL_CERT_FILE", file.path())
            .env(ENDPOINT, format!("https://{host}:{port}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(says.iter().all(|says| text.contains(says)), "{host}: {text}");
    }
}
