//! What a session's welcome says of its devices, as far as a replay cares.

use std::collections::HashMap;

use harp_wire::windows;
use serde::Deserialize;

use super::images::Target;
use super::Refused;

/// Most devices that a server may claim to have.
const MOST_DEVICES: usize = 64;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Snapshot {
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Kernels are executed by the soft GPU.
    #[serde(default)]
    pub soft: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Device {
    /// First address and size of the range that its addresses lie in, where that is known.
    #[serde(default)]
    pub window: Option<(u64, u64)>,
    /// First address and bytes of memory that is allocated from the beginning.
    #[serde(default)]
    pub credit: Option<(u64, u64)>,
    /// By the number of a `CUdevice_attribute`, in decimal.
    #[serde(default)]
    attributes: HashMap<String, i32>,
}

/// A session of the trace.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub snapshot: Snapshot,
    /// One more than the greatest device number used.
    pub devices_used: i64,
}

impl Snapshot {
    /// Reads that of a welcome.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(json: &[u8]) -> Result<Snapshot, String> {
        let snapshot: Snapshot = serde_json::from_slice(json)
            .map_err(|error| format!("devices are described unreadably: {error}"))?;
        match snapshot.devices.len() <= MOST_DEVICES {
            true => Ok(snapshot),
            false => Err(format!("there are {} devices", snapshot.devices.len())),
        }
    }

    /// Reads a `Session` block: its number, and what it says.
    pub fn recorded(json: &[u8]) -> Result<(u32, Recorded), Refused> {
        #[derive(Deserialize)]
        struct Session {
            number: u32,
            #[serde(default)]
            snapshot: Option<Snapshot>,
        }
        let session: Session = serde_json::from_slice(json)
            .map_err(|error| Refused(format!("a session is described unreadably: {error}")))?;
        let snapshot = session.snapshot.unwrap_or_default();
        if snapshot.devices.len() > MOST_DEVICES {
            return Err(Refused("a session has too many devices".to_owned()));
        }
        let recorded = Recorded {
            snapshot,
            devices_used: 0,
        };
        Ok((session.number, recorded))
    }

    /// Where the first device's window starts, if a server does not put it there by itself.
    pub fn first_window(&self) -> Option<u64> {
        let windows = self.devices.iter().filter_map(|device| device.window);
        let first = windows.map(|(base, _)| base).min()?;
        (first != windows::REGION.start).then_some(first)
    }

    /// What its devices run, as the first of them says.
    pub fn target(&self) -> Option<Target> {
        /// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
        const CAPABILITY: [&str; 2] = ["75", "76"];
        let device = self.devices.first()?;
        let [major, minor] =
            CAPABILITY.map(|number| u32::try_from(*device.attributes.get(number)?).ok());
        Some(Target {
            soft: self.soft,
            architecture: major?.checked_mul(10)?.checked_add(minor?)?,
        })
    }
}
