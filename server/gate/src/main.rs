//! harp-gate: the one open port of a HARP server.
//!
//! ```text
//! harp-gate --control-fd N (--listen ADDRESS:PORT | --listen-fd N) [--uid N] [--connections N] [--patience SECONDS]
//! ```
//!
//! The gate accepts TCP connections, reads from each no more than the server name of its TLS ClientHello (without
//! taking a byte off the socket), and passes the socket to the agent. It holds no key, no configuration and no secret,
//! and it is jailed before the first connection: whoever takes it over can accept connections and nothing else.
//!
//! The control socket is an inherited `SOCK_SEQPACKET` Unix socket; every message is one JSON object:
//!
//! | message | descriptor |
//! |---|---|
//! | `{"event":"listening","address":"127.0.0.1:8443"}`, once | none |
//! | `{"peer":"10.0.0.7:50312","sni":"harp-server"}` for each TLS connection, `"sni":null` if it names no server | the connected socket, blocking |
//! | `{"event":"refused","peer":…,"reason":…,"unreported":0}` for a connection that the gate closed | none |
//!
//! The gate ends when the control socket closes, and is killed when the thread that started it ends (PR_SET_PDEATHSIG):
//! start it from a thread that lives as long as the agent. Run as root it becomes user `--uid` (default 65534) once its
//! port is open.

mod client_hello;
mod control;
mod jail;
mod serve;

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Duration;

use control::Control;
use serve::{Gate, Limits};

const USAGE: &str = "usage: harp-gate --control-fd N (--listen ADDRESS:PORT | --listen-fd N) \
                     [--uid N] [--connections N] [--patience SECONDS]";

/// The unprivileged user that most systems call "nobody".
const NOBODY: u32 = 65534;

/// Standard streams, control socket, listener, one connection on its way in or out, and some slack.
const OWN_DESCRIPTORS: usize = 16;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("harp-gate: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let listener = options.listener()?;
    // SAFETY: the agent passed this descriptor for the gate to own.
    let control = Control::new(unsafe { OwnedFd::from_raw_fd(options.control) });
    let gate = Gate::new(listener, control, options.limits);
    jail::enter(options.uid, options.limits.connections + OWN_DESCRIPTORS)?;
    gate.serve().map_err(|e| format!("stopped: {e}"))
}

struct Options {
    control: RawFd,
    port: Port,
    uid: u32,
    limits: Limits,
}

enum Port {
    Bind(String),
    Inherited(RawFd),
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut control = None;
        let mut port = None;
        let mut uid = NOBODY;
        let mut limits = Limits {
            connections: 256,
            patience: Duration::from_secs(5),
        };
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
            match name.as_str() {
                "--control-fd" => control = Some(number(&name, &value)?),
                "--listen" => port = Some(Port::Bind(value)),
                "--listen-fd" => port = Some(Port::Inherited(number(&name, &value)?)),
                "--uid" => uid = number(&name, &value)?,
                "--connections" => limits.connections = number::<usize>(&name, &value)?.max(1),
                "--patience" => limits.patience = Duration::from_secs(number(&name, &value)?),
                _ => return Err(format!("unknown option {name}; {USAGE}")),
            }
        }
        Ok(Self {
            control: control.ok_or_else(|| format!("--control-fd is missing; {USAGE}"))?,
            port: port.ok_or_else(|| format!("--listen or --listen-fd is missing; {USAGE}"))?,
            uid,
            limits,
        })
    }

    fn listener(&self) -> Result<TcpListener, String> {
        match &self.port {
            Port::Bind(address) => TcpListener::bind(address.as_str())
                .map_err(|e| format!("cannot listen on {address}: {e}")),
            // SAFETY: the agent passed this descriptor for the gate to own.
            Port::Inherited(fd) => Ok(unsafe { TcpListener::from_raw_fd(*fd) }),
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value:?}; {USAGE}"))
}
