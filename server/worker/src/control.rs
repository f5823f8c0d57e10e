//! The worker's end of its control socket: the assignment comes in, events go out, one JSON object per message.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use harp_content::channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest assignment: two PEM chains and names.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// The first message that the agent sends: whose session this process becomes.
#[derive(Debug, Deserialize)]
pub struct Assignment {
    /// Name of the session in logs, the welcome and the certificate.
    pub session: String,
    /// Certificate chain of this session, leaf first.
    pub cert_pem: String,
    /// Key of the leaf.
    pub key_pem: String,
    /// How long the worker polls before it sleeps when it waits for the client, in µs; as the transport is tuned if
    /// this is not said.
    #[serde(default)]
    pub spin_us: Option<u64>,
    /// Why there is no session for this client, in a sentence for the person who started it: it is told so in place of
    /// a welcome.
    #[serde(default)]
    pub refuse: Option<String>,
    /// Identities that may have this session: those of its lease. Any user of the pool's where none is named.
    #[serde(default)]
    pub owners: Vec<String>,
    /// How long the session is kept when its connection breaks, in seconds; 0 does not keep it.
    #[serde(default)]
    pub grace_s: f64,
    /// The driver's numbers of the session's devices, in the order in which the client is to number them; all of the
    /// driver's where this is not said.
    #[serde(default)]
    pub devices: Option<Vec<usize>>,
    /// Whether the agent answers the start of the session with the tenant's cache.
    #[serde(default)]
    pub cache: bool,
    /// Whether the agent answers the start of the session with whether it is to be recorded.
    #[serde(default)]
    pub record: bool,
}

/// What the agent says in the session's life.
#[derive(Debug)]
pub enum Word {
    /// A client has come back: with the socket of its connection.
    Return(Return, TcpStream),
    /// The way to the tenant's cache, if there is one.
    Cache(Option<OwnedFd>),
    /// The session is to be recorded from now on: how much of its payloads, and a connection to the recorder.
    Record(String, OwnedFd),
    /// It is not.
    DoNotRecord,
    /// The session is to end, for a reason that the client is told.
    End(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    End {
        end: String,
    },
    Cache {
        #[serde(rename = "cache")]
        _cache: bool,
    },
    Record {
        // It must be there, be it null: every message would be one of these.
        #[serde(deserialize_with = "Option::deserialize")]
        record: Option<String>,
    },
    Return(Return),
}

/// What the agent sends with the socket of a client that has come back.
#[derive(Debug, Deserialize)]
pub struct Return {
    /// A certificate of this session, leaf first, and its leaf's key: the first one may have expired.
    pub cert_pem: String,
    pub key_pem: String,
    /// Where the client comes from.
    #[serde(default)]
    pub peer: String,
}

/// What the agent logs.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// Jailed, driver loaded, waiting for an assignment.
    Ready {
        devices: usize,
        driver_version: i32,
        soft: bool,
        landlock: &'a str,
        start_ms: u64,
    },
    /// A client has been let in.
    Start {
        session: &'a str,
        peer: &'a str,
        serial: &'a str,
        program: &'a str,
        pid: u32,
        tls: &'a str,
        cipher: &'a str,
    },
    /// The connection broke; the session waits for another one.
    Interrupted { session: &'a str, cause: &'a str },
    /// The session goes on over another connection after so many seconds.
    Resumed { session: &'a str, after: f64 },
    /// A connection that was to take the place of the session's was refused, or broke.
    NotResumed {
        session: &'a str,
        peer: &'a str,
        cause: &'a str,
    },
    /// A one-way call failed; the client learns the code with its next reply.
    DeferredError {
        call: &'a str,
        code: u32,
        name: &'a str,
    },
    /// The session goes on without its tenant's cache.
    WithoutCache { cause: &'a str },
    /// A session that was to be recorded is not.
    NotRecorded { cause: &'a str },
    /// The session is over; the process ends with it.
    End {
        session: &'a str,
        calls: u64,
        waits: u64,
        /// Of the waits, those that the program did not ask for.
        waits_unasked: u64,
        /// The waits by call.
        waited_for: &'a BTreeMap<&'static str, u64>,
        bytes_in: u64,
        bytes_out: u64,
        bytes_cached: u64,
        seconds: f64,
        cause: &'a str,
    },
}

/// The socket that the agent passed to the worker.
pub struct Control(OwnedFd);

impl Control {
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Tells the agent something. An agent that is gone or does not read must not hold up a session, so a message that
    /// cannot be sent at once is lost.
    pub fn report(&self, event: &Event) {
        if let Ok(text) = serde_json::to_vec(event) {
            self.send(&text);
        }
    }

    /// Sends bytes as one message; async-signal-safe.
    pub fn send(&self, message: &[u8]) {
        // SAFETY: the pointer and length describe the slice.
        unsafe {
            libc::send(
                self.0.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            );
        }
    }

    /// Waits for the assignment and its socket. `None` when the agent has closed its end instead.
    pub fn assignment(&self) -> Result<Option<(Assignment, TcpStream)>, String> {
        let heard = self.message("assignment")?;
        heard
            .map(|(assignment, socket)| Ok((assignment, with_socket("assignment", socket)?)))
            .transpose()
    }

    /// Takes what the agent says next. `None` when it has closed its end.
    pub fn word(&self) -> Result<Option<Word>, String> {
        let heard = self.message("message")?;
        heard
            .map(|(said, socket)| match said {
                Said::End { end } => Ok(Word::End(end)),
                Said::Cache { .. } => Ok(Word::Cache(socket)),
                Said::Record { record } => Ok(match record.zip(socket) {
                    Some((payload, socket)) => Word::Record(payload, socket),
                    None => Word::DoNotRecord,
                }),
                Said::Return(message) => Ok(Word::Return(message, with_socket("message", socket)?)),
            })
            .transpose()
    }

    /// One message, and the first socket that came with it.
    fn message<M: DeserializeOwned>(
        &self,
        what: &str,
    ) -> Result<Option<(M, Option<OwnedFd>)>, String> {
        let (message, sockets) = self
            .receive()
            .map_err(|e| format!("cannot read the control socket: {e}"))?;
        if message.is_empty() {
            return Ok(None);
        }
        let understood = serde_json::from_slice(&message)
            .map_err(|e| format!("the agent's {what} is not understood: {e}"))?;
        Ok(Some((understood, sockets.into_iter().next())))
    }

    fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut message = vec![0; LARGEST_MESSAGE];
        let (count, sockets) = channel::await_bytes(self.0.as_raw_fd(), &mut message)?;
        message.truncate(count);
        Ok((message, sockets))
    }
}

fn with_socket(what: &str, socket: Option<OwnedFd>) -> Result<TcpStream, String> {
    socket
        .map(TcpStream::from)
        .ok_or_else(|| format!("the agent's {what} came without the client's socket"))
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (OwnedFd, Control) {
        let (agent, worker) = channel::pair().unwrap();
        (agent, Control::new(worker))
    }

    fn send(agent: &OwnedFd, text: &str, socket: Option<RawFd>) {
        let sockets = socket.as_slice();
        channel::send_bytes(agent.as_raw_fd(), text.as_bytes(), sockets).unwrap();
    }

    #[test]
    fn words_are_told_apart_by_what_is_in_them() {
        let said = |text: &str| serde_json::from_str::<Said>(text);
        let back = r#"{"cert_pem":"a","key_pem":"b","peer":"c:1"}"#;
        assert!(matches!(said(back), Ok(Said::Return(_))));
        let not = r#"{"record":null}"#;
        assert!(matches!(said(not), Ok(Said::Record { record: None })));
        assert!(said("{}").is_err());
    }

    #[test]
    fn an_assignment_brings_its_socket() {
        let (agent, control) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = r#"{"session":"s-1","cert_pem":"C","key_pem":"K","tenant":"t"}"#;
        send(&agent, text, Some(listener.as_raw_fd()));
        let (assignment, socket) = control.assignment().unwrap().unwrap();
        assert_eq!(assignment.session, "s-1");
        assert_eq!(
            (assignment.cert_pem.as_str(), assignment.key_pem.as_str()),
            ("C", "K")
        );
        assert_eq!(socket.local_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[test]
    fn a_closed_control_socket_is_no_assignment() {
        let (agent, control) = pair();
        drop(agent);
        assert!(control.assignment().unwrap().is_none());
    }

    #[test]
    fn a_bad_assignment_is_named() {
        let (agent, control) = pair();
        send(&agent, r#"{"session":"s-1"}"#, None);
        assert!(control.assignment().unwrap_err().contains("cert_pem"));
        send(
            &agent,
            r#"{"session":"s","cert_pem":"C","key_pem":"K"}"#,
            None,
        );
        assert!(control
            .assignment()
            .unwrap_err()
            .contains("without the client's socket"));
    }

    #[test]
    fn events_are_one_object_per_message_and_never_block() {
        let (agent, control) = pair();
        for _ in 0..10_000 {
            control.report(&Event::DeferredError {
                call: "cuX",
                code: 1,
                name: "N",
            });
        }
        let mut bytes = [0; 256];
        // SAFETY: the buffer is as long as said.
        let count = unsafe { libc::recv(agent.as_raw_fd(), bytes.as_mut_ptr().cast(), 256, 0) };
        let event: serde_json::Value = serde_json::from_slice(&bytes[..count as usize]).unwrap();
        assert_eq!(event["event"], "deferred_error");
        assert_eq!(event["call"], "cuX");
    }
}
