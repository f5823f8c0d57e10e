//! Short pieces of work, each done as often as the last argument says. What one of them costs is the difference of two
//! runs of other lengths, in instructions that valgrind counts: `bench/counts.py` does so.
//!
//! ```text
//! harp-counted frames FOLDER BYTES COUNT   a frame there and back, between two ends in one thread
//! harp-counted launches FOLDER COUNT       an empty launch: sent, and executed on a driver that does nothing
//! harp-counted decode FILE.ptx COUNT       the file parsed and all its kernels decoded for the soft GPU
//! ```
//!
//! FOLDER has the certificates: `ca.pem`, `client.pem`, `client.key`, `server.pem`, `server.key`.

mod launches;
mod linked;

// The worker's own modules.
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/address_space.rs"]
mod address_space;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/calls/mod.rs"]
mod calls;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/control.rs"]
mod control;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/generated/mod.rs"]
mod generated;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/output.rs"]
mod output;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/session/mod.rs"]
mod session;
#[allow(dead_code, unused_imports)]
#[path = "../../../server/worker/src/snapshot.rs"]
mod snapshot;

use std::path::Path;

use harp_softgpu_engine::Module;
use harp_transport::{Next, Receiver, Sender, Wait};

use linked::linked;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["frames", folder, bytes, count] => frames(folder.as_ref(), number(bytes), number(count)),
        ["launches", folder, count] => launches::execute(folder.as_ref(), number(count)),
        ["decode", file, count] => decode(file.as_ref(), number(count)),
        _ => panic!("usage: see bench/counted/src/main.rs"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn frames(folder: &Path, bytes: usize, count: usize) {
    let (mut client, mut server) = linked(folder);
    let mut body = vec![7; bytes];
    for _ in 0..count {
        pass(&mut client.0, &mut server.1, &mut body);
        pass(&mut server.0, &mut client.1, &mut body);
    }
}

/// Sends a frame and takes it in at the other end. It must fit into the socket.
fn pass(from: &mut Sender, to: &mut Receiver, body: &mut [u8]) {
    from.send(&[body]).unwrap();
    match to.next(Wait::default()).unwrap() {
        Next::Frame(head) => assert_eq!(head.len, body.len()),
        other => panic!("no frame but {other:?}"),
    }
    to.read(body).unwrap();
}

fn decode(file: &Path, count: usize) {
    let text = std::fs::read(file).unwrap();
    for _ in 0..count {
        let module = Module::parse(text.clone()).unwrap();
        for kernel in module.kernels() {
            module
                .kernel(kernel, &|_: &str| Some(0x2000_0000_0000))
                .unwrap();
        }
    }
}
