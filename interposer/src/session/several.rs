//! What spans the sessions of a process: the devices that the program sees, and whose an address is.

use super::addresses::{Addresses, Owner, Range};
use super::handles::session_of;
use super::snapshot::Device;
use super::Session;

/// All sessions of this process. There is at least one.
pub struct Sessions {
    all: Vec<Session>,
    /// The devices of all servers, in the order in which the program numbers them.
    pub devices: Vec<Device>,
    /// What every server's driver can do, as `cuDriverGetVersion` answers: the least of theirs.
    pub driver_version: i32,
    pub addresses: Addresses,
}

impl Sessions {
    /// The sessions in the order of their numbers, and the devices that the program is to see.
    pub fn new(all: Vec<Session>, devices: Vec<Device>, driver_version: i32) -> Sessions {
        Sessions {
            all,
            devices,
            driver_version,
            addresses: Addresses::default(),
        }
    }

    /// Whether the program uses several servers.
    #[inline]
    pub fn several(&self) -> bool {
        self.all.len() > 1
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.iter()
    }

    /// The session of a live handle.
    #[inline]
    pub fn of(&self, handle: u64) -> &Session {
        // A live handle was made for one of these.
        &self.all[session_of(handle)]
    }

    /// The session of a device.
    #[inline]
    pub fn of_device(&self, device: &Device) -> &Session {
        &self.all[device.session]
    }

    /// The session whose device memory an address range is; none for memory of this process, which
    /// every server can be shown.
    pub fn of_range(&self, range: &Range) -> Option<&Session> {
        match range.owner {
            Owner::Device { context, .. } => Some(self.of(context)),
            Owner::Managed { .. } | Owner::Host { .. } => None,
        }
    }

    /// The session for a call that names nothing of any: that of the calling thread's current context,
    /// else the first whose server is there.
    pub fn any(&self) -> &Session {
        if let Ok(context) = crate::api::current_context() {
            return self.of(context as u64);
        }
        let alive = self.all.iter().find(|session| session.alive().is_ok());
        alive.unwrap_or(&self.all[0])
    }

    /// The names of a session's devices.
    pub fn device_names(&self, session: &Session) -> String {
        let own = |device: &&Device| device.session == session.number;
        let names = self.devices.iter().filter(own);
        names
            .map(|device| device.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }
}
