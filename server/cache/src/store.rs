//! What is kept of whom: an index of all tenants' pieces, within the limits.
//!
//! Several processes may use one folder (embedded pools of one user): each sees what the others did when a session
//! begins, and a piece that another one has removed is one that is not there.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use harp_content::channel::Listed;
use harp_content::{Name, MOST_LISTED};

use crate::folder::{self, Folder};

/// How many bytes are kept at most: of all tenants, and of one.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub all: u64,
    pub tenant: u64,
}

/// A tenant's number in this process.
pub type TenantId = usize;

pub struct Store {
    parent: OwnedFd,
    limits: Limits,
    numbers: HashMap<String, TenantId>,
    tenants: Vec<Tenant>,
    /// The last time that was given to a piece: no two have the same.
    last_used: u64,
}

struct Tenant {
    label: String,
    folder: Arc<Folder>,
    pieces: HashMap<Name, Piece>,
    /// Those that were used longest ago first.
    order: BTreeSet<(u64, Name)>,
    bytes: u64,
    /// When the folder had changed as it was looked at, or changed by this process.
    seen: u64,
}

#[derive(Clone, Copy)]
struct Piece {
    fingerprint: u64,
    bytes: u64,
    used: u64,
}

impl Tenant {
    fn insert(&mut self, name: Name, piece: Piece) {
        self.remove(&name);
        self.bytes += piece.bytes;
        self.order.insert((piece.used, name));
        self.pieces.insert(name, piece);
    }

    fn remove(&mut self, name: &Name) -> Option<Piece> {
        let piece = self.pieces.remove(name)?;
        self.bytes -= piece.bytes;
        self.order.remove(&(piece.used, *name));
        Some(piece)
    }

    /// Reads the folder anew.
    fn look(&mut self) -> io::Result<()> {
        self.seen = self.folder.changed();
        let found = self.folder.pieces()?;
        self.pieces.clear();
        self.order.clear();
        self.bytes = 0;
        for piece in found {
            let (fingerprint, bytes, used) = (piece.fingerprint, piece.bytes, piece.used);
            self.insert(
                piece.name,
                Piece {
                    fingerprint,
                    bytes,
                    used,
                },
            );
        }
        Ok(())
    }
}

impl Store {
    /// What is in a folder of tenants' folders.
    ///
    /// # Errors
    /// What the system says of the folder itself; a tenant's that cannot be read is left out.
    pub fn open(parent: OwnedFd, limits: Limits) -> io::Result<Store> {
        let mut store = Store {
            parent,
            limits,
            numbers: HashMap::new(),
            tenants: Vec::new(),
            last_used: 0,
        };
        for label in folder::entries(store.parent.as_raw_fd())? {
            if let Some(label) = label.to_str().ok().filter(|label| is_label(label)) {
                let _ = store.tenant(label);
            }
        }
        store.keep_within_limits();
        Ok(store)
    }

    /// The tenant whose folder is called so.
    ///
    /// # Errors
    /// `InvalidInput` for what is no label, else what the system says of its folder.
    pub fn tenant(&mut self, label: &str) -> io::Result<TenantId> {
        if let Some(id) = self.numbers.get(label).copied() {
            let tenant = &mut self.tenants[id];
            if tenant.folder.changed() != tenant.seen {
                tenant.look()?;
            }
            return Ok(id);
        }
        if !is_label(label) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut tenant = Tenant {
            label: label.to_owned(),
            folder: Arc::new(Folder::open(self.parent.as_raw_fd(), label)?),
            pieces: HashMap::new(),
            order: BTreeSet::new(),
            bytes: 0,
            seen: 0,
        };
        tenant.look()?;
        self.tenants.push(tenant);
        let id = self.tenants.len() - 1;
        self.numbers.insert(label.to_owned(), id);
        Ok(id)
    }

    pub fn label(&self, id: TenantId) -> &str {
        &self.tenants[id].label
    }

    pub fn folder(&self, id: TenantId) -> Arc<Folder> {
        self.tenants[id].folder.clone()
    }

    /// The tenant's pieces that were used last, in the order in which they were.
    pub fn list(&self, id: TenantId) -> Vec<Listed> {
        let tenant = &self.tenants[id];
        let beyond = tenant.order.len().saturating_sub(MOST_LISTED);
        let last = tenant.order.iter().skip(beyond);
        last.map(|(_, name)| Listed {
            name: *name,
            fingerprint: tenant.pieces[name].fingerprint,
        })
        .collect()
    }

    /// Opens a piece to be read: with its length. `None` where it is not there, or not any more.
    pub fn take(&mut self, id: TenantId, name: &Name) -> Option<(OwnedFd, u64)> {
        let piece = self.use_piece(id, name)?;
        let tenant = &mut self.tenants[id];
        match tenant
            .folder
            .open_piece(name, piece.fingerprint, piece.used)
        {
            Ok(file) => Some((file, piece.bytes)),
            Err(_) => {
                tenant.remove(name);
                None
            }
        }
    }

    /// Whether a piece is there; it counts as used now.
    pub fn has(&mut self, id: TenantId, name: &Name) -> bool {
        let Some(piece) = self.use_piece(id, name) else {
            return false;
        };
        let folder = &self.tenants[id].folder;
        folder.used(name, piece.fingerprint, piece.used);
        true
    }

    fn use_piece(&mut self, id: TenantId, name: &Name) -> Option<Piece> {
        let used = self.next_use();
        let tenant = &mut self.tenants[id];
        let piece = Piece {
            used,
            ..tenant.remove(name)?
        };
        tenant.insert(*name, piece);
        Some(piece)
    }

    fn next_use(&mut self) -> u64 {
        self.last_used = folder::now().max(self.last_used + 1);
        self.last_used
    }

    /// Adds a piece whose file has been written, and removes what that is too much.
    pub fn add(&mut self, id: TenantId, name: Name, fingerprint: u64, bytes: u64) {
        let used = self.next_use();
        let tenant = &mut self.tenants[id];
        tenant.insert(
            name,
            Piece {
                fingerprint,
                bytes,
                used,
            },
        );
        tenant.folder.used(&name, fingerprint, used);
        tenant.seen = tenant.folder.changed();
        self.keep_within_limits();
    }

    /// Removes a piece.
    pub fn drop_piece(&mut self, id: TenantId, name: &Name) {
        let tenant = &mut self.tenants[id];
        if let Some(piece) = tenant.remove(name) {
            tenant.folder.forget(name, piece.fingerprint);
            tenant.seen = tenant.folder.changed();
        }
    }

    /// Pieces and bytes of all tenants.
    pub fn totals(&self) -> (usize, u64) {
        let pieces = self.tenants.iter().map(|tenant| tenant.pieces.len()).sum();
        (pieces, self.bytes())
    }

    fn bytes(&self) -> u64 {
        self.tenants.iter().map(|tenant| tenant.bytes).sum()
    }

    fn keep_within_limits(&mut self) {
        for id in 0..self.tenants.len() {
            while self.tenants[id].bytes > self.limits.tenant {
                self.evict(id);
            }
        }
        while self.bytes() > self.limits.all {
            let oldest = |id: &TenantId| self.tenants[*id].order.first().map(|(used, _)| *used);
            let held = (0..self.tenants.len()).filter(|id| oldest(id).is_some());
            match held.min_by_key(oldest) {
                Some(id) => self.evict(id),
                None => return,
            }
        }
    }

    /// Removes the piece of a tenant that was used longest ago.
    fn evict(&mut self, id: TenantId) {
        if let Some((_, name)) = self.tenants[id].order.first().copied() {
            self.drop_piece(id, &name);
        }
    }
}

/// What a tenant's folder may be called: nothing that leads elsewhere.
fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.len() <= 64 && label.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn store(path: &Path, all: u64, tenant: u64) -> Store {
        let parent = std::fs::File::open(path).unwrap().into();
        Store::open(parent, Limits { all, tenant }).unwrap()
    }

    fn keep(store: &mut Store, id: TenantId, content: &[u8]) -> Name {
        let folder = store.folder(id);
        let (name, print) = (folder.key.name(content), folder.key.fingerprint(content));
        folder.write(&name, print, content).unwrap();
        store.add(id, name, print, content.len() as u64);
        name
    }

    #[test]
    fn a_tenant_has_its_own_pieces_and_no_others() {
        let base = tempfile::tempdir().unwrap();
        let mut store = store(base.path(), 1000, 1000);
        let (one, two) = (store.tenant("one").unwrap(), store.tenant("two").unwrap());
        let name = keep(&mut store, one, b"content");
        assert!(store.take(one, &name).is_some());
        assert!(store.take(two, &name).is_none() && !store.has(two, &name));
        assert_eq!((store.list(one).len(), store.list(two).len()), (1, 0));
        for wrong in ["", "..", "a/b", ".", "a\0"] {
            assert!(store.tenant(wrong).is_err());
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let base = tempfile::tempdir().unwrap();
        let mut store = store(base.path(), 1000, 30);
        let id = store.tenant("t").unwrap();
        let names: Vec<Name> = (0..3u8).map(|i| keep(&mut store, id, &[i; 10])).collect();
        assert!(store.has(id, &names[0]));
        keep(&mut store, id, &[9; 10]);
        assert!(store.has(id, &names[0]) && !store.has(id, &names[1]));
        assert_eq!(store.totals(), (3, 30));
        let listed: Vec<Name> = store.list(id).iter().map(|piece| piece.name).collect();
        assert_eq!(listed[0], names[2]);
        assert_eq!(listed[2], names[0], "the last one used comes last");
        // One that is larger than everything leaves nothing.
        keep(&mut store, id, &[1; 40]);
        assert_eq!(store.totals(), (0, 0));
    }

    #[test]
    fn all_tenants_together_are_bounded() {
        let base = tempfile::tempdir().unwrap();
        let mut store = store(base.path(), 30, 20);
        let (one, two) = (store.tenant("one").unwrap(), store.tenant("two").unwrap());
        let old = keep(&mut store, one, &[1; 15]);
        let new = keep(&mut store, two, &[2; 15]);
        let newer = keep(&mut store, two, &[3; 5]);
        assert!(!store.has(one, &old) && store.has(two, &new) && store.has(two, &newer));
    }

    #[test]
    fn another_start_finds_them_within_its_own_limits_and_order() {
        let base = tempfile::tempdir().unwrap();
        let mut first = store(base.path(), 1000, 1000);
        let id = first.tenant("t").unwrap();
        let names: Vec<Name> = (0..3u8).map(|i| keep(&mut first, id, &[i; 10])).collect();
        assert!(first.take(id, &names[0]).is_some());
        let mut second = store(base.path(), 20, 20);
        let id = second.tenant("t").unwrap();
        assert!(second.has(id, &names[0]) && !second.has(id, &names[1]));
    }

    #[test]
    fn what_another_process_did_is_seen_when_a_session_begins() {
        let base = tempfile::tempdir().unwrap();
        let mut first = store(base.path(), 1000, 1000);
        let mut second = store(base.path(), 1000, 1000);
        let id = first.tenant("t").unwrap();
        let there = second.tenant("t").unwrap();
        let name = keep(&mut first, id, b"content");
        assert!(!second.has(there, &name));
        let there = second.tenant("t").unwrap();
        assert!(second.take(there, &name).is_some());
        first.drop_piece(id, &name);
        assert!(second.take(there, &name).is_none(), "it is gone");
        assert!(!second.has(there, &name));
    }
}
