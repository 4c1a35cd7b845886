//! redb meets some damaged pages with a panic, not with an error. To whoever reads a store, both say the same.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::store::StoreError;

thread_local! {
    /// Whether a panic of this thread is caught here and told as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` with redb; a panic is the damage of the file at `path`.
pub(super) fn guarded<T>(
    path: &str,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    quieten();
    CAUGHT.set(true);
    // Nothing of redb is used on after a panic but to be dropped.
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(false);
    done.unwrap_or_else(|panic| {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: format!("a page of it is damaged ({})", words(&*panic)),
        })
    })
}

/// What is caught is not printed as well.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.try_with(Cell::get).unwrap_or(false) {
                others(panic);
            }
        }));
    });
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}
