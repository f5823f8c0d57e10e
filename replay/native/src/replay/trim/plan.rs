//! What chosen calls need of those before them: the objects that they use and all that these were made with,
//! the memory that they may touch and what has been put into it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use harp_trace::block::Block;
use harp_trace::container::Trace;
use harp_trace::event::{CallEvent, Event, KernelName, Reader, ReplyEvent, Value};
use harp_wire::{twin, CallId};

use super::super::calls::{creates, downloads, launches, Calls};
use super::super::Refused;

/// Uploads to one range that are remembered; more of them are taken for work of the device.
const MOST_UPLOADS: usize = 1 << 12;

/// A handle, or an address, of a session.
type Of = (u32, u64);

/// What is to be left.
#[derive(Clone, Debug)]
pub enum Choice {
    /// A launch of the kernel of that name, counted from 0; the last one if none is named.
    Kernel(String, Option<usize>),
    Calls(RangeInclusive<u64>),
}

/// A range of device memory that the chosen calls may read or write.
#[derive(Clone, Debug)]
pub struct Needed {
    pub session: u32,
    pub device: u32,
    pub address: u64,
    pub bytes: u64,
    /// What has been put into it from the program.
    uploads: Vec<Upload>,
    /// Work of the device may have changed it.
    made: bool,
}

#[derive(Clone, Debug)]
struct Upload {
    address: u64,
    bytes: u64,
    call: u64,
}

/// What a trimmed trace is made of.
#[derive(Debug)]
pub struct Plan {
    pub chosen: RangeInclusive<u64>,
    pub kernel: Option<Arc<KernelName>>,
    /// Calls before the chosen ones, and those after them that end their host functions.
    pub kept: BTreeSet<u64>,
    pub ranges: Vec<Needed>,
    /// Copies to the program after the chosen calls of what they may have written and nobody has since.
    pub results: BTreeSet<u64>,
    /// Where calls can be made: session and context of a chosen call, and its thread.
    pub place: (u32, u64, u32),
    /// All calls of the trace.
    pub calls: u64,
}

/// How a call before the chosen ones was made.
struct Made {
    session: u32,
    context: u64,
    handles: Vec<u64>,
    /// Calls that it cannot be without.
    with: Vec<u64>,
}

impl Plan {
    /// # Errors
    /// Why there is no such trace.
    pub fn make(trace: &Trace, choice: &Choice) -> Result<Plan, Refused> {
        let (chosen, kernel) = choose(trace, choice)?;
        let mut planning = Planning {
            reader: Reader::new(),
            calls: Calls::new()?,
            chosen: chosen.clone(),
            current: HashMap::new(),
            devices: HashMap::new(),
            makers: HashMap::new(),
            made: HashMap::new(),
            settings: HashMap::new(),
            pieces: HashMap::new(),
            asked: HashMap::new(),
            allocated: BTreeMap::new(),
            memory: BTreeMap::new(),
            owners: HashMap::new(),
            wanted: BTreeSet::new(),
            needed: BTreeMap::new(),
            changed: HashSet::new(),
            functions: HashSet::new(),
            kept: BTreeSet::new(),
            results: BTreeSet::new(),
            place: None,
        };
        let mut blocks = trace.blocks()?;
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = planning
                .reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            match (&block, &event) {
                (_, Event::Call(call)) => planning.call(call)?,
                (_, Event::Reply(reply)) => planning.reply(reply),
                (_, Event::Allocation(allocation)) => planning.memory_begins(
                    (allocation.session, allocation.address),
                    allocation.bytes,
                    allocation.device,
                ),
                (
                    Block::Free {
                        session, address, ..
                    },
                    _,
                ) => {
                    planning.memory.remove(&(*session, *address));
                }
                _ => {}
            }
        }
        planning.end(kernel)
    }

    /// Whether all that the chosen calls need, and a result to be checked, is in the trace itself: no device is
    /// needed to make the smaller one.
    pub fn is_offline(&self) -> bool {
        !self.results.is_empty() && self.ranges.iter().all(|range| !range.made)
    }

    /// Keeps what was put into the ranges.
    pub fn keep_uploads(&mut self) {
        let uploads = self.ranges.iter().flat_map(|range| &range.uploads);
        self.kept.extend(uploads.map(|upload| upload.call));
    }
}

/// Which calls are chosen, and the kernel that they launch.
fn choose(
    trace: &Trace,
    choice: &Choice,
) -> Result<(RangeInclusive<u64>, Option<Arc<KernelName>>), Refused> {
    let (name, which) = match choice {
        Choice::Calls(calls) => return Ok((calls.clone(), None)),
        Choice::Kernel(name, which) => (name, which),
    };
    let mut reader = Reader::new();
    let mut blocks = trace.blocks()?;
    let mut names: BTreeSet<Arc<KernelName>> = BTreeSet::new();
    let (mut seen, mut found) = (0, None);
    while let Some(located) = blocks.next()? {
        let block = located.decode()?;
        let event = reader
            .read(&block)
            .map_err(|error| located.damaged(&error))?;
        let Event::Call(call) = event else { continue };
        let Some(kernel) = &call.kernel else { continue };
        if kernel.is_called(name) {
            if which.is_none_or(|which| which == seen) {
                found = Some((call.number, kernel.clone()));
            }
            seen += 1;
        } else if names.len() < 20 {
            names.insert(kernel.clone());
        }
    }
    match found {
        Some((number, kernel)) => Ok((number..=number, Some(kernel))),
        None if seen > 0 => Err(Refused(format!(
            "the trace launches {name} {seen} times; name one of 0 to {} with --launch",
            seen - 1
        ))),
        None => {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            Err(Refused(format!(
                "the trace launches no kernel {name}; name one of these: {}",
                names.join(", ")
            )))
        }
    }
}

struct Planning {
    reader: Reader,
    calls: Calls,
    chosen: RangeInclusive<u64>,
    /// The current context of each thread.
    current: HashMap<(u32, u32), u64>,
    /// The device of each context.
    devices: HashMap<Of, u32>,
    /// The call that has made a handle.
    makers: HashMap<Of, u64>,
    made: HashMap<u64, Made>,
    /// Calls that have changed what a handle stands for.
    settings: HashMap<Of, Vec<u64>>,
    /// Calls that have brought an image.
    pieces: HashMap<Of, Vec<u64>>,
    /// Calls that are to answer with an address: the call, its size, the module of a variable.
    asked: HashMap<(u32, u32), (u64, CallId, u64, u64)>,
    /// What the server has allocated: bytes, and the call.
    allocated: BTreeMap<Of, (u64, u64)>,
    /// What the program has.
    memory: BTreeMap<Of, Needed>,
    /// The call and the module of a variable.
    owners: HashMap<Of, (u64, u64)>,
    wanted: BTreeSet<Of>,
    needed: BTreeMap<Of, Needed>,
    /// Needed ranges that later calls may have changed.
    changed: HashSet<Of>,
    /// Host functions of the chosen calls.
    functions: HashSet<Of>,
    kept: BTreeSet<u64>,
    results: BTreeSet<u64>,
    place: Option<(u32, u64, u32)>,
}

impl Planning {
    fn call(&mut self, call: &CallEvent) -> Result<(), Refused> {
        let today = self.calls.today(self.reader.schema(), call.call)?;
        let (session, number) = (call.session, call.number);
        let thread = (session, call.thread);
        let handles: Vec<u64> = (call.arguments.values.iter())
            .filter_map(|(_, value)| value.handle())
            .collect();
        if today == CallId::harp_set_current {
            self.current
                .insert(thread, handles.first().copied().unwrap_or(0));
            return Ok(());
        }
        let context = self.current.get(&thread).copied().unwrap_or(0);
        if let (Some(Value::Signed(device)), Some(Value::Handle(context))) =
            (call.arguments.get("dev"), call.arguments.get("pctx"))
        {
            self.devices.insert((session, *context), *device as u32);
        }
        if number < *self.chosen.start() {
            self.before(today, call, context, handles);
        } else if number <= *self.chosen.end() {
            self.place.get_or_insert((session, context, call.thread));
            self.wanted.insert((session, context));
            self.wanted
                .extend(handles.iter().map(|handle| (session, *handle)));
            if creates(today) {
                self.makers.insert((session, handles[0]), number);
            }
            if let Some(Value::Unsigned(blob)) = call.arguments.get("blob") {
                let pieces = self.pieces.remove(&(session, *blob));
                self.kept.extend(pieces.unwrap_or_default());
            }
            if let (CallId::cuLaunchHostFunc, Some(Value::Unsigned(function))) =
                (today, call.arguments.get("callback"))
            {
                self.functions.insert((session, *function));
            }
            if launches(today) {
                self.variables(session, &handles);
            }
            for address in addresses(today, call) {
                self.need(session, address)?;
            }
        } else {
            self.after(today, call);
        }
        Ok(())
    }

    /// A call that the chosen ones may need.
    fn before(&mut self, today: CallId, call: &CallEvent, context: u64, handles: Vec<u64>) {
        let (session, number) = (call.session, call.number);
        let unsigned = |name: &str| match call.arguments.get(name) {
            Some(Value::Unsigned(number)) => *number,
            _ => 0,
        };
        let mut with = Vec::new();
        match today {
            CallId::harp_blob_append => {
                let blob = (session, unsigned("blob"));
                self.pieces.entry(blob).or_default().push(number);
                return;
            }
            CallId::cuModuleLoadData | CallId::cuLibraryLoadData | CallId::cuLinkAddData_v2 => {
                let blob = (session, unsigned("blob"));
                with = self.pieces.remove(&blob).unwrap_or_default();
                if today == CallId::cuLinkAddData_v2 {
                    self.settings
                        .entry((session, handles[0]))
                        .or_default()
                        .push(number);
                }
            }
            CallId::cuFuncSetAttribute
            | CallId::cuKernelSetAttribute
            | CallId::cuMemPoolSetAttribute
            | CallId::cuMemPoolSetAccess
            | CallId::cuEventRecord
            | CallId::cuEventRecordWithFlags => {
                let settings = self.settings.entry((session, handles[0])).or_default();
                if matches!(
                    today,
                    CallId::cuEventRecord | CallId::cuEventRecordWithFlags
                ) {
                    settings.clear(); // the last record counts
                }
                settings.push(number);
            }
            CallId::cuCtxSetLimit
            | CallId::cuCtxSetCacheConfig
            | CallId::cuCtxSetSharedMemConfig
            | CallId::cuCtxEnablePeerAccess
            | CallId::cuDeviceSetMemPool => {
                self.settings
                    .entry((session, context))
                    .or_default()
                    .push(number);
            }
            CallId::cuMemAlloc_v2
            | CallId::cuMemAllocAsync
            | CallId::cuMemAllocFromPoolAsync
            | CallId::cuMemAllocPitch_v2
            | CallId::cuModuleGetGlobal_v2
            | CallId::cuLibraryGetGlobal => {
                let bytes = unsigned("bytesize").max(unsigned("Height"));
                let module = handles.first().copied().unwrap_or(0);
                if let Some(ticket) = call.ticket {
                    self.asked
                        .insert((session, ticket), (number, today, bytes, module));
                }
            }
            _ if creates(today) => {}
            _ => {
                self.writes(today, call, number);
                if !uploads(today) {
                    return;
                }
            }
        }
        if creates(today) {
            let made = (session, handles[0]);
            // Whoever retains a context again finds it as the first one made it.
            match today {
                CallId::cuDevicePrimaryCtxRetain => {
                    self.makers.entry(made).or_insert(number);
                }
                _ => {
                    self.makers.insert(made, number);
                }
            }
        }
        let made = Made {
            session,
            context,
            handles,
            with,
        };
        self.made.insert(number, made);
    }

    /// What a call before the chosen ones does to memory.
    fn writes(&mut self, today: CallId, call: &CallEvent, number: u64) {
        let session = call.session;
        if uploads(today) {
            let address = written(call).unwrap_or(0);
            let bytes = uploaded_bytes(call);
            let memory = self.memory_at(session, address);
            let Some(memory) = memory.and_then(|at| self.memory.get_mut(&at)) else {
                return;
            };
            let uploads = &mut memory.uploads;
            // What is written over is of no use any more.
            uploads.retain(|upload| (upload.address, upload.bytes) != (address, bytes));
            uploads.push(Upload {
                address,
                bytes,
                call: number,
            });
            memory.made |= uploads.len() > MOST_UPLOADS;
            return;
        }
        for address in addresses(today, call) {
            if let Some(memory) = self
                .memory_at(session, address)
                .and_then(|at| self.memory.get_mut(&at))
            {
                memory.made |= !downloads(today);
            }
        }
    }

    /// A call after the chosen ones: what of their results it shows, or changes.
    fn after(&mut self, today: CallId, call: &CallEvent) {
        let session = call.session;
        if let (CallId::harp_callback_done, Some(Value::Unsigned(function))) =
            (today, call.arguments.get("callback"))
        {
            if self.functions.remove(&(session, *function)) {
                self.kept.insert(call.number);
            }
        }
        for address in addresses(today, call) {
            let at = self.needed.range(..=(session, address)).next_back();
            let Some((at, _)) =
                at.filter(|(at, range)| at.0 == session && address - range.address < range.bytes)
            else {
                continue;
            };
            if !downloads(today) {
                self.changed.insert(*at);
            } else if !self.changed.contains(at) {
                self.results.insert(call.number);
                // Its stream, if it has one.
                let handles = call.arguments.values.iter();
                let handles = handles.filter_map(|(_, value)| value.handle());
                self.wanted.extend(handles.map(|handle| (session, handle)));
                let context = self.current.get(&(session, call.thread)).copied();
                self.wanted
                    .extend(context.map(|context| (session, context)));
            }
        }
    }

    fn reply(&mut self, reply: &ReplyEvent) {
        let Some((call, today, bytes, module)) = self.asked.remove(&(reply.session, reply.ticket))
        else {
            return;
        };
        let out = |index: usize| match reply.outputs.values.get(index) {
            Some((_, Value::Unsigned(number) | Value::DevicePointer(number))) => Some(*number),
            _ => None,
        };
        let (Some(address), 0) = (out(0), reply.status) else {
            return;
        };
        let at = (reply.session, address);
        match today {
            CallId::cuModuleGetGlobal_v2 | CallId::cuLibraryGetGlobal => {
                self.owners.insert(at, (call, module));
                let context = self.made.get(&call).map_or(0, |made| made.context);
                let device = self.devices.get(&(reply.session, context)).copied();
                if !self.memory.contains_key(&at) {
                    self.memory_begins(at, out(1).unwrap_or(0), device.unwrap_or(0));
                }
            }
            CallId::cuMemAllocPitch_v2 => {
                let bytes = out(1).and_then(|pitch| pitch.checked_mul(bytes));
                self.allocated.insert(at, (bytes.unwrap_or(0), call));
            }
            _ => {
                self.allocated.insert(at, (bytes, call));
            }
        }
    }

    fn memory_begins(&mut self, at: Of, bytes: u64, device: u32) {
        let range = Needed {
            session: at.0,
            device,
            address: at.1,
            bytes,
            uploads: Vec::new(),
            made: false,
        };
        self.memory.insert(at, range);
    }

    fn memory_at(&self, session: u32, address: u64) -> Option<Of> {
        let (at, range) = self.memory.range(..=(session, address)).next_back()?;
        (at.0 == session && address - at.1 < range.bytes).then_some(*at)
    }

    fn need(&mut self, session: u32, address: u64) -> Result<(), Refused> {
        if twin::REGION.contains(&address) {
            return Err(Refused(
                "the chosen calls use memory that kernels share with the program, which is not kept; choose \
                 others, or keep the whole trace"
                    .to_owned(),
            ));
        }
        if let Some(at) = self.memory_at(session, address) {
            let range = self.memory[&at].clone();
            self.needed.entry(at).or_insert(range);
        }
        Ok(())
    }

    /// The variables of the modules that kernels are of.
    fn variables(&mut self, session: u32, functions: &[u64]) {
        let mut of: Vec<u64> = functions.to_vec();
        let mut at = 0;
        while let Some(handle) = of.get(at).copied() {
            at += 1;
            let maker = self.makers.get(&(session, handle));
            let made = maker.and_then(|call| self.made.get(call));
            for next in made.map_or(&[][..], |made| &made.handles) {
                if !of.contains(next) {
                    of.push(*next);
                }
            }
        }
        let owned = self.owners.iter();
        let owned = owned.filter(|(at, (_, module))| at.0 == session && of.contains(module));
        for at in owned.map(|(at, _)| *at).collect::<Vec<_>>() {
            if let Some(range) = self.memory.get(&at) {
                self.needed.entry(at).or_insert_with(|| range.clone());
            }
        }
    }

    fn end(mut self, kernel: Option<Arc<KernelName>>) -> Result<Plan, Refused> {
        let calls = self.reader.calls();
        let Some(place) = self.place else {
            return Err(Refused(format!(
                "the trace has {calls} calls, numbered from 0; choose some of them"
            )));
        };
        for (at, range) in &self.needed {
            let server = self.allocated.range(..=*at).next_back();
            let server =
                server.filter(|(base, (bytes, _))| base.0 == at.0 && at.1 - base.1 < *bytes);
            let server = server.map(|(_, (_, call))| *call);
            let variable = self.owners.get(at).map(|(call, _)| *call);
            // Addresses are used again: the later one counts.
            let maker = server.max(variable);
            self.kept.extend(maker);
            // Memory that was there from the beginning needs the device's context.
            let contexts = self.devices.iter();
            let contexts = contexts.filter(|(of, device)| of.0 == at.0 && **device == range.device);
            self.wanted.extend(contexts.map(|(of, _)| *of));
            self.kept
                .extend(range.uploads.iter().map(|upload| upload.call));
        }
        // Uploads are kept here for what they need, and taken out again where the memory itself is kept.
        let uploads: BTreeSet<u64> = (self.needed.values())
            .flat_map(|range| range.uploads.iter().map(|upload| upload.call))
            .collect();
        let mut open: Vec<u64> = self.kept.iter().copied().collect();
        let mut handles: Vec<Of> = self.wanted.iter().copied().collect();
        loop {
            while let Some(call) = open.pop() {
                if let Some(made) = self.made.get(&call) {
                    let session = made.session;
                    handles.push((session, made.context));
                    handles.extend(made.handles.iter().map(|handle| (session, *handle)));
                    for with in &made.with {
                        self.kept.insert(*with);
                    }
                }
            }
            let Some(handle) = handles.pop() else { break };
            let maker = self.makers.get(&handle).copied();
            let settings = self.settings.remove(&handle).unwrap_or_default();
            for call in maker.into_iter().chain(settings) {
                if call < *self.chosen.start() && self.kept.insert(call) {
                    open.push(call);
                }
            }
        }
        self.kept.retain(|call| !uploads.contains(call));
        Ok(Plan {
            chosen: self.chosen,
            kernel,
            kept: self.kept,
            ranges: self.needed.into_values().collect(),
            results: self.results,
            place,
            calls,
        })
    }
}

/// Whether the call puts bytes into memory of a device.
fn uploads(call: CallId) -> bool {
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
fn written(call: &CallEvent) -> Option<u64> {
    let values = call.arguments.values.iter();
    values.filter_map(|(_, value)| value.address()).next()
}

/// How much it puts there; boxes and fills are told apart by their arguments.
fn uploaded_bytes(call: &CallEvent) -> u64 {
    match call.arguments.get("data") {
        Some(Value::Payload(bytes)) => *bytes,
        Some(Value::Bytes(bytes)) => bytes.len() as u64,
        _ => u64::MAX - call.number,
    }
}

/// The addresses that a call is about: its own, and what looks like one in a kernel's parameters.
fn addresses(today: CallId, call: &CallEvent) -> Vec<u64> {
    let values = call.arguments.values.iter();
    let mut all: Vec<u64> = values.filter_map(|(_, value)| value.address()).collect();
    if let (true, Some(Value::Bytes(parameters))) = (launches(today), call.arguments.get("params"))
    {
        let words = parameters.chunks_exact(8);
        all.extend(words.map(|word| word.first_chunk().copied().map_or(0, u64::from_le_bytes)));
    }
    all
}
