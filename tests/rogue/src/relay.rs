//! Between a program and its server.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harp_mutation::Random;
use harp_transport::{
    accept, connect, ClientConfig, FrameKind, LinkError, Next, Receiver, Sender, ServerConfig, Wait,
};

use crate::arguments::Arguments;
use crate::{answers, streams};

const PATIENCE: Duration = Duration::from_secs(20);

/// A session whose replies were mutated ends after so long: a program may be waiting for an answer that
/// has become one to nobody, and cannot tell that from a kernel that takes its time.
const AFTER_LIES: Duration = Duration::from_secs(4);

struct Relay {
    server: String,
    user: ClientConfig,
    own: ServerConfig,
    record: Option<Mutex<BufWriter<File>>>,
    mutate_per_mille: u64,
    seed: u64,
    sessions: AtomicU64,
    mutated: AtomicU64,
}

pub fn run(arguments: &Arguments) -> Result<String, String> {
    let user = arguments.user()?;
    let record = arguments.optional("record").map(File::create).transpose();
    let relay = Arc::new(Relay {
        server: arguments.text("server")?.to_owned(),
        own: ServerConfig {
            ca_pem: user.ca_pem.clone(),
            cert_pem: arguments.file("cert")?,
            key_pem: arguments.file("key")?,
        },
        user,
        record: record
            .map_err(|error| error.to_string())?
            .map(|file| Mutex::new(BufWriter::new(file))),
        mutate_per_mille: arguments.number("mutate", 0)?,
        seed: arguments.number("seed", 0)?,
        sessions: AtomicU64::new(0),
        mutated: AtomicU64::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("{address}");
    let serving = relay.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let relay = serving.clone();
            thread::spawn(move || {
                if let Err(cause) = relay.serve(stream) {
                    eprintln!("harp-rogue: {cause}");
                }
            });
        }
    });
    // Until whoever started this closes its end.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    if let Some(record) = &relay.record {
        let mut record = record.lock().map_err(|error| error.to_string())?;
        record.flush().map_err(|error| error.to_string())?;
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(serde_json::json!({
        "sessions": count(&relay.sessions),
        "mutated": count(&relay.mutated),
    })
    .to_string())
}

impl Relay {
    fn serve(&self, stream: TcpStream) -> Result<(), String> {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let incoming = accept(stream, &self.own, PATIENCE).map_err(|error| error.to_string())?;
        let hello = incoming.hello.clone();
        let (mut to_server, from_server, welcome, _) =
            connect(&self.server, &self.user, hello, PATIENCE)
                .map_err(|error| error.to_string())?;
        let (mut to_client, from_client) = incoming
            .welcome(welcome)
            .map_err(|error| error.to_string())?;
        thread::scope(|scope| {
            scope.spawn(|| {
                pump(from_client, &mut to_server, &Cell::new(None), |frame| {
                    if let Some(record) = &self.record {
                        let mut file = record.lock().unwrap();
                        streams::write_frame(&mut *file, &frame).expect("the recording grows");
                    }
                    frame
                })
            });
            let mut random = Random::new(self.seed.wrapping_add(session << 20));
            let lied = Cell::new(None);
            pump(from_server, &mut to_client, &lied, |frame| {
                if (random.below(1000) as u64) < self.mutate_per_mille {
                    self.mutated.fetch_add(1, Ordering::Relaxed);
                    lied.set(lied.get().or(Some(Instant::now())));
                    return answers::mutated(&frame, &mut random);
                }
                frame
            });
        });
        Ok(())
    }
}

/// Carries frames until the end, which it passes on.
fn pump(
    mut from: Receiver,
    to: &mut Sender,
    lied: &Cell<Option<Instant>>,
    mut change: impl FnMut(Vec<u8>) -> Vec<u8>,
) {
    let wait = Wait {
        timeout: Some(Duration::from_millis(200)),
        ..Wait::default()
    };
    let ended: Result<(), LinkError> = (|| loop {
        if lied.get().is_some_and(|since| since.elapsed() > AFTER_LIES) {
            return Ok(());
        }
        match from.next(wait)? {
            Next::Frame(head) => match head.kind {
                FrameKind::Calls | FrameKind::Replies => {
                    let mut frame = vec![0; head.len];
                    from.read(&mut frame)?;
                    let frame = change(frame);
                    if to.send(&[&frame]).is_err() {
                        return Ok(());
                    }
                }
                FrameKind::Bye(reason) => {
                    let _ = to.bye_because(&reason);
                    return Ok(());
                }
                FrameKind::Pong(_) => {}
            },
            Next::Idle => {}
            Next::Closed => return Ok(()),
        }
    })();
    // However it ended: the other side learns that it did.
    drop(ended);
    let _ = to.bye();
}
