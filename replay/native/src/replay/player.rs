//! One replay: the blocks of a trace in their order, each call sent once what had come before it in the
//! recording has come again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant};

use harp_trace::block::{Block, Message, Payload, Policy};
use harp_trace::container::Trace;
use harp_trace::event::{CallEvent, Event, Objects, Reader, ReplyEvent, Value};
use harp_wire::calls::{encode_cuMemAlloc_v2, encode_cuMemcpyHtoD_v2};
use harp_wire::push::{OutputStream, Push};
use harp_wire::record::RECORD_HEAD_BYTES;
use harp_wire::reply::REPLY_HEAD_BYTES;
use harp_wire::{CallId, Decoder};

use super::calls::{asks_for_progress, downloads, launches, varies, Calls};
use super::kernels::{Kernels, Launch, Place};
use super::options::{Check, Options};
use super::outputs::{compare, data, Compared, Content};
use super::relocation::{Addresses, Relocated};
use super::report::{Difference, Outcome, What};
use super::scout::Scout;
use super::session::{Arrived, Body, Lost, Printed, Session, LOOK};
use super::survey::Survey;
use super::twins::{Side, Told, Twins, Unlike};
use super::{Ended, Refused};

/// How far the device is, as a reply says that it is not there yet.
const NOT_READY: u32 = 600;
/// Between two questions how far it is.
const QUESTION_PAUSE: Duration = Duration::from_micros(200);
/// What stands behind a host function of another stream is given up as stuck after this time.
const FUNCTION_PATIENCE: Duration = Duration::from_millis(20);
/// The same where it is not known what it stands behind.
const WORK_PATIENCE: Duration = Duration::from_millis(200);
/// A host function or the like that has not been reached after so long a silence never will.
const STUCK: Duration = Duration::from_secs(600);
/// Progress is told this often.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
/// The stream argument of a copy that is synchronous.
const SYNCHRONOUS: u64 = u64::MAX;

/// A call that has been sent and awaits its reply.
struct Sent {
    number: u64,
    call: CallId,
    name: String,
    /// Of one that allocates: what its size is made of.
    bytes: u64,
    maker: Option<Launch>,
    /// Of one that asks how far the device is, to be asked again.
    record: Vec<u8>,
}

/// What something that is waited for comes behind, in a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Host functions of other streams too.
    Functions,
    /// Work of its own stream.
    Work,
}

/// A recorded session and the one that stands for it.
struct Line {
    session: Session,
    addresses: Addresses,
    sent: HashMap<u32, Sent>,
    /// Host functions of the program that are in streams.
    queued: HashSet<u64>,
    /// The contexts of devices.
    contexts: HashMap<i64, u64>,
    /// Blocks of memory that the recorded session had from the beginning and this one has not, by device.
    lacking: HashMap<i64, (u64, u64)>,
    twins: Twins,
    /// What the recording printed.
    printed: Printed,
    /// Errors of earlier calls that replies have told of, with the reply's call.
    told: [VecDeque<(u64, u32)>; 2],
}

/// A replay.
pub struct Player<'a> {
    trace: &'a Trace,
    survey: &'a Survey,
    options: &'a Options,
    reader: Reader,
    calls: Calls,
    kernels: Kernels,
    lines: BTreeMap<u32, Line>,
    outcome: Outcome,
    /// When the last call was sent, in the recording's time and in ours.
    last_sent: Option<(u64, Instant)>,
    /// Looks ahead, once that is needed.
    scout: Option<Scout>,
    /// Calls that have been sent ahead of their turn.
    ahead: HashSet<u64>,
    /// How many calls there are in the trace up to here.
    number: u64,
}

impl<'a> Player<'a> {
    pub fn new(
        trace: &'a Trace,
        survey: &'a Survey,
        options: &'a Options,
    ) -> Result<Player<'a>, Refused> {
        Ok(Player {
            trace,
            survey,
            options,
            reader: Reader::new(),
            calls: Calls::new()?,
            kernels: Kernels::default(),
            lines: BTreeMap::new(),
            outcome: Outcome::default(),
            last_sent: None,
            scout: None,
            ahead: HashSet::new(),
            number: 0,
        })
    }

    /// Replays the trace; `tell` hears how many calls have been sent.
    ///
    /// # Errors
    /// Where it cannot be replayed, or a session is lost.
    pub fn play(mut self, mut tell: impl FnMut(u64)) -> Result<(Outcome, Relocated), Ended> {
        let began = Instant::now();
        let mut told = began;
        let mut blocks = self.trace.blocks().map_err(Refused::from)?;
        while let Some(located) = blocks.next().map_err(Refused::from)? {
            let block = located.decode().map_err(Refused::from)?;
            // The reader owns what it has learned; events borrow from the block alone.
            let event = self
                .reader
                .read(&block)
                .map_err(|error| Refused::from(located.damaged(&error)))?;
            self.take(&block, &event).map_err(|ended| match ended {
                Ended::Lost(Lost(why)) => {
                    Ended::Lost(Lost(format!("around call {}: {why}", self.number)))
                }
                refused => refused,
            })?;
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                tell(self.outcome.sent);
            }
        }
        for line in self.lines.values_mut() {
            line.session.flush()?;
        }
        self.outcome.seconds = began.elapsed().as_secs_f64();
        self.compare_twins();
        self.compare_printed();
        self.compare_told();
        let mut relocated = Relocated::default();
        for (_, line) in std::mem::take(&mut self.lines) {
            relocated.add(&line.addresses.relocated);
            line.session.end();
        }
        Ok((self.outcome, relocated))
    }

    fn take(&mut self, block: &Block, event: &Event) -> Result<(), Ended> {
        match (block, event) {
            (Block::Call(message), Event::Call(call)) => {
                self.number = call.number;
                match self.is_wanted(call.number) || self.is_awaited(call) {
                    true => self.call(message, call),
                    false => Ok(()),
                }
            }
            (Block::Reply(message), Event::Reply(reply)) => self.reply(message, reply),
            (Block::Push(message), _) => self.push(message),
            (Block::Session(json), _) => self.begin(json),
            (_, Event::Free(Some(allocation))) => {
                self.kernels.freed(Place::Allocation(allocation.number));
                Ok(())
            }
            (
                Block::Snapshot {
                    session,
                    device,
                    address,
                    bytes,
                    payload,
                },
                _,
            ) => {
                let content = self.trace.blob(&payload.hash).map_err(Refused::from)?;
                if content.len() as u64 != *bytes {
                    return Err(Refused("a snapshot has another length than it says".into()).into());
                }
                self.restore(*session, *device, *address, &content)
            }
            _ => Ok(()),
        }
    }

    /// Whether a stream waits to hear that a host function has returned: it goes on even after the last call.
    fn is_awaited(&self, call: &CallEvent) -> bool {
        let line = self.lines.get(&call.session);
        match call.arguments.get("callback") {
            Some(Value::Unsigned(callback)) if &*call.arguments.name == "harp_callback_done" => {
                line.is_some_and(|line| line.queued.contains(callback))
            }
            _ => false,
        }
    }

    fn is_wanted(&self, number: u64) -> bool {
        self.options.to.is_none_or(|to| number <= to)
    }

    /// Begins the session that stands for a recorded one.
    fn begin(&mut self, json: &[u8]) -> Result<(), Ended> {
        let (number, _) = super::snapshot::Snapshot::recorded(json)?;
        let recorded = &self.survey.sessions[&number];
        let first = self
            .options
            .first_window
            .or_else(|| recorded.snapshot.first_window());
        let session = Session::begin(&self.options.server, first)?;
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

    fn call(&mut self, message: &Message, event: &CallEvent) -> Result<(), Ended> {
        let schema = self.reader.schema();
        let call = self.calls.today(schema, event.call).map_err(Refused)?;
        let line = line_of(&mut self.lines, event.session)?;
        let mut record = message.bytes.to_vec();
        record[4..6].copy_from_slice(&call.0.to_le_bytes());
        let known = schema.call(event.call);
        let fields = known.map_or(&[][..], |known| &known.inputs);
        if line.addresses.have_moved() {
            let arguments = &mut record[RECORD_HEAD_BYTES..];
            line.addresses.rewrite(fields, arguments, launches(call));
        }
        let payload = content(self.trace, event.number, message.payload)?;
        if line.addresses.have_moved() && call != CallId::harp_blob_append {
            line.addresses.look_into(&payload);
        }
        if self.options.as_recorded {
            keep_time(&mut self.last_sent, event.time, line)?;
        }
        if let Some(ticket) = event.ticket {
            let sent = Sent {
                number: event.number,
                call,
                name: event.arguments.name.to_string(),
                bytes: allocated_bytes(call, event),
                maker: None,
                record: match asks_for_progress(call) {
                    true => record.clone(),
                    false => Vec::new(),
                },
            };
            line.sent.insert(ticket, sent);
        }
        if !self.ahead.remove(&event.number) {
            line.session.send(&record, &payload, event.ticket)?;
        }
        self.outcome.sent += 1;
        match call {
            CallId::harp_twin_write => {
                let here = match event.arguments.get("lines") {
                    Some(Value::Bytes(bytes)) => &bytes[..],
                    _ => &payload,
                };
                // The server judges what is none.
                line.twins
                    .change(&[Side::Recorded, Side::Replayed], here, None);
            }
            CallId::harp_twin_destroy => {
                if let Some(Value::Unsigned(base)) = event.arguments.get("base") {
                    self.kernels.freed(Place::Twin(event.session, *base));
                    let tolerance = self.options.tolerance.as_ref();
                    if let Some(unlike) = line.twins.destroy(*base, tolerance) {
                        self.twins_differ(event.session, unlike);
                    }
                }
            }
            _ => {}
        }
        self.learn_call(call, event)
    }

    /// Keeps what a call that has been sent means for later ones.
    fn learn_call(&mut self, call: CallId, event: &CallEvent) -> Result<(), Ended> {
        let line = line_of(&mut self.lines, event.session)?;
        let value = |name: &str| event.arguments.get(name);
        match call {
            CallId::harp_event_watch => {
                if let (Some(Value::Handle(event)), Some(Value::Unsigned(number))) =
                    (value("event"), value("number"))
                {
                    line.session.watches(*event, *number);
                }
            }
            CallId::cuLaunchHostFunc | CallId::harp_callback_done => {
                if let Some(Value::Unsigned(callback)) = value("callback") {
                    match call {
                        CallId::cuLaunchHostFunc => line.queued.insert(*callback),
                        _ => {
                            line.session.returns(*callback);
                            line.queued.remove(callback)
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
                    kernel: event.kernel.clone().unwrap_or_else(|| "unknown".into()),
                };
                let stream = value("stream").map_or(0, stream_number);
                if let Some(Value::Bytes(parameters)) = value("params") {
                    let of = (event.session, stream);
                    let objects = self.reader.objects();
                    let place = |address| place_of(objects, &line.twins, event.session, address);
                    self.kernels.launched(of, &launch, parameters, place);
                }
            }
            CallId::harp_twin_create => {
                if let (Some(Value::Unsigned(base)), Some(Value::Unsigned(bytes))) =
                    (value("base"), value("bytes"))
                {
                    line.twins.create(*base, *bytes);
                }
            }
            _ if downloads(call) => {
                let stream = value("stream").map(stream_number);
                let stream = stream.filter(|stream| *stream != SYNCHRONOUS && *stream != 0);
                let address = value("src").and_then(Value::address).unwrap_or(0);
                let bytes = match value("bytes") {
                    Some(Value::Unsigned(bytes)) => *bytes,
                    _ => 1,
                };
                let of = (event.session, stream);
                let objects = self.reader.objects();
                let place = place_of(objects, &line.twins, event.session, address);
                let maker = self.kernels.maker(of, (address, bytes), place);
                if let Some(sent) = event.ticket.and_then(|ticket| line.sent.get_mut(&ticket)) {
                    sent.maker = maker.cloned();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn reply(&mut self, message: &Message, event: &ReplyEvent) -> Result<(), Ended> {
        let Some(sent) = line_of(&mut self.lines, event.session)?
            .sent
            .remove(&event.ticket)
        else {
            return match self.options.to.is_some() {
                true => Ok(()),
                false => Err(Refused(format!(
                    "after call {}: a reply to a call that the trace does not have (ticket {})",
                    self.number, event.ticket
                ))
                .into()),
            };
        };
        let is_landing = sent.call == CallId::cuMemcpyDtoHAsync_v2;
        let ticket = event.ticket;
        let behind = if is_landing {
            Behind::Functions
        } else {
            Behind::Work
        };
        let mut arrived = self.wait(event.session, behind, |session| session.take_reply(ticket))?;
        // The program went on as it found the device to be there: so it is to be now.
        while event.status == 0 && arrived.status == NOT_READY && !sent.record.is_empty() {
            sleep(QUESTION_PAUSE);
            let line = line_of(&mut self.lines, event.session)?;
            line.session.send(&sent.record, &[], Some(ticket))?;
            arrived = self.wait(event.session, behind, |session| session.take_reply(ticket))?;
        }
        let line = line_of(&mut self.lines, event.session)?;
        if event.status == 0 && arrived.status == 0 {
            learn_memory(&mut line.addresses, &sent, message.bytes, &arrived);
        }
        for (told, code) in line.told.iter_mut().zip([event.deferred, arrived.deferred]) {
            if code != 0 {
                told.push_back((sent.number, code));
            }
        }
        if !varies(sent.call) {
            self.outcome.marks.push(mark(&arrived));
        }
        if sent.call == CallId::harp_twin_read && event.status == 0 && arrived.status == 0 {
            self.twins_told(message, event.session, sent.number, &arrived)?;
        }
        if sent.number >= self.options.from && self.is_wanted(sent.number) {
            self.compare(message, event, sent, &arrived)?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        message: &Message,
        event: &ReplyEvent,
        sent: Sent,
        arrived: &Arrived,
    ) -> Result<(), Ended> {
        let check = self.options.check;
        let differs = |what| Difference {
            call: Some(sent.number),
            name: sent.name.clone(),
            session: event.session,
            kernel: sent.maker.clone(),
            what,
        };
        if check.of_codes() {
            if asks_for_progress(sent.call) && [event.status, arrived.status].contains(&NOT_READY) {
                self.outcome.skip("the device was not as far");
                return Ok(());
            }
            self.outcome.codes += 1;
            if event.status != arrived.status {
                self.outcome.differs(differs(What::Status {
                    recorded: event.status,
                    replayed: arrived.status,
                }));
                return Ok(());
            }
        }
        let is_compared = match check {
            Check::Outputs => downloads(sent.call),
            Check::Final => self.survey.finals.contains(&sent.number),
            Check::Off | Check::Returns => false,
        };
        if !is_compared || event.status != 0 || arrived.status != 0 {
            return Ok(());
        }
        let recorded = Content::of(message, 0).ok_or_else(|| malformed_reply(sent.number))?;
        let tolerance = self.options.tolerance.as_ref();
        let compared = compare(self.trace, recorded, &arrived.body, tolerance);
        match compared.map_err(Refused::from)? {
            Compared::Same => self.outcome.data += 1,
            Compared::Different(what) => {
                self.outcome.data += 1;
                self.outcome.differs(differs(what));
            }
            Compared::Not(why) => self.outcome.skip(why),
        }
        Ok(())
    }

    /// The device has told what it has changed of the memory that it shares with the program.
    fn twins_told(
        &mut self,
        message: &Message,
        session: u32,
        call: u64,
        arrived: &Arrived,
    ) -> Result<(), Ended> {
        /// Before the data there is how far it reaches.
        const BEFORE: usize = 8;
        if !self.options.check.of_data() {
            return Ok(());
        }
        let recorded = Content::of(message, BEFORE).ok_or_else(|| malformed_reply(call))?;
        let stored;
        let recorded = match recorded {
            Content::Here(bytes) => bytes,
            Content::Payload(payload) if payload.policy == Policy::Full => {
                stored = self.trace.blob(&payload.hash).map_err(Refused::from)?;
                &stored[..]
            }
            Content::Payload(_) => {
                self.outcome
                    .skip("shared memory, which was not recorded in full");
                return Ok(());
            }
        };
        let Some(replayed) = data(&arrived.body, BEFORE) else {
            self.outcome.skip("too much data came at once");
            return Ok(());
        };
        if recorded.is_empty() && replayed.is_empty() {
            return Ok(());
        }
        let line = line_of(&mut self.lines, session)?;
        for (side, changes) in [(Side::Recorded, recorded), (Side::Replayed, replayed)] {
            let first = harp_wire::twin::lines(changes).next().flatten();
            let address = first.map_or(0, |line| line.address);
            let place = place_of(self.reader.objects(), &line.twins, session, address);
            let maker = self.kernels.maker((session, None), (address, 1), place);
            let told = Told {
                call,
                maker: maker.cloned(),
            };
            if !line.twins.change(&[side], changes, Some(&told)) {
                return Err(malformed_reply(call).into());
            }
        }
        line.twins.settle([recorded, replayed]);
        self.outcome.data += 1;
        Ok(())
    }

    fn twins_differ(&mut self, session: u32, unlike: Unlike) {
        if unlike.told.call >= self.options.from {
            self.outcome.differs(Difference {
                call: Some(unlike.told.call),
                name: "harp_twin_read".to_owned(),
                session,
                kernel: unlike.told.maker,
                what: What::Data(unlike.deviation),
            });
        }
    }

    fn compare_twins(&mut self) {
        let tolerance = self.options.tolerance.as_ref();
        let mut all = Vec::new();
        for (session, line) in &mut self.lines {
            if line.twins.overflown {
                self.outcome.skip("more shared memory than is looked after");
            }
            let unlike = line.twins.end(tolerance);
            all.extend(unlike.into_iter().map(|unlike| (*session, unlike)));
        }
        for (session, unlike) in all {
            self.twins_differ(session, unlike);
        }
    }

    fn push(&mut self, message: &Message) -> Result<(), Ended> {
        let is_over = !self.is_wanted(self.number.saturating_add(1));
        let session = message.session;
        let push = Push::decode(&mut Decoder::new(message.bytes))
            .map_err(|_| Refused(format!("after call {}: a malformed push", self.number)))?;
        match push {
            Some(Push::Output { stream, text }) => {
                line_of(&mut self.lines, session)?
                    .printed
                    .add(stream, &text);
            }
            // What comes after the last call may be due to those after it.
            Some(_) if is_over => {}
            Some(Push::Callback { callback, .. }) => {
                let reached = |session: &mut Session| session.take_reached(callback).then_some(());
                self.wait(session, Behind::Functions, reached)?;
            }
            Some(Push::Event { number, .. }) => {
                let over = |session: &mut Session| session.take_over(number).then_some(());
                self.wait(session, Behind::Work, over)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Waits until what the recording had got by now has come.
    fn wait<T>(
        &mut self,
        session: u32,
        behind: Behind,
        mut came: impl FnMut(&mut Session) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut quiet = Instant::now();
        loop {
            let line = line_of(&mut self.lines, session)?;
            if let Some(came) = came(&mut line.session) {
                return Ok(came);
            }
            let running = line.session.running_early();
            let patience = match (running, behind) {
                (None, _) => LOOK,
                (Some(_), Behind::Functions) => FUNCTION_PATIENCE,
                (Some(_), Behind::Work) => WORK_PATIENCE,
            };
            if line.session.listen(patience)? {
                quiet = Instant::now();
            } else if let Some(running) = running {
                self.answer_ahead(session, running)?;
            }
            if behind == Behind::Functions && quiet.elapsed() >= STUCK {
                return Err(Lost(format!(
                    "the device has not come in {} s to where it was in the recording by now; see what differs \
                     up to there with --to",
                    STUCK.as_secs()
                ))
                .into());
            }
        }
    }

    /// A host function returns ahead of its turn, for it holds up what came before it in the recording.
    fn answer_ahead(&mut self, session: u32, callback: u64) -> Result<(), Ended> {
        let scout = match &mut self.scout {
            Some(scout) => scout,
            none => none.insert(Scout::new(self.trace)?),
        };
        let of = (session, callback);
        let ahead = scout.end_of(of, self.number, self.reader.schema(), &mut self.calls)?;
        let line = line_of(&mut self.lines, session)?;
        for call in ahead {
            let payload = content(self.trace, call.number, call.payload)?;
            line.session.send(&call.record, &payload, None)?;
            line.session.returns(callback);
            self.ahead.insert(call.number);
        }
        Ok(())
    }

    /// Writes memory as it was before the next call.
    fn restore(
        &mut self,
        session: u32,
        device: u32,
        address: u64,
        content: &[u8],
    ) -> Result<(), Ended> {
        let line = line_of(&mut self.lines, session)?;
        let Some(context) = line.contexts.get(&i64::from(device)).copied() else {
            return Err(Refused(format!(
                "a snapshot of memory of device {device}, which has no context there"
            ))
            .into());
        };
        let address = line.addresses.now(address);
        let encode = |encoder: &mut _| encode_cuMemcpyHtoD_v2(encoder, address, SYNCHRONOUS);
        line.session
            .tell(context, CallId::cuMemcpyHtoD_v2, encode, content)?;
        Ok(())
    }

    fn compare_printed(&mut self) {
        let whole = self.options.to.is_none() && self.options.from == 0 && self.survey.complete;
        if self.options.check != Check::Outputs || !whole {
            return;
        }
        for (number, line) in &self.lines {
            let (then, now) = (&line.printed, &line.session.printed);
            if then.cut || now.cut {
                self.outcome.skip("too much text");
                continue;
            }
            for (stream, name) in [
                (OutputStream::Stdout, "standard output"),
                (OutputStream::Stderr, "standard error"),
            ] {
                let (then, now) = (then.text(stream), now.text(stream));
                if then.is_empty() && now.is_empty() {
                    continue;
                }
                self.outcome.data += 1;
                if let Some((recorded, replayed)) = other_lines(then, now) {
                    self.outcome.differs(Difference {
                        call: None,
                        name: name.to_owned(),
                        session: *number,
                        kernel: None,
                        what: What::Printed { recorded, replayed },
                    });
                }
            }
        }
    }

    /// Errors of one-way calls are told by whichever reply comes next, so only their order is compared.
    fn compare_told(&mut self) {
        if !self.options.check.of_codes() {
            return;
        }
        for (number, line) in &mut self.lines {
            let [then, now] = &mut line.told;
            loop {
                let (recorded, replayed) = (then.pop_front(), now.pop_front());
                let Some((call, _)) = recorded.or(replayed) else {
                    break;
                };
                let code = |told: Option<(u64, u32)>| told.map_or(0, |(_, code)| code);
                let (recorded, replayed) = (code(recorded), code(replayed));
                if recorded != replayed && call >= self.options.from {
                    self.outcome.differs(Difference {
                        call: Some(call),
                        name: "a reply".to_owned(),
                        session: *number,
                        kernel: None,
                        what: What::Deferred { recorded, replayed },
                    });
                    break;
                }
            }
        }
    }
}

fn line_of(lines: &mut BTreeMap<u32, Line>, session: u32) -> Result<&mut Line, Ended> {
    lines
        .get_mut(&session)
        .ok_or_else(|| Refused(format!("session {session} has no beginning in the trace")).into())
}

/// The bytes that a call ends with.
fn content(trace: &Trace, call: u64, payload: Option<Payload>) -> Result<Vec<u8>, Refused> {
    match payload {
        None => Ok(Vec::new()),
        Some(payload) if payload.policy == Policy::Full => {
            let content = trace.blob(&payload.hash)?;
            match content.len() as u64 == payload.length {
                true => Ok(content),
                false => Err(Refused(format!(
                    "call {call}: its content has another length than it says; record it again"
                ))),
            }
        }
        // The record's own length, which has been checked, holds it.
        Some(payload) => Ok(vec![0; payload.length as usize]),
    }
}

/// Waits until as much time has passed since the last call as in the recording.
fn keep_time(last: &mut Option<(u64, Instant)>, time: u64, line: &mut Line) -> Result<(), Lost> {
    if let Some((then, sent)) = *last {
        let due = sent + Duration::from_nanos(time.saturating_sub(then));
        let left = due.saturating_duration_since(Instant::now());
        if left > Duration::from_micros(50) {
            line.session.flush()?;
            sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    *last = Some((time, Instant::now()));
    Ok(())
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
fn allocated_bytes(call: CallId, event: &CallEvent) -> u64 {
    let name = match call {
        CallId::cuMemAlloc_v2 | CallId::cuMemAllocAsync | CallId::cuMemAllocFromPoolAsync => {
            "bytesize"
        }
        CallId::cuMemAllocPitch_v2 => "Height",
        _ => return 0,
    };
    match event.arguments.get(name) {
        Some(Value::Unsigned(number)) => *number,
        _ => 0,
    }
}

/// Keeps where memory lies that a call has got.
fn learn_memory(addresses: &mut Addresses, sent: &Sent, recorded: &[u8], arrived: &Arrived) {
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

fn malformed_reply(call: u64) -> Refused {
    Refused(format!(
        "the reply to call {call} is malformed; record the trace again"
    ))
}

/// The memory that an address of a session lies in.
fn place_of(objects: &Objects, twins: &Twins, session: u32, address: u64) -> Option<Place> {
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

/// What two replays must have in common of a reply.
fn mark(arrived: &Arrived) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&arrived.status.to_le_bytes());
    match &arrived.body {
        Body::Here(bytes) => hasher.update(bytes),
        Body::Gone { bytes, .. } => hasher.update(&bytes.to_le_bytes()),
    };
    let hash = *hasher.finalize().as_bytes();
    hash.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// A line that one text has more often than the other; blocks of a kernel print in any order.
fn other_lines(then: &[u8], now: &[u8]) -> Option<(String, String)> {
    if then == now {
        return None;
    }
    let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
    for (text, count) in [(then, 1), (now, -1)] {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            *counts.entry(line).or_default() += count;
        }
    }
    let shown = |sign: i64| {
        let line = counts.iter().find(|(_, count)| count.signum() == sign);
        line.map(|(line, _)| {
            let text = String::from_utf8_lossy(line);
            text.trim_end_matches('\n').chars().take(200).collect()
        })
    };
    match (shown(1), shown(-1)) {
        (None, None) => None,
        (then, now) => Some((then.unwrap_or_default(), now.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_lines_are_compared_whatever_their_order() {
        assert_eq!(other_lines(b"a\nb\n", b"b\na\n"), None);
        let found = other_lines(b"a\nb\nb\n", b"a\nb\nc\n").unwrap();
        assert_eq!(found, ("b".to_owned(), "c".to_owned()));
        let found = other_lines(b"", b"more\n").unwrap();
        assert_eq!(found, (String::new(), "more".to_owned()));
    }
}
