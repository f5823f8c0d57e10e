//! What the calls of a trace are to a replay: their numbers of today, and what each of them does.
//!
//! A trace says itself how its calls are encoded. They are sent again as they are, so each must still
//! mean what it meant: today's call of that name takes and gives the same values.

use std::collections::BTreeMap;

use harp_trace::event::{Call, Field, Schema};
use harp_trace::payloads::{brought_by, Class};
use harp_wire::CallId;

/// The calls of today.
const TODAY: &str = include_str!("../../../../proto/trace/schema.json");

/// What helps with a call that today's are not.
const OTHERWISE: &str =
    "replay it with the version of harp-pool that recorded it (harp-replay info --json), or what \
                         comes before with --to";

/// Finds today's number for each call of a trace.
pub struct Calls {
    today: Schema,
    known: BTreeMap<u16, CallId>,
}

impl Calls {
    /// With no call found yet.
    ///
    /// # Errors
    /// A sentence, where the schema that this was built with is malformed.
    pub fn new() -> Result<Calls, String> {
        Ok(Calls {
            today: Schema::parse(TODAY.as_bytes())?,
            known: BTreeMap::new(),
        })
    }

    /// Today's number of the call that the trace, by its own schema, calls `number`.
    ///
    /// # Errors
    /// A sentence, where there is no such call any more or it has changed.
    pub fn today(&mut self, recorded: &Schema, number: u16) -> Result<CallId, String> {
        if let Some(call) = self.known.get(&number) {
            return Ok(*call);
        }
        let call = recorded
            .call(number)
            .ok_or_else(|| format!("the trace does not say what call {number:#06x} is"))?;
        let name = &call.name;
        let (today, now) = self
            .today
            .named(name)
            .ok_or_else(|| format!("this version has no call {name}; {OTHERWISE}"))?;
        if !is_same(call, now) {
            return Err(format!(
                "{name} takes or gives other values than when the trace was recorded; {OTHERWISE}"
            ));
        }
        self.known.insert(number, CallId(today));
        Ok(CallId(today))
    }
}

fn is_same(then: &Call, now: &Call) -> bool {
    let alike = |then: &[Field], now: &[Field]| {
        then.len() == now.len()
            && then
                .iter()
                .zip(now)
                .all(|(then, now)| then.kind == now.kind && then.name == now.name)
    };
    alike(&then.inputs, &now.inputs) && alike(&then.outputs, &now.outputs)
}

/// Whether the call's first handle is one that it makes.
pub fn creates(call: CallId) -> bool {
    matches!(
        call,
        CallId::cuDevicePrimaryCtxRetain
            | CallId::cuCtxCreate_v2
            | CallId::cuModuleLoadData
            | CallId::cuModuleGetFunction
            | CallId::cuLibraryLoadData
            | CallId::cuLibraryGetKernel
            | CallId::cuLibraryGetModule
            | CallId::cuKernelGetFunction
            | CallId::cuLinkCreate_v2
            | CallId::cuMemPoolCreate
            | CallId::cuDeviceGetDefaultMemPool
            | CallId::cuStreamCreate
            | CallId::cuStreamCreateWithPriority
            | CallId::cuEventCreate
    )
}

/// Whether the call stands for bytes that only the cache of the recorded session's server has.
pub fn is_cached(call: CallId) -> bool {
    matches!(
        call,
        CallId::harp_copy_cached
            | CallId::harp_blob_append_cached
            | CallId::harp_cache_fetch
            | CallId::harp_cache_list
    )
}

/// Whether the call asks how far the device is.
pub fn asks_for_progress(call: CallId) -> bool {
    matches!(call, CallId::cuStreamQuery | CallId::cuEventQuery)
}

/// Whether what the call answers is another each time.
pub fn varies(call: CallId) -> bool {
    asks_for_progress(call)
        || matches!(
            call,
            CallId::cuEventElapsedTime_v2
                | CallId::cuMemGetInfo_v2
                | CallId::harp_jit_logs
                | CallId::harp_twin_read
        )
}

/// Whether the call copies a range of a device's memory to the program: its only output.
pub fn downloads(call: CallId) -> bool {
    brought_by(call) == Some(Class::Downloads) && call != CallId::harp_twin_read
}

/// Whether the call launches a kernel.
pub fn launches(call: CallId) -> bool {
    matches!(call, CallId::cuLaunchKernel | CallId::cuLaunchKernelEx)
}
