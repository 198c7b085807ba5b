//! [`Window`] on Redis 7 or later: one script (`redis/script.rs`), and a connection each for numbered calls, for all
//! other requests, and for notifications.
//!
//! If the reply to a numbered call is lost, the client repeats the call on a new connection. The script recognizes the
//! number and gives the stored reply again. The purpose of the window, and the records that it follows, are in flow.

pub(crate) mod check;
mod commands;
mod script;
mod settings;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::keys::{RunKey, lease_token};
use dovetail_core::ledger::{HeldStep, Scope};
use dovetail_core::sync::lock;
use dovetail_core::window::{Called, Change, Notification, Stamp, Status, Window, WindowLease, WindowRenewal};
use redis::{Client, Commands as _, Connection, ConnectionLike as _, PubSub, Script, Value};

use self::wire::{UnreadableJob, able, args_of, back_args, delivery, glob_of, parse_notification, push_change, status};

/// Tries of one call before the window counts as unavailable. The pauses between them add up to 1.55 s.
const TRIES: u32 = 6;
const CONNECT: Duration = Duration::from_secs(2);
/// Runs in one `knows` request, and the `COUNT` hint of one `SCAN`.
const ASKED: usize = 1000;
/// Time limit for each answer. A call does little work, so an answer that takes longer is not expected to come.
const ANSWER: Duration = Duration::from_secs(5);
/// If the notification connection is silent for this long, it is checked with a PING, whose answer may take as long
/// again. With the 1 s pause and `CONNECT` for the next connection, a dead connection is replaced within 10 s.
const SILENCE: Duration = Duration::from_secs(3);

/// How long a job is put off whose names this version cannot read.
const UNREADABLE: Duration = Duration::from_secs(5);

/// The queue of one fleet in one Redis.
pub struct RedisWindow {
    client: Client,
    /// For calls that add runs. A full Redis refuses such a call as a whole.
    script: Script,
    /// For all other calls. A full Redis executes them, because they free its memory.
    draining: Script,
    prefix: String,
    /// The ID of this caller. It is new for each process, so that the call numbers of two processes never collide.
    incarnation: String,
    /// `host:port` for error messages, without the password.
    address: String,
    /// The state of the numbered calls, which are answered one after the other.
    state: Mutex<State>,
    /// The newest epoch and tick that this caller has seen.
    queue_state: Mutex<QueueState>,
    /// For all other requests: a lease can be renewed while a numbered call waits for its answer.
    aside: Mutex<Option<Connection>>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    number: u64,
}

#[derive(Default, Clone)]
struct QueueState {
    epoch: String,
    tick: u64,
}

impl RedisWindow {
    /// The script, for tests that remove one of its rules at a time.
    #[doc(hidden)]
    pub const SCRIPT: &str = script::SCRIPT;

    /// Connects to `redis://[user:password@]host[:port]/[db]` and checks that this Redis is suitable for a queue.
    /// `fleet` is part of every key; `incarnation` is the ID of this caller, new for each process.
    ///
    /// # Errors
    /// `Invalid` for a malformed URL. `Refused`, with the remedy, for wrong credentials, a version below 7, an eviction
    /// policy other than `noeviction`, or a replica. `Unavailable` if no server answers.
    pub fn open(url: &str, fleet: &str, incarnation: &str) -> Result<Self, StoreError> {
        Self::open_with_script(url, fleet, incarnation, Self::SCRIPT)
    }

    /// As [`RedisWindow::open`], with another script: for tests that remove one rule of the script at a time.
    ///
    /// # Errors
    /// As [`RedisWindow::open`].
    #[doc(hidden)]
    pub fn open_with_script(url: &str, fleet: &str, incarnation: &str, script: &str) -> Result<Self, StoreError> {
        let client = check::client(url)?;
        let address = client.get_connection_info().addr().to_string();
        let window = Self {
            client,
            // Redis 7 checks its memory once before a script with this line, and runs the whole script or none of it
            // (https://redis.io/docs/latest/develop/programmability/lua-api/).
            script: Script::new(&format!("#!lua\n{script}")),
            draining: Script::new(&format!("#!lua flags=allow-oom\n{script}")),
            prefix: format!("dovetail:{{{fleet}}}:"),
            incarnation: incarnation.to_owned(),
            address,
            state: Mutex::default(),
            queue_state: Mutex::default(),
            aside: Mutex::default(),
        };
        let mut connection = window.connect().map_err(|e| window.error("connect to", e))?;
        settings::check(&mut connection, &window.address)?;
        window.state().connection = Some(connection);
        Ok(window)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn queue_state(&self) -> QueueState {
        lock(&self.queue_state).clone()
    }

    /// Answers can arrive in another order than the script made them, so within one epoch the highest tick is kept.
    fn observe(&self, epoch: &str, tick: u64) {
        let mut queue_state = lock(&self.queue_state);
        let tick = if queue_state.epoch == epoch { queue_state.tick.max(tick) } else { tick };
        *queue_state = QueueState { epoch: epoch.to_owned(), tick };
    }

    fn connect(&self) -> redis::RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        Ok(connection)
    }

    fn error(&self, operation: &str, error: redis::RedisError) -> StoreError {
        let (kind, why) = check::explained(&error);
        StoreError::new(kind, format!("{operation} the queue at {}", self.address), why).of(Store::Queue)
    }

    /// Sends the same arguments until an answer comes. Each try after the first uses a new connection. Returns `Nil` if
    /// Redis is full and has executed nothing.
    fn send(&self, slot: &mut Option<Connection>, script: &Script, args: &[Vec<u8>]) -> Result<Value, StoreError> {
        let (mut script, mut pause, mut tries) = (script, Duration::from_millis(50), 0);
        loop {
            tries += 1;
            let answer = (|| {
                let connection = match slot.take() {
                    Some(open) if open.is_open() => slot.insert(open),
                    _ => slot.insert(self.connect()?),
                };
                let mut invocation = script.prepare_invoke();
                invocation.key(&self.prefix);
                for arg in args {
                    invocation.arg(arg.as_slice());
                }
                invocation.invoke::<Value>(connection)
            })();
            match answer {
                Ok(value) => return Ok(value),
                Err(error) => {
                    // Close the connection: a late answer on it must not be read as the answer to another call.
                    *slot = None;
                    match (error.code(), tries) {
                        (Some("OOM"), 1) => return Ok(Value::Nil),
                        // Redis may have executed an earlier try whose answer was lost. The script that also runs on a
                        // full Redis returns that answer, even if the request itself needs a little memory.
                        (Some("OOM"), _) if tries < TRIES => {
                            script = &self.draining;
                            continue;
                        }
                        _ => {}
                    }
                    let error = self.error("call", error);
                    if error.kind == StoreErrorKind::Refused || tries == TRIES {
                        return Err(error);
                    }
                    // The pause is bounded. There is no event to wait for before a reconnection.
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Sends one request on the connection beside the numbered calls.
    fn ask<T: redis::FromRedisValue>(&self, args: &[Vec<u8>]) -> Result<T, StoreError> {
        let mut aside = lock(&self.aside);
        let value = self.send(&mut aside, &self.draining, args)?;
        redis::from_redis_value(value).map_err(|e| self.corrupt(&e.to_string()))
    }

    /// Makes one numbered call. Returns `None` if Redis is full and has executed nothing.
    fn call_once(
        &self,
        script: &Script,
        changes: &[Change],
        scope: &Scope,
        want: usize,
        lease: Duration,
    ) -> Result<Option<Called>, StoreError> {
        let mut args = Vec::new();
        for change in changes {
            push_change(&mut args, change);
        }
        let Some((number, value)) = self.call_raw(script, &args, scope, want, lease)? else { return Ok(None) };
        let answer: (String, u64, u64, u64, Vec<String>, Vec<Value>, i64) =
            redis::from_redis_value(value).map_err(|e| self.corrupt(&e.to_string()))?;
        let (epoch, tick, now, refused, words, jobs, next) = answer;
        self.observe(&epoch, tick);
        let statuses: Vec<Status> =
            words.iter().map(|w| status(w)).collect::<Option<_>>().ok_or_else(|| self.corrupt(&words.join(" ")))?;
        if statuses.len() != changes.len() {
            return Err(self.corrupt(&format!("{} answers to {} changes", statuses.len(), changes.len())));
        }
        let token = lease_token(&self.incarnation, &number);
        let (mut handed, mut unreadable) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            handed.extend(delivery(job, &token, &epoch).map_err(|key| unreadable.push(key)).ok());
        }
        if !unreadable.is_empty() {
            self.give_back_unreadable(&unreadable, &token);
        }
        // The script handed out jobs, so it neither says when the next one is free nor will wake this caller: after
        // unreadable jobs alone the caller asks again at once.
        let only_unreadable = handed.is_empty() && !unreadable.is_empty();
        Ok(Some(Called {
            statuses,
            jobs: handed,
            next_ms: if only_unreadable { Some(0) } else { u64::try_from(next).ok() },
            stamp: Stamp { epoch, now, refused },
        }))
    }

    /// One numbered call with the arguments of its changes: its number and the reply; none: Redis is full, and nothing
    /// was done.
    fn call_raw(
        &self,
        script: &Script,
        changes: &[Vec<u8>],
        scope: &Scope,
        want: usize,
        lease: Duration,
    ) -> Result<Option<(String, Value)>, StoreError> {
        let mut state = self.state();
        state.number += 1;
        let number = state.number.to_string();
        let queue_state = self.queue_state();
        let (tick, want, lease_ms) = (queue_state.tick.to_string(), want.to_string(), lease.as_millis().to_string());
        let mut args =
            args_of(&["call", &self.incarnation, &number, &queue_state.epoch, &tick, &want, &lease_ms, &able(scope)]);
        args.extend_from_slice(changes);
        let value = self.send(&mut state.connection, script, &args)?;
        if value == Value::Nil {
            // The script has not stored this number. A gap in the numbers would look as if the window had lost a call.
            state.number -= 1;
            return Ok(None);
        }
        Ok(Some((number, value)))
    }

    /// Gives jobs back, uncharged, whose names this version cannot read: a worker of another version may read them, and
    /// the jobs that were claimed with them must not suffer.
    fn give_back_unreadable(&self, jobs: &[UnreadableJob], token: &str) {
        let keys: Vec<_> = jobs.iter().map(|job| String::from_utf8_lossy(&job.key)).collect();
        tracing::warn!(?keys, "jobs cannot be read by this version of dovetail: they are left to other workers");
        let changes: Vec<Vec<u8>> =
            jobs.iter().flat_map(|job| back_args(&job.key, token, job.attempt, job.verify, UNREADABLE)).collect();
        // If this call fails, the leases expire instead.
        if let Err(error) = self.call_raw(&self.draining, &changes, &Scope::All, 0, Duration::ZERO) {
            tracing::warn!(err = &error as &dyn std::error::Error, "unreadable jobs could not be given back");
        }
    }

    fn corrupt(&self, why: &str) -> StoreError {
        StoreError::new(
            StoreErrorKind::Corrupt,
            format!("read the answer of the queue at {}", self.address),
            why.to_owned(),
        )
    }
}

/// Receives notifications on one connection until the connection fails. If the machine of Redis vanishes, the
/// connection only falls silent, so a silent connection must answer a PING.
fn receive(
    subscription: &mut PubSub<'_>,
    channel: &str,
    listener: &(dyn Fn(Notification) + Send + Sync),
) -> redis::RedisResult<()> {
    subscription.subscribe(channel)?;
    // Notifications before the subscription were not received.
    listener(Notification::Missed);
    loop {
        match subscription.get_message() {
            Ok(message) => listener(parse_notification(&message.get_payload::<String>()?)),
            Err(error) if error.is_timeout() => drop(subscription.ping::<Value>()?),
            Err(error) => return Err(error),
        }
    }
}

impl Window for RedisWindow {
    fn peek(&self) -> Result<Stamp, StoreError> {
        let queue_state = self.queue_state();
        let (epoch, tick, now, refused): (String, u64, u64, u64) =
            self.ask(&args_of(&["peek", &queue_state.epoch, &queue_state.tick.to_string()]))?;
        self.observe(&epoch, tick);
        Ok(Stamp { epoch, now, refused })
    }

    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError> {
        let adds = |change: &Change| matches!(change, Change::Open { .. });
        let script = if changes.iter().any(adds) { &self.script } else { &self.draining };
        if let Some(called) = self.call_once(script, changes, scope, want, lease)? {
            return Ok(called);
        }
        // Redis is full and has executed nothing. Repeat the call without the changes that add runs, plus a `Refused`
        // change: the workers' search for lost runs opens these runs later.
        let rest: Vec<Change> =
            changes.iter().filter(|change| !adds(change)).cloned().chain([Change::Refused]).collect();
        let called = self.call_once(&self.draining, &rest, scope, want, lease)?;
        let mut called = called.ok_or_else(|| self.corrupt("it is full, although it was told to go on"))?;
        let mut done = std::mem::take(&mut called.statuses).into_iter();
        let status = |change: &Change| if adds(change) { Some(Status::Full) } else { done.next() };
        called.statuses = changes.iter().map_while(status).collect();
        Ok(called)
    }

    fn renew(&self, leases: &[WindowLease], lease: Duration) -> Result<Vec<WindowRenewal>, StoreError> {
        // Read the epoch before sending: a renewal that arrives late must not look as if its caller knew of a later
        // loss.
        let mut args = args_of(&["renew", &lease.as_millis().to_string(), &self.queue_state().epoch]);
        for lease in leases {
            args.extend(args_of(&[&lease.run.job(&lease.step), &lease.token]));
        }
        let held = |answer| match answer {
            1 => WindowRenewal::Renewed,
            0 => WindowRenewal::Gone,
            _ => WindowRenewal::Unknown,
        };
        Ok(self.ask::<Vec<u64>>(&args)?.into_iter().map(held).collect())
    }

    fn listen(&self, listener: Box<dyn Fn(Notification) + Send + Sync>) {
        let (client, channel) = (self.client.clone(), format!("{}bell", self.prefix));
        let listener: Arc<dyn Fn(Notification) + Send + Sync> = listener.into();
        let listen = move || {
            loop {
                let ended = (|| -> redis::RedisResult<()> {
                    let mut connection = client.get_connection_with_timeout(CONNECT)?;
                    connection.set_write_timeout(Some(SILENCE))?;
                    let mut subscription = connection.as_pubsub();
                    subscription.set_read_timeout(Some(SILENCE))?;
                    let error = receive(&mut subscription, &channel, &*listener);
                    // The drop unsubscribes, and no answer to that comes on a dead connection.
                    subscription.set_read_timeout(Some(Duration::from_millis(1)))?;
                    error
                })();
                tracing::debug!(err = ?ended.err(), "the bell is not heard; listening again");
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        // Without notifications this process looks for work at intervals: work starts later, and none is lost.
        if let Err(error) = std::thread::Builder::new().name("redis-listener".into()).spawn(listen) {
            tracing::warn!(err = &error as &dyn std::error::Error, "no thread for the bell");
        }
    }

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        let mut known = Vec::with_capacity(runs.len());
        for part in runs.chunks(ASKED) {
            let keys: Vec<String> = part.iter().map(RunKey::key).collect();
            let args: Vec<Vec<u8>> = std::iter::once("knows".to_owned()).chain(keys).map(String::into_bytes).collect();
            known.extend(self.ask::<Vec<u64>>(&args)?.into_iter().map(|n| n == 1));
        }
        Ok(known)
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        let flat: Vec<String> = self.ask(&args_of(&["held", &run.key()]))?;
        // A step that this version cannot read must not hide the others.
        let read = |pair: &[String]| {
            let worker = Some(pair[1].clone()).filter(|name| !name.is_empty());
            Some(HeldStep { step: pair[0].parse().ok()?, worker })
        };
        Ok(flat.chunks_exact(2).filter_map(read).collect())
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<Stamp, StoreError> {
        let queue_state = self.queue_state();
        let mut args = args_of(&["beat", worker]);
        args.extend([
            about.to_vec(),
            keep.as_millis().to_string().into_bytes(),
            queue_state.epoch.into_bytes(),
            queue_state.tick.to_string().into_bytes(),
        ]);
        args.push(self.incarnation.clone().into_bytes());
        let (epoch, tick, now, refused): (String, u64, u64, u64) = self.ask(&args)?;
        self.observe(&epoch, tick);
        Ok(Stamp { epoch, now, refused })
    }

    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError> {
        self.ask(&args_of(&["belongs", records.unwrap_or_default()]))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let flat: Vec<Vec<u8>> = self.ask(&args_of(&["workers"]))?;
        let mut found: Vec<_> = flat
            .chunks_exact(2)
            .map(|pair| (String::from_utf8_lossy(&pair[0]).into_owned(), pair[1].clone()))
            .collect();
        found.sort();
        Ok(found)
    }
}

impl RedisWindow {
    /// Deletes every key of this fleet: for tests, and for an operator who wants a rebuild.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn forget_everything(&self) -> Result<(), StoreError> {
        let mut connection = self.connect().map_err(|e| self.error("connect to", e))?;
        let pattern = format!("{}*", glob_of(&self.prefix));
        let mut cursor = 0_u64;
        loop {
            // Scan in small steps: Redis serves no other client during one step.
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(ASKED);
            let (next, keys): (u64, Vec<String>) =
                scan.query(&mut connection).map_err(|e| self.error("list the keys of", e))?;
            if !keys.is_empty() {
                connection.unlink::<_, ()>(keys).map_err(|e| self.error("empty", e))?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}
