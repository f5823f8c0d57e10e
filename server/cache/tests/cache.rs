//! The process as the agent runs it, with workers that behave and others that do not.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harp_content::channel::{
    self, decode_list, receive_bytes, wait_readable, Listed, Message, ABSENT, DAMAGED, KEEP, KEPT,
    OFFER, SLOTS, TAKE, TAKEN,
};
use harp_content::{Key, Name, PIECE};
use harp_mutation::Random;

const PATIENCE_MS: i32 = 30_000;

struct Cache {
    process: Child,
    control: Option<OwnedFd>,
    folder: PathBuf,
}

impl Cache {
    fn start(folder: &Path, size: u64) -> Cache {
        let (ours, theirs) = channel::pair().unwrap();
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(env!("CARGO_BIN_EXE_harp-cache"));
        command.args(["--control-fd", &fd.to_string(), "--folder"]);
        command.arg(folder).args(["--size", &size.to_string()]);
        command.args(["--tenant-size", &size.to_string()]);
        // SAFETY: fcntl is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::fcntl(fd, libc::F_SETFD, 0);
                Ok(())
            })
        };
        let cache = Cache {
            process: command.spawn().unwrap(),
            control: Some(ours),
            folder: folder.join("tenants"),
        };
        assert_eq!(cache.event()["event"], "ready");
        cache
    }

    fn event(&self) -> serde_json::Value {
        let control = self.control.as_ref().unwrap();
        assert!(wait_readable(control, PATIENCE_MS).unwrap(), "an event");
        let mut bytes = [0; 4096];
        let (count, _) = receive_bytes(control.as_raw_fd(), &mut bytes).unwrap();
        serde_json::from_slice(&bytes[..count]).expect("JSON")
    }

    /// A worker's session of that tenant.
    fn session(&self, tenant: &str) -> Worker {
        let (ours, theirs) = channel::pair().unwrap();
        let text = format!("{{\"tenant\":\"{tenant}\"}}");
        send_text(self.control.as_ref().unwrap(), &text, theirs.as_raw_fd());
        drop(theirs);
        Worker::begin(ours)
    }

    fn files(&self, tenant: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.join(tenant)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files.filter(|file| !file.ends_with("key")).collect()
    }

    /// Closes its control socket and waits for it to end in good order.
    fn end(mut self) {
        self.control = None;
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send_text(socket: &OwnedFd, text: &str, descriptor: RawFd) {
    let mut space = [0u64; 4];
    let mut part = libc::iovec {
        iov_base: text.as_ptr() as *mut _,
        iov_len: text.len(),
    };
    // SAFETY: pointers and lengths describe live buffers; there is room for one descriptor's control message.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = space.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as _;
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(first)
            .cast::<RawFd>()
            .write_unaligned(descriptor);
        assert!(libc::sendmsg(socket.as_raw_fd(), &header, 0) > 0);
    }
}

struct Worker {
    socket: OwnedFd,
    key: Key,
    listed: Vec<Listed>,
    slots: File,
}

impl Worker {
    fn begin(socket: OwnedFd) -> Worker {
        assert!(wait_readable(&socket, PATIENCE_MS).unwrap(), "an offer");
        let (offer, files) = channel::receive(socket.as_raw_fd()).unwrap().unwrap();
        assert_eq!((offer.kind, offer.amount), (OFFER, SLOTS as u64));
        let [list, slots]: [OwnedFd; 2] = files.try_into().unwrap();
        let (mut list, mut bytes) = (File::from(list), Vec::new());
        list.seek(SeekFrom::Start(0)).unwrap();
        list.read_to_end(&mut bytes).unwrap();
        let (key, listed) = decode_list(&bytes).unwrap();
        assert_eq!(listed.len(), offer.number as usize);
        Worker {
            socket,
            key,
            listed,
            slots: slots.into(),
        }
    }

    fn say(&self, message: &Message) {
        channel::send(self.socket.as_raw_fd(), message, &[]).unwrap();
    }

    /// The next message; `None` when the cache has closed the session.
    fn hear(&self) -> Option<(Message, Vec<OwnedFd>)> {
        assert!(wait_readable(&self.socket, PATIENCE_MS).unwrap());
        match channel::receive(self.socket.as_raw_fd()) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            received => received.unwrap(),
        }
    }

    fn hand_over(&self, slot: u32, content: &[u8]) {
        let at = u64::from(slot) * PIECE as u64;
        self.slots.write_all_at(content, at).unwrap();
        self.say(&Message::of_numbers(KEEP, slot, content.len() as u64));
    }

    fn keep(&self, slot: u32, content: &[u8]) -> Message {
        self.hand_over(slot, content);
        let (kept, _) = self.hear().unwrap();
        assert_eq!((kept.kind, kept.number), (KEPT, slot));
        kept
    }

    fn take(&self, name: Name) -> Option<Vec<u8>> {
        self.say(&Message::about(TAKE, name));
        let (message, files) = self.hear().unwrap();
        assert_eq!(message.name, name);
        if message.kind == ABSENT {
            return None;
        }
        assert_eq!(message.kind, TAKEN);
        let mut content = Vec::new();
        let mut file = File::from(files.into_iter().next().unwrap());
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, message.amount);
        Some(content)
    }
}

#[test]
fn what_one_session_hands_over_the_next_one_takes_and_no_other_tenant() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let first = cache.session("one");
    assert!(first.listed.is_empty());
    let kept = first.keep(3, b"content");
    assert_eq!(kept.name, first.key.name(b"content"));
    assert_eq!(kept.amount, first.key.fingerprint(b"content"));
    let next = cache.session("one");
    let expected = Listed {
        name: kept.name,
        fingerprint: kept.amount,
    };
    assert_eq!(next.listed, [expected]);
    assert_eq!(next.take(kept.name).unwrap(), b"content");
    let other = cache.session("two");
    assert!(other.listed.is_empty() && other.key != next.key);
    assert_eq!(other.take(kept.name), None);
    cache.end();
    // As the next one that uses the folder.
    let cache = Cache::start(base.path(), 1 << 30);
    assert_eq!(cache.session("one").take(kept.name).unwrap(), b"content");
}

#[test]
fn what_was_handed_over_is_written_after_the_worker_and_the_agent_are_gone() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let worker = cache.session("t");
    for slot in 0..SLOTS as u32 {
        worker.hand_over(slot, &vec![slot as u8 + 1; PIECE]);
    }
    drop(worker);
    cache.end();
    let cache = Cache::start(base.path(), 1 << 30);
    assert_eq!(cache.session("t").listed.len(), SLOTS);
    assert!(cache.files("t").iter().all(|file| {
        let bytes = std::fs::read(file).unwrap();
        bytes.len() == PIECE && bytes.iter().all(|byte| *byte == bytes[0])
    }));
}

#[test]
fn a_damaged_piece_is_removed_and_one_that_is_not_stays() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let worker = cache.session("t");
    let (bad, good) = (worker.keep(0, b"bad").name, worker.keep(0, b"good").name);
    for file in cache.files("t") {
        if std::fs::read(&file).unwrap() == b"bad" {
            std::fs::write(&file, b"BAD").unwrap();
        }
    }
    worker.say(&Message::about(DAMAGED, good));
    worker.say(&Message::about(DAMAGED, bad));
    assert_eq!(worker.take(bad), None);
    assert_eq!(worker.take(good).unwrap(), b"good");
    let event = cache.event();
    assert_eq!(
        (&event["event"], &event["tenant"]),
        (&"damaged".into(), &"t".into())
    );
    assert_eq!(worker.keep(1, b"bad").name, bad, "and is kept anew");
    assert_eq!(worker.take(bad).unwrap(), b"bad");
}

#[test]
fn limits_hold_while_pieces_come() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 4 * PIECE as u64);
    let worker = cache.session("t");
    let names: Vec<Name> = (0..10u8)
        .map(|i| worker.keep(0, &vec![i; PIECE]).name)
        .collect();
    assert_eq!(cache.files("t").len(), 4);
    assert_eq!(worker.take(names[5]), None);
    assert!(worker.take(names[9]).is_some());
}

#[test]
fn where_nothing_can_be_written_nothing_is_kept_and_it_is_said() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let worker = cache.session("t");
    let folder = cache.folder.join("t");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o500)).unwrap();
    let nothing = Name([0; Name::BYTES]);
    assert_eq!(worker.keep(0, b"content").name, nothing);
    assert_eq!(cache.event()["event"], "failing");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    assert_ne!(worker.keep(0, b"content").name, nothing);
}

#[test]
fn a_worker_that_says_what_none_says_loses_its_session_and_nobody_elses() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let neighbour = cache.session("t");
    let kept = neighbour.keep(0, b"content").name;
    let lies = [
        Message::of_numbers(KEEP, SLOTS as u32, 1),
        Message::of_numbers(KEEP, u32::MAX, 1),
        Message::of_numbers(KEEP, 0, 0),
        Message::of_numbers(KEEP, 0, PIECE as u64 + 1),
        Message::of_numbers(KEEP, 0, u64::MAX),
        Message::of_numbers(OFFER, 0, 0),
        Message::of_numbers(99, 0, 0),
    ];
    for lie in lies {
        let worker = cache.session("t");
        worker.say(&lie);
        assert!(worker.hear().is_none(), "{lie:?}");
    }
    assert_eq!(neighbour.take(kept).unwrap(), b"content");
}

#[test]
fn mutated_messages_do_no_harm() {
    let base = tempfile::tempdir().unwrap();
    let cache = Cache::start(base.path(), 1 << 30);
    let neighbour = cache.session("one");
    let kept = neighbour.keep(0, b"content").name;
    let mut random = Random::new(1);
    let end = Instant::now() + Duration::from_secs(20);
    for _ in 0..200 {
        assert!(Instant::now() < end, "the cache has stopped answering");
        let worker = cache.session("two");
        for _ in 0..20 {
            let length = random.below(2 * Message::BYTES);
            let bytes: Vec<u8> = (0..length).map(|_| random.below(9) as u8).collect();
            // SAFETY: the vector's own pointer and length.
            unsafe {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                libc::send(
                    worker.socket.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    length,
                    flags,
                );
            }
        }
    }
    assert_eq!(neighbour.take(kept).unwrap(), b"content");
    cache.end();
}
