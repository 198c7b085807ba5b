//! A TCP proxy between a client and a server that can be slow, dead, reset connections, or lose the answer to a request
//! that was served.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The proxy's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Each piece is delayed by this time, in each direction.
    Slow(Duration),
    /// No byte passes, and no end is told; the bytes pass later, as after a partition.
    Dead,
    /// Connections are closed as soon as they are made.
    Reset,
    /// One of this many answers is lost, and its connection with it.
    LoseAnswers(u64),
    /// Requests that contain this text are lost without a sign; all other bytes pass.
    Swallow(&'static str),
}

struct Line {
    mode: Mutex<Mode>,
    answers: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
    /// How often the machine behind the proxy has vanished (`Proxy::vanish`).
    vanished: AtomicU64,
}

pub(crate) struct Proxy {
    at: SocketAddr,
    line: Arc<Line>,
}

/// The time between two looks at a dead proxy's mode.
const LOOK: Duration = Duration::from_millis(20);

impl Line {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// Carries bytes in one direction until either end closes.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut piece = vec![0; 64 << 10];
        let made = self.vanished.load(Ordering::SeqCst);
        drop(from.set_read_timeout(Some(Duration::from_millis(200))));
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if self.over.load(Ordering::SeqCst) || self.mode() == Mode::Reset {
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            while self.mode() == Mode::Dead && !self.over.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
            }
            if self.vanished.load(Ordering::SeqCst) != made {
                self.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            match self.mode() {
                Mode::Slow(time) => std::thread::sleep(time),
                Mode::Reset => break,
                Mode::LoseAnswers(of) if answers && self.answers.fetch_add(1, Ordering::SeqCst) % of == of - 1 => {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Mode::Swallow(words)
                    if !answers && piece[..read].windows(words.len()).any(|some| some == words.as_bytes()) =>
                {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Mode::LoseAnswers(_) | Mode::Swallow(_) | Mode::Pass | Mode::Dead => {}
            }
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    }
}

impl Proxy {
    /// Starts a proxy before the server at the port `target` of this machine.
    pub(crate) fn to(target: u16) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), target)
    }

    /// The same, on another address of this machine.
    pub(crate) fn at(address: IpAddr, target: u16) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let line = Arc::new(Line {
            mode: Mutex::new(Mode::Pass),
            answers: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            over: AtomicBool::new(false),
            vanished: AtomicU64::new(0),
        });
        let here = line.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if here.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target))) else { continue };
                if here.mode() == Mode::Reset {
                    continue;
                }
                drop((client.set_nodelay(true), server.set_nodelay(true)));
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
                let (there, back) = (here.clone(), here.clone());
                std::thread::spawn(move || there.carry(client, server, false));
                std::thread::spawn(move || back.carry(server_too, client_too, true));
            }
        });
        Self { at, line }
    }

    pub(crate) fn port(&self) -> u16 {
        self.at.port()
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.line.mode.lock().unwrap() = mode;
    }

    /// From now on the existing connections lose all bytes in both directions, and neither end is told. This is the
    /// state after the server's machine loses its power and another machine takes its address. New connections pass.
    pub(crate) fn vanish(&self) {
        self.line.vanished.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of answers, requests or pieces that were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.line.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.over.store(true, Ordering::SeqCst);
        // The accepting thread waits for a client: this connection makes it look at `over`.
        drop(TcpStream::connect(self.at));
    }
}
