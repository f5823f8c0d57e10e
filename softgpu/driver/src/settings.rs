//! Every environment variable of the soft GPU. They are read once, at first use.

use harp_driver_front::notice;
use once_cell::race::OnceBox;

/// What the soft GPU is to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `HARP_SOFT_DEVICES`: how many devices there are (1 to 16, default 1).
    pub devices: usize,
    /// `HARP_SOFT_MEMORY`: bytes of memory of each device, with an optional K, M, G or T
    /// (default 4G, at most 1T).
    pub memory: u64,
    /// `HARP_SOFT_THREADS`: threads that execute kernels (default one for each core).
    pub threads: usize,
    /// `HARP_SOFT_SERIAL`: kernels run one after the other, each block by block on one thread, so that
    /// every run does everything in the same order (default off).
    pub serial: bool,
    /// `HARP_SOFT_CC`: compute capability to report (default 8.6).
    pub compute_capability: (i32, i32),
    /// `HARP_SOFT_DRIVER_VERSION`: what `cuDriverGetVersion` answers (default 13000).
    pub driver_version: i32,
    /// `CUDA_VISIBLE_DEVICES`: which of the devices the program sees, none where it is unset.
    pub visible_devices: Option<String>,
}

const DEVICES_MAX: usize = 16;
const MEMORY_MAX: u64 = 1 << 40;
const THREADS_MAX: usize = 1024;

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The settings of this process.
pub fn settings() -> &'static Settings {
    // No lock: a child that is forked while another thread makes them may ask for them too.
    static SETTINGS: OnceBox<Settings> = OnceBox::new();
    SETTINGS.get_or_init(|| Box::new(Settings::from(|name| std::env::var(name).ok())))
}

impl Settings {
    /// Reads the settings from `variable`; a value that makes no sense is named on stderr and
    /// replaced by the default.
    fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let cores = cores();
        Self {
            devices: read(&variable, "HARP_SOFT_DEVICES", 1, |text| {
                text.parse()
                    .ok()
                    .filter(|count| (1..=DEVICES_MAX).contains(count))
            }),
            memory: read(&variable, "HARP_SOFT_MEMORY", 4 << 30, |text| {
                bytes(text).filter(|size| (1 << 20..=MEMORY_MAX).contains(size))
            }),
            threads: read(&variable, "HARP_SOFT_THREADS", cores, |text| {
                text.parse()
                    .ok()
                    .filter(|count| (1..=THREADS_MAX).contains(count))
            }),
            serial: read(&variable, "HARP_SOFT_SERIAL", false, |text| match text {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            }),
            compute_capability: read(&variable, "HARP_SOFT_CC", (8, 6), |text| {
                let (major, minor) = text.split_once('.')?;
                let capability = (major.parse().ok()?, minor.parse().ok()?);
                ((5..=99).contains(&capability.0) && (0..=9).contains(&capability.1))
                    .then_some(capability)
            }),
            driver_version: read(&variable, "HARP_SOFT_DRIVER_VERSION", 13000, |text| {
                text.parse()
                    .ok()
                    .filter(|version| (11000..=99999).contains(version))
            }),
            visible_devices: variable("CUDA_VISIBLE_DEVICES"),
        }
    }
}

fn read<T>(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
) -> T {
    let Some(text) = variable(name).filter(|text| !text.is_empty()) else {
        return default;
    };
    parse(text.trim()).unwrap_or_else(|| {
        notice(&format!(
            "{name}={text} makes no sense here; the default is used"
        ));
        default
    })
}

/// A byte count with an optional binary unit: `4G`, `512M`, `1048576`.
fn bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit
        .trim()
        .to_ascii_uppercase()
        .trim_end_matches("IB")
        .trim_end_matches('B')
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &'static [(&str, &str)]) -> Settings {
        Settings::from(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn defaults_and_given_values() {
        let default = with(&[]);
        assert_eq!((default.devices, default.memory), (1, 4 << 30));
        assert_eq!(
            (default.compute_capability, default.driver_version),
            ((8, 6), 13000)
        );
        let given = with(&[
            ("HARP_SOFT_DEVICES", "3"),
            ("HARP_SOFT_MEMORY", "512MiB"),
            ("HARP_SOFT_THREADS", "7"),
            ("HARP_SOFT_SERIAL", "1"),
            ("HARP_SOFT_CC", "12.0"),
            ("HARP_SOFT_DRIVER_VERSION", "12080"),
            ("CUDA_VISIBLE_DEVICES", "1"),
        ]);
        assert!(given.serial && !default.serial);
        assert_eq!(given.visible_devices.as_deref(), Some("1"));
        assert_eq!(
            (given.devices, given.memory, given.threads),
            (3, 512 << 20, 7)
        );
        assert_eq!(
            (given.compute_capability, given.driver_version),
            ((12, 0), 12080)
        );
    }

    #[test]
    fn nonsense_falls_back_to_the_default() {
        let odd = with(&[
            ("HARP_SOFT_DEVICES", "0"),
            ("HARP_SOFT_MEMORY", "lots"),
            ("HARP_SOFT_CC", "8"),
        ]);
        assert_eq!(
            (odd.devices, odd.memory, odd.compute_capability),
            (1, 4 << 30, (8, 6))
        );
        assert_eq!(bytes("99999999999T"), None);
    }
}
