//! Which queues of a context have work, so that who waits for all of them goes by those alone: a
//! program may have thousands of streams that do nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::command::Marker;
use super::queue::Queue;

/// Queues that had work when they were last looked at, each once.
#[derive(Debug, Default)]
pub struct Busy {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    queues: Vec<Arc<Queue>>,
    /// When there are so many, those that are drained are left out.
    look_at: usize,
}

/// The fewest queues that are looked through without anybody asking.
const LOOK_MIN: usize = 64;

impl Busy {
    /// Takes a queue that has just got work and is in no list.
    pub fn add(&self, queue: Arc<Queue>) {
        let mut listed = self.lock();
        if listed.queues.len() >= listed.look_at {
            listed.leave_out_drained();
            listed.look_at = LOOK_MIN.max(2 * listed.queues.len());
        }
        listed.queues.push(queue);
    }

    /// The points that all work so far leads to, of the queues that `which` holds for.
    pub fn ends(&self, which: impl Fn(&Queue) -> bool) -> Vec<Marker> {
        let mut listed = self.lock();
        listed.leave_out_drained();
        let chosen = listed.queues.iter().filter(|queue| which(queue));
        chosen.map(Queue::end).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn leave_out_drained(&mut self) {
        self.queues.retain(|queue| !queue.unlist());
    }
}
