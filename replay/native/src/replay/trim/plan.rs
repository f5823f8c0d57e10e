//! What chosen calls need of those before them: the objects that they use and all that these were made with,
//! the memory that they may touch and what has been put into it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use harp_trace::block::{Block, Policy};
use harp_trace::container::Trace;
use harp_trace::event::{CallEvent, Event, KernelName, Reader, ReplyEvent, Value};
use harp_wire::{twin, CallId};

use super::super::calls::{creates, downloads, launches, Calls};
use super::super::Refused;
use super::arguments::{addresses, unsigned, uploaded_bytes, uploads, written};
use super::choice::Choice;
use super::making::{Made, Making};
use super::ranges::{holding, Of, Range, Ranges};

/// What a trimmed trace is made of.
pub struct Plan {
    pub chosen: RangeInclusive<u64>,
    pub kernel: Option<Arc<KernelName>>,
    /// The memory that the chosen calls may read or write, as far as that is known.
    pub ranges: Vec<Range>,
    known: HashSet<Of>,
    /// What is given back within the chosen calls.
    pub freed: HashSet<Of>,
    /// All memory that the chosen calls find.
    pub found: Ranges,
    /// What the program writes within the chosen calls to memory that it shares with kernels, by session.
    pub written: Vec<(u32, Vec<u8>)>,
    /// Copies to the program after the chosen calls of what they may have written and nobody has since.
    pub results: BTreeSet<u64>,
    /// Where calls can be made: session and context of a chosen call, if it has one, and its thread.
    pub place: (u32, u64, u32),
    /// All calls of the trace.
    pub calls: u64,
    making: Making,
    /// Handles that the chosen calls use.
    wanted: BTreeSet<Of>,
    /// Calls without which the chosen ones are not whole: pieces of images, ends of host functions.
    parts: BTreeSet<u64>,
}

impl Plan {
    /// # Errors
    /// Why there is no such trace.
    pub fn make(trace: &Trace, choice: &Choice) -> Result<Plan, Refused> {
        let (chosen, kernel) = choice.calls(trace)?;
        let mut planning = Planning {
            trace,
            reader: Reader::new(),
            calls: Calls::new()?,
            current: HashMap::new(),
            pieces: HashMap::new(),
            asked: HashMap::new(),
            ranges: Ranges::default(),
            launched: BTreeSet::new(),
            needed: BTreeMap::new(),
            changed: HashSet::new(),
            functions: HashSet::new(),
            began: false,
            ended: false,
            plan: Plan {
                chosen,
                kernel,
                ranges: Vec::new(),
                known: HashSet::new(),
                freed: HashSet::new(),
                found: Ranges::default(),
                written: Vec::new(),
                results: BTreeSet::new(),
                place: (0, 0, 0),
                calls: 0,
                making: Making::default(),
                wanted: BTreeSet::new(),
                parts: BTreeSet::new(),
            },
        };
        let mut blocks = trace.blocks()?;
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = planning
                .reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            planning.take(&block, &event)?;
        }
        planning.end()
    }

    /// The chosen calls may touch these ranges too, which they find there.
    pub fn need(&mut self, ranges: impl IntoIterator<Item = Of>) {
        for at in ranges {
            if self.known.insert(at) {
                self.ranges.extend(self.found.get(at).cloned());
            }
        }
    }

    /// Whether all that the chosen calls need, and a result to be checked, is in the trace itself: no device is
    /// needed to make the smaller one.
    pub fn is_offline(&self) -> bool {
        !self.results.is_empty() && self.ranges.iter().all(Range::is_uploaded)
    }

    /// The calls that are kept beside the chosen ones and their results; `with_uploads` is whether those are
    /// among them that have put something into the memory.
    pub fn kept(&self, with_uploads: bool) -> BTreeSet<u64> {
        let uploads = self.ranges.iter().flat_map(|range| &range.uploads);
        let uploads = uploads.filter(|_| with_uploads).map(|upload| upload.call);
        let calls = self.parts.iter().copied().chain(uploads);
        let start = *self.chosen.start();
        self.making.needed(start, &self.wanted, &self.ranges, calls)
    }
}

/// A call that is to answer where memory is.
struct Asked {
    number: u64,
    call: CallId,
    /// What its size is made of.
    bytes: u64,
    /// The module of a variable, or the first address of shared memory.
    of: u64,
    context: u64,
}

struct Planning<'a> {
    trace: &'a Trace,
    reader: Reader,
    calls: Calls,
    /// The current context of each thread.
    current: HashMap<(u32, u32), u64>,
    /// Calls that have brought an image.
    pieces: HashMap<Of, Vec<u64>>,
    /// By session and ticket.
    asked: HashMap<(u32, u32), Asked>,
    /// What the program has.
    ranges: Ranges,
    /// Functions that have been launched before the chosen calls, then those that these launch.
    launched: BTreeSet<Of>,
    needed: BTreeMap<Of, Range>,
    /// Needed ranges that later calls may have changed.
    changed: HashSet<Of>,
    /// Host functions of the chosen calls.
    functions: HashSet<Of>,
    /// There has been a chosen call, and another after these.
    began: bool,
    ended: bool,
    plan: Plan,
}

impl Planning<'_> {
    fn take(&mut self, block: &Block, event: &Event) -> Result<(), Refused> {
        match (block, event) {
            (_, Event::Call(call)) => self.call(call)?,
            (_, Event::Reply(reply)) => self.reply(reply),
            (_, Event::Allocation(allocation)) => {
                let at = (allocation.session, allocation.address);
                self.memory_begins(at, allocation.bytes, allocation.device, false);
            }
            (
                Block::Free {
                    session, address, ..
                },
                _,
            ) => self.ranges.end((*session, *address)),
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, call: &CallEvent) -> Result<(), Refused> {
        let today = self.calls.today(self.reader.schema(), call.call)?;
        let (session, number) = (call.session, call.number);
        let thread = (session, call.thread);
        let handles: Vec<u64> = call.arguments.handles().collect();
        if today == CallId::harp_set_current {
            self.current
                .insert(thread, handles.first().copied().unwrap_or(0));
            return Ok(());
        }
        let context = self.current.get(&thread).copied().unwrap_or(0);
        if let (Some(Value::Signed(device)), Some(Value::Handle(context))) =
            (call.arguments.get("dev"), call.arguments.get("pctx"))
        {
            let device = *device as u32;
            self.plan.making.has_context((session, *context), device);
        }
        if number <= *self.plan.chosen.end() {
            self.asks(today, call, context, &handles);
        }
        if number < *self.plan.chosen.start() {
            self.before(today, call, context, handles)?;
        } else if number <= *self.plan.chosen.end() {
            self.within(today, call, context, &handles)?;
        } else {
            self.after(today, call)?;
        }
        if today == CallId::harp_twin_destroy {
            self.ranges.end((session, unsigned(call, "base")));
        }
        Ok(())
    }

    /// A call may be one that answers where memory is.
    fn asks(&mut self, today: CallId, call: &CallEvent, context: u64, handles: &[u64]) {
        let (bytes, of) = match today {
            CallId::cuMemAlloc_v2 | CallId::cuMemAllocAsync | CallId::cuMemAllocFromPoolAsync => {
                (unsigned(call, "bytesize"), 0)
            }
            CallId::cuMemAllocPitch_v2 => (unsigned(call, "Height"), 0),
            CallId::cuModuleGetGlobal_v2 | CallId::cuLibraryGetGlobal => {
                (0, handles.first().copied().unwrap_or(0))
            }
            CallId::harp_twin_create => (unsigned(call, "bytes"), unsigned(call, "base")),
            _ => return,
        };
        let Some(ticket) = call.ticket else { return };
        let asked = Asked {
            number: call.number,
            call: today,
            bytes,
            of,
            context,
        };
        self.asked.insert((call.session, ticket), asked);
    }

    /// A call that the chosen ones may need.
    fn before(
        &mut self,
        today: CallId,
        call: &CallEvent,
        context: u64,
        handles: Vec<u64>,
    ) -> Result<(), Refused> {
        let (session, number) = (call.session, call.number);
        let blob = (session, unsigned(call, "blob"));
        let first = (session, handles.first().copied().unwrap_or(0));
        let making = &mut self.plan.making;
        let mut with = Vec::new();
        match today {
            CallId::harp_blob_append => {
                self.pieces.entry(blob).or_default().push(number);
                return Ok(());
            }
            CallId::cuModuleLoadData | CallId::cuLibraryLoadData | CallId::cuLinkAddData_v2 => {
                with = self.pieces.remove(&blob).unwrap_or_default();
                if today == CallId::cuLinkAddData_v2 {
                    making.sets(first, number);
                }
            }
            CallId::cuFuncSetAttribute
            | CallId::cuKernelSetAttribute
            | CallId::cuMemPoolSetAttribute
            | CallId::cuMemPoolSetAccess => making.sets(first, number),
            CallId::cuEventRecord | CallId::cuEventRecordWithFlags => {
                making.sets_anew(first, number);
            }
            CallId::cuCtxSetLimit
            | CallId::cuCtxSetCacheConfig
            | CallId::cuCtxSetSharedMemConfig
            | CallId::cuCtxEnablePeerAccess
            | CallId::cuDeviceSetMemPool => making.sets((session, context), number),
            CallId::cuMemAlloc_v2
            | CallId::cuMemAllocAsync
            | CallId::cuMemAllocFromPoolAsync
            | CallId::cuMemAllocPitch_v2
            | CallId::cuModuleGetGlobal_v2
            | CallId::cuLibraryGetGlobal
            | CallId::harp_twin_create => {}
            _ if creates(today) => {}
            _ if uploads(today) => {
                let at = (session, written(call).unwrap_or(0));
                let content = self.content(call)?;
                self.ranges
                    .uploaded(at, uploaded_bytes(call), number, &content);
            }
            CallId::harp_twin_write => {
                self.ranges.written(session);
                return Ok(());
            }
            _ if downloads(today) => return Ok(()),
            _ => {
                if launches(today) {
                    self.launched.insert(first);
                }
                let addresses = addresses(today, call);
                self.ranges.worked(session, &addresses, launches(today));
                return Ok(());
            }
        }
        let making = &mut self.plan.making;
        match today {
            // Whoever retains a context again finds it as the first one made it.
            CallId::cuDevicePrimaryCtxRetain => making.retains(first, number),
            _ if creates(today) => making.creates(first, number),
            _ => {}
        }
        let made = Made {
            session,
            context,
            handles,
            with,
        };
        self.plan.making.called(number, made);
        Ok(())
    }

    /// A chosen call.
    fn within(
        &mut self,
        today: CallId,
        call: &CallEvent,
        context: u64,
        handles: &[u64],
    ) -> Result<(), Refused> {
        let (session, number) = (call.session, call.number);
        if !std::mem::replace(&mut self.began, true) {
            // Kernels know the variables of their modules.
            let launched = std::mem::take(&mut self.launched);
            for at in self.plan.making.variables_of(&launched) {
                if let Some(range) = self.ranges.get_mut(at) {
                    range.made = true;
                }
            }
            self.plan.found = self.ranges.clone();
        }
        if self.plan.place.1 == 0 {
            self.plan.place = (session, context, call.thread);
        }
        let wanted = &mut self.plan.wanted;
        wanted.insert((session, context));
        wanted.extend(handles.iter().map(|handle| (session, *handle)));
        if creates(today) && !handles.is_empty() {
            self.plan.making.creates((session, handles[0]), number);
        }
        let pieces = self.pieces.remove(&(session, unsigned(call, "blob")));
        self.plan.parts.extend(pieces.unwrap_or_default());
        match today {
            CallId::cuLaunchHostFunc => {
                let function = unsigned(call, "callback");
                self.functions.insert((session, function));
            }
            // It tells of all that is shared.
            CallId::harp_twin_read => {
                self.need_where(|range| range.session == session && range.is_shared())
            }
            CallId::harp_twin_write => {
                let lines = self.content(call)?.into_owned();
                for line in twin::lines(&lines).flatten() {
                    self.need(session, line.address);
                }
                self.plan.written.push((session, lines));
            }
            // Nobody can look at it afterwards.
            CallId::cuMemFree_v2 | CallId::cuMemFreeAsync => {
                let address = written(call).unwrap_or(0);
                self.plan.freed.insert((session, address));
            }
            CallId::harp_twin_destroy => {
                self.plan.freed.insert((session, unsigned(call, "base")));
            }
            _ if launches(today) => {
                self.launched
                    .extend(handles.first().map(|function| (session, *function)));
            }
            _ if uploads(today) => {
                let address = written(call).unwrap_or(0);
                let content = self.content(call)?;
                for at in self.ranges.led_to(session, address, &content) {
                    self.need(at.0, at.1);
                }
            }
            _ => {}
        }
        for address in addresses(today, call) {
            self.need(session, address);
        }
        Ok(())
    }

    /// A call after the chosen ones: what of their results it shows, or changes.
    fn after(&mut self, today: CallId, call: &CallEvent) -> Result<(), Refused> {
        let session = call.session;
        if !std::mem::replace(&mut self.ended, true) {
            self.need_variables();
            self.plan.ranges = self.needed.values().cloned().collect();
        }
        if today == CallId::harp_callback_done
            && self
                .functions
                .remove(&(session, unsigned(call, "callback")))
        {
            self.plan.parts.insert(call.number);
        }
        // Where a device is needed anyway, results are fetched from there.
        if !self.plan.ranges.iter().all(Range::is_uploaded) {
            return Ok(());
        }
        if uploads(today) {
            let address = written(call).unwrap_or(0);
            let content = self.content(call)?;
            for at in self.ranges.led_to(session, address, &content) {
                if let Some(range) = self.needed.get_mut(&at) {
                    range.told = true;
                }
            }
        }
        if launches(today) {
            let known = self.needed.values();
            let known = known.filter(|range| range.session == session);
            let known = known.filter(|range| range.told || range.variable);
            self.changed.extend(known.map(Range::at));
        }
        for address in addresses(today, call) {
            let Some(at) = holding(&self.needed, session, address) else {
                continue;
            };
            if !downloads(today) {
                self.changed.insert(at);
            } else if !self.changed.contains(&at) {
                self.plan.results.insert(call.number);
                // Its stream, if it has one.
                let wanted = &mut self.plan.wanted;
                wanted.extend(call.arguments.handles().map(|handle| (session, handle)));
                let context = self.current.get(&(session, call.thread)).copied();
                wanted.extend(context.map(|context| (session, context)));
            }
        }
        Ok(())
    }

    fn reply(&mut self, reply: &ReplyEvent) {
        let Some(asked) = self.asked.remove(&(reply.session, reply.ticket)) else {
            return;
        };
        if reply.status != 0 {
            return;
        }
        let session = reply.session;
        let out = |index: usize| match reply.outputs.values.get(index) {
            Some(Value::Unsigned(number) | Value::DevicePointer(number)) => Some(*number),
            _ => None,
        };
        let making = &mut self.plan.making;
        let device = making.device((session, asked.context));
        let (number, address) = (asked.number, out(0));
        match (asked.call, address) {
            (CallId::harp_twin_create, _) => {
                let at = (session, asked.of);
                making.allocates(at, asked.bytes, number);
                self.memory_begins(at, asked.bytes, device, false);
            }
            (CallId::cuModuleGetGlobal_v2 | CallId::cuLibraryGetGlobal, Some(address)) => {
                let at = (session, address);
                making.tells_variable(at, number, asked.of);
                if self.ranges.get(at).is_none() {
                    self.memory_begins(at, out(1).unwrap_or(0), device, true);
                }
            }
            (CallId::cuMemAllocPitch_v2, Some(address)) => {
                let bytes = out(1).and_then(|pitch| pitch.checked_mul(asked.bytes));
                making.allocates((session, address), bytes.unwrap_or(0), number);
            }
            (_, Some(address)) => making.allocates((session, address), asked.bytes, number),
            (_, None) => {}
        }
    }

    fn memory_begins(&mut self, at: Of, bytes: u64, device: u32, variable: bool) {
        let range = Range {
            variable,
            ..Range::new(at, bytes, device)
        };
        self.ranges.begin(range);
    }

    /// The chosen calls may touch the range at this address, and what can be reached from there.
    fn need(&mut self, session: u32, address: u64) {
        if let Some(at) = self.ranges.holding(session, address) {
            let needed = &mut self.needed;
            let reached = self.ranges.reached(at, |at| needed.contains_key(&at));
            needed.extend(reached);
        }
    }

    fn need_where(&mut self, is_needed: impl Fn(&Range) -> bool) {
        let all: Vec<Of> = (self.ranges.iter().filter(|range| is_needed(range)))
            .map(Range::at)
            .collect();
        for (session, address) in all {
            self.need(session, address);
        }
    }

    /// The chosen calls may touch the variables of the modules that their kernels are of.
    fn need_variables(&mut self) {
        let launched = std::mem::take(&mut self.launched);
        for (session, address) in self.plan.making.variables_of(&launched) {
            self.need(session, address);
        }
    }

    /// The data that a call puts somewhere.
    fn content<'c>(&self, call: &'c CallEvent) -> Result<Cow<'c, [u8]>, Refused> {
        match (call.arguments.payload, call.arguments.values.last()) {
            (Some(payload), _) if payload.policy == Policy::Full => {
                Ok(self.trace.blob(&payload.hash)?.into())
            }
            (None, Some(Value::Bytes(bytes))) => Ok(Cow::Borrowed(bytes)),
            _ => Ok(Cow::Borrowed(&[])),
        }
    }

    fn end(mut self) -> Result<Plan, Refused> {
        let calls = self.reader.calls();
        if !self.began {
            return Err(Refused(format!(
                "the trace has {calls} calls, numbered from 0; choose some of them"
            )));
        }
        if !self.ended {
            self.need_variables();
            self.plan.ranges = self.needed.into_values().collect();
        }
        self.plan.known = self.plan.ranges.iter().map(Range::at).collect();
        self.plan.calls = calls;
        Ok(self.plan)
    }
}
