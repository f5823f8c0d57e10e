//! Stream operations that wait for a value in memory (`cuStreamWaitValue32`).
//!
//! A thread of their own asks for them all: the threads that execute kernels may be needed for what
//! writes the value.

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use harp_driver_front::threads::{no_thread, start_thread};

use super::queue::Queue;

/// True once what it waits for has happened.
pub type Poll = Box<dyn FnMut() -> bool + Send>;

/// How often each is asked.
const INTERVAL: Duration = Duration::from_micros(50);

type Waiting = (Poll, Arc<Queue>);

/// Hands a poll over; `queue` goes on when it is done, or when its context has failed.
pub fn hand_over(poll: Poll, queue: Arc<Queue>) {
    /// None where the process may have no such thread.
    static POLLS: LazyLock<Option<Mutex<Sender<Waiting>>>> = LazyLock::new(|| {
        let (sender, receiver) = channel();
        match start_thread("harp-polls", move || serve(&receiver)) {
            Ok(_) => Some(Mutex::new(sender)),
            Err(error) => {
                no_thread(&error, "streams that wait for a value hold up others");
                None
            }
        }
    });
    let Some(polls) = &*POLLS else {
        let mut waiting = (poll, queue);
        while !is_over(&mut waiting) {
            std::thread::sleep(INTERVAL);
        }
        return;
    };
    let sent = polls
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((poll, queue));
    assert!(sent.is_ok(), "the thread never ends");
}

/// Asks once; true when the queue goes on.
fn is_over((poll, queue): &mut Waiting) -> bool {
    let done = poll() || queue.fault() != 0;
    if done {
        queue.go_on_elsewhere();
    }
    done
}

fn serve(receiver: &Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        if waiting.is_empty() {
            let Ok(first) = receiver.recv() else { return };
            waiting.push(first);
        }
        waiting.extend(receiver.try_iter());
        waiting.retain_mut(|each| !is_over(each));
        std::thread::sleep(INTERVAL);
    }
}
