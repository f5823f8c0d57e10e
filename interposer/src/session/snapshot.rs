//! What the server said of its devices when the session began: the source of every local answer.

use std::collections::HashMap;

use harp_cuda_abi::types::*;
use serde::Deserialize;

/// The server's devices and its driver's version.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    /// As `cuDriverGetVersion` answers.
    pub driver_version: i32,
    /// In the order in which the program numbers them.
    pub devices: Vec<Device>,
    /// True for the soft GPU.
    #[serde(default)]
    pub soft: bool,
}

/// One device as the program sees it.
#[derive(Debug, Deserialize)]
pub struct Device {
    /// The server's number for it.
    #[serde(skip)]
    pub ordinal: i32,
    pub name: String,
    /// 16 bytes as 32 hexadecimal digits.
    #[serde(deserialize_with = "hex_uuid")]
    pub uuid: [u8; 16],
    /// Bytes.
    pub total_memory: u64,
    /// `domain:bus:device.function`.
    pub pci_bus_id: String,
    /// `CUdevice_attribute` number to value; a number that is missing is one the driver refused.
    #[serde(deserialize_with = "by_number")]
    pub attributes: Vec<Option<i32>>,
    /// (base, bytes) of the addresses that the device's allocations come from, where it is known.
    #[serde(default)]
    pub window: Option<(u64, u64)>,
}

/// The greatest attribute number that a server may name.
const MAX_ATTRIBUTE: usize = 1023;
/// Most devices that a server may claim to have.
const MAX_DEVICES: usize = 64;

impl Snapshot {
    /// Reads the snapshot of a welcome.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Snapshot, String> {
        let mut snapshot: Snapshot = serde_json::from_slice(json)
            .map_err(|error| format!("the server described its devices unreadably: {error}"))?;
        if snapshot.devices.len() > MAX_DEVICES {
            return Err(format!(
                "the server claims {} devices",
                snapshot.devices.len()
            ));
        }
        for (ordinal, device) in (0..).zip(&mut snapshot.devices) {
            device.ordinal = ordinal;
        }
        Ok(snapshot)
    }

    /// Keeps the devices that `CUDA_VISIBLE_DEVICES` selects, in its order.
    pub fn select_visible(&mut self, list: Option<&str>) {
        let uuids: Vec<_> = self.devices.iter().map(|device| device.uuid).collect();
        let mut devices: Vec<Option<Device>> = self.devices.drain(..).map(Some).collect();
        let visible = harp_driver_front::visible_devices(list, &uuids);
        self.devices = visible
            .into_iter()
            .filter_map(|index| devices[index].take())
            .collect();
    }
}

impl Device {
    /// A `CUdevice_attribute`, if the driver has it.
    pub fn attribute(&self, number: i32) -> Option<i32> {
        self.attributes
            .get(usize::try_from(number).ok()?)
            .copied()
            .flatten()
    }
}

/// Attributes are looked up at every launch, so they lie in an array.
fn by_number<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Option<i32>>, D::Error> {
    let pairs = HashMap::<usize, i32>::deserialize(deserializer)?;
    let mut values = vec![None; MAX_ATTRIBUTE + 1];
    for (number, value) in pairs {
        let slot = values.get_mut(number).ok_or_else(|| {
            serde::de::Error::custom(format!("there is no device attribute {number}"))
        })?;
        *slot = Some(value);
    }
    for (number, answer) in IN_A_POOL {
        values[number as usize] = values[number as usize].and(Some(answer));
    }
    Ok(values)
}

/// What a device of the pool can do, whatever the server's can: memory that kernels share with the
/// program is kept as twins (`session::twins`), so that page-locked memory can be mapped, and managed
/// memory is there in the manner of devices that do not share page tables with the host.
const IN_A_POOL: [(CUdevice_attribute, i32); 8] = [
    (CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1),
    (CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1),
    (CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0),
    (CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0),
    (
        CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
        0,
    ),
    (CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST, 0),
    (
        CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
        0,
    ),
    (CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, 0),
];

fn hex_uuid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
    if text.len() != 32 {
        return Err(serde::de::Error::custom("a uuid has 32 hexadecimal digits"));
    }
    Ok(digits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"driver_version":13000,"soft":true,"devices":[{"name":"HARP Soft GPU",
        "uuid":"000102030405060708090a0b0c0d0e0f","total_memory":4294967296,
        "pci_bus_id":"0000:01:00.0","attributes":{"1":1024,"16":2,"83":0},"window":[35184372088832,4294967296]}]}"#;

    #[test]
    fn a_snapshot_is_read() {
        let snapshot = Snapshot::parse(ONE.as_bytes()).unwrap();
        let device = &snapshot.devices[0];
        assert_eq!(device.uuid[15], 0x0f);
        assert_eq!(device.attribute(1), Some(1024));
        assert_eq!(device.attribute(2), None);
        assert_eq!(device.attribute(83), Some(1));
        assert_eq!(device.window, Some((35184372088832, 4294967296)));
    }

    #[test]
    fn visible_devices_keep_the_servers_numbers() {
        let mut snapshot = Snapshot::parse(ONE.as_bytes()).unwrap();
        let other = Device {
            ordinal: 1,
            uuid: [9; 16],
            ..Snapshot::parse(ONE.as_bytes()).unwrap().devices.remove(0)
        };
        snapshot.devices.push(other);
        snapshot.select_visible(Some("1"));
        assert_eq!(snapshot.devices.len(), 1);
        assert_eq!(snapshot.devices[0].ordinal, 1);
    }

    #[test]
    fn a_short_uuid_is_refused() {
        let text = ONE.replace("000102030405060708090a0b0c0d0e0f", "0001");
        assert!(Snapshot::parse(text.as_bytes())
            .unwrap_err()
            .contains("32 hexadecimal digits"));
    }
}
