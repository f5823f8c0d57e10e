//! One program that is recorded: from its greeting to the end of its trace.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use harp_trace::greeting::{self, Greeting};
use harp_trace::ring::Consumer;
use serde_json::{json, Value};

use super::recording::Recording;
use super::Common;

/// What is told of a program.
pub enum Told {
    /// It is recorded; the line to print if it outlives everybody's patience.
    Began(Value),
    /// It has gone; its trace is being finished.
    Gone,
    /// Its trace is finished, or there is none.
    Ended(Option<Value>),
}

/// How long a program may take to greet, in milliseconds.
const GREETING_PATIENCE: i32 = 10_000;
/// How often a ring is looked at that is filled slowly.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A frame is written at least so often.
const FRAME_EVERY: Duration = Duration::from_secs(1);

/// Serves the program at the other end of `socket`.
pub fn serve(socket: &OwnedFd, common: &Common, tell: &dyn Fn(Told)) {
    let greeted = greeting::receive(socket, GREETING_PATIENCE);
    let ended = match greeted {
        Ok(greeting) => Some(record(socket, greeting, common, tell)),
        // Whoever says nothing, or something else, has no trace.
        Err(_) => None,
    };
    tell(Told::Ended(ended));
}

fn record(socket: &OwnedFd, greeting: Greeting, common: &Common, tell: &dyn Fn(Told)) -> Value {
    let path = common.next_path();
    let Greeting { pid, program, ring } = greeting;
    let failed = |error: &dyn Display| {
        json!({
            "type": "failed", "path": path.display().to_string(), "pid": pid, "program": program,
            "error": error.to_string(),
        })
    };
    let mut consumer = match Consumer::attach(ring) {
        Ok(consumer) => consumer,
        Err(error) => return failed(&error),
    };
    let mut recording = Recording::begin(&path, &program, common);
    let line = |finished: Value| {
        let mut line = finished;
        line["type"] = "trace".into();
        line["path"] = path.display().to_string().into();
        line["pid"] = pid.into();
        line["program"] = program.clone().into();
        line
    };
    tell(Told::Began(match &recording {
        Ok(_) => line(json!({"ended": "running"})),
        Err(error) => failed(error),
    }));
    // Where there is no recording the ring is emptied even so: the program does not wait for a disk.
    let broken = drain(socket, &mut consumer, recording.as_mut().ok(), tell);
    let lost = consumer.lost();
    match recording.and_then(|recording| recording.finish(lost, broken.as_deref())) {
        Ok(finished) => line(finished),
        Err(error) => failed(&error),
    }
}

/// Takes out what the ring holds until the program has gone; why it was given up before, if it was.
fn drain(
    socket: &OwnedFd,
    consumer: &mut Consumer,
    mut recording: Option<&mut Recording>,
    tell: &dyn Fn(Told),
) -> Option<String> {
    let mut gone = false;
    let mut written = Instant::now();
    loop {
        loop {
            match consumer.next() {
                Ok(Some(raw)) => {
                    if let Some(recording) = &mut recording {
                        recording.take(raw);
                    }
                }
                Ok(None) => break,
                Err(broken) => {
                    tell(Told::Gone);
                    return Some(broken.to_string());
                }
            }
        }
        if gone {
            return None;
        }
        if written.elapsed() >= FRAME_EVERY {
            if let Some(recording) = &mut recording {
                recording.write_frame();
            }
            written = Instant::now();
        }
        let patience = match consumer.fall_asleep() {
            true => LOOK_AGAIN,
            false => Duration::ZERO,
        };
        gone = wait(socket, consumer, patience);
        consumer.awake();
        if gone {
            tell(Told::Gone);
        }
    }
}

/// Waits until the ring wants to be emptied; whether the program has gone.
fn wait(socket: &OwnedFd, consumer: &Consumer, patience: Duration) -> bool {
    let polled = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut files = [
        polled(consumer.wake_fd().as_raw_fd()),
        polled(socket.as_raw_fd()),
    ];
    // SAFETY: two entries that live. A signal ends the wait early, which does no harm.
    unsafe { libc::poll(files.as_mut_ptr(), 2, patience.as_millis() as i32) };
    // A program says nothing after its greeting; what it says is its end.
    files[1].revents != 0
}
