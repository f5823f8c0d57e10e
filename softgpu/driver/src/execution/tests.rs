//! Order and progress of queues, with commands that only note that they ran.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::busy::Busy;
use super::command::{Command, Marker, Stored, Work};
use super::executor::executor;
use super::host_calls::{self, HostCall, HostFunction};
use super::queue::{Queue, BACKLOG_MAX};
use crate::console::Fifo;

fn queue() -> Arc<Queue> {
    Queue::new(Arc::new(AtomicU32::new(0)))
}

fn note(list: &Arc<Mutex<Vec<u32>>>, value: u32) -> Command {
    let list = list.clone();
    let work = Work::Free(Box::new(move || list.lock().unwrap().push(value)));
    Command {
        after: Vec::new(),
        work,
    }
}

fn slowly(list: &Arc<Mutex<Vec<u32>>>, value: u32) -> Command {
    let list = list.clone();
    let work = Work::Free(Box::new(move || {
        std::thread::sleep(Duration::from_millis(20));
        list.lock().unwrap().push(value);
    }));
    Command {
        after: Vec::new(),
        work,
    }
}

#[test]
fn a_queue_runs_in_order_whoever_runs_it() {
    let (queue, list) = (queue(), Arc::default());
    for round in 0..50 {
        for value in 0..100 {
            queue.submit(note(&list, round * 100 + value));
        }
        // Now and then a synchronising thread takes part.
        if round % 3 == 0 {
            queue.end().wait();
            assert_eq!(list.lock().unwrap().len() as u32, (round + 1) * 100);
        }
    }
    queue.end().wait();
    assert!(queue.is_drained());
    assert!(list.lock().unwrap().iter().copied().eq(0..5000));
}

#[test]
fn a_marker_holds_up_another_queue() {
    let (first, second, list) = (queue(), queue(), Arc::default());
    first.submit(slowly(&list, 1));
    let marker = first.end();
    assert!(!marker.is_reached());
    second.submit(Command {
        after: vec![marker],
        work: Work::Order,
    });
    second.submit(note(&list, 2));
    second.end().wait();
    assert_eq!(*list.lock().unwrap(), [1, 2]);
}

/// A chain over many queues, waited for at its end only.
#[test]
fn a_chain_of_markers_is_followed() {
    let list = Arc::default();
    let mut before: Option<Marker> = None;
    for value in 0..200 {
        let next = queue();
        let mut command = note(&list, value);
        command.after.extend(before.take());
        next.submit(command);
        before = Some(next.end());
    }
    before.unwrap().wait();
    assert!(list.lock().unwrap().iter().copied().eq(0..200));
}

/// Two queues that wait for each other's earlier points over and over, fed by two threads.
#[test]
fn queues_that_take_turns_never_get_stuck() {
    let (one, two) = (queue(), queue());
    let feed = |own: Arc<Queue>, other: Arc<Queue>| {
        std::thread::spawn(move || {
            for round in 0..2000 {
                own.submit(Command {
                    after: vec![other.end()],
                    work: Work::Order,
                });
                if round % 100 == 0 {
                    own.end().wait();
                }
            }
            own.end().wait();
        })
    };
    let (first, second) = (
        feed(one.clone(), two.clone()),
        feed(two.clone(), one.clone()),
    );
    first.join().unwrap();
    second.join().unwrap();
    assert!(one.is_drained() && two.is_drained());
}

#[test]
fn many_threads_may_wait_for_different_points() {
    let (queue, list) = (queue(), Arc::<Mutex<Vec<u32>>>::default());
    queue.submit(slowly(&list, 0));
    let waits: Vec<_> = (1..=20)
        .map(|value| {
            queue.submit(note(&list, value));
            let (end, list) = (queue.end(), list.clone());
            std::thread::spawn(move || {
                end.wait();
                assert!(list.lock().unwrap().contains(&value));
            })
        })
        .collect();
    for wait in waits {
        wait.join().unwrap();
    }
}

#[test]
fn work_that_waits_runs_at_once_on_an_idle_queue() {
    let (queue, seen) = (queue(), Arc::new(Mutex::new(None)));
    let here = seen.clone();
    let work = Work::Free(Box::new(move || {
        *here.lock().unwrap() = Some(std::thread::current().id());
    }));
    queue.submit_and_wait(Command {
        after: Vec::new(),
        work,
    });
    assert_eq!(*seen.lock().unwrap(), Some(std::thread::current().id()));
}

static CALLED_AFTER: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn called(list: *mut core::ffi::c_void) {
    assert!(host_calls::inside());
    // SAFETY: the test passes the address of this list and waits for the call.
    let list = unsafe { &*list.cast::<Mutex<Vec<u32>>>() };
    CALLED_AFTER.store(list.lock().unwrap().len(), Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(10));
    list.lock().unwrap().push(100);
}

#[test]
fn a_host_function_blocks_its_queue_only() {
    let (blocked, free, list) = (queue(), queue(), Arc::<Mutex<Vec<u32>>>::default());
    let call = HostCall {
        function: HostFunction::Plain(called),
        argument: Arc::as_ptr(&list) as usize,
        printed: Arc::new(Fifo::new()),
    };
    blocked.submit(note(&list, 1));
    blocked.submit(Command {
        after: Vec::new(),
        work: Work::Host(call),
    });
    blocked.submit(note(&list, 2));
    let other = Arc::default();
    free.submit(note(&other, 3));
    free.end().wait();
    blocked.end().wait();
    assert_eq!(*list.lock().unwrap(), [1, 100, 2]);
    assert_eq!(CALLED_AFTER.load(Ordering::SeqCst), 1);
}

#[test]
fn a_poll_waits_for_what_another_queue_does() {
    let (waiting, writing) = (queue(), queue());
    let flag = Arc::new(AtomicU32::new(0));
    let seen = flag.clone();
    let poll = Work::Poll(Box::new(move || seen.load(Ordering::Acquire) == 1));
    waiting.submit(Command {
        after: Vec::new(),
        work: poll,
    });
    assert!(!waiting.is_drained());
    let set = flag.clone();
    let work = Work::Free(Box::new(move || set.store(1, Ordering::Release)));
    writing.submit(Command {
        after: Vec::new(),
        work,
    });
    waiting.end().wait();
    assert_eq!(flag.load(Ordering::Acquire), 1);
}

#[test]
fn a_failed_context_skips_work_but_frees_memory() {
    let fault = Arc::new(AtomicU32::new(700));
    let queue = Queue::new(fault);
    let mut bytes = [0u8; 4];
    let store = Work::Store(Stored::new([1, 2, 3, 4]), bytes.as_mut_ptr() as u64);
    queue.submit(Command {
        after: Vec::new(),
        work: store,
    });
    let list = Arc::default();
    queue.submit(note(&list, 7));
    queue.end().wait();
    assert_eq!(bytes, [0; 4]);
    assert_eq!(*list.lock().unwrap(), [7]);
}

#[test]
fn a_list_of_busy_queues_has_those_with_work_and_no_others() {
    let busy = Arc::new(Busy::default());
    let fault = Arc::new(AtomicU32::new(0));
    let stream = |blocking| {
        let fault = fault.clone();
        Queue::of_stream(fault, Arc::downgrade(&busy), blocking, false)
    };
    let queues: Vec<_> = (0..1000).map(|number| stream(number % 2 == 0)).collect();
    let list = Arc::default();
    assert!(busy.ends(|_| true).is_empty());
    queues[4].submit(slowly(&list, 4));
    queues[5].submit(slowly(&list, 5));
    queues[4].submit(note(&list, 6));
    assert_eq!(busy.ends(|_| true).len(), 2);
    let of_blocking = busy.ends(Queue::is_blocking);
    assert!(matches!(&of_blocking[..], [one] if Arc::ptr_eq(&one.queue, &queues[4])));
    assert_eq!(of_blocking[0].count, 2);
    busy.ends(|_| true).iter().for_each(Marker::wait);
    assert!(busy.ends(|_| true).is_empty());
    queues[4].submit(slowly(&list, 7));
    assert_eq!(busy.ends(|_| true).len(), 1, "it is listed again");
}

#[test]
fn whoever_looks_sees_work_that_came_before() {
    let busy = Arc::new(Busy::default());
    let queue = Queue::of_stream(
        Arc::new(AtomicU32::new(0)),
        Arc::downgrade(&busy),
        true,
        false,
    );
    let list: Arc<Mutex<Vec<u32>>> = Arc::default();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                busy.ends(|_| true);
            }
        });
        for value in 0..20_000 {
            queue.submit(note(&list, value));
            busy.ends(|_| true).iter().for_each(Marker::wait);
            assert_eq!(list.lock().unwrap().len() as u32, value + 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn who_queues_faster_than_work_is_done_waits() {
    let (queue, list) = (queue(), Arc::<Mutex<Vec<u32>>>::default());
    for round in 0..8 {
        queue.submit(slowly(&list, round));
        for value in 0..BACKLOG_MAX as u32 {
            queue.submit(note(&list, value));
        }
        assert!(queue.submitted() - queue.completed() <= BACKLOG_MAX);
    }
    queue.end().wait();
    assert_eq!(list.lock().unwrap().len() as u64, 8 * (BACKLOG_MAX + 1));
}

#[test]
fn who_queues_behind_what_it_has_to_do_itself_does_not_wait() {
    let (first, second, list) = (queue(), queue(), Arc::<Mutex<Vec<u32>>>::default());
    let flag = Arc::new(AtomicU32::new(0));
    let seen = flag.clone();
    first.submit(Command {
        after: Vec::new(),
        work: Work::Poll(Box::new(move || seen.load(Ordering::Acquire) == 1)),
    });
    second.submit(Command {
        after: vec![first.end()],
        work: Work::Order,
    });
    for queue in [&first, &second] {
        for value in 0..2 * BACKLOG_MAX as u32 {
            queue.submit(note(&list, value));
        }
    }
    assert!(list.lock().unwrap().is_empty());
    flag.store(1, Ordering::Release);
    first.end().wait();
    second.end().wait();
    assert_eq!(list.lock().unwrap().len() as u64, 4 * BACKLOG_MAX);
}

#[test]
fn what_a_gathering_thread_puts_in_is_done_once_it_waits_or_no_longer_gathers() {
    let done = |queue: &Arc<Queue>| {
        let patience = Instant::now() + Duration::from_secs(20);
        while !queue.is_drained() {
            assert!(Instant::now() < patience, "nobody was woken");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for _ in 0..20 {
        let (waited_for, other, list) = (queue(), queue(), Arc::default());
        // Long enough for every thread to go to sleep.
        std::thread::sleep(Duration::from_millis(2));
        executor().gather();
        waited_for.submit(note(&list, 1));
        other.submit(note(&list, 2));
        waited_for.end().wait();
        done(&other);

        executor().gather();
        other.submit(note(&list, 3));
        executor().release();
        done(&other);

        executor().gather();
        waited_for.submit(note(&list, 4));
        other.submit_and_wait(note(&list, 5));
        done(&waited_for);
    }
}
