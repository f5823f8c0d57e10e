//! Which thread runs the session while another is blocked in a wait.
//!
//! One thread at a time has the [`Engine`] and executes the client's calls. A call that may block for long (a stream
//! that a kernel keeps busy) must not hold up the calls of the program's other threads, one of which may be what lets
//! the kernel finish. So the thread lays the engine down here before it waits, and picks it up again afterwards, which
//! costs no more than a lock: in a program with one thread nobody else ever takes it. Where another client thread is
//! known to exist, a follower takes it at once; where input turns up from one that was not known, the watchdog notices
//! within its tick and calls a follower.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use super::engine::{lead, Engine, Shared};

/// Threads that a session may have in waits at a time. Beyond that the engine stays where it lies until a wait is over.
const MOST_FOLLOWERS: usize = 256;

#[derive(Default)]
struct Place {
    engine: Option<Box<Engine>>,
    /// Whether anybody but its owner may take the engine.
    offered: bool,
    /// Threads that wait for their turn, and all that were ever started.
    idle: usize,
    followers: usize,
}

#[derive(Default)]
pub struct Relay {
    place: Mutex<Place>,
    turn: Condvar,
}

impl Relay {
    /// Lays the engine down, for anybody to take if `offered`.
    pub fn lay_down(&self, engine: Box<Engine>, offered: bool) {
        let mut place = self.lock();
        place.engine = Some(engine);
        place.offered = offered;
    }

    /// Takes the engine back after a wait, if nobody else has taken it.
    pub fn pick_up(&self) -> Option<Box<Engine>> {
        let mut place = self.lock();
        place.offered = false;
        // Another thread may have laid it down since, in a wait of its own.
        let mut engine = place.engine.take()?;
        engine.taken();
        Some(engine)
    }

    /// Waits until the engine is offered, and takes it.
    pub fn take_over(&self) -> Box<Engine> {
        let mut place = self.lock();
        place.idle += 1;
        loop {
            if place.offered {
                if let Some(mut engine) = place.engine.take() {
                    place.offered = false;
                    place.idle -= 1;
                    engine.taken();
                    return engine;
                }
            }
            place = self
                .turn
                .wait(place)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Offers an engine that lies here with input before it, be that the end of the connection.
    pub fn offer_if_input(&self, shared: &Arc<Shared>) {
        let mut place = self.lock();
        let waiting = !place.offered && place.engine.as_mut().is_some_and(|e| e.has_input());
        if waiting {
            place.offered = true;
            drop(place);
            Self::call_follower(shared);
        }
    }

    /// Wakes a thread that takes an offered engine, starting one if all are in waits.
    pub fn call_follower(shared: &Arc<Shared>) {
        let mut place = shared.relay.lock();
        if place.idle > 0 {
            shared.relay.turn.notify_one();
            return;
        }
        if place.followers == MOST_FOLLOWERS {
            return;
        }
        place.followers += 1;
        drop(place);
        let for_thread = shared.clone();
        let started = thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || lead(for_thread.relay.take_over()));
        if started.is_err() {
            // The engine waits for the thread that laid it down, as it does at the limit.
            shared.relay.lock().followers = MOST_FOLLOWERS;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
