//! Each change of the ledger as SQL, in the writer's transaction. This file follows the rules of
//! `dovetail_core::ledger` and decides nothing.

use dovetail_core::RunId;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{
    Claimed, Job, Kind, Lease, Operation, Record, Renewal, Reply, Requirements, RunKey, Scope,
};
use dovetail_core::meta::Writes;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

/// How long a job is put off whose names this version cannot read, in milliseconds.
const UNREADABLE_MS: u64 = 5_000;

/// The arguments of a claim. Times are milliseconds of the ledger's clock.
pub(crate) struct Claim<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) want: usize,
    pub(crate) lease_ms: u64,
    pub(crate) now: u64,
    pub(crate) owner: &'a str,
}

pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn put(db: &Connection, record: &Record, succeeded: bool) -> Result<Reply> {
    let insert = "INSERT INTO records (kind, key, value, succeeded) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    if db.prepare_cached(insert)?.execute(params![record.kind.name(), record.key, record.value, succeeded])? == 1 {
        return Ok(Reply::Created);
    }
    Ok(Reply::Exists(get(db, record.kind, &record.key)?.unwrap_or_default()))
}

pub(crate) fn get(db: &Connection, kind: Kind, key: &str) -> Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT value FROM records WHERE kind = ?1 AND key = ?2")?
        .query_row([kind.name(), key], |row| row.get(0))
        .optional()
}

pub(crate) fn remove(db: &Connection, kind: Kind, key: &str) -> Result<()> {
    db.prepare_cached("DELETE FROM records WHERE kind = ?1 AND key = ?2")?.execute([kind.name(), key]).map(drop)
}

pub(crate) fn remove_unchanged(db: &Connection, kind: Kind, (key, value): &(String, Vec<u8>)) -> Result<()> {
    db.prepare_cached("DELETE FROM records WHERE kind = ?1 AND key = ?2 AND value = ?3")?
        .execute(params![kind.name(), key, value])
        .map(drop)
}

pub(crate) fn has(db: &Connection, kind: Kind, key: &str) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM records WHERE kind = ?1 AND key = ?2")?.exists([kind.name(), key])
}

fn enqueue(db: &Connection, run: &RunKey, jobs: &[Job], verify: bool) -> Result<()> {
    let insert = "INSERT INTO jobs (run, generation, step, needs, attempt, crashes, verify, due, lane, turn) \
         VALUES (?1, ?2, ?3, ?4, ?6, 0, ?5, 0, ?7, \
         coalesce((SELECT id FROM open_runs WHERE run = ?1 AND generation = ?2), 0)) ON CONFLICT DO NOTHING";
    for job in jobs {
        let mut ready = !has(db, Kind::Outcome, &run.step(&job.step))?;
        for need in &job.needs {
            let mut succeeded =
                db.prepare_cached("SELECT 1 FROM records WHERE kind = 'outcome' AND key = ?1 AND succeeded = 1")?;
            ready = ready && succeeded.exists([run.step(need)])?;
        }
        if ready {
            let needs = job.needs.iter().map(NodeId::as_str).collect::<Vec<_>>();
            let needs = serde_json::Value::from(needs).to_string();
            let requirements = job.requirements.as_str();
            db.prepare_cached(insert)?.execute(params![
                run.run.as_str(),
                run.generation,
                job.step.as_str(),
                needs,
                verify,
                job.attempt,
                requirements
            ])?;
            if !requirements.is_empty() {
                db.prepare_cached("INSERT INTO lanes (name) VALUES (?1) ON CONFLICT DO NOTHING")?
                    .execute([requirements])?;
            }
        }
    }
    Ok(())
}

fn open_run(db: &Connection, run: &RunKey, steps: usize) -> Result<()> {
    let steps = i64::try_from(steps).unwrap_or(i64::MAX);
    let insert = "INSERT INTO open_runs (run, generation, steps) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO UPDATE SET steps = max(steps, ?3)";
    db.prepare_cached(insert)?.execute(params![run.run.as_str(), run.generation, steps]).map(drop)
}

/// Whether every step of the run has succeeded.
fn complete(db: &Connection, run: &RunKey) -> Result<bool> {
    let steps = db
        .prepare_cached("SELECT steps FROM open_runs WHERE run = ?1 AND generation = ?2")?
        .query_row(params![run.run.as_str(), run.generation], |row| row.get::<_, i64>(0))
        .optional()?;
    // Keys are `run:step:generation`, and `;` is the character after `:`.
    let sql = "SELECT count(*) FROM records WHERE kind = 'outcome' \
         AND key > ?1 || ':' AND key < ?1 || ';' AND succeeded = 1 AND key LIKE '%:' || ?2";
    let done: i64 = db.prepare_cached(sql)?.query_row(params![run.run.as_str(), run.generation], |row| row.get(0))?;
    Ok(steps.is_some_and(|steps| steps > 0 && steps == done))
}

fn close(db: &Connection, run: &RunKey) -> Result<()> {
    db.prepare_cached("DELETE FROM jobs WHERE run = ?1 AND generation = ?2")?
        .execute(params![run.run.as_str(), run.generation])?;
    db.prepare_cached("DELETE FROM open_runs WHERE run = ?1 AND generation = ?2")?
        .execute(params![run.run.as_str(), run.generation])
        .map(drop)
}

fn owned(db: &Connection, lease: &Lease) -> Result<bool> {
    let sql =
        "SELECT 1 FROM jobs WHERE run = ?1 AND generation = ?2 AND step = ?3 AND owner IS NOT NULL AND token = ?4";
    db.prepare_cached(sql)?.exists(params![
        lease.run.run.as_str(),
        lease.run.generation,
        lease.step.as_str(),
        int(lease.token)
    ])
}

/// Applies one item. `now` is in milliseconds of the ledger's clock.
pub(crate) fn item(db: &Connection, item: &Operation, now: u64) -> Result<Reply> {
    match item {
        Operation::Put { record } => put(db, record, false),
        Operation::Reopen { run, record } => {
            if !has(db, Kind::Run, run.run.as_str())? {
                return Ok(Reply::Closed);
            }
            open_run(db, run, 0)?;
            put(db, record, false)
        }
        Operation::Inherit { record } => put(db, record, true),
        Operation::Submit { run, record, jobs, steps } => {
            let reply = put(db, record, false)?;
            if reply == Reply::Created {
                open_run(db, run, steps.len())?;
                enqueue(db, run, jobs, false)?;
            }
            Ok(reply)
        }
        Operation::Recover { run, jobs, steps } => {
            if has(db, Kind::RunOutcome, &run.key())? || !has(db, Kind::Run, run.run.as_str())? {
                close(db, run)?;
                return Ok(Reply::Closed);
            }
            open_run(db, run, steps.len())?;
            enqueue(db, run, jobs, true)?;
            Ok(Reply::Created)
        }
        Operation::Finish { lease, record, succeeded, close: end, children } => {
            finish(db, lease, record, *succeeded, end.as_ref(), children)
        }
        Operation::Retry { lease, record, delay } => {
            if !owned(db, lease)? {
                return Ok(Reply::NotOwner);
            }
            let reply = put(db, record, false)?;
            if reply == Reply::Created {
                let due = now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
                let sql = "UPDATE jobs SET owner = NULL, attempt = attempt + 1, verify = 1, due = ?4 \
                     WHERE run = ?1 AND generation = ?2 AND step = ?3";
                db.prepare_cached(sql)?.execute(params![
                    lease.run.run.as_str(),
                    lease.run.generation,
                    lease.step.as_str(),
                    int(due)
                ])?;
            }
            Ok(reply)
        }
        Operation::Release { lease, delay } => {
            if !owned(db, lease)? {
                return Ok(Reply::NotOwner);
            }
            let due = now.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            let sql = "UPDATE jobs SET owner = NULL, due = ?4 WHERE run = ?1 AND generation = ?2 AND step = ?3";
            db.prepare_cached(sql)?.execute(params![
                lease.run.run.as_str(),
                lease.run.generation,
                lease.step.as_str(),
                int(due)
            ])?;
            Ok(Reply::Created)
        }
        Operation::Cancel { run, record } => {
            if has(db, Kind::RunOutcome, &run.key())? {
                return Ok(Reply::Closed);
            }
            put(db, record, false)
        }
        Operation::Close { run, record } => {
            let reply = put(db, record, false)?;
            close(db, run)?;
            Ok(reply)
        }
    }
}

fn finish(
    db: &Connection,
    lease: &Lease,
    record: &Record,
    succeeded: bool,
    end: Option<&Record>,
    children: &[Job],
) -> Result<Reply> {
    if let exists @ Reply::Exists(_) = put(db, record, succeeded)? {
        return Ok(exists);
    }
    let run = &lease.run;
    if has(db, Kind::RunOutcome, &run.key())? {
        close(db, run)?;
        return Ok(Reply::Closed);
    }
    if has(db, Kind::Cancel, &run.key())? {
        return Ok(Reply::Cancelled);
    }
    if let Some(end) = end {
        put(db, end, false)?;
        close(db, run)?;
        return Ok(Reply::Created);
    }
    enqueue(db, run, children, false)?;
    let others = "SELECT 1 FROM jobs WHERE run = ?1 AND generation = ?2 AND step <> ?3";
    if !db.prepare_cached(others)?.exists(params![run.run.as_str(), run.generation, lease.step.as_str()])? {
        return Ok(if succeeded && complete(db, run)? { Reply::Complete } else { Reply::Last });
    }
    let sql = "DELETE FROM jobs WHERE run = ?1 AND generation = ?2 AND step = ?3";
    db.prepare_cached(sql)?.execute(params![run.run.as_str(), run.generation, lease.step.as_str()])?;
    Ok(Reply::Created)
}

/// The run IDs as a JSON array, for `json_each`.
fn ids(runs: &[RunId]) -> String {
    serde_json::Value::from(runs.iter().map(|run| run.as_str().to_owned()).collect::<Vec<_>>()).to_string()
}

struct Row {
    id: i64,
    run: RunKey,
    step: NodeId,
    needs: Vec<NodeId>,
    attempt: u32,
    crashes: u32,
    verify: bool,
}

/// A free job. `Err`: the ID of a row whose names this version cannot read, and why.
type FreeJob = std::result::Result<Row, (i64, String)>;

fn read_free_job(row: &rusqlite::Row<'_>) -> Result<FreeJob> {
    let id: i64 = row.get(0)?;
    let (run, step, needs): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(4)?);
    let names = || -> std::result::Result<_, String> {
        let run = run.parse::<RunId>().map_err(|e| e.to_string())?;
        let step = step.parse::<NodeId>().map_err(|e| e.to_string())?;
        let needs = serde_json::from_str::<Vec<NodeId>>(&needs).map_err(|e| e.to_string())?;
        Ok((run, step, needs))
    };
    let (run, step, needs) = match names() {
        Ok(names) => names,
        Err(why) => return Ok(Err((id, why))),
    };
    let run = RunKey { run, generation: row.get(2)? };
    Ok(Ok(Row { id, run, step, needs, attempt: row.get(5)?, crashes: row.get(6)?, verify: row.get(7)? }))
}

fn free_jobs(db: &Connection, claim: &Claim<'_>) -> Result<Vec<FreeJob>> {
    let read = read_free_job;
    let free =
        "SELECT id, run, generation, step, needs, attempt, crashes, verify FROM jobs WHERE owner IS NULL AND due <= ?1";
    let (now, want) = (int(claim.now), i64::try_from(claim.want).unwrap_or(i64::MAX));
    match claim.scope {
        Scope::Able(able) => {
            let all: Vec<String> =
                db.prepare_cached("SELECT name FROM lanes")?.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
            let served: Vec<String> =
                all.into_iter().filter(|requirements| Requirements::parse(requirements).is_served_by(able)).collect();
            let served = serde_json::Value::from(served).to_string();
            let sql = format!(
                "{free} AND (lane = '' OR lane IN (SELECT value FROM json_each(?3))) ORDER BY turn, id LIMIT ?2"
            );
            db.prepare_cached(&sql)?.query_map(params![now, want, served], read)?.collect()
        }
        Scope::All => db
            .prepare_cached(&format!("{free} ORDER BY turn, id LIMIT ?2"))?
            .query_map(params![now, want], read)?
            .collect(),
        Scope::Runs(runs) => {
            let ids = ids(runs);
            let sql = format!("{free} AND run IN (SELECT value FROM json_each(?3)) ORDER BY turn, id LIMIT ?2");
            db.prepare_cached(&sql)?.query_map(params![now, want, ids], read)?.collect()
        }
    }
}

/// Frees the jobs whose lease has expired or whose owner is dead. Each such job counts one more crash.
pub(crate) fn reap(db: &Connection, now: u64, is_dead: &dyn Fn(&str) -> bool) -> Result<()> {
    let owners: Vec<String> = db
        .prepare_cached("SELECT DISTINCT owner FROM jobs WHERE owner IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let freed =
        "UPDATE jobs SET owner = NULL, crashes = crashes + 1, verify = 1 WHERE owner = ?1 AND (expires <= ?2 OR ?3)";
    for owner in owners {
        db.prepare_cached(freed)?.execute(params![owner, int(now), is_dead(&owner)])?;
    }
    Ok(())
}

/// A job that this version cannot read stays for a worker of another version, and does not keep the jobs behind it from
/// being claimed.
fn put_off(db: &Connection, id: i64, why: &str, now: u64) -> Result<()> {
    tracing::warn!(job = id, why, "a job cannot be read by this version of dovetail: it is left to other workers");
    let due = int(now.saturating_add(UNREADABLE_MS));
    db.prepare_cached("UPDATE jobs SET due = ?2 WHERE id = ?1")?.execute(params![id, due]).map(drop)
}

/// Hands out free jobs, those of the oldest run first, so that a started run ends before a new one begins.
pub(crate) fn claim(db: &Connection, claim: &Claim<'_>) -> Result<Vec<Claimed>> {
    let rows = loop {
        let mut rows = Vec::new();
        let mut unreadable = false;
        for job in free_jobs(db, claim)? {
            match job {
                Ok(row) => rows.push(row),
                // No other worker will take a job of these runs: the caller would wait for ever.
                Err((id, why)) if matches!(claim.scope, Scope::Runs(_)) => {
                    let why = format!("job {id} cannot be read by this version of dovetail: {why}");
                    return Err(rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, why.into()));
                }
                Err((id, why)) => {
                    unreadable = true;
                    put_off(db, id, &why, claim.now)?;
                }
            }
        }
        // The unreadable jobs have used up a part of what is wanted, and readable jobs may stand behind them.
        if !unreadable {
            break rows;
        }
    };
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let first: i64 = db
        .prepare_cached("UPDATE facts SET value = value + ?1 WHERE name = 'token' RETURNING value - ?1")?
        .query_row([i64::try_from(rows.len()).unwrap_or(0)], |row| row.get(0))?;
    let mut out = Vec::with_capacity(rows.len());
    for (n, row) in (1..).zip(rows) {
        let token = first + n;
        let sql = "UPDATE jobs SET owner = ?2, token = ?3, expires = ?4 WHERE id = ?1";
        db.prepare_cached(sql)?.execute(params![
            row.id,
            claim.owner,
            token,
            int(claim.now.saturating_add(claim.lease_ms))
        ])?;
        let mut needs = Vec::with_capacity(row.needs.len());
        for need in row.needs {
            if let Some(value) = get(db, Kind::Outcome, &row.run.step(&need))? {
                needs.push((need, value));
            }
        }
        let run = get(db, Kind::Run, row.run.run.as_str())?.unwrap_or_default();
        let verify = row.verify || has(db, Kind::Cancel, &row.run.key())?;
        let lease = Lease { run: row.run, step: row.step, token: u64::try_from(token).unwrap_or(0) };
        out.push(Claimed { lease, attempt: row.attempt, crashes: row.crashes, verify, run, needs });
    }
    Ok(out)
}

/// Whether there is a job that no claimer has taken. A job that waits for its delay counts.
pub(crate) fn is_any_free(db: &Connection) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM jobs WHERE owner IS NULL LIMIT 1")?.exists([])
}

/// When the next job of the scope becomes free without a change, in milliseconds of the ledger's clock.
pub(crate) fn next_change(db: &Connection, scope: &Scope, now: u64) -> Result<Option<u64>> {
    let sql = "SELECT min(CASE WHEN owner IS NULL THEN due ELSE expires END) FROM jobs";
    let at: Option<i64> = match scope {
        Scope::All => db.prepare_cached(sql)?.query_row([], |row| row.get(0))?,
        // A free job that this claimer did not get needs other capabilities, and must not wake this claimer.
        Scope::Able(_) => {
            let sql = "SELECT min(CASE WHEN owner IS NULL THEN due ELSE expires END) FROM jobs \
                 WHERE owner IS NOT NULL OR due > ?1";
            db.prepare_cached(sql)?.query_row([int(now)], |row| row.get(0))?
        }
        // Free jobs of runs outside the scope would keep this claimer awake.
        Scope::Runs(runs) => {
            let sql = format!("{sql} WHERE run IN (SELECT value FROM json_each(?1))");
            db.prepare_cached(&sql)?.query_row([ids(runs)], |row| row.get(0))?
        }
    };
    Ok(at.and_then(|at| u64::try_from(at).ok()))
}

/// Extends the leases that are still valid, to `expires` in milliseconds of the ledger's clock.
pub(crate) fn renew(db: &Connection, leases: &[Lease], expires: u64) -> Result<Vec<Renewal>> {
    let sql = "UPDATE jobs SET expires = ?5 \
         WHERE run = ?1 AND generation = ?2 AND step = ?3 AND token = ?4 AND owner IS NOT NULL";
    let mut out = Vec::with_capacity(leases.len());
    for lease in leases {
        let (run, generation) = (lease.run.run.as_str(), lease.run.generation);
        let held = !has(db, Kind::Cancel, &lease.run.key())?
            && db.prepare_cached(sql)?.execute(params![
                run,
                generation,
                lease.step.as_str(),
                int(lease.token),
                int(expires)
            ])? == 1;
        out.push(if held { Renewal::Renewed } else { Renewal::Lost });
    }
    Ok(out)
}

/// Changes only records and the index of open runs, for a ledger whose queue is in another store.
pub(crate) fn write(db: &Connection, writes: &Writes) -> Result<Vec<Reply>> {
    for run in &writes.open {
        open_run(db, run, 0)?;
    }
    let mut answers = Vec::with_capacity(writes.records.len());
    for (record, then) in &writes.records {
        let answer = put(db, record, false)?;
        if let (Reply::Created, Some(then)) = (&answer, then) {
            put(db, then, false)?;
        }
        answers.push(answer);
    }
    for run in &writes.forget {
        let sql = "DELETE FROM open_runs WHERE run = ?1 AND generation = ?2";
        db.prepare_cached(sql)?.execute(params![run.run.as_str(), run.generation])?;
    }
    Ok(answers)
}
