//! The calling thread's stack of current contexts.
//!
//! The top is kept apart from the rest in a cell without a destructor, so that reading it is one
//! load and still works while the thread is being torn down (runtimes call in from exit handlers).

use std::cell::{Cell, RefCell};

use harp_cuda_abi::types::CUcontext;

thread_local! {
    static TOP: Cell<CUcontext> = const { Cell::new(core::ptr::null_mut()) };
    static BELOW: RefCell<Vec<CUcontext>> = const { RefCell::new(Vec::new()) };
}

/// The current context of this thread, null where there is none.
#[inline]
pub fn current() -> CUcontext {
    TOP.get()
}

/// Makes `context` current on top of what is there.
pub fn push(context: CUcontext) {
    let under = TOP.replace(context);
    if !under.is_null() {
        let _ = BELOW.try_with(|below| below.borrow_mut().push(under));
    }
}

/// Takes the current context off; none where the stack is empty.
pub fn pop() -> Option<CUcontext> {
    let top = TOP.get();
    if top.is_null() {
        return None;
    }
    let next = BELOW
        .try_with(|below| below.borrow_mut().pop())
        .ok()
        .flatten();
    TOP.set(next.unwrap_or(core::ptr::null_mut()));
    Some(top)
}

/// Replaces the top; null takes it off, as `cuCtxSetCurrent` documents.
pub fn set_current(context: CUcontext) {
    if context.is_null() {
        pop();
    } else {
        TOP.set(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(n: usize) -> CUcontext {
        n as CUcontext
    }

    #[test]
    fn push_pop_and_set_follow_the_documented_stack() {
        assert!(current().is_null());
        assert_eq!(pop(), None);
        push(handle(1));
        push(handle(2));
        set_current(handle(3));
        assert_eq!(current(), handle(3));
        assert_eq!(pop(), Some(handle(3)));
        assert_eq!(current(), handle(1));
        set_current(core::ptr::null_mut());
        assert!(current().is_null());
        set_current(core::ptr::null_mut());
        assert_eq!(pop(), None);
    }

    #[test]
    fn every_thread_has_its_own_stack() {
        push(handle(1));
        std::thread::spawn(|| assert!(current().is_null()))
            .join()
            .unwrap();
        assert_eq!(pop(), Some(handle(1)));
    }
}
