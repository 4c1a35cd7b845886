//! Memory by owner, where many processes are simulated in one.
//!
//! A program that links this crate has its allocator: the system's, with a number before each piece that says whose
//! it is. Whoever polls a simulated process's task [enters](Account::enter) its account; what is allocated until the next one
//! enters is that process's, and is taken off its account when it is freed, whoever frees it. So whatever a process
//! piles up shows, in quinn, hyper and tokio too, without anything that counts itself.
//!
//! **Never link this into a program that serves anybody.** It is a dependency of the simulator only.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// Accounts are given out in turn, and again after so many. A run has some dozens, and runs of one program follow
/// one another.
const ACCOUNTS: usize = 4_096;

static HELD: [AtomicI64; ACCOUNTS] = [const { AtomicI64::new(0) }; ACCOUNTS];
static NEXT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one process holds.
#[derive(Debug)]
pub struct Account {
    number: u32,
    /// What the account's last owner has left behind.
    before: i64,
}

impl Account {
    /// A new one.
    #[must_use]
    pub fn open() -> Self {
        // 0 is nobody's.
        let number = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (ACCOUNTS as u32 - 1);
        Self {
            number,
            before: held(number),
        }
    }

    /// Bytes allocated on this account and not freed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(held(self.number) - self.before).unwrap_or(0)
    }

    /// From now on this thread allocates on this account.
    pub fn enter(&self) {
        set(self.number);
    }
}

/// Until this is dropped, the thread allocates on nobody's account: what a kernel would hold, or who looks on.
#[derive(Debug)]
pub struct Outside {
    back: u32,
}

impl Outside {
    /// From now on.
    #[must_use]
    pub fn step() -> Self {
        Self { back: set(0) }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        set(self.back);
    }
}

fn held(number: u32) -> i64 {
    HELD[number as usize % ACCOUNTS].load(Ordering::Relaxed)
}

/// Gives back whose account it was.
fn set(number: u32) -> u32 {
    // A thread that is ending has no account any more.
    CURRENT
        .try_with(|current| current.replace(number))
        .unwrap_or(0)
}

fn charge(number: u32, bytes: i64) {
    HELD[number as usize % ACCOUNTS].fetch_add(bytes, Ordering::Relaxed);
}

struct Counting;

/// What lies before each piece: the account's number, in as much room as keeps the piece aligned.
fn head(layout: Layout) -> usize {
    layout.align().max(size_of::<u64>())
}

/// The piece with its head. `None`: more than there can be.
fn whole(layout: Layout, size: usize) -> Option<Layout> {
    let align = head(layout);
    Layout::from_size_align(size.checked_add(align)?, align).ok()
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: the system's allocator does the work. Each piece lies `head` bytes into one of its pieces, which is as
// aligned as asked for and as long as head and piece; `dealloc` and `realloc` find its begin the same way, since they
// are given the layout that it was allocated with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is never empty, its head alone is not.
        unsafe { entered(layout, |whole| System.alloc(whole)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { entered(layout, |whole| System.alloc_zeroed(whole)) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(whole) = whole(layout, layout.size()) else {
            return;
        };
        // SAFETY: `piece` came from `entered`, with this layout.
        unsafe {
            let begin = piece.sub(head(layout));
            charge(begin.cast::<u32>().read(), -signed(layout.size()));
            System.dealloc(begin, whole);
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(before), Some(after)) = (whole(layout, layout.size()), whole(layout, size))
        else {
            return std::ptr::null_mut();
        };
        // SAFETY: `piece` came from `entered`, with this layout; the head moves with it.
        unsafe {
            let begin = System.realloc(piece.sub(head(layout)), before, after.size());
            if begin.is_null() {
                return begin;
            }
            charge(
                begin.cast::<u32>().read(),
                signed(size) - signed(layout.size()),
            );
            begin.add(head(layout))
        }
    }
}

/// Allocates a piece with its head.
///
/// # Safety
/// `allocate` gives memory of the layout that it gets, or null.
unsafe fn entered(layout: Layout, allocate: impl FnOnce(Layout) -> *mut u8) -> *mut u8 {
    let Some(whole) = whole(layout, layout.size()) else {
        return std::ptr::null_mut();
    };
    let begin = allocate(whole);
    if begin.is_null() {
        return begin;
    }
    let number = CURRENT.try_with(Cell::get).unwrap_or(0);
    charge(number, signed(layout.size()));
    // SAFETY: the head is at least eight bytes, aligned to as many, and comes before the piece.
    unsafe {
        begin.cast::<u32>().write(number);
        begin.add(head(layout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_on_the_account_of_whoever_entered_until_it_is_freed() {
        let (one, other) = (Account::open(), Account::open());
        one.enter();
        let mut bytes = vec![0_u8; 10_000];
        other.enter();
        assert!((10_000..11_000).contains(&one.bytes()), "{}", one.bytes());
        // It grows on the account that it is on.
        bytes.resize(50_000, 1);
        bytes.shrink_to_fit();
        let outside = Outside::step();
        let unseen = vec![1_u8; 1 << 20];
        drop(outside);
        let seen = vec![2_u8; 3_000];
        let _rest = Outside::step();
        assert!((50_000..51_000).contains(&one.bytes()), "{}", one.bytes());
        assert!((3_000..4_000).contains(&other.bytes()), "{}", other.bytes());
        drop((bytes, seen, unseen));
        assert_eq!((one.bytes(), other.bytes()), (0, 0));
    }

    #[test]
    fn pieces_are_aligned() {
        #[repr(align(4096))]
        struct Page([u8; 4_096]);
        let account = Account::open();
        account.enter();
        let page = Box::new(Page([7; 4_096]));
        assert_eq!(std::ptr::from_ref(&*page) as usize % 4_096, 0);
        assert!(page.0.iter().all(|byte| *byte == 7));
        assert!(account.bytes() >= 4_096);
    }
}
