//! The worker's command line.

use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::jail::Profile;

const USAGE: &str = "usage: harp-worker --control-fd N --libcuda PATH --ca FILE [--jail soft|nvidia] [--uid N] [--prepare]";

/// The unprivileged user that most systems call "nobody".
const NOBODY: u32 = 65534;

/// What the agent asks of this worker.
#[derive(Debug)]
pub struct Options {
    /// Inherited `SOCK_SEQPACKET` socket to the agent.
    pub control: RawFd,
    /// The driver that executes this session's calls.
    pub libcuda: PathBuf,
    /// PEM file with the pool's root certificate, which every client's chain must end in.
    pub ca: PathBuf,
    pub profile: Profile,
    /// User to become when started as root.
    pub uid: u32,
    /// Retain the first device's primary context before a client comes.
    pub prepare: bool,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut control = None;
        let mut libcuda = None;
        let mut ca = None;
        let mut profile = Profile::Soft;
        let mut uid = NOBODY;
        let mut prepare = false;
        while let Some(name) = arguments.next() {
            if name == "--prepare" {
                prepare = true;
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
            match name.as_str() {
                "--control-fd" => control = Some(number(&name, &value)?),
                "--libcuda" => libcuda = Some(PathBuf::from(value)),
                "--ca" => ca = Some(PathBuf::from(value)),
                "--uid" => uid = number(&name, &value)?,
                "--jail" => {
                    profile = match value.as_str() {
                        "soft" => Profile::Soft,
                        "nvidia" => Profile::Nvidia,
                        _ => return Err(format!("--jail is soft or nvidia, not {value:?}")),
                    }
                }
                _ => return Err(format!("unknown option {name}; {USAGE}")),
            }
        }
        Ok(Self {
            control: control.ok_or_else(|| format!("--control-fd is missing; {USAGE}"))?,
            libcuda: libcuda.ok_or_else(|| format!("--libcuda is missing; {USAGE}"))?,
            ca: ca.ok_or_else(|| format!("--ca is missing; {USAGE}"))?,
            profile,
            uid,
            prepare,
        })
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value:?}; {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_agents_command_line_is_understood() {
        let options = parse("--control-fd 7 --libcuda /l/libcuda.so.1 --ca ca.pem").unwrap();
        assert_eq!(
            (options.control, options.profile, options.prepare),
            (7, Profile::Soft, false)
        );
        let options =
            parse("--control-fd 7 --libcuda l --ca c --jail nvidia --uid 12 --prepare").unwrap();
        assert_eq!(
            (options.profile, options.uid, options.prepare),
            (Profile::Nvidia, 12, true)
        );
    }

    #[test]
    fn mistakes_are_named() {
        let cause = |text| parse(text).unwrap_err();
        assert!(cause("--control-fd 7 --ca c").starts_with("--libcuda is missing"));
        assert!(cause("--control-fd x").starts_with("--control-fd needs a number"));
        assert!(cause("--jail none").starts_with("--jail is soft or nvidia"));
        assert!(cause("--ca").starts_with("--ca needs a value"));
        assert!(cause("--colour red").starts_with("unknown option --colour"));
    }
}
