//! Whether what the recording was told of host functions and events can come again.
//!
//! Of what no call asks for nothing ever comes, and a stream never gets past a host function that does not
//! return: a replay of such a trace would wait for what cannot be.

use std::collections::{BTreeSet, HashMap, HashSet};

use harp_trace::event::{CallEvent, ReplyEvent};
use harp_wire::push::Push;
use harp_wire::CallId;

use super::survey::bounded;
use super::Refused;

/// A number (of a host function, a watch, a ticket) of a session.
type Of<T> = (u32, T);

/// A host function in a stream.
#[derive(Clone, Copy, Debug)]
struct Function {
    /// The call that has put it there.
    call: u64,
    /// The stream's handle; default streams have none.
    stream: Option<u64>,
}

/// A call that returns once what was before it is over.
#[derive(Clone, Copy, Debug)]
struct Synchronizing {
    call: u64,
    stream: Option<u64>,
    /// It is about all streams of its context.
    all: bool,
}

/// What has been asked for and not been told yet, as far as the trace has been read.
#[derive(Debug, Default)]
pub struct Pushes {
    queued: HashMap<Of<u64>, Function>,
    /// Functions that have been reached and not returned.
    running: HashMap<Of<u64>, Function>,
    /// The calls of both, by stream.
    in_stream: HashMap<Of<u64>, BTreeSet<u64>>,
    watched: HashSet<Of<u64>>,
    synchronizing: HashMap<Of<u32>, Synchronizing>,
    /// The contexts of each session.
    contexts: HashMap<u32, HashSet<u64>>,
}

impl Pushes {
    /// A call is made.
    ///
    /// # Errors
    /// For a trace with too many of them.
    pub fn called(&mut self, today: CallId, call: &CallEvent) -> Result<(), Refused> {
        let session = call.session;
        let handle = || call.arguments.handles().next();
        let number = |name: &str| {
            let number = call.arguments.unsigned(name);
            number.map(|number| (session, number))
        };
        match today {
            CallId::cuLaunchHostFunc => {
                if let Some(function) = number("callback") {
                    bounded(self.queued.len())?;
                    let (call, stream) = (call.number, handle());
                    if let Some(stream) = stream {
                        let calls = self.in_stream.entry((session, stream)).or_default();
                        calls.insert(call);
                    }
                    let before = self.queued.insert(function, Function { call, stream });
                    if before.is_some() || self.running.contains_key(&function) {
                        let number = function.1;
                        return Err(Refused(format!(
                            "the host function {number} is queued twice"
                        )));
                    }
                }
            }
            CallId::harp_callback_done => {
                let function = number("callback");
                if function.is_none_or(|function| !self.running.contains_key(&function)) {
                    return Err(Refused(
                        "a host function returns that has not been reached".to_owned(),
                    ));
                }
                self.returned(call);
            }
            CallId::harp_event_watch => {
                bounded(self.watched.len())?;
                self.watched.extend(number("number"));
            }
            CallId::cuDevicePrimaryCtxRetain | CallId::cuCtxCreate_v2 => {
                let contexts = self.contexts.entry(session).or_default();
                bounded(contexts.len())?;
                contexts.extend(handle());
            }
            CallId::cuStreamSynchronize | CallId::cuCtxSynchronize => {
                if let Some(ticket) = call.ticket {
                    bounded(self.synchronizing.len())?;
                    let synchronizing = Synchronizing {
                        call: call.number,
                        stream: handle(),
                        all: today == CallId::cuCtxSynchronize,
                    };
                    self.synchronizing.insert((session, ticket), synchronizing);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A call says that a host function has returned, if it is one that does.
    pub fn returned(&mut self, call: &CallEvent) {
        let session = call.session;
        let function = call.arguments.unsigned("callback");
        let function = function.and_then(|number| self.running.remove(&(session, number)));
        let Some(Function { call, stream }) = function else {
            return;
        };
        if let Some(calls) = stream.and_then(|stream| self.in_stream.get_mut(&(session, stream))) {
            calls.remove(&call);
        }
    }

    /// A reply has come.
    ///
    /// # Errors
    /// Where its call has returned without a host function before it: what cannot be.
    pub fn answered(&mut self, reply: &ReplyEvent) -> Result<(), Refused> {
        let session = reply.session;
        let Some(waited) = self.synchronizing.remove(&(session, reply.ticket)) else {
            return Ok(());
        };
        let contexts = self.contexts.get(&session);
        let is_all = waited.all && contexts.is_some_and(|contexts| contexts.len() == 1);
        let is_before = |function: &Function| {
            let is_same = waited.stream.is_some() && function.stream == waited.stream;
            function.call < waited.call && (is_all || is_same)
        };
        let mut running = self.running.iter();
        match running.find(|(of, function)| of.0 == session && is_before(function)) {
            Some((_, function)) if reply.status == 0 => Err(Refused(format!(
                "call {} has returned before the host function of call {} has, so the trace lacks calls; \
                 record it again",
                waited.call, function.call
            ))),
            _ => Ok(()),
        }
    }

    /// The call of a host function that is ahead of another in its stream, and has not returned.
    fn ahead_of(&self, session: u32, function: Function) -> Option<u64> {
        let calls = self.in_stream.get(&(session, function.stream?))?;
        calls.first().copied().filter(|call| *call < function.call)
    }

    /// The server has told something by itself.
    ///
    /// # Errors
    /// A sentence without its place, for what no call has asked for.
    pub fn pushed(&mut self, session: u32, push: &Push) -> Result<(), String> {
        let (what, found) = match push {
            Push::Callback { callback, .. } => {
                let of = (session, *callback);
                let function = self.queued.remove(&of);
                if let Some(before) = function.and_then(|function| self.ahead_of(session, function))
                {
                    return Err(format!(
                        "a host function is reached before that of call {before} has returned, which is ahead of \
                         it in its stream, so the trace lacks calls; record it again"
                    ));
                }
                self.running.extend(function.map(|function| (of, function)));
                ("a host function is reached", function.is_some())
            }
            Push::Event { number, .. } => {
                let found = self.watched.remove(&(session, *number));
                ("an event is over", found)
            }
            Push::Output { .. } | Push::Times { .. } => return Ok(()),
        };
        match found {
            true => Ok(()),
            false => Err(format!(
                "{what} that no call has asked for, so the trace lacks calls; record it again"
            )),
        }
    }
}
