//! The access log of all sidecars of a test program.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::eventually;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Keeps what is logged from now on. One log for the whole program.
pub fn keep() {
    log();
}

fn log() -> &'static Kept {
    static LOG: OnceLock<Kept> = OnceLock::new();
    LOG.get_or_init(|| {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_env_filter(EnvFilter::new("access=info"))
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        kept
    })
}

/// Waits for the entry of a request on a side, and gives its fields.
pub async fn entry(request_id: &str, side: &str) -> Value {
    eventually("the request's entry in the access log", || async {
        let text = log().0.lock().unwrap().clone();
        let text = String::from_utf8(text).unwrap();
        let mut all = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone());
        all.find(|fields| fields["request_id"] == request_id && fields["side"] == side)
    })
    .await
}
