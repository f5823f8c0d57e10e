//! What can go wrong, in words for the person who started the program.

use std::fmt;
use std::io;

use crate::validity::Moment;
use crate::Version;

/// Why a link that was up is not any more. The first such error of a link is the one that every
/// later call on it returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The stream has ended in good order; there is nothing to send on.
    Closed,
    /// The connection broke: reset, cut without a goodbye, or failed below TLS.
    Lost(String),
    /// The connection broke as above, and the session could not be resumed; the whole story.
    NotResumed(String),
    /// The bound on a blocked send has passed.
    TimedOut,
    /// The peer ended TLS with this fatal alert (RFC 8446 section 6).
    Alert(u8),
    /// The peer broke TLS.
    Tls(&'static str),
    /// The peer broke HTTP/2; the number is the error code that it was told (RFC 9113 section 7).
    Http2 { code: u32, text: &'static str },
    /// The peer ended the HTTP/2 stream or connection with this error code.
    Ended { code: u32, text: String },
    /// The peer speaks HTTP/2, but not our gRPC; the text says how that shows.
    NotGrpc(String),
    /// The peer broke gRPC or the envelope.
    Violation(&'static str),
    /// A frame's number was not the next one.
    Sequence { expected: u64, received: u64 },
    /// The peer ended the call with this gRPC status, which is not OK.
    Status { code: u32, message: String },
    /// The connection broke, and the server does not have the session any more; its own words.
    SessionLost(String),
}

impl LinkError {
    pub(crate) fn lost(error: &io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::ConnectionReset => LinkError::Lost("reset by the peer".to_owned()),
            io::ErrorKind::BrokenPipe => LinkError::Lost("closed by the peer".to_owned()),
            io::ErrorKind::TimedOut => LinkError::Lost("the network gave up".to_owned()),
            _ => LinkError::Lost(error.to_string()),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Closed => f.write_str("the session's stream has ended"),
            LinkError::Lost(cause) => write!(f, "the connection was lost: {cause}"),
            LinkError::NotResumed(story) => f.write_str(story),
            LinkError::TimedOut => f.write_str("the peer took nothing for too long"),
            LinkError::Alert(code) => {
                write!(
                    f,
                    "the peer ended TLS: {} (alert {code})",
                    alert_name(*code)
                )
            }
            LinkError::Tls(text) => write!(f, "the peer broke TLS: {text}"),
            LinkError::Http2 { code, text } => {
                write!(f, "the peer broke HTTP/2: {text} (error {code})")
            }
            LinkError::Ended { code, text } if text.is_empty() => {
                write!(f, "the peer ended the stream with HTTP/2 error {code}")
            }
            LinkError::Ended { code, text } => {
                write!(
                    f,
                    "the peer ended the stream with HTTP/2 error {code}: {text}"
                )
            }
            LinkError::NotGrpc(text) => write!(f, "the peer does not speak our gRPC: {text}"),
            LinkError::Violation(text) => write!(f, "the peer broke the protocol: {text}"),
            LinkError::Sequence { expected, received } => {
                write!(
                    f,
                    "the peer sent frame {received} where {expected} was next"
                )
            }
            LinkError::SessionLost(text) => {
                write!(f, "the server does not have the session any more: {text}")
            }
            LinkError::Status { code, message } if message.is_empty() => {
                write!(f, "the peer ended the call with gRPC status {code}")
            }
            LinkError::Status { code, message } => {
                write!(
                    f,
                    "the peer ended the call with gRPC status {code}: {message}"
                )
            }
        }
    }
}

impl std::error::Error for LinkError {}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> io::Error {
        let kind = match &error {
            LinkError::Closed
            | LinkError::Ended { .. }
            | LinkError::Status { .. }
            | LinkError::SessionLost(_) => io::ErrorKind::ConnectionAborted,
            LinkError::Lost(_) | LinkError::NotResumed(_) | LinkError::Alert(_) => {
                io::ErrorKind::ConnectionReset
            }
            LinkError::TimedOut => io::ErrorKind::TimedOut,
            LinkError::Tls(_)
            | LinkError::Http2 { .. }
            | LinkError::NotGrpc(_)
            | LinkError::Violation(_)
            | LinkError::Sequence { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// Why a client got no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The address is not HOST:PORT or its name has no address.
    Resolve(String),
    /// Nothing listens there.
    Refused,
    /// The network has no way there.
    Unreachable(String),
    /// This process may open no more files and connections.
    NoDescriptors(String),
    /// The time allowed has passed while waiting for what the text names.
    TimedOut(&'static str),
    /// What listens there does not speak TLS.
    NotTls,
    /// What listens there speaks TLS, but no TLS 1.3 handshake came about.
    Tls(String),
    /// No certificate authority in the client's `ca.pem` has issued the server's certificate.
    UnknownIssuer,
    /// By this machine's clock the server's certificate has expired.
    Expired { now: Moment, until: Moment },
    /// By this machine's clock the server's certificate is not valid yet.
    NotYetValid { now: Moment, from: Moment },
    /// The server's certificate is for other names.
    NameMismatch {
        expected: String,
        presented: Vec<String>,
    },
    /// The server's certificate is unusable for another reason.
    Certificate(String),
    /// The server does not accept the client's certificate; the text is TLS's reason.
    ClientCertificateRefused(&'static str),
    /// Another authority than the server's has issued the client's certificate.
    ClientUnknownIssuer,
    /// The server does not accept the client's certificate, which has expired.
    ClientExpired { now: Moment, until: Moment },
    /// The same for one that is not valid yet by this machine's clock either.
    ClientNotYetValid { now: Moment, from: Moment },
    /// By the server's clock the client's certificate is not valid, by this machine's it is.
    ClocksDiffer {
        now: Moment,
        from: Moment,
        until: Moment,
    },
    /// What listens there speaks TLS, but not gRPC, or does not offer HARP sessions.
    NotGrpc(String),
    /// Client and server do not work together.
    VersionRefused { client: Version, server: Version },
    /// The server gives no session; the text is its reason.
    SessionRefused(String),
    /// The server has no session left; the text says what it has.
    NoneLeft(String),
    /// The server does not have the session that was to be resumed; the text is its reason.
    SessionLost(String),
    /// The connection ended before there was a session.
    Closed(String),
    /// One of the client's own PEM texts is unusable.
    Credentials(String),
    /// The link failed after the handshake.
    Link(LinkError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Resolve(text) => write!(f, "the address cannot be resolved: {text}"),
            ConnectError::Refused => f.write_str("connection refused: nothing listens there"),
            ConnectError::Unreachable(text) => write!(f, "the address cannot be reached: {text}"),
            ConnectError::NoDescriptors(text) => {
                write!(f, "this process cannot open a connection: {text}")
            }
            ConnectError::TimedOut(what) => write!(f, "timed out waiting for {what}"),
            ConnectError::NotTls => f.write_str("what listens there does not speak TLS"),
            ConnectError::Tls(text) => write!(f, "no TLS 1.3 handshake: {text}"),
            ConnectError::UnknownIssuer => {
                f.write_str("the server's certificate was not issued by the authority in ca.pem")
            }
            ConnectError::Expired { now, until } => write!(
                f,
                "the server's certificate expired {} ago, at {until}, by this machine's clock",
                now.apart(*until)
            ),
            ConnectError::NotYetValid { now, from } => write!(
                f,
                "the server's certificate is valid from {from} on, and this machine's clock says \
                 {now}: the clocks of the two differ by at least {}",
                now.apart(*from)
            ),
            ConnectError::NameMismatch {
                expected,
                presented,
            } => write!(
                f,
                "the server's certificate is not for {expected:?} but for {}",
                if presented.is_empty() {
                    "no name".to_owned()
                } else {
                    presented.join(", ")
                }
            ),
            ConnectError::Certificate(text) => {
                write!(f, "the server's certificate is unusable: {text}")
            }
            ConnectError::ClientCertificateRefused(text) => write!(
                f,
                "the server does not accept the client's certificate ({text})"
            ),
            ConnectError::ClientUnknownIssuer => f.write_str(
                "the server's pool has not issued the client's certificate in client.pem",
            ),
            ConnectError::ClientExpired { now, until } => write!(
                f,
                "the client's certificate in client.pem expired {} ago, at {until}",
                now.apart(*until)
            ),
            ConnectError::ClientNotYetValid { now, from } => write!(
                f,
                "the client's certificate in client.pem is valid from {from} on, and this \
                 machine's clock says {now}: it is behind by at least {}",
                now.apart(*from)
            ),
            ConnectError::ClocksDiffer { now, from, until } => write!(
                f,
                "the server takes the client's certificate for expired or not yet valid, but it is \
                 valid from {from} to {until} and this machine's clock says {now}: the clocks of \
                 the two differ by at least {}",
                if now.0.abs_diff(from.0) < now.0.abs_diff(until.0) {
                    now.apart(*from)
                } else {
                    now.apart(*until)
                }
            ),
            ConnectError::NotGrpc(text) => {
                write!(f, "what listens there is not a HARP server: {text}")
            }
            ConnectError::VersionRefused { client, server } => write!(
                f,
                "the server speaks version {server} of the protocol and this client version \
                 {client}"
            ),
            ConnectError::NoneLeft(text) => write!(f, "the server gives no session: {text}"),
            ConnectError::SessionRefused(text) => {
                write!(f, "the server refuses the session: {text}")
            }
            ConnectError::SessionLost(text) => {
                write!(f, "the server does not have the session any more: {text}")
            }
            ConnectError::Closed(text) => {
                write!(f, "the connection ended before there was a session: {text}")
            }
            ConnectError::Credentials(text) => {
                write!(f, "the client's credentials are unusable: {text}")
            }
            ConnectError::Link(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// What the person can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            ConnectError::Resolve(_) => "correct the server's HOST:PORT",
            ConnectError::Refused => "start `harp server` there, or correct HOST:PORT",
            ConnectError::Unreachable(_) | ConnectError::TimedOut(_) => {
                "check the network and the server, or correct HOST:PORT"
            }
            ConnectError::NoDescriptors(_) => "raise `ulimit -n`, or close files first",
            ConnectError::NotTls | ConnectError::Tls(_) | ConnectError::NotGrpc(_) => {
                "check that HOST:PORT is the one that `harp server` printed"
            }
            ConnectError::UnknownIssuer => {
                "use the credentials that this server's pool issued (`harp ca user`)"
            }
            ConnectError::Expired { .. } => {
                "check this machine's clock; if it is right, issue the server's credentials anew \
                 (`harp ca server`)"
            }
            ConnectError::NotYetValid { .. }
            | ConnectError::ClientNotYetValid { .. }
            | ConnectError::ClocksDiffer { .. } => "set the clocks of both machines right",
            ConnectError::ClientUnknownIssuer => {
                "use the credentials that this server's pool issued (`harp ca user`)"
            }
            ConnectError::ClientExpired { .. } => {
                "ask the pool's admin for new credentials (`harp ca user`)"
            }
            ConnectError::NoneLeft(_) => {
                "try again when others have finished, or ask the server's admin for more \
                 (`harp server --max-sessions`)"
            }
            ConnectError::NameMismatch { .. } => "correct --server-name",
            ConnectError::Certificate(_) => {
                "issue the server's credentials anew (`harp ca server`)"
            }
            ConnectError::ClientCertificateRefused(_) | ConnectError::Credentials(_) => {
                "ask the pool's admin for new credentials (`harp ca user`)"
            }
            ConnectError::VersionRefused { .. } => {
                "install equal or neighbouring versions on both sides"
            }
            ConnectError::SessionRefused(_)
            | ConnectError::SessionLost(_)
            | ConnectError::Closed(_)
            | ConnectError::Link(_) => "look into the server's log, or run `harp doctor`",
        }
    }
}

/// Why an accepted connection has not become a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The time allowed has passed while waiting for what the text names.
    TimedOut(&'static str),
    /// The client does not speak TLS.
    NotTls,
    /// No TLS 1.3 handshake came about.
    Tls(String),
    /// The client's certificate is missing or was not accepted.
    ClientCertificate(String),
    /// The client has rejected the server's certificate; the text is TLS's reason.
    ServerCertificateRefused(&'static str),
    /// The client speaks TLS, but not gRPC, or asked for another service.
    NotGrpc(String),
    /// The two do not work together; the client has been told both versions.
    VersionRefused { client: Version, server: Version },
    /// The client has shown that it is not the one whose session it wants to resume, or there is
    /// no such session; it has been told.
    NotResumed(&'static str),
    /// The connection ended before the client had said what it wants.
    Closed(String),
    /// One of the server's own PEM texts is unusable.
    Credentials(String),
    /// The link failed after the handshake.
    Link(LinkError),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::TimedOut(what) => write!(f, "timed out waiting for {what}"),
            AcceptError::NotTls => f.write_str("the client does not speak TLS"),
            AcceptError::Tls(text) => write!(f, "no TLS 1.3 handshake: {text}"),
            AcceptError::ClientCertificate(text) => {
                write!(f, "the client's certificate is not accepted: {text}")
            }
            AcceptError::ServerCertificateRefused(text) => {
                write!(
                    f,
                    "the client does not accept this server's certificate ({text})"
                )
            }
            AcceptError::NotGrpc(text) => write!(f, "the client does not speak gRPC: {text}"),
            AcceptError::VersionRefused { client, server } => {
                write!(
                    f,
                    "the client speaks version {client} of the protocol, this server {server}"
                )
            }
            AcceptError::NotResumed(text) => f.write_str(text),
            AcceptError::Closed(text) => {
                write!(f, "the connection ended before there was a session: {text}")
            }
            AcceptError::Credentials(text) => {
                write!(f, "the server's credentials are unusable: {text}")
            }
            AcceptError::Link(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AcceptError {}

/// The name that RFC 8446 section 6 gives an alert.
pub(crate) fn alert_name(code: u8) -> &'static str {
    match code {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "an unknown alert",
    }
}

/// Whether an alert says that its sender does not accept the other side's certificate.
pub(crate) fn alert_is_about_certificate(code: u8) -> bool {
    matches!(code, 42..=46 | 48 | 49 | 116)
}

/// Text of the peer's for a person's terminal: no control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
