//! A trace of the session, where the server's admin wants one: what the client sends and what it is told, by a recorder
//! (`harp-trace record`) that empties a ring in shared memory.
//!
//! The agent sends a connection to the recorder, made for this session, at its start or at any time later. The order of
//! calls is that of their stream, and that of replies the one in which they are sent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use harp_trace::block::{Block, Policy};
use harp_trace::greeting::greet_over;
use harp_trace::payloads::{self, Policies};
use harp_trace::ring::Producer;
use harp_trace::tape::Tape;
use harp_trace::told::{self, Recorded};
use harp_wire::push::Push;
use harp_wire::record::{RecordHead, RECORD_HEAD_BYTES};
use harp_wire::reply::{replies, PUSH, REPLY_HEAD_BYTES};

/// Bytes of the ring.
const RING_BYTES: usize = 8 << 20;
/// How long the agent may take to say whether a session is to be recorded.
const PATIENCE: Duration = Duration::from_secs(1);
/// The number of the session in its trace, which is of no other.
const SESSION: u32 = 0;

/// This process has one session.
static RECORDER: OnceLock<Recorder> = OnceLock::new();
static ABOUT: OnceLock<About> = OnceLock::new();
static ANSWER: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
static BEGUN: OnceLock<()> = OnceLock::new();

/// Whose session it is.
pub struct About {
    /// What the session is called.
    pub session: String,
    /// The name and number of the program on its host, as that says.
    pub program: String,
    pub pid: u32,
}

/// What records the session.
pub struct Recorder {
    tape: Mutex<Tape>,
    begun: Instant,
    policies: Policies,
    from_start: bool,
    /// Its end is that of the trace.
    _recorder: OwnedFd,
}

/// What records the session, if it is recorded.
#[inline]
pub fn recorder() -> Option<&'static Recorder> {
    RECORDER.get()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whose session it is. To be called before a recording can begin.
pub fn describe(about: About) {
    let _ = ABOUT.set(about);
}

/// The agent has said whether the session is to be recorded.
pub fn answered() {
    *lock(&ANSWER.0) = true;
    ANSWER.1.notify_all();
}

/// Waits until the agent has said so. Without a word of it the session goes on.
pub fn await_answer() {
    let answer = lock(&ANSWER.0);
    let _answer = ANSWER.1.wait_timeout_while(answer, PATIENCE, |it| !*it);
}

/// Records from now on, as much of payloads as `payload` says.
///
/// # Errors
/// Why it is not recorded.
pub fn begin(payload: &str, recorder: OwnedFd) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let policies = Policies::parse(payload)
        .ok_or_else(|| invalid(format!("{payload:?} is no policy for payloads")))?;
    let about = ABOUT
        .get()
        .ok_or_else(|| invalid("nobody has been let in".to_owned()))?;
    if RECORDER.get().is_some() {
        return Err(invalid("it is being recorded".to_owned()));
    }
    let (ring, fds) = Producer::create(RING_BYTES)?;
    greet_over(&recorder, &about.program, fds)?;
    let from_start = BEGUN.get().is_none();
    let recorded = match from_start {
        true => Recorded::Session,
        false => Recorded::RestOfSession,
    };
    let mut tape = Tape::new(ring, policies);
    let process = told::process(&about.program, about.pid, policies, recorded);
    tape.append(0, &Block::Define(&told::define(std::iter::empty())));
    tape.append(0, &Block::Process(&process));
    if !from_start {
        tape.append(
            0,
            &Block::Session(&told::session(0, &about.session, b"", None)),
        );
    }
    let _ = RECORDER.set(Recorder {
        tape: Mutex::new(tape),
        begun: Instant::now(),
        policies,
        from_start,
        _recorder: recorder,
    });
    Ok(())
}

/// The client has been let in, with this snapshot of the devices.
pub fn session_begins(snapshot: &[u8]) {
    let _ = BEGUN.set(());
    let Some(recorder) = recorder().filter(|recorder| recorder.from_start) else {
        return;
    };
    let name = ABOUT.get().map_or("", |about| about.session.as_str());
    let json = told::session(0, name, snapshot, None);
    recorder.append(|_| Block::Session(&json));
}

/// The session ends in good order.
pub fn end() {
    let Some(recorder) = recorder() else { return };
    lock(&recorder.tape).end(recorder.time());
}

impl Recorder {
    /// Nanoseconds since the recording began.
    fn time(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn append<'a>(&self, block: impl FnOnce(u64) -> Block<'a>) {
        let mut tape = lock(&self.tape);
        let time = self.time();
        tape.append(time, &block(time));
    }

    /// Whether a payload has to be whole to be recorded.
    pub fn wants_uploads(&self) -> bool {
        self.policies.uploads.has_hash()
    }

    /// A call, whole, as it lies in the stream.
    #[cold]
    pub fn call(&self, head: &RecordHead, record: &[u8]) {
        let payload = match payloads::sent_by(head.call) {
            Some(_) => payloads::sent_bytes(head.call, &record[RECORD_HEAD_BYTES..]),
            None => 0,
        };
        let (record, payload) = payloads::split(record, payload);
        let mut tape = lock(&self.tape);
        tape.call(self.time(), SESSION, record, payload);
    }

    /// An upload whose payload of so many bytes is not kept: its record up to where that begins.
    #[cold]
    pub fn upload_without_bytes(&self, record: &[u8], bytes: usize) {
        let mut tape = lock(&self.tape);
        tape.call_without_bytes(self.time(), SESSION, record, (Policy::Shape, bytes));
    }

    /// A frame to the client, of whole replies.
    #[cold]
    pub fn frame(&self, frame: &[u8]) {
        let mut tape = lock(&self.tape);
        let time = self.time();
        for (head, body) in replies(frame).flatten() {
            match head.ticket {
                // Times are for the client that has asked for them.
                PUSH if Push::is_times(body) => {}
                PUSH => tape.push(time, SESSION, body),
                _ => tape.reply(time, SESSION, &head.encode(), body, &[]),
            }
        }
    }

    /// A reply to the client: all before its payload, and that.
    #[cold]
    pub fn reply(&self, front: &[u8], payload: &[u8]) {
        let Some((head, outputs)) = front.split_first_chunk::<REPLY_HEAD_BYTES>() else {
            return;
        };
        // The length of a payload is all that there is before one.
        let outputs = if payload.is_empty() { outputs } else { &[] };
        let mut tape = lock(&self.tape);
        tape.reply(self.time(), SESSION, head, outputs, payload);
    }
}
