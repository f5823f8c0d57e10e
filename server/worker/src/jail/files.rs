//! Landlock: which files the driver may still open while it initialises, and no network or signals out of the process.

use std::path::PathBuf;

use landlock::{
    path_beneath_rules, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, ABI,
};

use super::{FileRules, Profile};

/// The newest Landlock version whose rights are handled; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and all that it will start.
pub fn restrict(profile: Profile) -> Result<FileRules, String> {
    let outcome = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(
                readable(profile),
                AccessFs::from_read(NEWEST),
            ))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules(devices(profile), device_access())))
        .and_then(|rules| {
            let names = AccessFs::WriteFile | AccessFs::Truncate;
            rules.add_rules(path_beneath_rules(thread_names(profile), names))
        })
        .and_then(|rules| rules.restrict_self());
    match outcome {
        Err(error) => Err(format!("cannot install the Landlock rules: {error}")),
        Ok(status) => Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => FileRules::Full,
            RulesetStatus::PartiallyEnforced => FileRules::Partial,
            RulesetStatus::NotEnforced => FileRules::None,
        }),
    }
}

/// Soft: how many processors there are, and how many of them this control group may use. NVIDIA: its libraries, which
/// it loads as it needs them, and what it reads about the machine (nothing of other processes). Seen with driver 580.
fn readable(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Soft => &["/proc/self", "/sys/fs/cgroup", "/sys/devices/system/cpu"],
        Profile::Nvidia => &[
            "/usr",
            "/lib",
            "/lib64",
            "/opt",
            "/etc",
            "/sys",
            "/proc/self",
            "/proc/cpuinfo",
            "/proc/devices",
            "/proc/driver",
            "/proc/filesystems",
            "/proc/meminfo",
            "/proc/modules",
            "/proc/stat",
            "/proc/sys",
            "/proc/version",
            "/dev/null",
            "/dev/random",
            "/dev/urandom",
            "/dev/zero",
        ],
    }
}

fn devices(profile: Profile) -> Vec<PathBuf> {
    match profile {
        Profile::Soft => Vec::new(),
        Profile::Nvidia => nvidia_devices(),
    }
}

/// NVIDIA's driver names its threads through `/proc`, and refuses to start (304) where it cannot.
fn thread_names(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Soft => &[],
        Profile::Nvidia => &["/proc/self/task"],
    }
}

fn nvidia_devices() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"))
        .map(|entry| entry.path())
        .collect()
}

fn device_access() -> landlock::BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev
}
