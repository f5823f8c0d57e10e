//! A recorder of its own, and programs that it records.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use harp_trace::block::{Block, Message, Policy};
use harp_trace::container::{Trace, TraceError};
use harp_trace::greeting::greet;
use harp_trace::ring::{Patience, Producer};
use serde_json::Value;

pub const TRACE: &str = env!("CARGO_BIN_EXE_harp-trace");

pub struct Recorder {
    pub folder: PathBuf,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Recorder {
    /// Started by `command`, whose last word is that for `harp-trace`, to record to `out.htrace` in
    /// folder `to`; programs come to a socket in a folder of its own in `folder`.
    pub fn start_by(mut command: Command, folder: &Path, to: &Path) -> Recorder {
        let folder = folder.join("door");
        std::fs::create_dir(&folder).unwrap();
        let mut child = command
            .arg("record")
            .arg("--socket")
            .arg(folder.join("socket"))
            .arg("--own-folder")
            .arg("--out")
            .arg(to.join("out.htrace"))
            .args(["--payload", "all=full"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut recorder = Recorder {
            folder,
            child,
            lines,
        };
        assert_eq!(recorder.line().unwrap()["type"], "ready");
        recorder
    }

    pub fn start(folder: &Path) -> Recorder {
        Recorder::start_by(Command::new(TRACE), folder, folder)
    }

    /// A program that connects.
    pub fn program(&self, capacity: usize) -> Program {
        let (producer, fds) = Producer::create(capacity).unwrap();
        let connection = greet(&self.folder.join("socket"), "vector_add", fds).unwrap();
        Program {
            producer,
            connection,
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Has it stand still until it gets SIGCONT.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        // SAFETY: as above; it returns when the child has stopped.
        unsafe {
            libc::waitpid(
                self.child.id() as i32,
                std::ptr::null_mut(),
                libc::WUNTRACED,
            )
        };
    }

    /// The next line that it prints; `None` at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Says that nobody waits any more, and reads the lines that are left.
    pub fn end(&mut self) -> Vec<Value> {
        drop(self.child.stdin.take());
        std::iter::from_fn(|| self.line()).collect()
    }

    pub fn wait(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

pub struct Program {
    pub producer: Producer,
    pub connection: OwnedFd,
}

impl Program {
    pub fn put(&mut self, block: &Block) {
        while !self.producer.try_append_block(block) {
            self.producer.wake();
            std::thread::yield_now();
        }
    }

    pub fn call(&mut self, time: u64, bytes: &[u8]) {
        self.put(&Block::Call(Message {
            time,
            session: 0,
            bytes,
            payload: None,
        }));
    }

    /// A call whose payload has been cut out.
    pub fn call_with(&mut self, time: u64, policy: Policy, content: &[u8]) {
        let payload = loop {
            let mut patience = Patience::for_bytes(&self.producer, 1 << 50);
            let payload = self
                .producer
                .append_payload(policy, &[content], &mut patience);
            // A loaded machine may stop the recorder for longer than programs wait.
            if payload.policy == policy {
                break payload;
            }
        };
        self.put(&Block::Call(Message {
            time,
            session: 0,
            bytes: b"a record",
            payload: Some(payload),
        }));
    }
}

/// Every block of a trace, decoded and shown to `look`; whether the calls are cut.
pub fn each(path: &Path, mut look: impl FnMut(&Block)) -> Result<bool, TraceError> {
    let mut blocks = Trace::open(path)?.blocks()?;
    while let Some(block) = blocks.next()? {
        look(&block.decode()?);
    }
    Ok(blocks.cut())
}
