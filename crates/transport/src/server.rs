//! The server's way to a session, over a connection that somebody else has accepted.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::UnbufferedServerConnection;

use crate::client::{link_info, LinkInfo};
use crate::envelope::Cold;
use crate::error::{alert_is_about_certificate, alert_name, printable, AcceptError, LinkError};
use crate::grpc::status;
use crate::h2::Side;
use crate::identity::VERSION;
use crate::link::socket::Socket;
use crate::link::{Link, Receiver, Sender};
use crate::proto::refused::Reason;
use crate::tls::config;
use crate::tls::handshake::{self, HandshakeError};
use crate::tuning::Tuning;
use crate::{Hello, Refused, Welcome};

/// Who the server is and whose clients it takes. The texts are PEM.
#[derive(Clone)]
pub struct ServerConfig {
    /// The authorities of which one must have issued a client's certificate.
    pub ca_pem: String,
    /// The server's certificate, then the ones between it and an authority.
    pub cert_pem: String,
    /// The certificate's private key.
    pub key_pem: String,
}

/// A client that has said hello and waits to be welcomed or refused.
pub struct Incoming {
    pub hello: Hello,
    pub info: LinkInfo,
    link: Arc<Link>,
    sender: Sender,
    receiver: Receiver,
}

/// Does the handshake on `stream` and waits for the client's hello, within `timeout`.
///
/// A client of a version that does not work with ours is refused here.
///
/// # Errors
/// Says at which step it failed and why.
pub fn accept(
    stream: TcpStream,
    config: &ServerConfig,
    timeout: Duration,
) -> Result<Incoming, AcceptError> {
    accept_with(stream, config, timeout, Tuning::default())
}

/// [`accept`], with a tuning of the caller's.
///
/// System calls, for a caller that filters them: setsockopt, ioctl, recvfrom, sendto, ppoll,
/// eventfd2, read, write, shutdown, close, getrandom, getpid, clock_gettime, futex, and those of the
/// allocator. No file is opened.
///
/// # Errors
/// As [`accept`].
pub fn accept_with(
    stream: TcpStream,
    config: &ServerConfig,
    timeout: Duration,
    tuning: Tuning,
) -> Result<Incoming, AcceptError> {
    let deadline = Instant::now() + timeout;
    let tls = config::server(&config.ca_pem, &config.cert_pem, &config.key_pem)
        .map_err(AcceptError::Credentials)?;
    let closed = |error: io::Error| AcceptError::Closed(error.to_string());
    let socket = Socket::new(stream).map_err(closed)?;
    let connection = UnbufferedServerConnection::new(tls)
        .map_err(|error| AcceptError::Tls(error.to_string()))?;
    let secured = handshake::run(connection, &socket, deadline).map_err(no_handshake)?;
    let info = link_info(&socket, &secured);
    let link = Arc::new(Link::new(Side::Server, socket, secured, tuning).map_err(closed)?);
    let sender = Sender::new(link.clone());
    let receiver = Receiver::new(link.clone());
    let mut incoming = Incoming {
        hello: Hello::default(),
        info,
        link,
        sender,
        receiver,
    };
    incoming.hello = incoming.wait_for_hello(deadline)?;
    let client = incoming.hello.version.unwrap_or_default();
    if !client.works_with(VERSION) {
        incoming.refuse(Refused {
            reason: Reason::Version.into(),
            text: format!("this server speaks version {VERSION}, the client {client}"),
            ..Refused::default()
        });
        return Err(AcceptError::VersionRefused {
            client,
            server: VERSION,
        });
    }
    Ok(incoming)
}

impl Incoming {
    fn wait_for_hello(&mut self, deadline: Instant) -> Result<Hello, AcceptError> {
        self.sender
            .set_send_timeout(deadline.saturating_duration_since(Instant::now()));
        self.sender
            .write(|writer| writer.open_connection(None))
            .map_err(|error| no_hello(error.downcast().unwrap_or(LinkError::Closed)))?;
        match self.receiver.greeting(deadline) {
            Ok(Some(Cold::Hello(hello))) => Ok(hello),
            Ok(Some(_)) => Err(AcceptError::Link(LinkError::Violation(
                "a first frame that is no hello",
            ))),
            Ok(None) => Err(AcceptError::TimedOut("the client's hello")),
            Err(error) => {
                // It has been told why; let it read that.
                handshake::linger(&self.link.socket);
                Err(no_hello(error))
            }
        }
    }

    /// Opens the session. The welcome's version is set here.
    ///
    /// # Errors
    /// What has ended the link in the meantime.
    pub fn welcome(mut self, mut welcome: Welcome) -> Result<(Sender, Receiver), LinkError> {
        welcome.version = Some(VERSION);
        self.sender
            .write(|writer| {
                writer.open_response()?;
                writer.cold(Cold::Welcome(welcome))
            })
            .map_err(|error| error.downcast().unwrap_or(LinkError::Closed))?;
        self.sender.set_send_timeout(None);
        Ok((self.sender, self.receiver))
    }

    /// Tells the client why it gets no session, as far as it listens. The version is set here.
    pub fn refuse(mut self, mut refused: Refused) {
        refused.version = Some(VERSION);
        let text = refused.text.clone();
        let said = self.sender.write(|writer| {
            writer.open_response()?;
            writer.cold(Cold::Refused(refused))?;
            writer.end(status::FAILED_PRECONDITION, &text)
        });
        if said.is_ok() {
            handshake::linger(&self.link.socket);
        }
    }
}

fn no_hello(error: LinkError) -> AcceptError {
    match error {
        LinkError::Alert(code) if alert_is_about_certificate(code) => {
            AcceptError::ServerCertificateRefused(alert_name(code))
        }
        LinkError::NotGrpc(text) => AcceptError::NotGrpc(text),
        LinkError::Http2 { text, .. } => AcceptError::NotGrpc(text.to_owned()),
        LinkError::Lost(text) => AcceptError::Closed(text),
        LinkError::Closed => AcceptError::Closed("the client ended the call".to_owned()),
        LinkError::TimedOut => AcceptError::TimedOut("the client to take the settings"),
        other => AcceptError::Link(other),
    }
}

fn no_handshake(error: HandshakeError) -> AcceptError {
    let error = match error {
        HandshakeError::TimedOut => return AcceptError::TimedOut("the TLS handshake"),
        HandshakeError::NotTls => return AcceptError::NotTls,
        HandshakeError::Closed(text) => return AcceptError::Closed(text),
        HandshakeError::NotHttp2 => {
            return AcceptError::NotGrpc("it does not offer HTTP/2".to_owned());
        }
        HandshakeError::Tls(error) => error,
    };
    match error {
        rustls::Error::NoCertificatesPresented => {
            AcceptError::ClientCertificate("it has sent none".to_owned())
        }
        rustls::Error::InvalidCertificate(certificate) => {
            AcceptError::ClientCertificate(printable(&certificate.to_string()))
        }
        rustls::Error::AlertReceived(alert) if alert_is_about_certificate(alert.into()) => {
            AcceptError::ServerCertificateRefused(alert_name(alert.into()))
        }
        rustls::Error::NoApplicationProtocol => {
            AcceptError::NotGrpc("it does not offer HTTP/2".to_owned())
        }
        rustls::Error::AlertReceived(alert) => {
            AcceptError::Tls(format!("the client says {}", alert_name(alert.into())))
        }
        other => AcceptError::Tls(printable(&other.to_string())),
    }
}
