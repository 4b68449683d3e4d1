//! An allocator that counts, so that a target can say what an input may cost.
//!
//! libFuzzer's own limit holds for one allocation and for the whole process; neither sees a reader that keeps a
//! hundred bytes for each that it was given.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Put it in a target as `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn add(bytes: isize) {
    // A thread that ends may free after its counters are gone: nobody counts those.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What `act` answers, and the most bytes that it held at any moment on this thread.
pub fn most<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    MOST.set(before);
    let answer = act();
    (answer, usize::try_from(MOST.get() - before).unwrap_or(0))
}

/// `act`'s answer.
///
/// # Panics
/// If it held more than `bytes` at any moment.
pub fn within<T>(bytes: usize, what: &str, act: impl FnOnce() -> T) -> T {
    let (answer, most) = most(act);
    assert!(most <= bytes, "{what} held {most} bytes, {bytes} were fair");
    answer
}
