//! The heartbeat of a worker: the value that a living worker keeps in the queue. Workers of several versions may live
//! in one fleet, so every field may be missing.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A worker's heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkerStatus {
    /// The name of the worker's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The ID of the worker's process on that machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// The version of dovetail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The most steps that the worker runs at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// The time at which the worker started, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The capabilities of the worker: grants, `model:NAME`, `model_kind:KIND`.
    pub able: Vec<String>,
    /// The number of models that the worker has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<usize>,
    /// The number of steps that run now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<usize>,
    /// The number of steps that have ended since the worker started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Ended steps per second, over the last 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Resident memory of the worker's process, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The time of this heartbeat, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<u64>,
    /// Fields that a worker of a newer version adds.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl WorkerStatus {
    /// Reads a heartbeat. A field that cannot be parsed counts as missing and does not affect the other fields: the
    /// worker is alive in any case.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut fields: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
        Self {
            host: take(&mut fields, "host"),
            process: take(&mut fields, "process"),
            version: take(&mut fields, "version"),
            slots: take(&mut fields, "slots"),
            started_ms: take(&mut fields, "started_ms"),
            able: take::<Vec<Value>>(&mut fields, "able")
                .into_iter()
                .flatten()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            models: take(&mut fields, "models"),
            running: take(&mut fields, "running"),
            ended: take(&mut fields, "ended"),
            rate: take(&mut fields, "rate"),
            memory: take(&mut fields, "memory"),
            seen_ms: take(&mut fields, "seen_ms"),
            more: fields,
        }
    }
}

fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(fields.shift_remove(name)?).ok()
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
