//! gRPC over HTTP/2: the request, the response, the length prefix of a message, the final status.

use crate::error::{printable, LinkError};
use crate::h2::headers::{self, Headers};

pub const PATH: &str = "/harp.data.v1.Session/Open";
const CONTENT_TYPE: &str = "application/grpc";
/// Compressed flag and length.
pub const PREFIX_BYTES: usize = 5;

/// Status codes that we send.
pub mod status {
    pub const OK: u32 = 0;
    pub const FAILED_PRECONDITION: u32 = 9;
    pub const UNIMPLEMENTED: u32 = 12;
}

/// The prefix of a message of `len` bytes, which is not compressed.
pub fn prefix(len: u32) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = len.to_be_bytes();
    [0, a, b, c, d]
}

/// The length of the message that a prefix announces.
pub fn message_len(prefix: &[u8; PREFIX_BYTES], max: usize) -> Result<usize, LinkError> {
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(LinkError::Violation(
            "a compressed message, which nobody agreed on",
        ));
    }
    let len = u32::from_be_bytes(length) as usize;
    if len > max {
        return Err(LinkError::Violation("a message larger than allowed"));
    }
    Ok(len)
}

pub fn request(authority: &str) -> Vec<u8> {
    headers::encode(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", PATH),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", CONTENT_TYPE),
        ("user-agent", concat!("harp/", env!("CARGO_PKG_VERSION"))),
    ])
}

pub fn response() -> Vec<u8> {
    headers::encode(&[(":status", "200"), ("content-type", CONTENT_TYPE)])
}

/// The header block that ends a response which has begun.
pub fn trailers(status: u32, message: &str) -> Vec<u8> {
    let status = status.to_string();
    let mut block = headers::encode(&[("grpc-status", status.as_str())]);
    if !message.is_empty() {
        block.extend(headers::encode(&[(
            "grpc-message",
            percent_encoded(message).as_str(),
        )]));
    }
    block
}

/// The header block of a response that is over before it has begun.
pub fn trailers_only(status: u32, message: &str) -> Vec<u8> {
    let mut block = response();
    block.extend(trailers(status, message));
    block
}

/// `Err` says why a request is not for us.
pub fn check_request(headers: &Headers) -> Result<(), &'static str> {
    let is = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
    if !is(&headers.method, "POST") {
        return Err("the request's method is not POST");
    }
    if !is_grpc(headers) {
        return Err("the request's content type is not application/grpc");
    }
    if !is(&headers.path, PATH) {
        return Err("only harp.data.v1.Session/Open is served here");
    }
    if headers
        .encoding
        .as_deref()
        .is_some_and(|encoding| encoding != "identity")
    {
        return Err("compressed messages are not accepted here");
    }
    Ok(())
}

/// Whether a response is one of gRPC at all.
pub fn check_response(headers: &Headers) -> Result<(), String> {
    match headers.status.as_deref() {
        Some("200") if is_grpc(headers) => Ok(()),
        Some("200") => Err("its answer is not of type application/grpc".to_owned()),
        Some(status) => Err(format!("its answer has HTTP status {}", printable(status))),
        None => Err("its answer has no HTTP status".to_owned()),
    }
}

fn is_grpc(headers: &Headers) -> bool {
    headers.content_type.as_deref().is_some_and(|value| {
        value
            .strip_prefix(CONTENT_TYPE)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('+') || rest.starts_with(';'))
    })
}

/// The end of a call as its trailers tell it.
pub fn check_trailers(trailers: &Headers) -> Result<(), LinkError> {
    match trailers.grpc_status.as_deref().map(str::parse) {
        Some(Ok(status::OK)) => Ok(()),
        Some(Ok(code)) => {
            let message = trailers.grpc_message.as_deref().unwrap_or_default();
            Err(LinkError::Status {
                code,
                message: printable(&percent_decoded(message)),
            })
        }
        _ => Err(LinkError::Violation(
            "a response that ends without a gRPC status",
        )),
    }
}

/// Printable ASCII as it is, everything else and `%` as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::headers::HeaderDecoder;

    #[test]
    fn a_status_message_survives_its_encoding() {
        let message = "no room: 100 % full\nünd so weiter";
        let headers = HeaderDecoder::default()
            .decode(&trailers(9, message))
            .unwrap();
        let expected = message.replace('\n', " ");
        assert_eq!(
            check_trailers(&headers),
            Err(LinkError::Status {
                code: 9,
                message: expected
            })
        );
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%4"), "%4");
        assert_eq!(percent_decoded("%zz%41"), "%zzA");
    }

    #[test]
    fn requests_for_others_are_told_apart() {
        let ours = HeaderDecoder::default().decode(&request("pool")).unwrap();
        assert_eq!(check_request(&ours), Ok(()));
        let other = Headers {
            path: Some("/other.Service/Call".to_owned()),
            ..ours.clone()
        };
        assert!(check_request(&other).is_err());
        let proto = Headers {
            content_type: Some("application/grpc+proto".to_owned()),
            ..ours
        };
        assert_eq!(check_request(&proto), Ok(()));
        let web = Headers {
            content_type: Some("application/grpc-web".to_owned()),
            ..proto
        };
        assert!(check_request(&web).is_err());
    }

    #[test]
    fn a_prefix_is_checked_before_anything_is_allocated() {
        assert_eq!(message_len(&prefix(300), 300), Ok(300));
        assert!(message_len(&prefix(301), 300).is_err());
        assert!(message_len(&[1, 0, 0, 0, 1], 300).is_err());
    }
}
