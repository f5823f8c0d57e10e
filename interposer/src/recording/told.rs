//! What a trace says of itself, in JSON.

use std::time::SystemTime;

use harp_trace::date::rfc3339;
use harp_trace::payloads::Policies;
use harp_wire::Because;
use serde_json::{json, Value};

use crate::generated::exports::NAMES;
use crate::session::program_name;

/// How calls are encoded, as the generator has written it.
const SCHEMA: &str = include_str!("../../../proto/trace/schema.json");

fn written(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn policies_of(policies: Policies) -> Value {
    json!({
        "images": policies.images.name(),
        "uploads": policies.uploads.name(),
        "downloads": policies.downloads.name(),
    })
}

/// What numbers in the trace mean: the schema of the calls, the names of symbols and of reasons for waits.
pub fn define() -> Vec<u8> {
    let mut value: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    value["symbols"] = NAMES.iter().map(|name| name.to_string_lossy()).collect();
    value["reasons"] = Because::ALL.iter().map(|because| because.name()).collect();
    value["reason_texts"] = Because::ALL.iter().map(|because| because.text()).collect();
    written(&value)
}

pub fn process(policies: Policies) -> Vec<u8> {
    written(&json!({
        "harp": env!("CARGO_PKG_VERSION"),
        "program": program_name(),
        "pid": std::process::id(),
        "started": rfc3339(SystemTime::now()),
        "clock": "ns since started",
        "payload": policies_of(policies),
    }))
}

/// A session: what its welcome said of the server's devices.
pub fn session(
    number: usize,
    server: &str,
    snapshot: &[u8],
    round_trip_ns: Option<u64>,
) -> Vec<u8> {
    let snapshot: Value = serde_json::from_slice(snapshot).unwrap_or_default();
    written(&json!({
        "number": number,
        "server": server,
        "snapshot": snapshot,
        "round_trip_ns": round_trip_ns,
    }))
}

/// The orderly end of a program.
pub fn end(time: u64) -> Vec<u8> {
    written(&json!({"reason": "exit", "time": time}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_defines_every_number() {
        let value: Value = serde_json::from_slice(&define()).unwrap();
        assert_eq!(value["symbols"].as_array().unwrap().len(), NAMES.len());
        assert_eq!(value["reasons"][Because::Network as usize], "network");
        let calls = value["calls"].as_array().unwrap();
        assert!(calls.iter().any(|call| call["name"] == "cuLaunchKernel"));
    }
}
