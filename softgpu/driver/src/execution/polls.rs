//! Stream operations that wait for a value in memory (`cuStreamWaitValue32`).
//!
//! A thread of their own asks for them all: the threads that execute kernels may be needed for what
//! writes the value.

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::queue::Queue;

/// True once what it waits for has happened.
pub type Poll = Box<dyn FnMut() -> bool + Send>;

/// How often each is asked.
const INTERVAL: Duration = Duration::from_micros(50);

type Waiting = (Poll, Arc<Queue>);

/// Hands a poll over; `queue` goes on when it is done, or when its context has failed.
pub fn hand_over(poll: Poll, queue: Arc<Queue>) {
    static POLLS: LazyLock<Mutex<Sender<Waiting>>> = LazyLock::new(|| {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("harp-polls".into());
        thread
            .spawn(move || serve(&receiver))
            .expect("a process can start a thread");
        Mutex::new(sender)
    });
    let sent = POLLS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((poll, queue));
    debug_assert!(sent.is_ok(), "the thread never ends");
}

fn serve(receiver: &Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        if waiting.is_empty() {
            let Ok(first) = receiver.recv() else { return };
            waiting.push(first);
        }
        waiting.extend(receiver.try_iter());
        waiting.retain_mut(|(poll, queue)| {
            let done = poll() || queue.fault() != 0;
            if done {
                queue.go_on_elsewhere();
            }
            !done
        });
        std::thread::sleep(INTERVAL);
    }
}
