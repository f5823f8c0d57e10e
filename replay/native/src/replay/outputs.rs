//! Whether data that came from a device is what was recorded.

use harp_trace::block::{Message, Payload, Policy};
use harp_trace::container::{Trace, TraceError};
use harp_wire::reply::REPLY_HEAD_BYTES;

use super::relocation::Addresses;
use super::report::What;
use super::session::Body;
use super::tolerance::{deviation, Tolerance};

/// The length that stands before data.
const LENGTH: usize = 8;

/// Recorded data.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Here(&'a [u8]),
    Payload(Payload),
}

impl<'a> Content<'a> {
    /// That of a reply in which `before` bytes of outputs stand before the data's length.
    pub fn of(message: &Message<'a>, before: usize) -> Option<Content<'a>> {
        match message.payload {
            Some(payload) => Some(Content::Payload(payload)),
            None => {
                let data = message.bytes.get(REPLY_HEAD_BYTES + before + LENGTH..);
                data.map(Content::Here)
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Content::Here(bytes) => bytes.len() as u64,
            Content::Payload(payload) => payload.length,
        }
    }
}

/// What comparing has shown.
#[derive(Clone, Debug)]
pub enum Compared {
    Same,
    Different(What),
    /// There was nothing to compare with, for this reason.
    Not(&'static str),
}

/// The data of a reply in which `before` bytes of outputs stand before its length; `None` where it was too
/// much to be kept.
pub fn data(body: &Body, before: usize) -> Option<&[u8]> {
    match body {
        Body::Here(bytes) => Some(bytes.get(before + LENGTH..).unwrap_or_default()),
        Body::Gone { .. } => None,
    }
}

/// Compares recorded data with that of a reply that has no other output.
///
/// # Errors
/// Where the trace is damaged.
pub fn compare(
    trace: &Trace,
    recorded: Content,
    body: &Body,
    tolerance: Option<&Tolerance>,
    addresses: &Addresses,
) -> Result<Compared, TraceError> {
    let whole = match body {
        Body::Here(bytes) => bytes.len(),
        Body::Gone { bytes, .. } => *bytes,
    };
    let bytes = whole.saturating_sub(LENGTH) as u64;
    if recorded.bytes() != bytes {
        return Ok(Compared::Different(What::Length {
            recorded: recorded.bytes(),
            replayed: bytes,
        }));
    }
    let Some(replayed) = data(body, 0) else {
        return Ok(Compared::Not("too much data came at once"));
    };
    let payload = match recorded {
        Content::Here(recorded) => return Ok(judged(recorded, replayed, tolerance, addresses)),
        Content::Payload(payload) => payload,
    };
    if !payload.policy.has_hash() {
        return Ok(Compared::Not(match payload.policy {
            Policy::Lost => "lost in the recording",
            _ => "only the size was recorded",
        }));
    }
    if *blake3::hash(replayed).as_bytes() == payload.hash {
        return Ok(Compared::Same);
    }
    if payload.policy == Policy::Full {
        let recorded = trace.blob(&payload.hash)?;
        if recorded.len() != replayed.len() {
            return Ok(Compared::Different(What::Length {
                recorded: recorded.len() as u64,
                replayed: replayed.len() as u64,
            }));
        }
        return Ok(judged(&recorded, replayed, tolerance, addresses));
    }
    Ok(match tolerance {
        Some(_) => Compared::Not("a tolerance needs the recorded data, and only its hash is there"),
        None => Compared::Different(What::Hash {
            bytes: payload.length,
        }),
    })
}

fn judged(
    recorded: &[u8],
    replayed: &[u8],
    tolerance: Option<&Tolerance>,
    addresses: &Addresses,
) -> Compared {
    let found = match deviation(recorded, replayed, tolerance) {
        Some(_) if addresses.have_moved() => {
            // Addresses that kernels have stored are other ones too.
            let mut recorded = recorded.to_vec();
            addresses.replace(&mut recorded);
            deviation(&recorded, replayed, tolerance)
        }
        found => found,
    };
    match found {
        None => Compared::Same,
        Some(deviation) => Compared::Different(What::Data(deviation)),
    }
}
