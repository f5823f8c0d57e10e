//! What the servers said of their devices when the sessions began: the source of every local answer.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use harp_cuda_abi::types::*;
use serde::Deserialize;

use super::credit::Credit;

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
    /// The server knows `harp_describe`.
    #[serde(default)]
    pub describes: bool,
    /// The server knows `harp_event_watch`.
    #[serde(default)]
    pub watches_events: bool,
    /// It knows `cuFuncLoad`.
    #[serde(default)]
    pub loads_functions: bool,
}

/// One device as the program sees it.
#[derive(Debug, Deserialize)]
pub struct Device {
    /// The number of the session with its server.
    #[serde(skip)]
    pub session: usize,
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
    /// Its primary context is there, and nobody has retained it yet: the first retain cannot fail.
    #[serde(default)]
    pub context_ready: AtomicBool,
    /// Memory that is allocated in that context already.
    #[serde(default)]
    pub credit: Credit,
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

    /// The architecture (86) of soft devices; none where kernels run on real ones.
    pub fn soft_architecture(&self) -> Option<u32> {
        let device = self.devices.first().filter(|_| self.soft)?;
        let number = |attribute: CUdevice_attribute| {
            let value = device.attribute(attribute as i32);
            value.and_then(|value| u32::try_from(value).ok())
        };
        let major = number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Some(major * 10 + minor)
    }

    /// The devices with those numbers, in their order; all where none are named.
    ///
    /// # Errors
    /// The first number that the server has no device for, or that was named before.
    pub fn choose(self, numbers: Option<&[usize]>) -> Result<Vec<Device>, usize> {
        let Some(numbers) = numbers else {
            return Ok(self.devices);
        };
        let mut devices: Vec<Option<Device>> = self.devices.into_iter().map(Some).collect();
        let take = |number: &usize| {
            devices
                .get_mut(*number)
                .and_then(Option::take)
                .ok_or(*number)
        };
        numbers.iter().map(take).collect()
    }
}

/// Keeps the devices that `CUDA_VISIBLE_DEVICES` selects, in its order.
pub fn select_visible(devices: &mut Vec<Device>, list: Option<&str>) {
    let uuids: Vec<_> = devices.iter().map(|device| device.uuid).collect();
    let mut all: Vec<Option<Device>> = devices.drain(..).map(Some).collect();
    let visible = harp_driver_front::visible_devices(list, &uuids);
    devices.extend(visible.into_iter().filter_map(|index| all[index].take()));
}

impl Device {
    /// Gives a device of the session of that number an identity of its own beside those of `others`:
    /// servers count their buses alike, and soft devices are alike on all servers.
    pub fn belong_to(&mut self, session: usize, others: &[Device]) {
        self.session = session;
        let place = self.pci_bus_id.split_once(':').filter(|_| session > 0);
        let domain = place.and_then(|(domain, _)| u16::from_str_radix(domain, 16).ok());
        if let (Some((_, rest)), Some(own)) = (place, domain) {
            // Those of a machine are small numbers as a rule, but not those of every virtual one.
            let first = own | (session as u16) << 8;
            let named = |above| {
                let domain = first.wrapping_add(above);
                (domain, format!("{domain:04x}:{rest}"))
            };
            let is_free = |(_, id): &(u16, String)| others.iter().all(|it| it.pci_bus_id != *id);
            let (domain, id) = (0..=u16::MAX)
                .map(named)
                .find(is_free)
                .unwrap_or((first, named(0).1));
            self.pci_bus_id = id;
            if let Some(known) = &mut self.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID as usize] {
                *known = domain.into();
            }
        }
        if others.iter().any(|other| other.uuid == self.uuid) {
            self.uuid[14] ^= session as u8;
        }
    }

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
        let mut devices = two().devices;
        select_visible(&mut devices, Some("1"));
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].ordinal, 1);
    }

    fn two() -> Snapshot {
        let mut snapshot = Snapshot::parse(ONE.as_bytes()).unwrap();
        let other = Device {
            ordinal: 1,
            uuid: [9; 16],
            ..Snapshot::parse(ONE.as_bytes()).unwrap().devices.remove(0)
        };
        snapshot.devices.push(other);
        snapshot
    }

    #[test]
    fn devices_are_chosen_by_number_and_each_once() {
        let ordinals = |numbers: &[usize]| {
            let chosen = two().choose(Some(numbers));
            chosen.map(|all| all.iter().map(|device| device.ordinal).collect::<Vec<_>>())
        };
        assert_eq!(ordinals(&[1, 0]), Ok(vec![1, 0]));
        assert_eq!(ordinals(&[2]), Err(2));
        assert_eq!(ordinals(&[0, 0]), Err(0));
        assert_eq!(two().choose(None).map(|all| all.len()), Ok(2));
    }

    #[test]
    fn devices_of_two_servers_differ() {
        let [mut first, mut second] =
            [0, 1].map(|_| Snapshot::parse(ONE.as_bytes()).unwrap().devices.remove(0));
        first.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID as usize] = Some(0);
        second.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID as usize] = Some(0);
        first.belong_to(0, &[]);
        assert_eq!(first.pci_bus_id, "0000:01:00.0");
        let others = [first];
        second.belong_to(1, &others);
        assert_ne!(second.uuid, others[0].uuid);
        assert_eq!(second.pci_bus_id, "0100:01:00.0");
        let domain = CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID as i32;
        assert_eq!(second.attribute(domain), Some(0x100));

        // A virtual machine's, which is where the second one has gone.
        let mut third = Snapshot::parse(ONE.as_bytes()).unwrap().devices.remove(0);
        third.pci_bus_id = "0100:01:00.0".to_owned();
        third.belong_to(1, &[second]);
        assert_eq!(third.pci_bus_id, "0101:01:00.0");
    }

    #[test]
    fn a_short_uuid_is_refused() {
        let text = ONE.replace("000102030405060708090a0b0c0d0e0f", "0001");
        assert!(Snapshot::parse(text.as_bytes())
            .unwrap_err()
            .contains("32 hexadecimal digits"));
    }
}
