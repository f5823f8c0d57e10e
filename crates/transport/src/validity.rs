//! When certificates are valid, and what a clock has to do with it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{anchor_from_trusted_cert, EndEntityCert, Error, KeyUsage};

use crate::error::{alert_name, ConnectError};
use crate::ClientConfig;

/// A time in UTC, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Moment(since.map_or(0, |since| since.as_secs()))
    }

    /// How far two moments lie apart, as a person says it.
    pub fn apart(self, other: Moment) -> String {
        let seconds = self.0.abs_diff(other.0);
        match seconds {
            0..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            7200..172_800 => format!("{} h", seconds / 3600),
            _ => format!("{} days", seconds / 86_400),
        }
    }
}

impl From<UnixTime> for Moment {
    fn from(time: UnixTime) -> Moment {
        Moment(time.as_secs())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut day) = (1970, self.0 / 86_400);
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        // Four centuries have as many days each time.
        year += day / 146_097 * 400;
        day %= 146_097;
        while day >= 365 + u64::from(leap(year)) {
            day -= 365 + u64::from(leap(year));
            year += 1;
        }
        let february = 28 + u64::from(leap(year));
        let mut month = 1;
        for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if day < days {
                break;
            }
            day -= days;
            month += 1;
        }
        let (day, hour, minute) = (day + 1, self.0 / 3600 % 24, self.0 / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

/// Says more about a refusal of the client's certificate, from the certificate itself.
pub(crate) fn explain(error: ConnectError, config: &ClientConfig) -> ConnectError {
    let ConnectError::ClientCertificateRefused(alert) = error else {
        return error;
    };
    if alert == alert_name(48) {
        return ConnectError::ClientUnknownIssuer;
    }
    if alert != alert_name(45) {
        return error;
    }
    let now = Moment::now();
    match check(config, now) {
        Some(Error::CertExpired { not_after, .. }) => ConnectError::ClientExpired {
            now,
            until: not_after.into(),
        },
        Some(Error::CertNotValidYet { not_before, .. }) => ConnectError::ClientNotYetValid {
            now,
            from: not_before.into(),
        },
        // By this machine's clock all is well; by the server's it is not.
        None => {
            let before = check(config, Moment(0));
            let after = check(config, Moment(1 << 40));
            match (before, after) {
                (
                    Some(Error::CertNotValidYet { not_before, .. }),
                    Some(Error::CertExpired { not_after, .. }),
                ) => ConnectError::ClocksDiffer {
                    now,
                    from: not_before.into(),
                    until: not_after.into(),
                },
                _ => error,
            }
        }
        Some(_) => error,
    }
}

/// What is wrong with the client's certificate at `time`, as a server of its authority sees it.
fn check(config: &ClientConfig, time: Moment) -> Option<Error> {
    let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .flatten()
            .collect()
    };
    let (chain, authorities) = (certificates(&config.cert_pem), certificates(&config.ca_pem));
    let (leaf, between) = chain.split_first()?;
    let anchors: Vec<_> = authorities
        .iter()
        .filter_map(|authority| anchor_from_trusted_cert(authority).ok())
        .collect();
    let leaf = EndEntityCert::try_from(leaf).ok()?;
    leaf.verify_for_usage(
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all,
        &anchors,
        between,
        UnixTime::since_unix_epoch(Duration::from_secs(time.0)),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
        }
    }

    #[test]
    fn distances_are_told_in_one_unit() {
        let told = |seconds: u64| Moment(1_000_000).apart(Moment(1_000_000 + seconds));
        assert_eq!(
            [5u64, 150, 9000, 300_000].map(told),
            ["5 s", "2 min", "2 h", "3 days"]
        );
        assert_eq!(Moment(60).apart(Moment(0)), "60 s");
    }
}
