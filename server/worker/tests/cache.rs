//! A session with a cache: one that is played here, so that it can lie, stand still and go away.

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

use harp_content::channel::{
    self, encode_list, wait_readable, Listed, Message, ABSENT, DAMAGED, KEEP, KEPT, OFFER, SLOTS,
    TAKE, TAKEN,
};
use harp_content::{Key, Name, MOST_FETCHED, PIECE, PIECES_MISSING};
use harp_transport::Hello;
use harp_wire::calls::*;
use harp_wire::{CallId, Decoder, HandleKind};
use support::{copy_out, Client, Worker, PATIENCE, USER};

const KEY: Key = Key([5; Key::BYTES]);
const IMAGE: &[u8] = b".version 8.0\n// an image that is there\n";

fn memory(bytes: &[u8], room: usize) -> File {
    // SAFETY: a C string; the descriptor is owned once.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), 0)) };
    file.write_all(bytes).unwrap();
    file.set_len(room as u64).unwrap();
    file
}

fn listed(content: &[u8]) -> Listed {
    Listed {
        name: KEY.name(content),
        fingerprint: KEY.fingerprint(content),
    }
}

/// A cache that has these contents; of one that is said to be damaged it gives other bytes.
struct Played {
    socket: OwnedFd,
    slots: File,
    contents: Vec<Vec<u8>>,
    damaged: Option<usize>,
    /// What it has been told.
    heard: Vec<Message>,
    /// What it has been handed over.
    kept: Vec<Vec<u8>>,
}

impl Played {
    fn offer(contents: Vec<Vec<u8>>, damaged: Option<usize>) -> (Played, OwnedFd) {
        let (socket, theirs) = channel::pair().unwrap();
        let pieces: Vec<Listed> = contents.iter().map(|content| listed(content)).collect();
        let list = encode_list(&KEY, &pieces);
        let list = memory(&list, list.len());
        let slots = memory(&[], SLOTS * PIECE);
        let offer = Message::of_numbers(OFFER, pieces.len() as u32, SLOTS as u64);
        let files = [list.as_raw_fd(), slots.as_raw_fd()];
        channel::send(socket.as_raw_fd(), &offer, &files).unwrap();
        let played = Played {
            socket,
            slots,
            contents,
            damaged,
            heard: Vec::new(),
            kept: Vec::new(),
        };
        (played, theirs)
    }

    /// Serves until the worker is gone.
    fn serve(mut self) -> JoinHandle<Played> {
        std::thread::spawn(move || loop {
            let wait = PATIENCE.as_millis() as i32;
            assert!(wait_readable(&self.socket, wait).unwrap());
            match channel::receive(self.socket.as_raw_fd()) {
                Ok(None) => return self,
                Ok(Some((message, _))) => self.answer(message),
                Err(_) => {}
            }
        })
    }

    fn answer(&mut self, message: Message) {
        self.heard.push(message);
        let socket = self.socket.as_raw_fd();
        match message.kind {
            TAKE => {
                let known = |content: &Vec<u8>| KEY.name(content) == message.name;
                let answer = |kind, amount| Message {
                    amount,
                    ..Message::about(kind, message.name)
                };
                match self.contents.iter().position(known) {
                    None => channel::send(socket, &answer(ABSENT, 0), &[]).unwrap(),
                    Some(index) => {
                        let mut content = self.contents[index].clone();
                        if self.damaged == Some(index) {
                            content[0] ^= 1;
                        }
                        let file = memory(&content, content.len());
                        // As a file that has just been opened.
                        // SAFETY: a plain system call.
                        unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) };
                        let taken = answer(TAKEN, content.len() as u64);
                        channel::send(socket, &taken, &[file.as_raw_fd()]).unwrap();
                    }
                }
            }
            KEEP => {
                let mut content = vec![0; message.amount as usize];
                let at = u64::from(message.number) * PIECE as u64;
                self.slots.read_exact_at(&mut content, at).unwrap();
                let piece = listed(&content);
                self.kept.push(content);
                let kept = Message {
                    kind: KEPT,
                    number: message.number,
                    amount: piece.fingerprint,
                    name: piece.name,
                };
                // The worker may have gone with its client.
                let _ = channel::send(socket, &kept, &[]);
            }
            _ => {}
        }
    }
}

/// A session whose cache has these contents.
fn session(contents: &[&[u8]], damaged: Option<usize>) -> (Worker, Client, JoinHandle<Played>) {
    let contents = contents.iter().map(|content| content.to_vec()).collect();
    let (played, theirs) = Played::offer(contents, damaged);
    let worker = Worker::start();
    let client = worker.connect_with_cache(USER, Hello::current(), Some(&theirs));
    drop(theirs);
    let client = client.expect("a session");
    assert_eq!(worker.event()["event"], "start");
    (worker, client, played.serve())
}

fn fetch(client: &mut Client, pieces: &[u32]) -> Vec<[u64; 2]> {
    let reply = client.ask(1, CallId::harp_cache_fetch, &|e| {
        encode_harp_cache_fetch(e, pieces);
    });
    assert_eq!(reply.status, 0);
    let checks = HarpCacheFetchReply::read(&mut Decoder::new(&reply.body)).checks;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let halves = checks.chunks(16);
    halves
        .map(|half| [word(&half[..8]), word(&half[8..])])
        .collect()
}

fn copy(client: &mut Client, address: u64, piece: u32, proof: [u64; 2]) {
    client.tell(1, CallId::harp_copy_cached, &|e| {
        encode_harp_copy_cached(e, address, u64::MAX, piece, proof);
    });
}

fn load(client: &mut Client, serial: u64) -> u32 {
    let module = HandleKind::Module.handle(serial);
    let loaded = client.ask(1, CallId::cuModuleLoadData, &|e| {
        encode_cuModuleLoadData(e, module, serial, &[], &[], 0);
    });
    loaded.status
}

fn name_piece(client: &mut Client, serial: u64, piece: u32, name: Name) {
    client.tell(1, CallId::harp_blob_append_cached, &|e| {
        encode_harp_blob_append_cached(e, serial, piece, name.check(), name.proof());
    });
}

#[test]
fn the_welcome_tells_the_key_and_the_fingerprints_and_no_name() {
    let (mut worker, client, played) = session(&[b"one", b"two"], None);
    let mut expected = KEY.0.to_vec();
    for content in [b"one", b"two"] {
        expected.extend(KEY.fingerprint(content).to_le_bytes());
    }
    assert_eq!(client.welcome.cache, expected);
    drop(client);
    worker.end();
    assert!(played.join().unwrap().heard.is_empty());
}

#[test]
fn a_copy_of_a_piece_is_as_good_as_one_of_the_bytes() {
    let (mut worker, mut client, played) = session(&[&[7; 64], &[8; 64]], None);
    client.function(1, "add");
    let address = client.allocate(1, 64);
    assert_eq!(fetch(&mut client, &[1])[0], KEY.name(&[8; 64]).check());
    copy(&mut client, address, 1, KEY.name(&[8; 64]).proof());
    assert_eq!(client.number_at(1, address), u64::from_le_bytes([8; 8]));
    drop(client);
    assert_eq!(worker.end()["bytes_cached"], 64);
    played.join().unwrap();
}

#[test]
fn a_client_that_does_not_have_a_piece_gets_nothing() {
    let name = KEY.name(b"secret of a colleague");
    let wrong = [name.check(), [0; 2], [name.proof()[0], !name.proof()[1]]];
    for proof in wrong {
        let (mut worker, mut client, _played) = session(&[b"secret of a colleague"], None);
        client.function(1, "add");
        let address = client.allocate(1, 64);
        assert_eq!(fetch(&mut client, &[0])[0], name.check());
        copy(&mut client, address, 0, proof);
        assert!(client.goodbye().contains("does not have"));
        worker.end();
    }
    // An image is only named on suspicion: the load says that it is not there.
    let (_worker, mut client, played) = session(&[IMAGE], None);
    client.function(1, "add");
    let name = KEY.name(IMAGE);
    for wrong in [
        Name::of(name.check(), [0; 2]),
        Name::of([0; 2], name.proof()),
    ] {
        name_piece(&mut client, 70, 0, wrong);
        assert_eq!(load(&mut client, 70), PIECES_MISSING);
    }
    drop(client);
    let heard = played.join().unwrap().heard;
    assert!(
        heard.iter().all(|message| message.kind != TAKE),
        "{heard:?}"
    );
}

#[test]
fn nonsense_about_pieces_ends_the_session() {
    let name = KEY.name(b"content");
    let too_many = vec![0; MOST_FETCHED + 1];
    type Say<'a> = &'a dyn Fn(&mut Client);
    let lies: [(&str, Say); 5] = [
        ("there is no piece", &|client| {
            client.post(1, CallId::harp_cache_fetch, &|e| {
                encode_harp_cache_fetch(e, &[0, 1]);
            });
        }),
        ("at a time", &|client| {
            client.post(1, CallId::harp_cache_fetch, &|e| {
                encode_harp_cache_fetch(e, &too_many);
            });
        }),
        ("there is no piece", &|client| {
            copy(client, 0, u32::MAX, [0; 2])
        }),
        ("has not been fetched", &|client| {
            copy(client, 0, 0, name.proof());
        }),
        ("there is no piece", &|client| {
            name_piece(client, 70, 1, name);
        }),
    ];
    for (expected, say) in lies {
        let (mut worker, mut client, _played) = session(&[b"content"], None);
        say(&mut client);
        let goodbye = client.goodbye();
        assert!(goodbye.contains(expected), "{expected}: {goodbye}");
        worker.end();
    }
}

#[test]
fn a_damaged_piece_is_not_there_and_the_cache_hears_of_it() {
    let (_worker, mut client, played) = session(&[IMAGE, &[3; 64]], Some(0));
    client.function(1, "add");
    let name = KEY.name(IMAGE);
    name_piece(&mut client, 70, 0, name);
    assert_eq!(load(&mut client, 70), PIECES_MISSING);
    assert_eq!(
        fetch(&mut client, &[0, 1]),
        [[0; 2], KEY.name(&[3; 64]).check()]
    );
    drop(client);
    let heard = played.join().unwrap().heard;
    let told = heard.iter().filter(|message| message.kind == DAMAGED);
    assert!(told.clone().count() == 2 && told.clone().all(|message| message.name == name));
}

#[test]
fn an_image_of_pieces_is_loaded_and_one_that_was_sent_is_kept() {
    let (_worker, mut client, played) = session(&[IMAGE], None);
    client.function(1, "add");
    name_piece(&mut client, 70, 0, KEY.name(IMAGE));
    assert_eq!(load(&mut client, 70), 0);
    let long = [IMAGE, &[b' '; 400]].concat();
    client.tell(1, CallId::harp_blob_append, &|e| {
        encode_harp_blob_append(e, 71);
        e.bytes(&long);
    });
    assert_eq!(load(&mut client, 71), 0);
    // The client hears of what was kept when it asks.
    let mut new = Vec::new();
    while new.is_empty() {
        let reply = client.ask(1, CallId::harp_cache_list, &|e| {
            encode_harp_cache_list(e, 1)
        });
        let reply = HarpCacheListReply::read(&mut Decoder::new(&reply.body)).fingerprints;
        new = reply.to_vec();
    }
    assert_eq!(new, KEY.fingerprint(&long).to_le_bytes());
    name_piece(&mut client, 72, 1, KEY.name(&long));
    assert_eq!(
        load(&mut client, 72),
        PIECES_MISSING,
        "this cache gives nothing back"
    );
    drop(client);
    assert_eq!(played.join().unwrap().kept, [long]);
}

#[test]
fn payloads_are_kept_at_their_first_place_and_pieces_are_cut_from_their_start() {
    let (_worker, mut client, played) = session(&[], None);
    client.function(1, "add");
    let rest = 5000;
    let payload: Vec<u8> = (0..PIECE + rest).map(|i| (i / 7) as u8).collect();
    let address = client.allocate(1, 4 * PIECE as u64);
    // In one record, in two that follow one another, and to a place where something was before.
    let upload = |client: &mut Client, at: u64, bytes: &[u8]| {
        client.tell(1, CallId::cuMemcpyHtoD_v2, &|e| {
            encode_cuMemcpyHtoD_v2(e, at, u64::MAX);
            e.bytes(bytes);
        });
    };
    upload(&mut client, address, &payload);
    let next = address + 2 * PIECE as u64;
    upload(&mut client, next, &payload[..PIECE]);
    upload(&mut client, next + PIECE as u64, &payload[PIECE..]);
    upload(&mut client, address, &vec![9; PIECE]);
    upload(&mut client, address + 64, &[9; 5000]);
    let reply = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(address, 8));
    assert_eq!(reply.body[8..], [9; 8]);
    drop(client);
    let kept = played.join().unwrap().kept;
    let lengths: Vec<usize> = kept.iter().map(Vec::len).collect();
    assert_eq!(lengths, [PIECE, rest, PIECE, rest]);
    for half in kept.chunks(2) {
        assert!(half.concat() == payload);
    }
}

#[test]
fn a_session_goes_on_without_a_cache_that_is_gone_or_lies() {
    // Gone before the session begins, and no cache at all.
    let (ours, theirs) = channel::pair().unwrap();
    drop(ours);
    for cache in [Some(&theirs), None] {
        let worker = Worker::start();
        let client = worker.connect_with_cache(USER, Hello::current(), cache);
        let mut client = client.expect("a session");
        assert!(client.welcome.cache.is_empty());
        client.function(1, "add");
    }
    // Gone in its middle.
    let (played, theirs) = Played::offer(vec![vec![1; 64]], None);
    let worker = Worker::start();
    let client = worker.connect_with_cache(USER, Hello::current(), Some(&theirs));
    let mut client = client.expect("a session");
    drop((played, theirs));
    client.function(1, "add");
    assert_eq!(fetch(&mut client, &[0]), [[0; 2]]);
    // One that says what none says.
    let (played, theirs) = Played::offer(vec![vec![1; 64]], None);
    let worker = Worker::start();
    let client = worker.connect_with_cache(USER, Hello::current(), Some(&theirs));
    let mut client = client.expect("a session");
    let nonsense = Message::of_numbers(77, 0, 0);
    channel::send(played.socket.as_raw_fd(), &nonsense, &[]).unwrap();
    assert_eq!(fetch(&mut client, &[0]), [[0; 2]]);
    client.function(1, "add");
}

#[test]
fn a_client_that_wants_nothing_kept_is_told_nothing() {
    let (_played, theirs) = Played::offer(vec![vec![1; 64]], None);
    let worker = Worker::start();
    let mut hello = Hello::current();
    let option = harp_content::OPTION.to_owned();
    hello.options.insert(option, "off".to_owned());
    let client = worker.connect_with_cache(USER, hello, Some(&theirs));
    assert!(client.expect("a session").welcome.cache.is_empty());
}
