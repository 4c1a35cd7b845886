//! What hyper starts becomes a task of the connection's owner.

use std::future::Future;

use weft_env::Tasks;

/// Runs what hyper starts as tasks of the connection.
#[derive(Clone)]
pub(crate) struct On(pub(crate) Tasks);

impl<F> hyper::rt::Executor<F> for On
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}
