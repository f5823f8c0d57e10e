//! How long launches and copies take on the device, where the client wants to know: the driver's events before and after
//! each, in its own stream.
//!
//! Like what watched events tell, what is known goes ahead of the next frame to the client; where it is much, at once. An
//! event more or less costs the device a microsecond, so this is only done when it is asked for. Downloads that are short
//! are not timed: they are waited for, and the wait says as much.

use std::collections::{HashMap, VecDeque};
use std::ptr::null_mut;
use std::time::Instant;

use harp_cuda_abi::types::{
    CUcontext, CUevent, CUstream, CUDA_ERROR_NOT_READY, CU_STREAM_NON_BLOCKING,
};
use harp_wire::calls::*;
use harp_wire::push::{Push, Span, SPANS_MAX};
use harp_wire::reply::PUSH;
use harp_wire::{CallId, Decoder, Encoder};

use super::handles::HandleTable;
use crate::generated::driver::Driver;

/// Calls that are under way, or over and not told; what comes beyond is not timed.
const MOST: usize = 16 << 10;
/// Where so many are under way, one is asked for at every call.
const MANY: usize = 1 << 10;
/// Times are told apart by a driver in floats of milliseconds: after so many nanoseconds another moment is what they are
/// counted from.
const FAR: f64 = 1e9;

/// A call between two events.
struct Timed {
    call: u64,
    context: usize,
    begin: CUevent,
    end: CUevent,
}

/// A moment of a context's device, in nanoseconds of this process' clock.
struct Moment {
    event: CUevent,
    at: f64,
}

// SAFETY: handles are opaque values for the driver, which takes them on any thread.
unsafe impl Send for Timed {}
// SAFETY: as above.
unsafe impl Send for Moment {}
// SAFETY: as above.
unsafe impl Send for DeviceTimes {}
// SAFETY: as above.
unsafe impl Send for Begun {}

/// The calls of a session that are timed.
pub struct DeviceTimes {
    driver: &'static Driver,
    started: Instant,
    moments: HashMap<usize, Moment>,
    under_way: VecDeque<Timed>,
    over: Vec<Span>,
    /// Events to be used again, by context.
    unused: HashMap<usize, Vec<CUevent>>,
}

/// A call that has been begun.
pub struct Begun {
    context: CUcontext,
    stream: CUstream,
    begin: CUevent,
}

impl DeviceTimes {
    /// Times are counted from `started`, which is when the client is let in: it learns of that at once.
    pub fn new(driver: &'static Driver, started: Instant) -> DeviceTimes {
        DeviceTimes {
            driver,
            started,
            moments: HashMap::new(),
            under_way: VecDeque::new(),
            over: Vec::new(),
            unused: HashMap::new(),
        }
    }

    /// Nanoseconds of the clock that times are told by.
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// A call is about to be made in this stream of the current context. None if it is not timed.
    pub fn before(&mut self, context: CUcontext, stream: CUstream) -> Option<Begun> {
        if self.under_way.len() >= MANY {
            self.look();
        }
        if context.is_null() || self.under_way.len() + self.over.len() >= MOST {
            return None;
        }
        if !self.moments.contains_key(&(context as usize)) {
            let moment = self.moment(context)?;
            self.moments.insert(context as usize, moment);
        }
        let begin = self.record(context, stream)?;
        Some(Begun {
            context,
            stream,
            begin,
        })
    }

    /// An event of the current context, and when it was: in a stream of its own, which has nothing to do before. What
    /// is timed by it never begins before it was called.
    fn moment(&mut self, context: CUcontext) -> Option<Moment> {
        let driver = self.driver;
        let mut stream = null_mut();
        // SAFETY: room for a handle.
        if unsafe { (driver.cuStreamCreate)(&mut stream, CU_STREAM_NON_BLOCKING) } != 0 {
            return None;
        }
        let event = self.record(context, stream);
        // SAFETY: a live event.
        let event = event.filter(|event| unsafe { (driver.cuEventSynchronize)(*event) } == 0);
        let at = self.now() as f64;
        // SAFETY: the stream that was created above, not used afterwards.
        unsafe { (driver.cuStreamDestroy_v2)(stream) };
        event.map(|event| Moment { event, at })
    }

    /// It has been made: the session's call of this number.
    pub fn after(&mut self, begun: Begun, call: u64) {
        let Begun {
            context,
            stream,
            begin,
        } = begun;
        match self.record(context, stream) {
            Some(end) => self.under_way.push_back(Timed {
                call,
                context: context as usize,
                begin,
                end,
            }),
            None => self.give_back(context as usize, begin),
        }
    }

    /// It has not been made, or cannot be timed.
    pub fn leave_out(&mut self, begun: Begun) {
        self.give_back(begun.context as usize, begun.begin);
    }

    fn give_back(&mut self, context: usize, event: CUevent) {
        self.unused.entry(context).or_default().push(event);
    }

    /// An event of the current context, recorded in a stream.
    fn record(&mut self, context: CUcontext, stream: CUstream) -> Option<CUevent> {
        let unused = self.unused.entry(context as usize).or_default();
        let event = unused.pop().or_else(|| {
            let mut event = null_mut();
            // SAFETY: room for a handle.
            let status = unsafe { (self.driver.cuEventCreate)(&mut event, 0) };
            (status == 0).then_some(event)
        })?;
        // SAFETY: a live event; of a stream that does not fit it the driver says so.
        if unsafe { (self.driver.cuEventRecord)(event, stream) } == 0 {
            return Some(event);
        }
        unused.push(event);
        None
    }

    /// Finds what is over, in the order in which it was begun.
    fn look(&mut self) {
        while let Some(timed) = self.under_way.front() {
            // SAFETY: a live event.
            let status = unsafe { (self.driver.cuEventQuery)(timed.end) };
            if status == CUDA_ERROR_NOT_READY {
                return;
            }
            let Some(timed) = self.under_way.pop_front() else {
                return;
            };
            self.settle(timed);
        }
    }

    fn settle(&mut self, timed: Timed) {
        let Timed {
            call,
            context,
            begin,
            end,
        } = timed;
        let driver = self.driver;
        let elapsed = |from, to| {
            let mut milliseconds = 0.0_f32;
            // SAFETY: live events of one context.
            let status = unsafe { (driver.cuEventElapsedTime_v2)(&mut milliseconds, from, to) };
            (status == 0).then_some(f64::from(milliseconds) * 1e6)
        };
        let moment = self.moments.get_mut(&context);
        let times = moment.and_then(|moment| {
            let began = moment.at + elapsed(moment.event, begin)?;
            let took = elapsed(begin, end)?;
            Some((moment, began, took))
        });
        let Some((moment, began, took)) = times else {
            self.give_back(context, begin);
            return self.give_back(context, end);
        };
        self.over.push(Span {
            call,
            began: began.max(0.0) as u64,
            ended: (began + took).max(0.0) as u64,
        });
        let spare = if began - moment.at > FAR {
            *moment = Moment {
                event: begin,
                at: began,
            };
            None
        } else {
            Some(begin)
        };
        spare
            .into_iter()
            .chain([end])
            .for_each(|event| self.give_back(context, event));
    }

    /// Whether so much is over that the client is to be told at once, whatever it waits for.
    pub fn is_much(&self) -> bool {
        self.over.len() >= SPANS_MAX
    }

    /// What there is to tell the client; `None` for nothing.
    pub fn told(&mut self) -> Option<Encoder> {
        self.look();
        if self.over.is_empty() {
            return None;
        }
        let now = self.now();
        let mut told = Encoder::new();
        for spans in self.over.chunks(SPANS_MAX) {
            let start = told.begin_reply();
            let spans = spans.to_vec();
            Push::Times { now, spans }.encode(&mut told);
            told.end_reply(start, PUSH, 0, 0);
        }
        self.over.clear();
        Some(told)
    }

    /// A context is about to end, and the events in it: all are given up, and what they have not told.
    pub fn forget_contexts(&mut self) {
        self.look();
        let under_way = self.under_way.drain(..);
        let under_way = under_way.flat_map(|timed| [timed.begin, timed.end]);
        let moments = self.moments.drain().map(|(_, moment)| moment.event);
        let unused = self.unused.drain().flat_map(|(_, events)| events);
        for event in under_way.chain(moments).chain(unused) {
            // SAFETY: a live event, of a context that is there still; nobody has it any more.
            unsafe { (self.driver.cuEventDestroy_v2)(event) };
        }
    }
}

/// The stream of a call that is timed; `None` for any other.
pub fn stream_of(call: CallId, arguments: &[u8], handles: &mut HandleTable) -> Option<CUstream> {
    let d = &mut Decoder::new(arguments);
    let id = match call {
        CallId::cuLaunchKernel | CallId::cuLaunchKernelEx => {
            // Behind function, grid, block and shared memory. Decoding all of it here too would have the compiler decode
            // launches out of line, for 64 instructions more each.
            d.u64();
            for _ in 0..7 {
                d.u32();
            }
            d.stream()
        }
        CallId::cuMemcpyHtoD_v2 => {
            // Its payload need not be there.
            let (_address, stream) = (d.u64(), d.copy_stream());
            stream
        }
        CallId::cuMemcpyDtoH_v2 => CuMemcpyDtoH_v2Args::decode(d).ok()?.stream,
        CallId::cuMemcpyDtoHAsync_v2 => CuMemcpyDtoHAsync_v2Args::decode(d).ok()?.stream,
        CallId::cuMemcpyDtoDAsync_v2 => CuMemcpyDtoDAsync_v2Args::decode(d).ok()?.hStream,
        CallId::cuMemsetD8Async => CuMemsetD8AsyncArgs::decode(d).ok()?.hStream,
        CallId::cuMemsetD16Async => CuMemsetD16AsyncArgs::decode(d).ok()?.hStream,
        CallId::cuMemsetD32Async => CuMemsetD32AsyncArgs::decode(d).ok()?.hStream,
        _ => return None,
    };
    match id {
        u64::MAX => Some(null_mut()),
        id => Some(handles.get_stream(id).ok()?.ok()?.cast()),
    }
}
