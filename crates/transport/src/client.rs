//! The client's way to a session.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::CertificateError;

use crate::envelope::Cold;
use crate::error::{alert_is_about_certificate, alert_name, printable, ConnectError, LinkError};
use crate::h2::Side;
use crate::identity::spiffe_uri;
use crate::link::socket::Socket;
use crate::link::{Link, Receiver, Sender};
use crate::proto::refused::Reason;
use crate::tls::config;
use crate::tls::handshake::{self, HandshakeError, Secured};
use crate::tuning::Tuning;
use crate::validity;
use crate::{Hello, Refused, Version, Welcome};

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
    /// The socket, for a forked child that closes its copy, or to shut it down from another thread.
    pub socket: RawFd,
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
    connect_with(address, config, hello, timeout, Tuning::default())
        .map_err(|error| validity::explain(error, config))
}

/// [`connect`], with a tuning of the caller's.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(
    address: &str,
    config: &ClientConfig,
    hello: Hello,
    timeout: Duration,
    tuning: Tuning,
) -> Result<(Sender, Receiver, Welcome, LinkInfo), ConnectError> {
    let deadline = Instant::now() + timeout;
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
        deadline,
    )?;
    sender.set_send_timeout(None);
    link.socket.reset_when_stuck();
    Ok((sender, receiver, welcome, info))
}

pub(crate) fn link_info(socket: &Socket, secured: &Secured) -> LinkInfo {
    LinkInfo {
        tls_version: "TLSv1.3",
        cipher: secured.cipher.clone(),
        peer: secured.peer_certificates.first().and_then(spiffe_uri),
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
    deadline: Instant,
) -> Result<Welcome, ConnectError> {
    let ours = hello.version.unwrap_or_default();
    sender.set_send_timeout(deadline.saturating_duration_since(Instant::now()));
    let said = sender.write(|writer| {
        writer.open_connection(Some(authority))?;
        writer.cold(Cold::Hello(hello))
    });
    if let Err(error) = said {
        // What the peer has said is a better cause than that it does not listen.
        let cause = error.downcast::<LinkError>().unwrap_or(LinkError::Closed);
        return Err(no_greeting(cause));
    }
    match receiver.greeting(deadline).map_err(no_greeting)? {
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
