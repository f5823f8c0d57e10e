//! The loop: sessions come from the agent, wishes from their workers. What is to be kept is named and written by a
//! thread of its own, which others go before.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harp_content::channel::{receive_bytes, Listed, SLOTS};
use harp_content::PIECE;
use serde::{Deserialize, Serialize};

use crate::folder::read_piece;
use crate::session::{Session, Wish};
use crate::store::Store;

/// Largest message of the agent.
const LARGEST_MESSAGE: usize = 4096;
/// Wishes of a session that are heard before the others' are: more than an honest worker has at a time.
const MOST_AT_ONCE: usize = 2 * SLOTS;
/// How nice the writing thread is.
const NICENESS: i32 = 5;
/// That nothing can be written is told so often at most.
const SILENCE: Duration = Duration::from_secs(60);

/// What the agent says, with a worker's socket.
#[derive(Deserialize)]
struct Bind {
    /// What the tenant's folder is called.
    tenant: String,
}

/// What the agent logs.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// Jailed, and everything that there is has been looked at.
    Ready { pieces: usize, bytes: u64 },
    /// A piece was not what it is called, and has been removed.
    Damaged { tenant: &'a str, piece: &'a str },
    /// Nothing can be kept now.
    Failing { cause: &'a str },
}

/// What all threads share.
struct Shared {
    store: Mutex<Store>,
    control: OwnedFd,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the agent, unless it does not listen.
    fn report(&self, event: &Event) {
        let Ok(text) = serde_json::to_vec(event) else {
            return;
        };
        // SAFETY: the slice's own pointer and length.
        unsafe {
            libc::send(
                self.control.as_raw_fd(),
                text.as_ptr().cast(),
                text.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            );
        }
    }
}

/// A content to be kept.
struct Job {
    session: Arc<Session>,
    slot: usize,
    bytes: usize,
}

pub struct Cache {
    shared: Arc<Shared>,
    sessions: Vec<Arc<Session>>,
    jobs: Sender<Job>,
    keeping: JoinHandle<()>,
}

impl Cache {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(store: Store, control: OwnedFd) -> io::Result<Cache> {
        let store = Mutex::new(store);
        let shared = Arc::new(Shared { store, control });
        let (jobs, to_do) = channel();
        let (begun, has_begun) = channel();
        let keeping = std::thread::Builder::new().name("keep".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                // SAFETY: a plain system call about this thread. Where it is refused the thread is as others are.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
                let _ = begun.send(());
                keep_all(&shared, &to_do);
            }
        })?;
        // What a thread does as it starts is not to be seen once the jail is closed.
        let _ = has_begun.recv();
        Ok(Cache {
            shared,
            sessions: Vec::new(),
            jobs,
            keeping,
        })
    }

    /// Serves until the agent closes its end. What workers had said before is still done.
    ///
    /// # Errors
    /// What the system says.
    pub fn serve(mut self) -> io::Result<()> {
        let (pieces, bytes) = self.shared.store().totals();
        self.shared.report(&Event::Ready { pieces, bytes });
        loop {
            let (agent, ready) = self.wait()?;
            self.sessions = std::mem::take(&mut self.sessions)
                .into_iter()
                .enumerate()
                .filter_map(|(index, session)| {
                    (!ready[index] || self.hear(&session)).then_some(session)
                })
                .collect();
            if agent && !self.hear_agent()? {
                break;
            }
        }
        for session in &self.sessions {
            self.hear(session);
        }
        drop(self.jobs);
        self.keeping
            .join()
            .map_err(|_| io::Error::other("the writing thread has panicked"))
    }

    /// Waits for the agent or a session to say something: whether the agent has, and which sessions.
    fn wait(&self) -> io::Result<(bool, Vec<bool>)> {
        let sockets = self.sessions.iter().map(|session| session.as_raw_fd());
        let agent = self.shared.control.as_raw_fd();
        let mut polled: Vec<_> = std::iter::once(agent).chain(sockets).map(poll_in).collect();
        // SAFETY: the vector's own pointer and length.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok((false, vec![false; self.sessions.len()])),
                _ => Err(error),
            };
        }
        let mut ready = polled.into_iter().map(|entry| entry.revents != 0);
        Ok((ready.next().unwrap_or_default(), ready.collect()))
    }

    /// Takes what the agent has said; false when it has closed its end.
    fn hear_agent(&mut self) -> io::Result<bool> {
        let mut message = [0; LARGEST_MESSAGE];
        let (count, descriptors) =
            match receive_bytes(self.shared.control.as_raw_fd(), &mut message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                // An agent that was killed before it had read everything: its end comes after this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                received => received?,
            };
        if count == 0 {
            return Ok(false);
        }
        let bind: Bind = serde_json::from_slice(&message[..count]).map_err(io::Error::other)?;
        let begun = descriptors.into_iter().next().map(|socket| {
            let mut store = self.shared.store();
            let tenant = store.tenant(&bind.tenant)?;
            let key = store.folder(tenant).key;
            Session::begin(tenant, socket, &key, &store.list(tenant))
        });
        match begun {
            Some(Ok(session)) => self.sessions.push(Arc::new(session)),
            Some(Err(error)) => self.shared.report(&Event::Failing {
                cause: &error.to_string(),
            }),
            None => {}
        }
        Ok(true)
    }

    /// Does what a session wants; false when it wants nothing any more.
    fn hear(&self, session: &Arc<Session>) -> bool {
        for _ in 0..MOST_AT_ONCE {
            let done = match session.wish() {
                Ok(None) => return false,
                Ok(Some(Wish::Take(name))) => {
                    let found = self.shared.store().take(session.tenant, &name);
                    session.give(name, found)
                }
                Ok(Some(Wish::Damaged(name))) => {
                    self.look_at(session, name);
                    Ok(())
                }
                Ok(Some(Wish::Keep { slot, bytes })) => {
                    let session = session.clone();
                    let job = Job {
                        session,
                        slot,
                        bytes,
                    };
                    self.jobs.send(job).map_err(io::Error::other)
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // A worker that ended without having read everything. What it had said before comes after this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Removes a piece that is not what it is called.
    fn look_at(&self, session: &Session, name: harp_content::Name) {
        let mut store = self.shared.store();
        let Some((file, _)) = store.take(session.tenant, &name) else {
            return;
        };
        let key = store.folder(session.tenant).key;
        if read_piece(&file).is_ok_and(|content| key.name(&content) == name) {
            return;
        }
        store.drop_piece(session.tenant, &name);
        let piece = format!("{:016x}", name.check()[0]);
        self.shared.report(&Event::Damaged {
            tenant: store.label(session.tenant),
            piece: &piece,
        });
    }
}

/// Names and writes what comes, until nothing comes any more.
fn keep_all(shared: &Shared, jobs: &Receiver<Job>) {
    let mut content = Vec::with_capacity(PIECE);
    let mut told: Option<Instant> = None;
    for job in jobs {
        job.session.content(job.slot, job.bytes, &mut content);
        let kept = keep(shared, &job.session, &content);
        if let Err(error) = &kept {
            if told.is_none_or(|told| told.elapsed() > SILENCE) {
                told = Some(Instant::now());
                let cause = error.to_string();
                shared.report(&Event::Failing { cause: &cause });
            }
        }
        job.session.kept(job.slot, kept.ok());
    }
}

fn keep(shared: &Shared, session: &Session, content: &[u8]) -> io::Result<Listed> {
    let tenant = session.tenant;
    let folder = shared.store().folder(tenant);
    let name = folder.key.name(content);
    let fingerprint = folder.key.fingerprint(content);
    if !shared.store().has(tenant, &name) {
        folder.write(&name, fingerprint, content)?;
        let bytes = content.len() as u64;
        shared.store().add(tenant, name, fingerprint, bytes);
    }
    Ok(Listed { name, fingerprint })
}

fn poll_in(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}
