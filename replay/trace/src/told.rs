//! What a trace says of itself, in JSON.

use std::borrow::Cow;
use std::time::SystemTime;

use harp_wire::Because;
use serde_json::{json, Value};

use crate::date::rfc3339;
use crate::payloads::Policies;

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

/// What numbers in the trace mean: the schema of the calls, the names of `symbols` by their number and of reasons for
/// waits.
pub fn define<'a>(symbols: impl Iterator<Item = Cow<'a, str>>) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    value["symbols"] = symbols.collect();
    value["reasons"] = Because::ALL.iter().map(|because| because.name()).collect();
    value["reason_texts"] = Because::ALL.iter().map(|because| because.text()).collect();
    written(&value)
}

/// Who is recorded, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The program itself.
    Program,
    /// A session on its server, from its first call.
    Session,
    /// A session on its server, that had begun before: it cannot be run again.
    RestOfSession,
}

/// The process of `program`, by its number on its host.
pub fn process(program: &str, pid: u32, policies: Policies, recorded: Recorded) -> Vec<u8> {
    written(&json!({
        "harp": env!("CARGO_PKG_VERSION"),
        "program": program,
        "pid": pid,
        "started": rfc3339(SystemTime::now()),
        "clock": "ns since started",
        "payload": policies_of(policies),
        "recorded_by": match recorded {
            Recorded::Program => "program",
            Recorded::Session | Recorded::RestOfSession => "server",
        },
        "from_start": recorded != Recorded::RestOfSession,
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

/// The orderly end of a program, or of its session.
pub fn end(time: u64) -> Vec<u8> {
    written(&json!({"reason": "exit", "time": time}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_defines_every_number() {
        let symbols = ["cuInit", "cuMemAlloc_v2"].map(Cow::from);
        let value: Value = serde_json::from_slice(&define(symbols.into_iter())).unwrap();
        assert_eq!(value["symbols"][1], "cuMemAlloc_v2");
        assert_eq!(value["reasons"][Because::Network as usize], "network");
        let calls = value["calls"].as_array().unwrap();
        assert!(calls.iter().any(|call| call["name"] == "cuLaunchKernel"));
    }
}
