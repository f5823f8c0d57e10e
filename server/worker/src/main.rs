//! harp-worker: one session's process on the server. It executes the client's call stream on a libcuda.
//!
//! ```text
//! harp-worker --control-fd N --libcuda PATH --ca FILE [--jail soft|nvidia] [--uid N] [--prepare]
//! ```
//!
//! The agent starts workers ahead of need. A worker loads and initialises the driver, takes a snapshot of its devices,
//! jails itself (`jail`), says `ready` on its control socket and waits there for the one session that it will ever
//! serve. The assignment brings the client's socket and a certificate made for this session; from the first byte of the
//! TLS handshake on, everything that comes from the client is handled inside the jail. The process ends with the
//! session, whatever ends it.
//!
//! The control socket is an inherited `SOCK_SEQPACKET` Unix socket; every message is one JSON object (`control`):
//!
//! | direction | message |
//! |---|---|
//! | out | `{"event":"ready","devices":1,"driver_version":13000,"soft":true,"landlock":"full","start_ms":12}` |
//! | in, with the client's socket | `{"session":"s-1","cert_pem":…,"key_pem":…,"grace_s":30,"spin_us":30,"devices":[0,2],"cache":true,"refuse":"why"}`; unknown fields are ignored |
//! | out | `{"event":"start","session":"s-1","peer":"spiffe://…","serial":"1f…","program":"a.out","pid":7,"tls":"TLSv1.3","cipher":…}` |
//! | in, with the socket of the tenant's cache if there is one | `{"cache":true}`, after a start if the assignment says so |
//! | in, with a connection to a recorder if there is one | `{"record":"shape"}`, `{"record":null}`, after a start if the assignment says so (`"record":true`), or later |
//! | in, with the socket of the client that has come back | `{"cert_pem":…,"key_pem":…,"peer":"192.0.2.1:40000"}` |
//! | out | `{"event":"interrupted","session":"s-1","cause":…}`, `{"event":"resumed","session":"s-1","after":0.02}` |
//! | out | `{"event":"without_cache","cause":…}`, `{"event":"not_recorded","cause":…}` |
//! | out | `{"event":"deferred_error","call":"cuLaunchKernel","code":700,"name":…}`, `{"event":"refused_call","number":41}` |
//! | out, last | `{"event":"end","session":"s-1","calls":9,"waits":2,"bytes_in":812,"bytes_out":96,"bytes_cached":0,"seconds":0.4,"cause":…}` |
//!
//! stderr is for a worker that cannot start, with exit code 1; from then on what the driver writes to the standard
//! streams is the program's (`output`). SIGTERM ends the session at once. The worker is killed
//! when the thread that started it ends (PR_SET_PDEATHSIG).

mod address_space;
mod calls;
mod control;
mod generated;
mod jail;
mod options;
mod output;
mod session;
mod snapshot;
mod watchdog;

use std::ffi::CString;
use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harp_transport::proto::refused::Reason;
use harp_transport::{
    accept_with, Incoming, Keeping, Observed, Observer, Refused, ServerConfig, Tuning, Welcome,
};

use harp_wire::push::TIMES_OPTION;
use harp_wire::windows;

use control::{Assignment, Control, Event};
use generated::driver::Driver;
use options::Options;
use output::Output;
use session::recording::{self, About};
use session::{lead, Cache, Ending, Engine, Intake, Relay, Replies, Session, Shared};
use snapshot::Snapshot;
use watchdog::Door;

/// From the assignment to the client's hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the agent may take to say which cache the session has.
const CACHE_PATIENCE: Duration = Duration::from_secs(1);

/// Longest program name that is logged.
const PROGRAM_NAME_CHARS: usize = 128;

fn main() -> ExitCode {
    match Worker::start(std::env::args().skip(1)) {
        Ok(worker) => worker.serve(),
        Err(cause) => {
            eprintln!("harp-worker: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// A process that is ready for its session.
struct Worker {
    control: Control,
    end_requests: OwnedFd,
    ca_pem: String,
    tuning: Tuning,
    driver: &'static Driver,
    snapshot: Snapshot,
    output: Output,
}

impl Worker {
    fn start(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let begun = Instant::now();
        let options = Options::parse(arguments)?;
        jail::close_inherited(options.control)
            .map_err(|e| format!("cannot close inherited descriptors: {e}"))?;
        // SAFETY: the agent passed this descriptor for the worker to own.
        let control = Control::new(unsafe { OwnedFd::from_raw_fd(options.control) });
        // The client chooses among the devices that it is shown.
        std::env::remove_var("CUDA_VISIBLE_DEVICES");
        let end_requests =
            watchdog::end_requests().map_err(|e| format!("cannot watch for signals: {e}"))?;
        let ca_pem = std::fs::read_to_string(&options.ca)
            .map_err(|e| format!("cannot read {}: {e}", options.ca.display()))?;
        let tuning = Tuning::default();
        let driver = load(&options)?;

        let file_rules = jail::confine(options.profile, options.uid)?;
        jail::refused_call_handler(options.control)
            .map_err(|e| format!("cannot handle refused system calls: {e}"))?;
        session::reserve_twins()
            .map_err(|e| format!("cannot take the addresses of shared memory: {e}"))?;
        let mut snapshot =
            snapshot::take(driver).map_err(|e| format!("{}: {e}", options.libcuda.display()))?;
        snapshot.keep_to_windows();
        if options.prepare {
            snapshot.prepare(driver)?;
        }
        let output = Output::capture().map_err(|e| format!("cannot make pipes: {e}"))?;
        if let Err(cause) = jail::seal(options.profile) {
            output.release();
            return Err(cause);
        }

        control.report(&Event::Ready {
            devices: snapshot.devices.len(),
            driver_version: snapshot.driver_version,
            soft: snapshot.soft,
            landlock: file_rules.as_str(),
            start_ms: begun.elapsed().as_millis() as u64,
        });
        Ok(Self {
            control,
            end_requests,
            ca_pem,
            tuning,
            driver,
            snapshot,
            output,
        })
    }

    /// Waits for the assignment and serves the session. Returns only if there is none.
    fn serve(mut self) -> ExitCode {
        use std::os::fd::AsRawFd;
        match watchdog::wait_idle(self.control.as_raw_fd(), &self.end_requests) {
            Ok(watchdog::Idle::EndRequested) => return ExitCode::SUCCESS,
            Ok(watchdog::Idle::Message) => {}
            Err(_) => return ExitCode::FAILURE,
        }
        let assigned = self.control.assignment();
        let ending = Arc::new(Ending::new(self.control));
        let (assignment, client) = match assigned {
            Ok(Some(assigned)) => assigned,
            Ok(None) => return ExitCode::SUCCESS,
            Err(cause) => ending.end(&cause),
        };
        ending.session_begins(&assignment.session);
        if let Err(cause) = self.snapshot.assign(assignment.devices.as_deref()) {
            ending.end(&format!("the assignment: {cause}"));
        }
        let devices = self.snapshot.ordinals();

        let watched: Arc<OnceLock<Arc<Shared>>> = Arc::new(OnceLock::new());
        let served = watched.clone();
        ending.comes_with_panics(move |cause| {
            if let Some(shared) = served.get() {
                shared.replies.say_goodbye(cause);
            }
        });
        let mut tuning = self.tuning;
        if let Some(spin) = assignment.spin_us {
            tuning.spin = Duration::from_micros(spin);
            tuning.spin_max = tuning.spin;
            if spin == 0 {
                // There is no core to spare.
                tuning.crew = 0;
            }
        }
        let no_core_to_spare = tuning.crew == 0;
        let door = Door {
            ca_pem: self.ca_pem.clone(),
            tuning: tuning.clone(),
            timeout: HANDSHAKE_TIMEOUT,
        };
        let (caches, cache) = mpsc::channel();
        if let Err(error) = watchdog::watch(
            ending.clone(),
            watched.clone(),
            self.end_requests,
            door,
            caches,
        ) {
            ending.end(&format!("cannot watch over the session: {error}"));
        }
        let certificates = ServerConfig {
            ca_pem: self.ca_pem,
            cert_pem: assignment.cert_pem.clone(),
            key_pem: assignment.key_pem.clone(),
        };
        match let_in(
            client,
            &certificates,
            tuning,
            &assignment,
            (self.driver, &mut self.snapshot),
            &cache,
            &ending,
        ) {
            Ok(Opened {
                sender,
                receiver,
                cache,
                timed_from,
            }) => {
                let keeper = sender.keeper();
                let replies = Arc::new(Replies::new(sender, self.output, self.driver));
                if let Some(started) = timed_from {
                    replies.tell_device_times(started);
                }
                if let Err(error) = replies.clone().watch_output() {
                    ending.end(&format!("cannot watch what the device prints: {error}"));
                }
                let mut session = Session::new(self.driver, devices, replies.clone(), cache);
                session.contexts = self.snapshot.with_contexts();
                session.uploads.at_once = no_core_to_spare;
                let shared = Arc::new(Shared {
                    driver: self.driver,
                    replies,
                    relay: Relay::default(),
                    ending,
                    keeper,
                });
                let _ = watched.set(shared.clone());
                lead(Box::new(Engine::new(
                    shared,
                    session,
                    Intake::new(receiver),
                )))
            }
            Err(cause) => ending.end(&cause),
        }
    }
}

fn load(options: &Options) -> Result<&'static Driver, String> {
    let path = CString::new(options.libcuda.as_os_str().as_bytes())
        .map_err(|_| "the libcuda's path holds a NUL".to_owned())?;
    let driver = Driver::load(&path).map_err(|e| format!("cannot load the libcuda: {e}"))?;
    if !driver.is_one() {
        let path = path.to_string_lossy();
        return Err(format!(
            "cannot load the libcuda: {path} is none: it has no cuInit"
        ));
    }
    Ok(Box::leak(Box::new(driver)))
}

/// A session whose client has been let in.
struct Opened {
    sender: harp_transport::Sender,
    receiver: harp_transport::Receiver,
    cache: Cache,
    /// From when device times are counted, where the client wants them.
    timed_from: Option<Instant>,
}

/// TLS handshake, hello, and the answer to it. `Err` is the cause of a session that never began.
fn let_in(
    client: TcpStream,
    certificates: &ServerConfig,
    tuning: Tuning,
    assignment: &Assignment,
    (driver, snapshot): (&Driver, &mut Snapshot),
    cache: &mpsc::Receiver<Option<OwnedFd>>,
    ending: &Arc<Ending>,
) -> Result<Opened, String> {
    let incoming = accept_with(client, certificates, HANDSHAKE_TIMEOUT, tuning)
        .map_err(|error| format!("refused: {error}"))?;
    let Incoming { hello, info, .. } = &incoming;
    let peer = info.peer.clone().unwrap_or_default();
    let owners = &assignment.owners;
    let denial = if !is_user(&peer) {
        Some(format!(
            "the certificate is for {peer:?}, which is no user of a pool"
        ))
    } else if !owners.is_empty() && !owners.contains(&peer) {
        Some(format!("the lease belongs to others, and not to {peer:?}"))
    } else {
        None
    };
    if let Some(cause) = denial {
        incoming.refuse(Refused {
            reason: Reason::Identity.into(),
            text: cause.clone(),
            ..Refused::default()
        });
        return Err(format!("refused: {cause}"));
    }
    if hello.resume.is_some() {
        // Its own worker would have been given this connection.
        let cause = incoming.refuse_resuming("it has ended, or the server was started anew");
        return Err(format!("a session that is not here: {cause}"));
    }
    if let Some(text) = &assignment.refuse {
        incoming.refuse(Refused {
            reason: Reason::Capacity.into(),
            text: text.clone(),
            ..Refused::default()
        });
        return Err(format!("refused: {text}"));
    }
    let program: String = hello.program.chars().take(PROGRAM_NAME_CHARS).collect();
    // Before the agent hears of the start: its answer may be to record.
    recording::describe(About {
        session: assignment.session.clone(),
        program: program.clone(),
        pid: hello.pid,
    });
    ending.control().report(&Event::Start {
        session: &assignment.session,
        peer: &peer,
        serial: info.serial.as_deref().unwrap_or_default(),
        program: &program,
        pid: hello.pid,
        tls: info.tls_version,
        cipher: &info.cipher,
    });
    if assignment.record {
        recording::await_answer();
    }
    let is_recorded = recording::recorder().is_some();
    let is_wanted = hello.options.get(harp_content::OPTION).map(String::as_str) != Some("off");
    // What is not sent again could not be recorded.
    let cache = if assignment.cache && is_wanted && !is_recorded {
        begin_cache(cache).unwrap_or_else(|cause| {
            let cause = cause.to_string();
            ending
                .control()
                .report(&Event::WithoutCache { cause: &cause });
            Cache::default()
        })
    } else {
        Cache::default()
    };
    if let Some(Ok(first)) = hello.options.get(windows::OPTION).map(|text| text.parse()) {
        snapshot.place_windows(driver, first);
    }
    let is_timed = hello.options.get(TIMES_OPTION).is_some_and(|it| it == "on");
    snapshot.make_soft_contexts(driver);
    let snapshot = serde_json::to_vec(snapshot).map_err(|error| error.to_string())?;
    recording::session_begins(&snapshot);
    let welcome = Welcome {
        session: assignment.session.clone(),
        snapshot,
        cache: cache.welcome(),
        ..Welcome::default()
    };
    let keeping = Keeping {
        grace: Duration::try_from_secs_f64(assignment.grace_s).unwrap_or_default(),
        observer: observer(ending, &assignment.session),
    };
    let timed_from = is_timed.then(Instant::now);
    let opened = incoming.welcome_and_keep(welcome, keeping);
    let (sender, receiver) = opened.map_err(|error| error.to_string())?;
    Ok(Opened {
        sender,
        receiver,
        cache,
        timed_from,
    })
}

/// The cache of the tenant that the agent has just been told of.
fn begin_cache(cache: &mpsc::Receiver<Option<OwnedFd>>) -> io::Result<Cache> {
    let said = cache.recv_timeout(CACHE_PATIENCE);
    let socket = said.map_err(|_| io::Error::other("the agent does not say where it is"))?;
    Cache::begin(socket.ok_or_else(|| io::Error::other("the server has none"))?)
}

/// Tells the agent when the connection breaks and when the session goes on.
fn observer(ending: &Arc<Ending>, session: &str) -> Observer {
    let (ending, session) = (ending.clone(), session.to_owned());
    Arc::new(move |what| {
        let session = session.as_str();
        match what {
            Observed::Interrupted(cause) => ending.control().report(&Event::Interrupted {
                session,
                cause: &cause.to_string(),
            }),
            Observed::Resumed(after) => ending.control().report(&Event::Resumed {
                session,
                after: after.as_secs_f64(),
            }),
            _ => {}
        }
    })
}

/// Whether an identity is `spiffe://<pool>/tenant/<tenant>/user/<user>`.
fn is_user(identity: &str) -> bool {
    let Some(rest) = identity.strip_prefix("spiffe://") else {
        return false;
    };
    let parts: Vec<&str> = rest.split('/').collect();
    matches!(parts[..], [pool, "tenant", tenant, "user", user]
        if !pool.is_empty() && !tenant.is_empty() && !user.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_user;

    #[test]
    fn only_users_of_tenants_are_let_in() {
        assert!(is_user("spiffe://pool/tenant/t/user/u"));
        for other in [
            "",
            "spiffe://pool/session/s",
            "spiffe://pool/tenant/t",
            "spiffe://pool/tenant//user/u",
            "spiffe://pool/tenant/t/user/u/more",
            "https://pool/tenant/t/user/u",
        ] {
            assert!(!is_user(other), "{other}");
        }
    }
}
