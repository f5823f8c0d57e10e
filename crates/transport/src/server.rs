//! The server's way to a session, over a connection that somebody else has accepted.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::server::UnbufferedServerConnection;

use crate::client::{link_info, LinkInfo};
use crate::envelope::Cold;
use crate::error::{alert_is_about_certificate, alert_name, printable, AcceptError, LinkError};
use crate::grpc::status;
use crate::h2::Side;
use crate::identity::VERSION;
use crate::link::socket::Socket;
use crate::link::{Break, Link, Observer, Receiver, Resumption, Sender};
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
    /// What the client has received of a session that it resumes; `None`: it begins one.
    resumes_after: Option<u64>,
}

/// How a session is kept when its connection breaks.
pub struct Keeping {
    /// How long; zero does not keep it.
    pub grace: Duration,
    /// Hears of it.
    pub observer: Observer,
}

/// What a client must show to resume a session.
pub(crate) struct Kept {
    pub session: String,
    pub token: Vec<u8>,
    pub peer: Option<String>,
    pub grace: Duration,
    /// One connection at a time takes the place of another.
    pub turn: Mutex<()>,
}

impl Kept {
    /// Whether a client of this identity that greets so may go on with the session.
    ///
    /// # Errors
    /// Why not, for that client.
    pub fn admits(&self, hello: &Hello, peer: Option<&str>) -> Result<(), &'static str> {
        if peer != self.peer.as_deref() {
            return Err("it is another client's");
        }
        let shown = hello.resume.clone().unwrap_or_default();
        // The token in constant time: how long the comparison takes must not tell how much is right.
        let is_right = verify_slices_are_equal(&shown.token, &self.token).is_ok();
        if !is_right || shown.session != self.session {
            return Err("its token is another");
        }
        Ok(())
    }
}

/// How long a client that has been refused has to read why and close.
const REFUSED: Duration = Duration::from_secs(1);

/// Bytes of the token that resumes a session.
const TOKEN_BYTES: usize = 32;

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
        resumes_after: None,
    };
    incoming.hello = incoming.wait_for_hello(deadline)?;
    incoming.resumes_after = incoming.receiver.resumes_after();
    if incoming.resumes_after.is_some() != incoming.hello.resume.is_some() {
        return Err(AcceptError::Link(LinkError::Violation(
            "a greeting with another session's number",
        )));
    }
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
                handshake::linger(&self.link.present().socket);
                Err(no_hello(error))
            }
        }
    }

    /// Opens a session that ends with its connection. The welcome's version is set here.
    ///
    /// # Errors
    /// What has ended the link in the meantime; [`LinkError::Closed`] for a client that resumes a
    /// session, and is refused.
    pub fn welcome(self, welcome: Welcome) -> Result<(Sender, Receiver), LinkError> {
        let keeping = Keeping {
            grace: Duration::ZERO,
            observer: Arc::new(|_| ()),
        };
        self.welcome_and_keep(welcome, keeping)
    }

    /// Opens a session that is kept when its connection breaks, if its client can resume it. The
    /// welcome's version, token and grace are set here.
    ///
    /// # Errors
    /// As [`welcome`](Incoming::welcome).
    pub fn welcome_and_keep(
        mut self,
        mut welcome: Welcome,
        keeping: Keeping,
    ) -> Result<(Sender, Receiver), LinkError> {
        if self.resumes_after.is_some() {
            self.refuse_resuming("it has ended, or the server was started anew");
            return Err(LinkError::Closed);
        }
        let Keeping { grace, observer } = keeping;
        welcome.version = Some(VERSION);
        let mut kept = None;
        if !grace.is_zero() && self.hello.version.unwrap_or_default().resumes() {
            let mut token = vec![0; TOKEN_BYTES];
            aws_lc_rs::rand::fill(&mut token)
                .map_err(|_| LinkError::Lost("no random numbers".to_owned()))?;
            welcome.token.clone_from(&token);
            welcome.grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            kept = Some(Kept {
                session: welcome.session.clone(),
                token,
                peer: self.info.peer.clone(),
                grace,
                turn: Mutex::new(()),
            });
        }
        self.sender
            .write(|writer| {
                writer.open_response()?;
                writer.greet(Cold::Welcome(welcome), None)
            })
            .map_err(|error| error.downcast().unwrap_or(LinkError::Closed))?;
        self.sender.set_send_timeout(None);
        self.link.set_observer(observer);
        if let Some(kept) = kept {
            self.link.make_resumable(Resumption::Server(kept));
        }
        Ok((self.sender, self.receiver))
    }

    /// Goes on with the session of `link` over this connection.
    pub(crate) fn resume(mut self, link: &Arc<Link>, kept: &Kept) -> Result<(), AcceptError> {
        let Some(acknowledged) = self.resumes_after else {
            return Err(self.refuse_resuming("the server name is its own, and no token was shown"));
        };
        if let Err(why) = kept.admits(&self.hello, self.info.peer.as_deref()) {
            return Err(self.refuse_resuming(why));
        }
        // Whoever else is about to take the old connection's place lets go of it.
        link.leave_connection();
        let _turn = kept.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let received = link.leave_connection();
        if !link.is_alive() {
            return Err(self.refuse_resuming("it has just ended"));
        }
        if !link.continues_after(acknowledged) {
            return Err(self.refuse_resuming("it has gone on without this client"));
        }
        let welcome = Welcome {
            version: Some(VERSION),
            session: kept.session.clone(),
            ..Welcome::default()
        };
        self.sender
            .write(|writer| {
                writer.open_response()?;
                writer.greet(Cold::Welcome(welcome), Some(received))
            })
            .map_err(|error| no_hello(error.downcast().unwrap_or(LinkError::Closed)))?;
        match link.adopt(&self.link, acknowledged) {
            Ok(()) if link.has_resumed() => Ok(()),
            Ok(()) => Err(AcceptError::Closed("it broke at once".to_owned())),
            Err(how) => {
                let error = match &how {
                    Break::Network(error) | Break::HungUp(error) | Break::Final(error) => {
                        error.clone()
                    }
                };
                let _ = link.broke(&link.present(), how);
                Err(AcceptError::Link(error))
            }
        }
    }

    /// Tells the client why it gets no session, as far as it listens. The version is set here.
    pub fn refuse(mut self, mut refused: Refused) {
        refused.version = Some(VERSION);
        let text = refused.text.clone();
        let outside = self.resumes_after.map(|_| 0);
        let said = self.sender.write(|writer| {
            writer.open_response()?;
            writer.greet(Cold::Refused(refused), outside)?;
            writer.end(status::FAILED_PRECONDITION, &text)
        });
        if said.is_ok() {
            self.link.linger(REFUSED);
        }
    }

    /// Tells a client that wants to resume a session why it cannot.
    pub fn refuse_resuming(self, why: &'static str) -> AcceptError {
        self.refuse(Refused {
            reason: Reason::Session.into(),
            text: why.to_owned(),
            ..Refused::default()
        });
        AcceptError::NotResumed(why)
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
