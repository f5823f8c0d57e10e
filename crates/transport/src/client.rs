//! The client's way to a session.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::CertificateError;

use crate::envelope::Cold;
use crate::error::{alert_is_about_certificate, alert_name, printable, ConnectError, LinkError};
use crate::h2::Side;
use crate::identity::{serial, spiffe_uri};
use crate::link::socket::Socket;
use crate::link::StartThread;
use crate::link::{Break, Link, Observed, Observer, Receiver, Resumption, Sender};
use crate::proto::refused::Reason;
use crate::proto::Resume;
use crate::tls::config;
use crate::tls::handshake::{self, HandshakeError, Secured};
use crate::tuning::Tuning;
use crate::validity;
use crate::{Hello, Refused, Version, Welcome};

/// A client that cannot resume its session says so for the first time after so long.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// Nothing that has listened at an address for so long is on its way back: the server is gone, and
/// its sessions with it.
const REFUSED_MAX: Duration = Duration::from_secs(3);
/// Between two attempts to connect; the first ones follow each other faster.
const PAUSE_MAX: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Who the client is and whom it trusts. The texts are PEM.
#[derive(Clone)]
pub struct ClientConfig {
    /// The authorities of which one must have issued the server's certificate.
    pub ca_pem: String,
    /// The client's certificate, then the ones between it and an authority.
    pub cert_pem: String,
    /// The certificate's private key.
    pub key_pem: String,
    /// The DNS name that the server's certificate must be for.
    pub server_name: String,
}

/// What is known about a link besides its halves.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// `TLSv1.3`: there is no other.
    pub tls_version: &'static str,
    /// The cipher suite's name in RFC 8446.
    pub cipher: String,
    /// The SPIFFE identity in the peer's certificate, if it has exactly one.
    pub peer: Option<String>,
    /// The serial number of the peer's certificate, in hexadecimal digits.
    pub serial: Option<String>,
    /// The first connection's socket. A session that is resumed has another afterwards.
    pub socket: RawFd,
}

/// How a client resumes its session when the connection breaks.
#[derive(Clone)]
pub struct Resuming {
    /// How long it tries, at most: no longer than the server keeps the session.
    pub limit: Duration,
    /// Hears of it.
    pub observer: Observer,
    /// Starts the thread that connects anew, and those of [`Tuning::crew`]. A library in somebody else's
    /// program keeps that program's signals from them.
    pub start_thread: StartThread,
    /// With what it connects anew, given what the session began with: by then the client's
    /// certificate may have been renewed.
    pub refresh: Refresh,
}

/// Credentials as they are now, in place of those that are given. The server name stays.
pub type Refresh = Arc<dyn Fn(&ClientConfig) -> ClientConfig + Send + Sync>;

impl Default for Resuming {
    fn default() -> Resuming {
        Resuming {
            limit: Duration::MAX,
            observer: Arc::new(|_| ()),
            start_thread: Tuning::default().start_thread,
            refresh: Arc::new(ClientConfig::clone),
        }
    }
}

/// Connects to a server at `address` (HOST:PORT) and opens a session there.
///
/// # Errors
/// Says at which step it failed and why; `timeout` bounds all of them together.
pub fn connect(
    address: &str,
    config: &ClientConfig,
    hello: Hello,
    timeout: Duration,
) -> Result<(Sender, Receiver, Welcome, LinkInfo), ConnectError> {
    connect_resuming(address, config, hello, timeout, Resuming::default())
}

/// [`connect`], with the caller's say in how the session is resumed.
///
/// # Errors
/// As [`connect`].
pub fn connect_resuming(
    address: &str,
    config: &ClientConfig,
    hello: Hello,
    timeout: Duration,
    resuming: Resuming,
) -> Result<(Sender, Receiver, Welcome, LinkInfo), ConnectError> {
    connect_with(address, config, hello, timeout, Tuning::default(), resuming)
        .map_err(|error| validity::explain(error, config))
}

/// [`connect_resuming`]; a connection that breaks while there is no session yet is tried again, a few times
/// and within `timeout`.
///
/// # Errors
/// As [`connect`].
pub fn connect_persisting(
    address: &str,
    config: &ClientConfig,
    hello: &Hello,
    timeout: Duration,
    resuming: &Resuming,
) -> Result<(Sender, Receiver, Welcome, LinkInfo), ConnectError> {
    let end = Instant::now() + timeout;
    let mut pause = 2 * PAUSE_MIN;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match connect_resuming(address, config, hello.clone(), left, resuming.clone()) {
            Err(ConnectError::Closed(_)) if pause < PAUSE_MAX && Instant::now() + pause < end => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

/// [`connect_resuming`], with a tuning of the caller's and errors as TLS tells them.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(
    address: &str,
    config: &ClientConfig,
    hello: Hello,
    timeout: Duration,
    tuning: Tuning,
    resuming: Resuming,
) -> Result<(Sender, Receiver, Welcome, LinkInfo), ConnectError> {
    let tuning = Tuning {
        start_thread: resuming.start_thread,
        ..tuning
    };
    let opened = Opened::open(
        address,
        config,
        hello.clone(),
        None,
        Instant::now() + timeout,
        tuning.clone(),
    )?;
    let Opened {
        link,
        mut sender,
        receiver,
        welcome,
        info,
    } = opened;
    sender.set_send_timeout(None);
    link.set_observer(resuming.observer);
    if welcome.token.is_empty() {
        link.present().socket.reset_when_stuck();
    } else {
        let grace = Duration::from_millis(welcome.grace_ms.into());
        let reconnector = Reconnector {
            address: address.to_owned(),
            config: ClientConfig {
                server_name: format!("{}.{}", welcome.session, config.server_name),
                ..config.clone()
            },
            hello: Hello {
                resume: Some(Resume {
                    session: welcome.session.clone(),
                    token: welcome.token.clone(),
                }),
                ..hello
            },
            timeout,
            tuning,
            limit: grace.min(resuming.limit),
            refresh: resuming.refresh,
        };
        link.make_resumable(Resumption::Client(Box::new(reconnector)));
    }
    Ok((sender, receiver, welcome, info))
}

/// A connection on which both ends have greeted each other.
struct Opened {
    link: Arc<Link>,
    sender: Sender,
    receiver: Receiver,
    welcome: Welcome,
    info: LinkInfo,
}

impl Opened {
    /// `resumes_after`: the last frame that has come whole of the session to be resumed.
    fn open(
        address: &str,
        config: &ClientConfig,
        hello: Hello,
        resumes_after: Option<u64>,
        deadline: Instant,
        tuning: Tuning,
    ) -> Result<Opened, ConnectError> {
        let tls = config::client(&config.ca_pem, &config.cert_pem, &config.key_pem)
            .map_err(ConnectError::Credentials)?;
        let name = ServerName::try_from(config.server_name.clone()).map_err(|_| {
            ConnectError::Credentials(format!("{:?} is no server name", config.server_name))
        })?;
        let stream = open(address, deadline)?;
        let socket = Socket::new(stream).map_err(|error| not_open(&error))?;
        let connection = UnbufferedClientConnection::new(tls, name).map_err(handshake_failed)?;
        let secured = handshake::run(connection, &socket, deadline).map_err(no_handshake)?;
        let info = link_info(&socket, &secured);
        let link =
            Link::new(Side::Client, socket, secured, tuning).map_err(|error| not_open(&error))?;
        let link = Arc::new(link);
        let mut sender = Sender::new(link.clone());
        let mut receiver = Receiver::new(link.clone());
        let welcome = greet(
            &mut sender,
            &mut receiver,
            &config.server_name,
            hello,
            resumes_after,
            deadline,
        )?;
        Ok(Opened {
            link,
            sender,
            receiver,
            welcome,
            info,
        })
    }
}

/// Connects anew for a session whose connection broke.
pub(crate) struct Reconnector {
    address: String,
    config: ClientConfig,
    hello: Hello,
    /// Of one attempt.
    timeout: Duration,
    tuning: Tuning,
    limit: Duration,
    refresh: Refresh,
}

impl Reconnector {
    /// Starts a thread that does it, and ends when the link goes on or fails.
    pub fn start(&self, link: &Arc<Link>) -> Result<(), LinkError> {
        let link = Arc::downgrade(link);
        (self.tuning.start_thread)("harp-resume", Box::new(move || run(&link))).map_err(|error| {
            LinkError::Lost(format!(
                "no thread can be started to resume the session: {error}"
            ))
        })
    }

    fn attempt(&self, link: &Arc<Link>, end: Instant) -> Result<(), ConnectError> {
        let received = link.leave_connection();
        let opened = Opened::open(
            &self.address,
            &(self.refresh)(&self.config),
            self.hello.clone(),
            Some(received),
            end.min(Instant::now() + self.timeout),
            self.tuning.clone(),
        )?;
        let acknowledged = opened
            .receiver
            .resumes_after()
            .filter(|ack| link.continues_after(*ack));
        let Some(acknowledged) = acknowledged else {
            let error = LinkError::Violation("a session that goes on somewhere else");
            link.give_up(error.clone());
            return Err(ConnectError::Link(error));
        };
        link.adopt(&opened.link, acknowledged)
            .map_err(|how| match how {
                Break::Final(error) => {
                    link.give_up(error.clone());
                    ConnectError::Link(error)
                }
                Break::Network(error) | Break::HungUp(error) => {
                    let _ = link.broke(&link.present(), Break::Network(error.clone()));
                    ConnectError::Link(error)
                }
            })
    }
}

fn run(link: &Weak<Link>) {
    let mut pause = PAUSE_MIN;
    let mut told = false;
    let mut refused: Option<Instant> = None;
    loop {
        let Some(link) = link.upgrade() else { return };
        let Some(Resumption::Client(reconnector)) = link.resumption() else {
            return;
        };
        if !link.is_alive() {
            return;
        }
        let Some(since) = link.interrupted_since() else {
            return;
        };
        let limit = reconnector.limit;
        let end = since
            .checked_add(limit)
            .unwrap_or(since + Duration::from_secs(1 << 30));
        let error = match reconnector.attempt(&link, end) {
            Ok(()) if link.has_resumed() => return,
            Ok(()) => ConnectError::Closed("it broke at once".to_owned()),
            Err(error) => error,
        };
        let was_refused = error == ConnectError::Refused;
        let refused_for = match (was_refused, refused) {
            (true, Some(first)) => first.elapsed(),
            (true, None) => {
                refused = Some(Instant::now());
                Duration::ZERO
            }
            (false, _) => {
                refused = None;
                Duration::ZERO
            }
        };
        let cause = link.present().broken().map(ToString::to_string);
        let cause = cause.unwrap_or_default();
        match &error {
            ConnectError::SessionLost(text) => {
                link.give_up(LinkError::SessionLost(text.clone()));
                return;
            }
            error if is_final(error) || refused_for >= REFUSED_MAX => {
                link.give_up(LinkError::NotResumed(format!("{cause}; then: {error}")));
                return;
            }
            _ => {}
        }
        let now = Instant::now();
        if now >= end {
            let seconds = limit.as_secs_f64();
            let text = format!("{cause}; not resumed within {seconds} s: {error}");
            link.give_up(LinkError::NotResumed(text));
            return;
        }
        let waited = now.duration_since(since);
        if waited >= TELL_AFTER && !told {
            told = true;
            link.tell(&Observed::Waiting {
                since: waited,
                left: end.duration_since(now),
                cause: &error.to_string(),
            });
        }
        drop(link);
        std::thread::sleep(pause.min(end.duration_since(now)));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether trying again later cannot help: who answers is not who the session was with. A name that
/// does not resolve may again, as it did when the session began.
fn is_final(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::UnknownIssuer
            | ConnectError::Expired { .. }
            | ConnectError::NotYetValid { .. }
            | ConnectError::NameMismatch { .. }
            | ConnectError::Certificate(_)
            | ConnectError::ClientCertificateRefused(_)
            | ConnectError::ClientUnknownIssuer
            | ConnectError::ClientExpired { .. }
            | ConnectError::ClientNotYetValid { .. }
            | ConnectError::ClocksDiffer { .. }
            | ConnectError::VersionRefused { .. }
            | ConnectError::SessionRefused(_)
            | ConnectError::Credentials(_)
    )
}

pub(crate) fn link_info(socket: &Socket, secured: &Secured) -> LinkInfo {
    LinkInfo {
        tls_version: "TLSv1.3",
        cipher: secured.cipher.clone(),
        peer: secured.peer_certificates.first().and_then(spiffe_uri),
        serial: secured.peer_certificates.first().and_then(serial),
        socket: socket.raw_fd(),
    }
}

fn open(address: &str, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|error| ConnectError::Resolve(format!("{address:?}: {error}")))?
        .collect();
    let mut failure = ConnectError::Resolve(format!("{address:?} has no address"));
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectError::TimedOut("the connection"));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = not_open(&error),
        }
    }
    Err(failure)
}

fn not_open(error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        io::ErrorKind::TimedOut => ConnectError::TimedOut("the connection"),
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            ConnectError::NoDescriptors(error.to_string())
        }
        _ => ConnectError::Unreachable(error.to_string()),
    }
}

/// Says hello and waits for the server's answer.
fn greet(
    sender: &mut Sender,
    receiver: &mut Receiver,
    authority: &str,
    hello: Hello,
    resumes_after: Option<u64>,
    deadline: Instant,
) -> Result<Welcome, ConnectError> {
    let ours = hello.version.unwrap_or_default();
    sender.set_send_timeout(deadline.saturating_duration_since(Instant::now()));
    let said = sender.write(|writer| {
        writer.open_connection(Some(authority))?;
        writer.greet(Cold::Hello(hello), resumes_after)
    });
    if let Err(error) = said {
        // What the peer has said is a better cause than that it does not listen.
        let cause = error.downcast::<LinkError>().unwrap_or(LinkError::Closed);
        return Err(no_greeting(cause));
    }
    let greeting = receiver.greeting(deadline).map_err(no_greeting)?;
    if greeting.is_some() && receiver.resumes_after().is_some() != resumes_after.is_some() {
        return Err(ConnectError::Link(LinkError::Violation(
            "a greeting with another session's number",
        )));
    }
    match greeting {
        Some(Cold::Welcome(welcome)) => {
            let theirs = welcome.version.unwrap_or_default();
            if !ours.works_with(theirs) {
                return Err(ConnectError::VersionRefused {
                    client: ours,
                    server: theirs,
                });
            }
            Ok(welcome)
        }
        Some(Cold::Refused(refused)) => Err(not_welcome(ours, &refused)),
        Some(_) => Err(ConnectError::Link(LinkError::Violation(
            "a first frame that is no greeting",
        ))),
        None => Err(ConnectError::TimedOut(
            "the server's answer to the greeting",
        )),
    }
}

fn not_welcome(client: Version, refused: &Refused) -> ConnectError {
    match (refused.reason(), refused.version) {
        (Reason::Version, Some(server)) => ConnectError::VersionRefused { client, server },
        (Reason::Capacity, _) => ConnectError::NoneLeft(printable(&refused.text)),
        (Reason::Session, _) => ConnectError::SessionLost(printable(&refused.text)),
        _ => ConnectError::SessionRefused(printable(&refused.text)),
    }
}

fn no_greeting(error: LinkError) -> ConnectError {
    match error {
        // In TLS 1.3 the server looks at the client's certificate when the client is already done.
        LinkError::Alert(code) if alert_is_about_certificate(code) => {
            ConnectError::ClientCertificateRefused(alert_name(code))
        }
        LinkError::NotGrpc(text) => ConnectError::NotGrpc(text),
        LinkError::Status { code: 12, message } => {
            ConnectError::NotGrpc(format!("it does not offer HARP sessions ({message})"))
        }
        LinkError::Http2 { text, .. } => ConnectError::NotGrpc(text.to_owned()),
        LinkError::Lost(text) => ConnectError::Closed(text),
        LinkError::Closed => ConnectError::Closed("the server ended the call".to_owned()),
        LinkError::TimedOut => ConnectError::TimedOut("the server to take the greeting"),
        other => ConnectError::Link(other),
    }
}

fn no_handshake(error: HandshakeError) -> ConnectError {
    match error {
        HandshakeError::TimedOut => ConnectError::TimedOut("the TLS handshake"),
        HandshakeError::NotTls => ConnectError::NotTls,
        HandshakeError::Closed(text) => ConnectError::Closed(text),
        HandshakeError::NotHttp2 => ConnectError::NotGrpc("it does not offer HTTP/2".to_owned()),
        HandshakeError::Tls(error) => handshake_failed(error),
    }
}

fn handshake_failed(error: rustls::Error) -> ConnectError {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer => ConnectError::UnknownIssuer,
            C::ExpiredContext { time, not_after } => ConnectError::Expired {
                now: time.into(),
                until: not_after.into(),
            },
            C::NotValidYetContext { time, not_before } => ConnectError::NotYetValid {
                now: time.into(),
                from: not_before.into(),
            },
            C::NotValidForNameContext {
                expected,
                presented,
            } => ConnectError::NameMismatch {
                expected: expected.to_str().into_owned(),
                presented: presented.iter().map(|name| printable(name)).collect(),
            },
            other => ConnectError::Certificate(printable(&other.to_string())),
        },
        rustls::Error::AlertReceived(alert) if alert_is_about_certificate(alert.into()) => {
            ConnectError::ClientCertificateRefused(alert_name(alert.into()))
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
            ConnectError::NotGrpc("it does not offer HTTP/2".to_owned())
        }
        rustls::Error::AlertReceived(alert) => {
            ConnectError::Tls(format!("the server says {}", alert_name(alert.into())))
        }
        other => ConnectError::Tls(printable(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_of_the_name_service_ends_no_session() {
        let outage = open("no-such-host.invalid:1", Instant::now() + TELL_AFTER).unwrap_err();
        assert!(matches!(outage, ConnectError::Resolve(_)), "{outage:?}");
        assert!(!is_final(&outage));
        assert!(is_final(&ConnectError::UnknownIssuer));
    }
}
