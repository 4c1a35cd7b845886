//! Faults of the disk. The files themselves are real, in the directory of the run.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use weft_env::{DiskGate, DiskOp};

use crate::event::NodeId;
use crate::gate::Gate;
use crate::names::dead;
use crate::world::Shared;

/// Stands before each step on the disk of one process.
pub(crate) struct Faults {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: NodeId,
    pub(crate) gate: Arc<Gate>,
    /// Steps until the crash; 0: none planned.
    pub(crate) crash_in: Arc<AtomicU32>,
}

impl DiskGate for Faults {
    fn before(&self, op: DiskOp, _path: &Path) -> io::Result<()> {
        let planned = self.crash_in.load(Ordering::Relaxed);
        if planned > 0 {
            self.crash_in.store(planned - 1, Ordering::Relaxed);
            if planned == 1 {
                self.gate.fence();
            }
        }
        if self.gate.is_fenced() {
            return Err(dead());
        }
        let full = self.shared.state().nodes[self.node.0].disk_full;
        match op {
            DiskOp::Write | DiskOp::CreateDir if full => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}
