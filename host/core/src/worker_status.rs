//! What a worker says of itself while it lives: the value of its heartbeat in the queue. Workers of several versions may
//! live in one fleet, so a reader takes every field as one that may be missing.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A worker's heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkerStatus {
    /// The name of its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The ID of its process on that machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Of dovetail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Steps that it runs at a time, at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// When it started, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The capabilities that it serves: grants, `model:NAME`, `model_kind:KIND`.
    pub able: Vec<String>,
    /// How many models it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<usize>,
    /// Steps that run now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<usize>,
    /// Steps that have ended since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Steps that ended a second, over the last 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Resident memory of its process, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// When it said this, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<u64>,
    /// What a worker of a newer version says beside this.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl WorkerStatus {
    /// Of a heartbeat. A field that cannot be read is missing, and hides no other one: the worker lives all the same.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut said: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
        Self {
            host: take(&mut said, "host"),
            process: take(&mut said, "process"),
            version: take(&mut said, "version"),
            slots: take(&mut said, "slots"),
            started_ms: take(&mut said, "started_ms"),
            able: take::<Vec<Value>>(&mut said, "able")
                .into_iter()
                .flatten()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            models: take(&mut said, "models"),
            running: take(&mut said, "running"),
            ended: take(&mut said, "ended"),
            rate: take(&mut said, "rate"),
            memory: take(&mut said, "memory"),
            seen_ms: take(&mut said, "seen_ms"),
            more: said,
        }
    }
}

fn take<T: DeserializeOwned>(said: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(said.shift_remove(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_of_any_version_is_read() {
        let old = WorkerStatus::read(br#"{"host":"a","able":["clocks"],"running":2,"unknown":{"x":1}}"#);
        assert_eq!(
            (old.host.as_deref(), old.able.as_slice(), old.running),
            (Some("a"), &["clocks".to_owned()][..], Some(2))
        );
        assert_eq!(old.more["unknown"]["x"], 1, "a newer worker's words are handed on");
        let odd = WorkerStatus::read(br#"{"able":["clocks",7],"process":"x","slots":-1,"host":"b"}"#);
        assert_eq!(
            (odd.able, odd.process, odd.slots, odd.host),
            (vec!["clocks".to_owned()], None, None, Some("b".into()))
        );
        assert_eq!(WorkerStatus::read(b"not JSON"), WorkerStatus::default());
        let json = serde_json::to_string(&WorkerStatus { slots: Some(3), ..WorkerStatus::default() }).unwrap();
        assert_eq!(json, r#"{"slots":3,"able":[]}"#);
    }
}
