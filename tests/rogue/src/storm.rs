//! Mutated calls, session after session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use harp_mutation::Random;
use harp_transport::{
    connect, ClientConfig, ConnectError, FrameKind, Hello, Next, Receiver, Sender, Wait,
};

use harp_wire::CallId;

use crate::arguments::Arguments;
use crate::{calls, streams};

const PATIENCE: Duration = Duration::from_secs(60);

/// Most frames of one session; after that it says goodbye.
const SESSION_FRAMES: usize = 400;

/// A session whose socket takes nothing for so long is left: its worker sits in a kernel.
const STUCK: Duration = Duration::from_millis(200);

struct Storm {
    server: String,
    user: ClientConfig,
    streams: Vec<Vec<Vec<u8>>>,
    all_frames: Vec<Vec<u8>>,
    frames: u64,
    seed: u64,
    sent: AtomicU64,
    sessions: AtomicU64,
    /// How sessions ended, and how many of them.
    endings: Mutex<BTreeMap<String, u64>>,
}

pub fn run(arguments: &Arguments) -> Result<String, String> {
    let streams: Vec<_> = arguments
        .files
        .iter()
        .map(|path| streams::read(path))
        .collect::<Result<_, _>>()?;
    let all_frames: Vec<Vec<u8>> = streams.iter().flatten().cloned().collect();
    if all_frames.is_empty() {
        return Err("no recorded frames".to_owned());
    }
    let storm = Storm {
        server: arguments.text("server")?.to_owned(),
        user: arguments.user()?,
        streams,
        all_frames,
        frames: arguments.number("frames", 1000)?,
        seed: arguments.number("seed", 0)?,
        sent: AtomicU64::new(0),
        sessions: AtomicU64::new(0),
        endings: Mutex::default(),
    };
    let failure = thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.number("threads", 4)?)
            .map(|_| scope.spawn(|| storm.blow()))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread that does not panic"))
    });
    failure?;
    Ok(serde_json::json!({
        "frames": storm.sent.load(Ordering::Relaxed),
        "sessions": storm.sessions.load(Ordering::Relaxed),
        "endings": *storm.endings.lock().unwrap(),
    })
    .to_string())
}

impl Storm {
    fn blow(&self) -> Result<(), String> {
        while self.sent.load(Ordering::Relaxed) < self.frames {
            let number = self.sessions.fetch_add(1, Ordering::Relaxed);
            let mut random = Random::new(self.seed.wrapping_add(number));
            let hello = Hello {
                program: "rogue".to_owned(),
                ..Hello::current()
            };
            let ending = match connect(&self.server, &self.user, hello, PATIENCE) {
                Ok((sender, receiver, ..)) => self.session(sender, receiver, &mut random),
                // All sessions are in use by ones that are about to end.
                Err(ConnectError::NoneLeft(_) | ConnectError::Closed(_)) => {
                    thread::sleep(Duration::from_millis(20));
                    "not let in".to_owned()
                }
                Err(error) => return Err(format!("session {number}: {error}")),
            };
            *self.endings.lock().unwrap().entry(ending).or_default() += 1;
        }
        Ok(())
    }

    /// Sends a recorded stream from its beginning, then frames of any. Returns how it ended.
    fn session(&self, mut sender: Sender, mut receiver: Receiver, random: &mut Random) -> String {
        sender.set_send_timeout(STUCK);
        let stream = random.pick(&self.streams);
        // Some sessions come far before they misbehave. None gets to the end, where all is freed.
        let last = 1 + random.below(stream.len());
        let good = random.below(last + 1) / 2;
        for index in 0..SESSION_FRAMES {
            let frame = match stream[..last].get(index) {
                Some(frame) => frame.clone(),
                None => calls::again(&stream[random.below(last)]),
            };
            // Nobody here waits for host functions to be called before saying that they are done.
            let frame = calls::without(&frame, CallId::harp_callback_done);
            let sent = if index < good {
                sender.send(&[&frame])
            } else {
                self.sent.fetch_add(1, Ordering::Relaxed);
                sender.send(&[&calls::mutated(&frame, &self.all_frames, random)])
            };
            if let Some(ending) = drain(&mut receiver, Duration::ZERO) {
                return ending;
            }
            if let Err(error) = sent {
                // A goodbye says more than a broken connection.
                return drain(&mut receiver, STUCK).unwrap_or_else(|| kind(&error.to_string()));
            }
            // Now and then one at a time: the session gets to the frames behind an answer.
            if random.once_in(3) {
                if let Some(ending) = drain(&mut receiver, Duration::from_millis(2)) {
                    return ending;
                }
            }
        }
        let _ = sender.bye();
        "said goodbye".to_owned()
    }
}

/// Takes what has come; how the session ended, if it has.
fn drain(receiver: &mut Receiver, timeout: Duration) -> Option<String> {
    let wait = Wait {
        spin: Some(Duration::ZERO),
        timeout: Some(timeout),
    };
    loop {
        match receiver.next(wait) {
            Ok(Next::Frame(head)) => match head.kind {
                FrameKind::Bye(reason) => return Some(kind(&reason)),
                _ => continue,
            },
            Ok(Next::Idle) => return None,
            Ok(Next::Closed) => return Some("closed".to_owned()),
            Err(error) => return Some(kind(&error.to_string())),
        }
    }
}

/// The sentence without what differs from case to case.
fn kind(cause: &str) -> String {
    let words = cause.split_whitespace().map(|word| {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        if number {
            "N"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
