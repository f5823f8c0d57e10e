//! Connecting: from the environment to the sessions, or to a sentence that says what is missing.

use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harp_cuda_abi::types::*;
use harp_driver_front::threads::{no_thread, start_thread};
use harp_transport::{connect_persisting, ClientConfig, ConnectError, Hello, Resuming};
use harp_wire::push::{Push, TIMES_OPTION};
use harp_wire::{windows, Because, CallId};

use super::cache::Cache;
use super::callbacks::Callbacks;
use super::faults::Faults;
use super::handles::MOST_SESSIONS;
use super::idle::Idle;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::output::Output;
use super::settings::{say, settings, LogLevel, Target};
use super::snapshot::{select_visible, Device, Snapshot};
use super::stats::Stats;
use super::twins::Twins;
use super::watches::Watches;
use super::{life, weather, Session, Sessions};
use crate::clock::Moment;
use crate::recording::recorder;

/// Where no call finds out, the connection is looked after this often.
const TEND_INTERVAL: Duration = Duration::from_secs(2);

/// Why there is no session.
#[derive(Debug)]
pub struct Failure {
    /// What the program is told.
    pub code: CUresult,
    /// What happened, and what to do about it.
    sentence: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

fn failure(sentence: impl Into<String>) -> Failure {
    Failure {
        code: CUDA_ERROR_NO_DEVICE,
        sentence: sentence.into(),
    }
}

/// Connects to the servers that the environment names: to all of them, or the program has no device.
pub fn begin() -> Result<Sessions, Failure> {
    let targets = settings().servers.as_ref().map_err(failure)?;
    if targets.is_empty() {
        return Err(failure(
            "no pool server is configured (HARP_SERVER is not set): start the program with \
             `harp-run -- program`",
        ));
    }
    if targets.len() > MOST_SESSIONS {
        return Err(failure(format!(
            "HARP_SERVER names {} servers, and a program can use {MOST_SESSIONS}",
            targets.len()
        )));
    }
    let (mut all, mut devices, mut driver_version) = (Vec::new(), Vec::new(), i32::MAX);
    let mut windows_end = None;
    for target in targets {
        let (session, snapshot) = begin_one(target, all.len(), targets.len() > 1, windows_end)?;
        driver_version = driver_version.min(snapshot.driver_version);
        let windows = snapshot.devices.iter().filter_map(|device| device.window);
        windows_end = windows
            .map(|(base, size)| base.saturating_add(size))
            .max()
            .max(windows_end);
        let chosen = snapshot.choose(target.devices.as_deref());
        let chosen = chosen.map_err(|number| {
            failure(format!(
                "the pool server {} has no device {number}, or it is named twice: see HARP_SERVER",
                target.server
            ))
        })?;
        for mut device in chosen {
            device.belong_to(session.number, &devices);
            devices.push(device);
        }
        all.push(session);
    }
    select_visible(
        &mut devices,
        std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(),
    );
    Ok(Sessions::new(all, devices, driver_version))
}

/// Begins the session of that number. Its device addresses are to start at `first_window`, above those
/// of the servers before, where these said what theirs are.
fn begin_one(
    target: &Target,
    number: usize,
    several: bool,
    first_window: Option<u64>,
) -> Result<(Session, Snapshot), Failure> {
    let settings = settings();
    let server = target.server.as_str();
    let credentials = settings.credentials.as_deref().ok_or_else(|| {
        failure(format!(
            "no credentials for {server} (HARP_CREDENTIALS is not set): start the program with \
             `harp-run --server {server} --credentials DIR -- program`"
        ))
    })?;
    let config = read_credentials(credentials, target.server_name(&settings.server_name))?;
    let mut hello = Hello {
        program: program_name(),
        pid: std::process::id(),
        ..Hello::current()
    };
    if let Some(first) = first_window {
        hello
            .options
            .insert(windows::OPTION.to_owned(), first.to_string());
    }
    let recorder = recorder();
    // What is recorded has to pass.
    if !settings.deduplicate || recorder.is_some() {
        let option = harp_content::OPTION.to_owned();
        hello.options.insert(option, "off".to_owned());
    }
    if let Some(recorder) = recorder.filter(|_| settings.device_times) {
        recorder.expect_device_times();
        let option = TIMES_OPTION.to_owned();
        hello.options.insert(option, "on".to_owned());
    }
    // What happens to the connection later is told with the name, where there are several.
    let name = several.then_some(server);
    let stats = Stats::new(number, settings.print_stats || settings.print_profile);
    let resuming = Resuming {
        limit: settings.resume_limit,
        observer: weather::observer(name),
        start_thread: |name, body| start_thread(name, body).map(drop),
        refresh: Arc::new(refreshed),
    };
    let timeout = settings.connect_timeout;
    let started = Moment::now();
    let connected = connect_persisting(server, &config, &hello, timeout, &resuming);
    let (sender, receiver, welcome, link) = connected.map_err(|error| match error {
        ConnectError::Refused if settings.embedded => ended_with_its_run(),
        error => {
            let next_step = error.next_step();
            failure(format!(
                "cannot use the pool server {server}: {error}. Next: {next_step}"
            ))
        }
    })?;
    stats.note(Because::StartUp, "hello", started.time.elapsed());
    if let Some(recorder) = recorder {
        let round_trip = round_trip(sender.keeper().socket());
        recorder.session(number, server, &welcome.snapshot, round_trip);
        recorder.wait(number, started.ticks, 0, Because::StartUp, CallId(0));
    }
    let snapshot = Snapshot::parse(&welcome.snapshot).map_err(failure)?;
    say(
        LogLevel::Debug,
        &format!(
            "session {} on {server}: {} device(s), {} {}",
            welcome.session,
            snapshot.devices.len(),
            link.tls_version,
            link.cipher
        ),
    );
    reserve_windows(server, &snapshot.devices)?;
    let session = Session {
        number,
        server: server.to_owned(),
        soft_architecture: snapshot.soft_architecture(),
        describes: snapshot.describes,
        loads_functions: snapshot.loads_functions,
        callbacks: Callbacks::default(),
        output: Output::default(),
        twins: Twins::default(),
        watches: Watches::new(snapshot.watches_events && !settings.every_call_waits),
        link,
        keeper: sender.keeper(),
        outgoing: Outgoing::new(sender, number),
        incoming: Incoming::new(receiver, settings.spin, number, pushed),
        cache: Cache::new(&welcome.cache),
        stats,
        faults: Faults::default(),
        idle: Idle::default(),
        lost: AtomicU32::new(CUDA_SUCCESS),
        callback_thread: Mutex::default(),
    };
    Ok((session, snapshot))
}

/// How long the network takes there and back, in nanoseconds, as the kernel has measured it.
fn round_trip(socket: libc::c_int) -> Option<u64> {
    // SAFETY: plain data, of which zeros are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut bytes = std::mem::size_of_val(&info) as libc::socklen_t;
    let to = (&raw mut info).cast();
    // SAFETY: a socket of this library's, and room for what is asked.
    let asked =
        unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, to, &mut bytes) };
    (asked == 0).then_some(u64::from(info.tcpi_rtt) * 1000)
}

/// What the credentials folder holds now: `harp-run` renews a certificate that is about to expire.
fn refreshed(config: &ClientConfig) -> ClientConfig {
    let folder = settings().credentials.as_deref();
    folder
        .and_then(|folder| read_credentials(folder, config.server_name.clone()).ok())
        .unwrap_or_else(|| config.clone())
}

fn read_credentials(folder: &Path, server_name: String) -> Result<ClientConfig, Failure> {
    Ok(ClientConfig {
        ca_pem: read(folder, "ca.pem")?,
        cert_pem: read(folder, "client.pem")?,
        key_pem: read(folder, "client.key")?,
        server_name,
    })
}

fn pushed(number: usize, push: Push) -> Result<(), String> {
    let Ok(sessions) = super::sessions() else {
        return Ok(()); // the process is ending
    };
    let Some(session) = sessions.iter().nth(number) else {
        return Ok(());
    };
    match push {
        Push::Callback { callback, status } => session.callbacks.reached(callback, status),
        Push::Output { stream, text } => {
            session.output.queue(stream, &text);
            Ok(())
        }
        Push::Event { number, over } => {
            session.watches.told(number, over);
            Ok(())
        }
        Push::Times { now, spans } => {
            if let Some(recorder) = recorder() {
                recorder.device_times(session.number, now, &spans);
            }
            Ok(())
        }
    }
}

/// What a process hears that has outlived the program it belongs to.
fn ended_with_its_run() -> Failure {
    failure(
        "the pool of this harp-run has ended with it: have the program that harp-run starts wait \
         for its children, or use a server that stays (`harp server`, `harp-run --server`)",
    )
}

fn read(credentials: &Path, name: &str) -> Result<String, Failure> {
    let path = credentials.join(name);
    std::fs::read_to_string(&path).map_err(|error| {
        let next_step = match error.raw_os_error() {
            Some(libc::ENOENT) if settings().embedded => return ended_with_its_run(),
            Some(libc::EMFILE | libc::ENFILE) => "raise `ulimit -n`, or close files first",
            _ => {
                "ask the pool's admin for credentials (`harp ca user`) and name their directory \
                 in HARP_CREDENTIALS"
            }
        };
        failure(format!(
            "cannot read the credential {}: {error}; {next_step}",
            path.display()
        ))
    })
}

/// What the program is called, without its folder.
pub fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| {
            Path::new(&path)
                .file_name()
                .map(|name| name.to_string_lossy().into())
        })
        .unwrap_or_default()
}

/// Takes the devices' addresses out of this process's own use, so that no host pointer can be
/// mistaken for a device pointer (DESIGN D6).
fn reserve_windows(server: &str, devices: &[Device]) -> Result<(), Failure> {
    for (base, size) in devices.iter().filter_map(|device| device.window) {
        // SAFETY: an inaccessible mapping that replaces nothing (MAP_FIXED_NOREPLACE).
        let mapped = unsafe {
            libc::mmap(
                base as *mut libc::c_void,
                size as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE
                    | libc::MAP_ANONYMOUS
                    | libc::MAP_NORESERVE
                    | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if mapped as u64 != base {
            return Err(failure(format!(
                "the addresses {base:#x}..{:#x} of a device of {server} are in use in this process",
                base.saturating_add(size)
            )));
        }
        // A child that was forked before `cuInit` may begin a session of its own.
        // SAFETY: advice about the mapping above.
        unsafe { libc::madvise(mapped, size as usize, libc::MADV_DONTFORK) };
    }
    Ok(())
}

/// Starts the thread that sends what others left in the queue.
pub fn start_flusher(session: &'static Session) {
    let started = start_thread("harp-flush", || {
        session.outgoing.run_flusher(
            |error| {
                session.lose(&error.to_string());
            },
            life::is_over,
            (TEND_INTERVAL, || session.keeper.tend()),
        );
    });
    if let Err(error) = started {
        session.outgoing.go_without_flusher();
        no_thread(&error, "every CUDA call is sent by itself, which is slower");
    }
}

/// Sees that the thread runs that reads what the server pushes and runs host functions. It is made
/// at the first host function: most programs have none.
///
/// # Errors
/// `CUDA_ERROR_OPERATING_SYSTEM` where it cannot be started.
pub fn wake_callback_thread(session: &'static Session) -> Result<(), CUresult> {
    let thread = session.callback_thread.lock();
    let mut thread = thread.unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = &*thread {
        thread.unpark();
        return Ok(());
    }
    let started = start_thread("harp-callbacks", move || run_callbacks(session));
    let started = started.map_err(|error| {
        no_thread(&error, "host functions in streams are refused");
        CUDA_ERROR_OPERATING_SYSTEM
    })?;
    *thread = Some(started);
    Ok(())
}

fn run_callbacks(session: &'static Session) {
    loop {
        // What was printed before a host function's turn appears before it runs.
        session.output.write();
        session.callbacks.run_reached(session);
        if life::is_over() {
            // A host function has forked: this is the child, where nobody will call any more.
            return;
        }
        if session.callbacks.any() && session.alive().is_ok() {
            if let Err(cause) = session.incoming.listen(
                || session.callbacks.any_reached(),
                || session.alive().is_err() || life::is_over(),
            ) {
                session.lose(&cause);
            }
        } else {
            std::thread::park();
        }
    }
}
