//! Notices what the thread that executes calls cannot while it sits in the driver: a client that is gone, an agent that
//! is gone, a request to end. So a client that is killed leaves nothing behind, not even an endless kernel.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::session::{Ending, Shared};

/// How often a session that sits in a wait looks for input of another client thread.
const TICK: Duration = Duration::from_millis(250);

/// How often a session whose client is gone looks whether it is done.
const CLOSING_TICK: Duration = Duration::from_millis(20);

/// How long a session may go on executing what its client sent before it went.
const DRAIN: Duration = Duration::from_secs(2);

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
    Ok(if polled[1].revents != 0 {
        Idle::EndRequested
    } else {
        Idle::Message
    })
}

/// The session that a watchdog looks after, once its client has been let in.
pub type Watched = Arc<OnceLock<Arc<Shared>>>;

/// Watches until the process ends. `client` is a duplicate of the client's socket.
pub fn watch(
    ending: Arc<Ending>,
    session: Watched,
    client: OwnedFd,
    end_requests: OwnedFd,
) -> io::Result<()> {
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            let mut polled = [
                poll_for(client.as_raw_fd(), libc::POLLRDHUP),
                poll_for(end_requests.as_raw_fd(), libc::POLLIN),
                poll_for(ending.control().as_raw_fd(), 0),
            ];
            let mut client_gone: Option<Instant> = None;
            loop {
                let tick = if client_gone.is_some() {
                    CLOSING_TICK
                } else {
                    TICK
                };
                if let Err(error) = poll(&mut polled, Some(tick)) {
                    ending.end(&format!("the watchdog cannot poll: {error}"));
                }
                if polled[1].revents != 0 {
                    if let Some(session) = session.get() {
                        say_goodbye(session, "the server ends this session");
                    }
                    ending.end("terminated");
                }
                if polled[2].revents != 0 {
                    ending.end("the agent is gone");
                }
                if polled[0].revents != 0 && client_gone.is_none() {
                    client_gone = Some(Instant::now());
                    // It stays true from now on; poll would return at once.
                    polled[0].fd = -1;
                }
                let session = session.get();
                if let Some(since) = client_gone {
                    let done = session.is_some_and(|session| session.relay.is_only_waiting());
                    if done || since.elapsed() > DRAIN {
                        ending.end("the client is gone");
                    }
                } else if let Some(session) = session {
                    session.relay.offer_if_input(session);
                }
            }
        })?;
    Ok(())
}

/// Tells the client why, without waiting long for one that does not read.
fn say_goodbye(shared: &Arc<Shared>, reason: &'static str) {
    let (said, when_said) = mpsc::channel();
    let shared = shared.clone();
    let speaker = thread::Builder::new().spawn(move || {
        shared.replies.say_goodbye(reason);
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
