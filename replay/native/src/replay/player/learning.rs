//! What a session and its calls mean for what comes later: where memory lies, who made it.

use std::collections::{HashMap, HashSet};

use harp_trace::event::{CallEvent, KernelName, Objects, Value};
use harp_wire::calls::encode_cuMemAlloc_v2;
use harp_wire::reply::REPLY_HEAD_BYTES;
use harp_wire::{CallId, SYNCHRONOUS};

use super::super::calls::{downloads, launches};
use super::super::kernels::{Launch, Place};
use super::super::relocation::{words, Addresses};
use super::super::session::{Arrived, Body, Lost, Printed, Session};
use super::super::snapshot::Snapshot;
use super::super::twins::Twins;
use super::super::{Ended, Refused};
use super::{line_of, Line, Player, Sent};

impl Player<'_> {
    /// Begins the session that stands for a recorded one.
    pub(super) fn begin(&mut self, json: &[u8]) -> Result<(), Ended> {
        let (number, _) = Snapshot::recorded(json)?;
        let Some(recorded) = self.survey.sessions.get(&number) else {
            return Err(Refused(format!(
                "session {number} has just not been there; leave the trace as it is"
            ))
            .into());
        };
        let first = self
            .options
            .first_window
            .or_else(|| recorded.snapshot.first_window());
        let session = Session::begin(&self.options.server, first, self.options.patience)?;
        let devices = session.snapshot.devices.len();
        if recorded.devices_used > devices as i64 {
            return Err(Refused(format!(
                "the trace uses {} devices, and there are {devices} here; use a server with more, or for the \
                 soft GPU set HARP_SOFT_DEVICES={}",
                recorded.devices_used, recorded.devices_used
            ))
            .into());
        }
        if let Some(target) = session.snapshot.target() {
            self.survey.check_images(self.trace, number, target)?;
        }
        let mut line = Line {
            addresses: Addresses::default(),
            sent: HashMap::new(),
            queued: HashSet::new(),
            contexts: HashMap::new(),
            lacking: HashMap::new(),
            twins: Twins::default(),
            printed: Printed::default(),
            told: Default::default(),
            session,
        };
        for (device, then) in (0..).zip(&recorded.snapshot.devices) {
            let now = line.session.snapshot.devices.get(device as usize);
            let Some((base, bytes)) = then.credit else {
                continue;
            };
            match now.and_then(|now| now.credit) {
                Some((now, room)) if room >= bytes => line.addresses.learn(base, bytes, now),
                _ => {
                    line.lacking.insert(device, (base, bytes));
                }
            }
        }
        self.lines.insert(number, line);
        Ok(())
    }

    /// Keeps what a call that has been sent means for later ones.
    pub(super) fn learn_call(&mut self, call: CallId, event: &CallEvent) -> Result<(), Ended> {
        let line = line_of(&mut self.lines, event.session)?;
        let value = |name: &str| event.arguments.get(name);
        let unsigned = |name: &str| event.arguments.unsigned(name);
        self.layouts.called(call, event);
        match call {
            CallId::harp_event_watch => {
                let watched = value("event").and_then(Value::handle);
                if let (Some(watched), Some(number)) = (watched, unsigned("number")) {
                    line.session.watches(watched, number);
                }
            }
            CallId::cuLaunchHostFunc | CallId::harp_callback_done => {
                if let Some(callback) = unsigned("callback") {
                    match call {
                        CallId::cuLaunchHostFunc => line.queued.insert(callback),
                        _ => {
                            line.session.returns(callback);
                            line.queued.remove(&callback)
                        }
                    };
                }
            }
            CallId::cuEventDestroy_v2 => {
                let event = value("hEvent").and_then(Value::handle);
                line.session.watches_end(event);
            }
            CallId::cuCtxDestroy_v2
            | CallId::cuDevicePrimaryCtxReset_v2
            | CallId::cuDevicePrimaryCtxRelease_v2 => line.session.watches_end(None),
            CallId::cuDevicePrimaryCtxRetain | CallId::cuCtxCreate_v2 => {
                if let (Some(Value::Handle(context)), Some(Value::Signed(device))) =
                    (value("pctx"), value("dev"))
                {
                    line.contexts.insert(*device, *context);
                    if call == CallId::cuDevicePrimaryCtxRetain {
                        make_up_for(line, *device, *context)?;
                    }
                }
            }
            _ if launches(call) => {
                let launch = Launch {
                    call: event.number,
                    kernel: event
                        .kernel
                        .clone()
                        .unwrap_or_else(|| KernelName::new("unknown")),
                };
                let stream = value("stream").map_or(0, stream_number);
                if let Some(Value::Bytes(parameters)) = value("params") {
                    let of = (event.session, stream);
                    let objects = self.reader.objects();
                    let place = |address| place_of(objects, &line.twins, event.session, address);
                    if self.doubts.are_in(event.session) {
                        let places: Vec<Place> = words(parameters).filter_map(place).collect();
                        self.doubts.spread(event.session, &places);
                    }
                    self.kernels.launched(of, &launch, parameters, place);
                }
            }
            CallId::harp_twin_create => {
                if let (Some(base), Some(bytes)) = (unsigned("base"), unsigned("bytes")) {
                    line.twins.create(base, bytes);
                }
            }
            _ if downloads(call) => {
                let stream = value("stream").map(stream_number);
                let stream = stream.filter(|stream| *stream != SYNCHRONOUS && *stream != 0);
                let address = value("src").and_then(Value::address).unwrap_or(0);
                let bytes = unsigned("bytes").unwrap_or(1);
                let of = (event.session, stream);
                let objects = self.reader.objects();
                let place = place_of(objects, &line.twins, event.session, address);
                let maker = self.kernels.maker(of, (address, bytes), place);
                if let Some(sent) = event.ticket.and_then(|ticket| line.sent.get_mut(&ticket)) {
                    sent.maker = maker.cloned();
                    sent.doubtful = self.doubts.are_about(event.session, place);
                }
            }
            _ if self.doubts.are_in(event.session) => {
                let objects = self.reader.objects();
                let addresses = event.arguments.addresses();
                let places: Vec<Place> = addresses
                    .filter_map(|address| place_of(objects, &line.twins, event.session, address))
                    .collect();
                self.doubts.spread(event.session, &places);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Allocates the memory that the recorded session had from the beginning.
fn make_up_for(line: &mut Line, device: i64, context: u64) -> Result<(), Ended> {
    let Some((base, bytes)) = line.lacking.remove(&device) else {
        return Ok(());
    };
    let encode = |encoder: &mut _| encode_cuMemAlloc_v2(encoder, bytes);
    let arrived = line.session.ask(context, CallId::cuMemAlloc_v2, encode)?;
    match word(&arrived.body, 0) {
        Some(now) if arrived.status == 0 => line.addresses.learn(base, bytes, now),
        _ => {
            return Err(Lost(format!(
            "the device has no room for the {bytes} bytes that the recorded session had from the \
                 beginning; use one with more memory"
        ))
            .into())
        }
    }
    Ok(())
}

/// What the size of the memory that a call allocates is made of.
pub(super) fn allocated_bytes(call: CallId, event: &CallEvent) -> u64 {
    let name = match call {
        CallId::cuMemAlloc_v2 | CallId::cuMemAllocAsync | CallId::cuMemAllocFromPoolAsync => {
            "bytesize"
        }
        CallId::cuMemAllocPitch_v2 => "Height",
        _ => return 0,
    };
    event.arguments.unsigned(name).unwrap_or(0)
}

/// Keeps where memory lies that a call has got.
pub(super) fn learn_memory(
    addresses: &mut Addresses,
    sent: &Sent,
    recorded: &[u8],
    arrived: &Arrived,
) {
    let second = |body: &[u8]| Some(u64::from_le_bytes(*body.get(8..)?.first_chunk()?));
    let outputs = recorded.get(REPLY_HEAD_BYTES..).unwrap_or_default();
    let bytes = match sent.call {
        CallId::cuMemAlloc_v2 | CallId::cuMemAllocAsync | CallId::cuMemAllocFromPoolAsync => {
            Some(sent.bytes)
        }
        CallId::cuMemAllocPitch_v2 => {
            second(outputs).and_then(|pitch| pitch.checked_mul(sent.bytes))
        }
        CallId::cuModuleGetGlobal_v2 | CallId::cuLibraryGetGlobal => second(outputs),
        _ => None,
    };
    let then = outputs.first_chunk().copied().map(u64::from_le_bytes);
    if let (Some(bytes), Some(then), Some(now)) = (bytes, then, word(&arrived.body, 0)) {
        addresses.learn(then, bytes, now);
    }
}

/// The memory that an address of a session lies in.
pub(super) fn place_of(
    objects: &Objects,
    twins: &Twins,
    session: u32,
    address: u64,
) -> Option<Place> {
    let allocation = objects.allocation(session, address);
    allocation
        .map(|allocation| Place::Allocation(allocation.number))
        .or_else(|| Some(Place::Twin(session, twins.holding(address)?)))
}

fn word(body: &Body, at: usize) -> Option<u64> {
    let (Body::Here(bytes) | Body::Gone { head: bytes, .. }) = body;
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn stream_number(value: &Value) -> u64 {
    match value {
        Value::Handle(id) | Value::Unsigned(id) => *id,
        _ => SYNCHRONOUS,
    }
}
