//! Notices what the thread that executes calls cannot while it sits in the driver: a client that is gone or has come
//! back, an agent that is gone, a request to end. So a client that is killed leaves nothing behind, not even an endless
//! kernel.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use harp_transport::{accept_with, AcceptError, LinkError, ServerConfig, Tuning};

use crate::control::{Event, Return, Word};
use crate::session::{recording, Ending, Shared};

/// How often a session that sits in a wait looks for input of another client thread.
const TICK: Duration = Duration::from_millis(250);

/// How often it does after its client has gone.
const CLOSING_TICK: Duration = Duration::from_millis(20);

/// How long a session may go on executing what its client sent before it went.
const DRAIN: Duration = Duration::from_secs(2);

/// Connections that may be let in again at the same time: a client needs one, and whoever knows the session's name can
/// make others.
const MOST_AT_THE_DOOR: usize = 8;

/// How long telling the client that the session ends may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT as a descriptor. Blocks them in this thread and all it starts later, so call it before the driver
/// starts threads.
pub fn end_requests() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; signalfd makes a new descriptor that is owned once.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGINT);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) != 0 {
            return Err(io::Error::other("cannot block SIGTERM"));
        }
        let fd = libc::signalfd(-1, &signals, libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What happened while the worker had no session.
#[derive(Debug, PartialEq, Eq)]
pub enum Idle {
    Message,
    EndRequested,
}

/// Waits until the control socket has something to read or the end is requested.
pub fn wait_idle(control: RawFd, end_requests: &OwnedFd) -> io::Result<Idle> {
    let mut polled = [
        poll_for(control, libc::POLLIN),
        poll_for(end_requests.as_raw_fd(), libc::POLLIN),
    ];
    poll(&mut polled, None)?;
    // An assignment that has come is taken, so that its session ends with a word on why.
    Ok(if polled[0].revents != 0 {
        Idle::Message
    } else {
        Idle::EndRequested
    })
}

/// The session that a watchdog looks after, once its client has been let in.
pub type Watched = Arc<OnceLock<Arc<Shared>>>;

/// How a client that comes back is let in again.
#[derive(Clone)]
pub struct Door {
    pub ca_pem: String,
    pub tuning: Tuning,
    /// From its socket to its hello.
    pub timeout: Duration,
}

/// Starts to watch, until the process ends.
///
/// `caches` gets what the agent says of the tenant's cache.
pub fn watch(
    ending: Arc<Ending>,
    session: Watched,
    end_requests: OwnedFd,
    door: Door,
    caches: mpsc::Sender<Option<OwnedFd>>,
) -> io::Result<()> {
    let watchdog = Watchdog {
        ending,
        session,
        end_requests,
        door,
        caches,
        at_the_door: Arc::default(),
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || watchdog.run())?;
    Ok(())
}

struct Watchdog {
    ending: Arc<Ending>,
    session: Watched,
    end_requests: OwnedFd,
    door: Door,
    caches: mpsc::Sender<Option<OwnedFd>>,
    /// Connections that are being let in.
    at_the_door: Arc<AtomicUsize>,
}

impl Watchdog {
    fn run(self) -> ! {
        let mut polled = [
            poll_for(self.end_requests.as_raw_fd(), libc::POLLIN),
            poll_for(self.ending.control().as_raw_fd(), libc::POLLIN),
        ];
        let mut gone: Option<Instant> = None;
        loop {
            let tick = gone.map_or(TICK, |_| CLOSING_TICK);
            if let Err(error) = poll(&mut polled, Some(tick)) {
                self.ending
                    .end(&format!("the watchdog cannot poll: {error}"));
            }
            let [end_request, agent] = polled.map(|entry| entry.revents != 0);
            if end_request {
                self.end_on_request();
            }
            if agent {
                self.hear_agent();
            }
            let Some(session) = self.session.get() else {
                continue;
            };
            session.keeper.tend();
            if let Some(error) = session.keeper.end().filter(|end| *end != LinkError::Closed) {
                // Whoever runs the session finds the same, unless it is stuck in the driver.
                self.end_soon(&error);
            }
            // Whoever takes the session over executes what the client has sent and then finds that there is no more.
            // That fails only if the session is stuck in the driver.
            session.relay.offer_if_input(session);
            if !session.keeper.was_hung_up() {
                gone = None;
            } else if gone.get_or_insert_with(Instant::now).elapsed() > DRAIN {
                self.ending.end("the client is gone");
            }
        }
    }

    /// Ends the session a little later than the thread that runs it would.
    fn end_soon(&self, error: &LinkError) -> ! {
        thread::sleep(CLOSING_TICK);
        self.ending.end(&error.to_string())
    }

    /// Takes what the agent has to say: a client that has come back, the session's end, or that it is gone itself.
    fn hear_agent(&self) {
        let (message, socket) = match self.ending.control().word() {
            Ok(Some(Word::Return(message, socket))) => (message, socket),
            Ok(Some(Word::End(reason))) => self.end_because(reason),
            Ok(Some(Word::Cache(socket))) => {
                // Who waits no longer for it has begun without it.
                let _ = self.caches.send(socket);
                return;
            }
            Ok(Some(Word::Record(payload, recorder))) => return self.record(&payload, recorder),
            Ok(Some(Word::DoNotRecord)) => return recording::answered(),
            Ok(None) => self.ending.end("the agent is gone"),
            Err(cause) => self.ending.end(&cause),
        };
        let Some(session) = self.session.get() else {
            return;
        };
        if self.at_the_door.fetch_add(1, Ordering::SeqCst) >= MOST_AT_THE_DOOR {
            self.at_the_door.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let (session, ending, door) = (session.clone(), self.ending.clone(), self.door.clone());
        let waiting = self.at_the_door.clone();
        let started = thread::Builder::new()
            .name("return".to_owned())
            .spawn(move || {
                if let Err(cause) = let_back_in(&session, &message, socket, door) {
                    let (session, peer) = (ending.session(), message.peer.as_str());
                    ending.control().report(&Event::NotResumed {
                        session,
                        peer,
                        cause: &cause.to_string(),
                    });
                }
                waiting.fetch_sub(1, Ordering::SeqCst);
            });
        if started.is_err() {
            self.at_the_door.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn record(&self, payload: &str, recorder: OwnedFd) {
        if let Err(cause) = recording::begin(payload, recorder) {
            let cause = cause.to_string();
            let control = self.ending.control();
            control.report(&Event::NotRecorded { cause: &cause });
        }
        recording::answered();
    }

    fn end_on_request(&self) -> ! {
        self.ending.is_near("terminated");
        if let Some(session) = self.session.get() {
            say_goodbye(session, "the server ends this session".to_owned());
        }
        self.ending.end("terminated")
    }

    fn end_because(&self, reason: String) -> ! {
        self.ending.is_near(&reason);
        if let Some(session) = self.session.get() {
            say_goodbye(session, reason.clone());
        }
        self.ending.end(&reason)
    }
}

fn let_back_in(
    session: &Shared,
    message: &Return,
    socket: TcpStream,
    door: Door,
) -> Result<(), AcceptError> {
    let certificates = ServerConfig {
        ca_pem: door.ca_pem,
        cert_pem: message.cert_pem.clone(),
        key_pem: message.key_pem.clone(),
    };
    let incoming = accept_with(socket, &certificates, door.timeout, door.tuning)?;
    session.keeper.resume(incoming)
}

/// Tells the client why, without waiting long for one that does not read.
fn say_goodbye(shared: &Arc<Shared>, reason: String) {
    let (said, when_said) = mpsc::channel();
    let shared = shared.clone();
    let speaker = thread::Builder::new().spawn(move || {
        shared.replies.say_goodbye(&reason);
        let _ = said.send(());
    });
    if speaker.is_ok() {
        let _ = when_said.recv_timeout(GOODBYE);
    }
}

fn poll_for(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

fn poll(polled: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(-1, |t| t.as_millis() as libc::c_int);
    loop {
        // SAFETY: the pointer and count describe the slice.
        let ready =
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if ready >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
