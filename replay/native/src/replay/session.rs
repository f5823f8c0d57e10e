//! One session with a server, driven as a recorded program drove its own: records go out in batches, and
//! what comes is kept until the recording says that it was read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use harp_transport::{
    connect_persisting, ClientConfig, FrameHead, FrameKind, Hello, Next, Receiver, Resuming,
    Sender, Wait,
};
use harp_wire::calls::encode_harp_set_current;
use harp_wire::push::{OutputStream, Push};
use harp_wire::reply::{ReplyHead, PUSH, REPLY_HEAD_BYTES};
use harp_wire::{windows, CallId, Decoder, Encoder};

use super::options::{Patience, Server};
use super::snapshot::Snapshot;
use super::Refused;

/// A batch of this many bytes leaves at once.
const BATCH_BYTES: usize = 16 << 10;
/// What came and was not asked for yet: beyond this many bytes only what it is called is kept.
const HELD_MAX: usize = 256 << 20;
/// How often a wait looks around.
pub const LOOK: Duration = Duration::from_millis(200);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);
/// A session that does not come back in this time is over.
const RESUME: Duration = Duration::from_secs(10);
/// Bytes of printed text that are kept.
const PRINTED_MAX: usize = 16 << 20;
/// The thread that calls of the replay itself are made in.
const OWN_THREAD: u32 = u32::MAX - 1;

/// Why a session does not go on: one line, with the next step.
#[derive(Debug)]
pub struct Lost(pub String);

/// The outputs of a reply.
#[derive(Debug)]
pub enum Body {
    Here(Vec<u8>),
    /// Too many bytes to be kept.
    Gone {
        head: Vec<u8>,
        bytes: usize,
    },
}

/// A reply that has come.
#[derive(Debug)]
pub struct Arrived {
    pub status: u32,
    pub deferred: u32,
    pub body: Body,
}

/// What kernels have printed, by stream.
#[derive(Debug, Default)]
pub struct Printed {
    texts: [Vec<u8>; 2],
    /// Some of it has not been kept.
    pub cut: bool,
}

impl Printed {
    pub fn add(&mut self, stream: OutputStream, text: &[u8]) {
        let kept = &mut self.texts[stream as usize];
        let room = PRINTED_MAX - kept.len();
        self.cut |= text.len() > room;
        kept.extend_from_slice(&text[..text.len().min(room)]);
    }

    pub fn text(&self, stream: OutputStream) -> &[u8] {
        &self.texts[stream as usize]
    }
}

/// A session of the replay.
pub struct Session {
    sender: Sender,
    receiver: Receiver,
    pub snapshot: Snapshot,
    patience: Patience,
    batch: Vec<u8>,
    /// Tickets that a reply is to come for.
    expected: HashSet<u32>,
    arrived: HashMap<u32, Arrived>,
    held: usize,
    /// Frames that have come.
    frames: u64,
    /// Host functions that streams have reached.
    reached: HashSet<u64>,
    /// Those of them that have not returned.
    running: BTreeSet<u64>,
    /// Watched events that are over, or that nobody will be told of any more.
    over: HashSet<u64>,
    /// The last watch of each event.
    watched: HashMap<u64, u64>,
    pub printed: Printed,
    last_own_ticket: u32,
}

impl Session {
    /// Connects. The devices' addresses are to start at `first_window`, where the server does not put them there
    /// by itself.
    ///
    /// # Errors
    /// Why there is no session.
    pub fn begin(
        server: &Server,
        first_window: Option<u64>,
        patience: Patience,
    ) -> Result<Session, Lost> {
        let read = |name: &str| {
            let path = server.credentials.join(name);
            fs::read_to_string(&path).map_err(|error| {
                Lost(format!(
                    "cannot read the credential {}: {error}; name their folder with --credentials",
                    path.display()
                ))
            })
        };
        let config = ClientConfig {
            ca_pem: read("ca.pem")?,
            cert_pem: read("client.pem")?,
            key_pem: read("client.key")?,
            server_name: server.name.clone(),
        };
        let mut hello = Hello {
            program: "harp-replay".to_owned(),
            pid: std::process::id(),
            ..Hello::current()
        };
        if let Some(first) = first_window {
            hello
                .options
                .insert(windows::OPTION.to_owned(), first.to_string());
        }
        // What a stranger's trace holds is not kept for programs.
        hello
            .options
            .insert(harp_content::OPTION.to_owned(), "off".to_owned());
        let resuming = Resuming {
            limit: RESUME,
            ..Resuming::default()
        };
        let connected = connect_persisting(&server.address, &config, &hello, CONNECT, &resuming);
        let (mut sender, receiver, welcome, _) = connected.map_err(|error| {
            Lost(format!(
                "cannot use the pool server {}: {error}; {}",
                server.address,
                error.next_step()
            ))
        })?;
        sender.set_send_timeout(patience.0);
        let snapshot = Snapshot::parse(&welcome.snapshot)
            .map_err(|error| Lost(format!("the server's {error}; use one of this version")))?;
        Ok(Session {
            sender,
            receiver,
            snapshot,
            patience,
            batch: Vec::new(),
            expected: HashSet::new(),
            arrived: HashMap::new(),
            held: 0,
            frames: 0,
            reached: HashSet::new(),
            running: BTreeSet::new(),
            over: HashSet::new(),
            watched: HashMap::new(),
            printed: Printed::default(),
            last_own_ticket: 0,
        })
    }

    /// Sends a record, whose last bytes are `payload`; it leaves soon.
    ///
    /// # Errors
    /// Where the session is lost, or a reply with that ticket is awaited already.
    pub fn send(&mut self, record: &[u8], payload: &[u8], ticket: Option<u32>) -> Result<(), Lost> {
        if let Some(ticket) = ticket {
            if self.arrived.contains_key(&ticket) || !self.expected.insert(ticket) {
                return Err(Lost(format!(
                    "the ticket {ticket} is used again before it is answered; record the trace again"
                )));
            }
        }
        self.batch.extend_from_slice(record);
        if payload.len() < BATCH_BYTES {
            self.batch.extend_from_slice(payload);
            return match self.batch.len() < BATCH_BYTES {
                true => Ok(()),
                false => self.flush(),
            };
        }
        let sent = self.sender.send(&[&self.batch, payload]);
        self.sent(sent)
    }

    /// Sends what has been batched.
    ///
    /// # Errors
    /// Where the session is lost.
    pub fn flush(&mut self) -> Result<(), Lost> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let sent = self.sender.send(&[&self.batch]);
        self.sent(sent)
    }

    fn sent(&mut self, sent: std::io::Result<()>) -> Result<(), Lost> {
        self.batch.clear();
        if let Err(error) = sent {
            // What the server said before it closed the connection is the better cause.
            while let Ok(true) = self.read_next(Duration::ZERO) {}
            return match self.read_next(Duration::ZERO) {
                Err(lost) => Err(lost),
                Ok(_) if error.kind() == ErrorKind::TimedOut => {
                    Err(self.patience.exhausted("it to take more calls"))
                }
                Ok(_) => Err(lost(&error.to_string())),
            };
        }
        while self.receiver.readable_now() {
            if !self.read_next(Duration::ZERO)? {
                break;
            }
        }
        Ok(())
    }

    /// The reply with that ticket, if it has come.
    pub fn take_reply(&mut self, ticket: u32) -> Option<Arrived> {
        let arrived = self.arrived.remove(&ticket)?;
        if let Body::Here(bytes) = &arrived.body {
            self.held -= bytes.len();
        }
        Some(arrived)
    }

    /// Whether a stream has reached a host function, said once.
    pub fn take_reached(&mut self, callback: u64) -> bool {
        self.reached.remove(&callback)
    }

    /// Whether a watched event is over, said once.
    pub fn take_over(&mut self, number: u64) -> bool {
        self.over.remove(&number)
    }

    /// A host function that has been reached before its turn and not returned: one that the recording
    /// had reached by now did not hold up there what comes now.
    pub fn running_early(&self) -> Option<u64> {
        self.running
            .iter()
            .find(|callback| self.reached.contains(callback))
            .copied()
    }

    /// A host function returns.
    pub fn returns(&mut self, callback: u64) {
        self.running.remove(&callback);
    }

    /// Takes in what comes within a time; false if nothing did.
    ///
    /// # Errors
    /// Where the session is lost.
    pub fn listen(&mut self, timeout: Duration) -> Result<bool, Lost> {
        let before = self.frames;
        self.flush()?;
        // What has come while that was sent may be what is waited for.
        Ok(self.frames != before || self.read_next(timeout)?)
    }

    /// Waits for the reply with that ticket.
    ///
    /// # Errors
    /// Where the session is lost.
    fn reply(&mut self, ticket: u32) -> Result<Arrived, Lost> {
        let mut quiet = Instant::now();
        loop {
            if let Some(arrived) = self.take_reply(ticket) {
                return Ok(arrived);
            }
            if self.listen(LOOK)? {
                quiet = Instant::now();
            }
            let what = || "a call of its own to be answered".to_owned();
            self.patience.allows(quiet, &what)?;
        }
    }

    /// The client is told of `event` as `number` from now on: not of an earlier watch of it any more.
    pub fn watches(&mut self, event: u64, number: u64) {
        if let Some(before) = self.watched.insert(event, number) {
            self.over.insert(before);
        }
    }

    /// Nobody will be told of that event any more, or of any.
    pub fn watches_end(&mut self, event: Option<u64>) {
        match event {
            Some(event) => self.over.extend(self.watched.remove(&event)),
            None => self
                .over
                .extend(self.watched.drain().map(|(_, number)| number)),
        }
    }

    /// Makes a call of the replay's own, in which `context` is current, and waits for its reply.
    ///
    /// # Errors
    /// Where the session is lost.
    pub fn ask(
        &mut self,
        context: u64,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
    ) -> Result<Arrived, Lost> {
        self.make_current(context)?;
        let ticket = self.own_ticket();
        let mut encoder = Encoder::new();
        let start = encoder.begin_record(call, Some(ticket), OWN_THREAD);
        encode(&mut encoder);
        encoder.end_record(start);
        self.send(encoder.as_slice(), &[], Some(ticket))?;
        self.reply(ticket)
    }

    /// Makes a call of the replay's own that ends with `payload` and has no reply.
    ///
    /// # Errors
    /// Where the session is lost.
    pub fn tell(
        &mut self,
        context: u64,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        payload: &[u8],
    ) -> Result<(), Lost> {
        self.make_current(context)?;
        let mut encoder = Encoder::new();
        let start = encoder.begin_record(call, None, OWN_THREAD);
        encode(&mut encoder);
        encoder.u64(payload.len() as u64);
        encoder.end_record_with(start, payload.len());
        self.send(encoder.as_slice(), payload, None)
    }

    fn make_current(&mut self, context: u64) -> Result<(), Lost> {
        let mut encoder = Encoder::new();
        let start = encoder.begin_record(CallId::harp_set_current, None, OWN_THREAD);
        encode_harp_set_current(&mut encoder, context);
        encoder.end_record(start);
        self.send(encoder.as_slice(), &[], None)
    }

    /// A ticket that no recorded call has just now: those are counted from 1.
    fn own_ticket(&mut self) -> u32 {
        loop {
            self.last_own_ticket = self.last_own_ticket.wrapping_sub(1);
            let ticket = self.last_own_ticket;
            let is_used = self.expected.contains(&ticket) || self.arrived.contains_key(&ticket);
            if ticket != PUSH && !is_used {
                return ticket;
            }
        }
    }

    /// Says goodbye. What comes afterwards is of no interest.
    pub fn end(mut self) {
        self.sender.set_send_timeout(Duration::from_secs(1));
        if self.flush().is_ok() {
            let _ = self.sender.bye();
        }
        self.sender.linger(Duration::from_secs(1));
    }

    /// Reads the next frame; false if none came within the time.
    fn read_next(&mut self, timeout: Duration) -> Result<bool, Lost> {
        let wait = Wait {
            spin: None,
            timeout: Some(timeout),
        };
        let next = self.receiver.next(wait);
        self.frames += u64::from(matches!(next, Ok(Next::Frame(_))));
        match next {
            Ok(Next::Frame(FrameHead {
                kind: FrameKind::Replies,
                len,
            })) => self.read_replies(len)?,
            Ok(Next::Frame(FrameHead {
                kind: FrameKind::Bye(reason),
                ..
            })) if reason.starts_with("violation") => {
                return Err(Lost(format!(
                    "the server says: {reason}; no program makes such calls: record the trace again"
                )))
            }
            Ok(Next::Frame(FrameHead {
                kind: FrameKind::Bye(reason),
                ..
            })) => return Err(lost(&format!("the server says: {reason}"))),
            Ok(Next::Frame(_)) => {}
            Ok(Next::Idle) => return Ok(false),
            Ok(Next::Closed) => return Err(lost("the server closed the session")),
            Err(error) => return Err(lost(&error.to_string())),
        }
        Ok(true)
    }

    fn read_replies(&mut self, mut left: usize) -> Result<(), Lost> {
        while left > 0 {
            let mut bytes = [0; REPLY_HEAD_BYTES];
            left = left.checked_sub(bytes.len()).ok_or_else(malformed)?;
            self.read(&mut bytes)?;
            let head = ReplyHead::decode(&bytes);
            let body_bytes = head.body_bytes().ok_or_else(malformed)?;
            left = left.checked_sub(body_bytes).ok_or_else(malformed)?;
            let mut body = vec![0; body_bytes];
            self.read(&mut body)?;
            if head.ticket == PUSH {
                self.take_push(&body)?;
            } else if self.expected.remove(&head.ticket) {
                let body = self.hold(body);
                let arrived = Arrived {
                    status: head.status,
                    deferred: head.deferred,
                    body,
                };
                self.arrived.insert(head.ticket, arrived);
            } else {
                return Err(lost("the server answered a call that was not made"));
            }
        }
        Ok(())
    }

    fn read(&mut self, target: &mut [u8]) -> Result<(), Lost> {
        self.receiver
            .read(target)
            .map_err(|error| lost(&error.to_string()))
    }

    fn hold(&mut self, body: Vec<u8>) -> Body {
        const HEAD: usize = 64;
        if self.held + body.len() > HELD_MAX && body.len() > HEAD {
            return Body::Gone {
                head: body[..HEAD].to_vec(),
                bytes: body.len(),
            };
        }
        self.held += body.len();
        Body::Here(body)
    }

    fn take_push(&mut self, body: &[u8]) -> Result<(), Lost> {
        match Push::decode(&mut Decoder::new(body)) {
            Ok(Some(Push::Callback { callback, .. })) => {
                self.reached.insert(callback);
                self.running.insert(callback);
            }
            Ok(Some(Push::Event { number, .. })) => {
                self.over.insert(number);
            }
            Ok(Some(Push::Output { stream, text })) => self.printed.add(stream, &text),
            Ok(Some(Push::Times { .. }) | None) => {}
            Err(_) => return Err(malformed()),
        }
        Ok(())
    }
}

fn lost(cause: &str) -> Lost {
    Lost(format!(
        "{cause}; look into the server's log, or replay on another device"
    ))
}

fn malformed() -> Lost {
    lost("the server sent a malformed reply")
}

impl From<Refused> for Lost {
    fn from(Refused(why): Refused) -> Lost {
        Lost(why)
    }
}
