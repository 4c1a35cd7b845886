//! Randomness of a thread under a seed, also that of the C libraries below it.
//!
//! weft draws its own randomness from `weft_env::Env`. What lies below does not: aws-lc draws keys, TLS
//! randoms and signature nonces (whose size varies: a P-256 signature has 70 to 72 bytes), std draws the keys
//! of its hash maps, tokio the order of `select!`. In a program that is linked with
//! `--wrap` (see the build script of `weft-netsim-harness`), all of that comes from the seed of the thread.
//! A thread that was never seeded gets the kernel's randomness as before.
//!
//! A wrong symbol name wraps nothing, in silence: [`draws`] counts, and whoever promises a repeatable run
//! asserts that it is above zero.
//!
//! **Never link this into a program that serves anybody.** It is a dependency of the simulator only.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a thread draws from.
struct Source {
    rng: StdRng,
    draws: u64,
}

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// From now on this thread draws from `seed`.
pub fn seed_thread(seed: [u8; 32]) {
    let source = Source {
        rng: StdRng::from_seed(seed),
        draws: 0,
    };
    SOURCE.with(|cell| *cell.borrow_mut() = Some(source));
}

/// How often the wrapped functions of aws-lc have drawn on this thread since it was seeded. Zero after a
/// handshake means that they are not wrapped in this program.
#[must_use]
pub fn draws() -> u64 {
    SOURCE.with(|cell| cell.borrow().as_ref().map_or(0, |source| source.draws))
}

/// Fills from the thread's seed; false if it has none (or is ending, or is drawing at this very moment).
fn fill_seeded(out: &mut [u8], counted: bool) -> bool {
    SOURCE
        .try_with(|cell| {
            let Ok(mut source) = cell.try_borrow_mut() else {
                return false;
            };
            let Some(source) = source.as_mut() else {
                return false;
            };
            source.rng.fill_bytes(out);
            source.draws += u64::from(counted);
            true
        })
        .unwrap_or(false)
}

/// The kernel's randomness, by the system call itself: the C function of that name is ours.
fn fill_from_kernel(mut out: &mut [u8]) {
    while !out.is_empty() {
        match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
            Ok(got) => out = &mut out[got..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("getrandom(2): {error}"),
        }
    }
}

/// # Safety
/// `out` must be writable for `len` bytes.
unsafe fn fill_raw(out: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(out, len) };
    out.fill(0);
    if !fill_seeded(out, true) {
        fill_from_kernel(out);
    }
}

#[allow(unreachable_pub, reason = "symbols for the linker")]
mod wraps {
    include!(concat!(env!("OUT_DIR"), "/wraps.rs"));
}

/// The C library's function of that name: std's hash maps and the `getrandom` crate call it.
///
/// # Safety
/// `out` must be writable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(out: *mut u8, len: usize, _flags: u32) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise; the bytes are set before they are seen as a slice.
    let out = unsafe {
        std::ptr::write_bytes(out, 0, len);
        std::slice::from_raw_parts_mut(out, len)
    };
    if !fill_seeded(out, false) {
        fill_from_kernel(out);
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// The C library's function of that name: a process id travels in a sidecar's greeting, and its length in
/// digits would change the sizes of packets from run to run.
#[unsafe(no_mangle)]
pub extern "C" fn getpid() -> i32 {
    let seeded = SOURCE
        .try_with(|cell| cell.try_borrow().is_ok_and(|source| source.is_some()))
        .unwrap_or(false);
    if seeded {
        return 1;
    }
    rustix::process::getpid().as_raw_nonzero().get()
}
