//! Who a verified certificate is for, and which versions work together.

use std::fmt;

use rustls::pki_types::CertificateDer;

use crate::{Hello, Version};

/// The version of the data path that this build speaks.
pub const VERSION: Version = Version { major: 1, minor: 1 };

impl Version {
    /// Whether a peer of this version can resume a session, and knows bodies in several frames.
    pub(crate) fn resumes(self) -> bool {
        self.minor >= 1
    }

    /// Equal majors, and minors that differ by at most one.
    pub fn works_with(self, other: Version) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Hello {
    /// A greeting in this build's version, with nothing else in it.
    pub fn current() -> Hello {
        Hello {
            version: Some(VERSION),
            ..Hello::default()
        }
    }
}

/// The certificate's SPIFFE identity: its URI name, where it has one and only one of that scheme.
/// Text that is not a plain URI is none.
pub(crate) fn spiffe_uri(certificate: &CertificateDer<'static>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut uris = certificate
        .valid_uri_names()
        .filter(|uri| uri.starts_with("spiffe://"));
    let uri = uris.next()?;
    let plain = uri.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && uris.next().is_none()).then(|| uri.to_owned())
}

/// The certificate's serial number, in hexadecimal digits without leading zeros.
pub(crate) fn serial(certificate: &CertificateDer<'static>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let digits: String = certificate
        .serial()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(digits.trim_start_matches('0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_minors_work_together() {
        let version = |major, minor| Version { major, minor };
        assert!(version(1, 3).works_with(version(1, 4)));
        assert!(version(1, 3).works_with(version(1, 2)));
        assert!(!version(1, 3).works_with(version(1, 5)));
        assert!(!version(1, 3).works_with(version(2, 3)));
        assert!(!version(1, 0).works_with(version(0, u32::MAX)));
    }
}
