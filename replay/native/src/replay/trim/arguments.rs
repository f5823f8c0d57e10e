//! What calls say of the memory that they are about.

use harp_trace::event::{CallEvent, Value};
use harp_wire::CallId;

use super::super::calls::launches;
use super::super::relocation::words;

/// The number that an argument is; 0 where there is none of that name.
pub fn unsigned(call: &CallEvent, name: &str) -> u64 {
    call.arguments.unsigned(name).unwrap_or(0)
}

/// Whether the call puts bytes into memory of a device.
pub fn uploads(call: CallId) -> bool {
    matches!(
        call,
        CallId::cuMemcpyHtoD_v2
            | CallId::harp_copy_box_to_device
            | CallId::cuMemsetD8Async
            | CallId::cuMemsetD16Async
            | CallId::cuMemsetD32Async
            | CallId::cuMemsetD2D8Async
            | CallId::cuMemsetD2D16Async
            | CallId::cuMemsetD2D32Async
    )
}

/// The address that an upload begins at.
pub fn written(call: &CallEvent) -> Option<u64> {
    call.arguments.addresses().next()
}

/// How much it puts there; boxes and fills are told apart by their arguments.
pub fn uploaded_bytes(call: &CallEvent) -> u64 {
    match call.arguments.get("data") {
        Some(Value::Payload(bytes)) => *bytes,
        Some(Value::Bytes(bytes)) => bytes.len() as u64,
        _ => u64::MAX - call.number,
    }
}

/// The addresses that a call is about: its own, and what looks like one in a kernel's parameters.
pub fn addresses(today: CallId, call: &CallEvent) -> Vec<u64> {
    let mut all: Vec<u64> = call.arguments.addresses().collect();
    if let (true, Some(Value::Bytes(parameters))) = (launches(today), call.arguments.get("params"))
    {
        all.extend(words(parameters));
    }
    all
}
