//! A proxy before an S3 server that understands HTTP messages: it can delay them, refuse requests in the server's
//! place, break off a body, and change a byte of a body, in both directions.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The proxy's fault. `of`: the fault happens to one of this many objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    Nothing,
    /// Each message begins `late` later, and has `rate` bytes a second.
    Slow {
        late: Duration,
        rate: usize,
    },
    /// Requests are answered with 503 `SlowDown`, and do not reach the server.
    Refuse,
    /// The connection ends in the middle of an object, in an answer (`GET`) or in a request (`PUT`).
    CutBodies {
        of: u64,
    },
    /// One byte of an object is changed, in an answer or in a request.
    FlipBytes {
        of: u64,
    },
    /// No message passes, and no end is told; the messages pass later.
    Dead,
}

/// The longest message, in bytes; no test sends a longer one.
const MOST: usize = 64 << 20;
const LOOK: Duration = Duration::from_millis(20);

/// A request or an answer.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn first_line(&self) -> &str {
        std::str::from_utf8(&self.head).ok().and_then(|head| head.lines().next()).unwrap_or_default()
    }

    /// The value of a header, in lower case.
    fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    }

    fn is(&self, method: &str) -> bool {
        self.first_line().starts_with(method)
    }

    /// Whether the message is an answer with status 200.
    fn is_fine(&self) -> bool {
        self.first_line().split(' ').nth(1) == Some("200")
    }
}

struct Line {
    target: u16,
    spoil: Mutex<Spoil>,
    objects: AtomicU64,
    struck: AtomicU64,
    over: AtomicBool,
}

pub(crate) struct HttpProxy {
    port: u16,
    line: Arc<Line>,
}

impl Line {
    fn spoil(&self) -> Spoil {
        *self.spoil.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Counts an object, and tells whether the fault strikes it.
    fn is_due(&self, of: u64) -> bool {
        self.objects.fetch_add(1, Ordering::SeqCst) % of == of - 1
    }

    fn strikes(&self) {
        self.struck.fetch_add(1, Ordering::SeqCst);
    }

    /// Reads more bytes. `None`: the connection ended, or the proxy is being dropped.
    fn more(&self, from: &mut TcpStream, into: &mut Vec<u8>) -> Option<()> {
        let mut piece = [0; 64 << 10];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => {
                    into.extend_from_slice(&piece[..read]);
                    assert!(into.len() < MOST, "no such message is expected");
                    return Some(());
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if self.is_over() {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    /// Reads the next message. `without_body`: the message is the answer to a `HEAD`.
    fn message(&self, from: &mut TcpStream, rest: &mut Vec<u8>, without_body: bool) -> Option<Message> {
        let end = loop {
            if let Some(at) = find(rest, b"\r\n\r\n") {
                break at + 4;
            }
            self.more(from, rest)?;
        };
        let mut message = Message { head: rest.drain(..end).collect(), body: Vec::new() };
        if without_body {
            return Some(message);
        }
        if message.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            // The body stays chunked; an empty chunk is its last one.
            let end = loop {
                if rest.starts_with(b"0\r\n\r\n") {
                    break 5;
                }
                if let Some(at) = find(rest, b"\r\n0\r\n\r\n") {
                    break at + 7;
                }
                self.more(from, rest)?;
            };
            message.body = rest.drain(..end).collect();
            return Some(message);
        }
        let length = message.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
        while rest.len() < length {
            self.more(from, rest)?;
        }
        message.body = rest.drain(..length).collect();
        Some(message)
    }

    /// Passes a message on: whole, half of it, or with a changed byte. `None`: the connection must be closed.
    fn pass(&self, message: &mut Message, to: &mut TcpStream, is_object: bool) -> Option<()> {
        if self.spoil() == Spoil::Dead {
            self.strikes();
        }
        while self.spoil() == Spoil::Dead {
            if self.is_over() {
                return None;
            }
            std::thread::sleep(LOOK);
        }
        let middle = message.body.len() / 2;
        match self.spoil() {
            Spoil::Slow { late, rate } => {
                self.strikes();
                std::thread::sleep(late);
                to.write_all(&message.head).ok()?;
                for piece in message.body.chunks((rate / 20).max(1)) {
                    to.write_all(piece).ok()?;
                    if matches!(self.spoil(), Spoil::Slow { .. }) && !self.is_over() {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                return Some(());
            }
            Spoil::CutBodies { of } if is_object && self.is_due(of) => {
                self.strikes();
                drop(to.write_all(&message.head).and_then(|()| to.write_all(&message.body[..middle])));
                return None;
            }
            Spoil::FlipBytes { of } if is_object && self.is_due(of) => {
                self.strikes();
                message.body[middle] ^= 0x20;
            }
            Spoil::Nothing | Spoil::Refuse | Spoil::CutBodies { .. } | Spoil::FlipBytes { .. } | Spoil::Dead => {}
        }
        to.write_all(&message.head).and_then(|()| to.write_all(&message.body)).ok()
    }

    /// Serves one connection: one request and its answer at a time.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut server = TcpStream::connect(("127.0.0.1", self.target)).ok()?;
        for end in [&client, &server] {
            end.set_nodelay(true).ok()?;
            end.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        }
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        loop {
            let mut request = self.message(&mut client, &mut asked, false)?;
            if self.spoil() == Spoil::Refuse {
                self.strikes();
                client.write_all(refusal(request.is("HEAD")).as_bytes()).ok()?;
                continue;
            }
            let is_object = request.is("PUT") && !request.body.is_empty();
            self.pass(&mut request, &mut server, is_object)?;
            let mut answer = self.message(&mut server, &mut answered, request.is("HEAD"))?;
            // A changed byte in a listing cannot be detected; objects have a digest.
            let is_object =
                request.is("GET") && !request.first_line().contains('?') && answer.is_fine() && !answer.body.is_empty();
            self.pass(&mut answer, &mut client, is_object)?;
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn refusal(without_body: bool) -> String {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                <Message>Please reduce your request rate.</Message></Error>";
    let head = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nRetry-After: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    if without_body { head } else { head + body }
}

impl HttpProxy {
    /// Starts a proxy before the server at the port `target` of this machine.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (objects, struck, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let line = Arc::new(Line { target, spoil: Mutex::new(Spoil::Nothing), objects, struck, over });
        let here = line.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if here.is_over() {
                    return;
                }
                let here = here.clone();
                std::thread::spawn(move || here.serve(client));
            }
        });
        Self { port, line }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, spoil: Spoil) {
        *self.line.spoil.lock().unwrap() = spoil;
    }

    /// The number of messages that a fault struck so far.
    pub(crate) fn struck(&self) -> u64 {
        self.line.struck.load(Ordering::SeqCst)
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.line.over.store(true, Ordering::SeqCst);
        // The accepting thread waits for a client: this connection makes it look at `over`.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}
