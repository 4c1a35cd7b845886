//! The process at the other end of a Unix socket: what the kernel knows of it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The list of control groups of a process is a few hundred bytes.
const MAX_CGROUPS: u64 = 64 * 1024;

/// Which file it is, whatever its name: names mean different files in different mount namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file at this path, links followed; `None` if there is none that we may look at. Blocks.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

/// A process, held by a pidfd: if it ends and its number goes to another one, that is noticed.
///
/// Between the connecting of a process and [`PeerProcess::hold`] the number may already have changed hands: call
/// it right after accepting.
#[derive(Debug)]
pub struct PeerProcess {
    pid: Pid,
    pidfd: OwnedFd,
}

impl PeerProcess {
    /// Holds the process with this number.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none any more; what else the kernel says.
    pub fn hold(pid: i32) -> io::Result<Self> {
        // 0 and below mean other things than a process.
        let pid = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A pidfd becomes readable when its process ends.
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
    }

    /// The program that it runs now; `None` if it has ended, or belongs to a user whose processes we may not look
    /// into. Blocks.
    #[must_use]
    pub fn program(&self) -> Option<FileIdentity> {
        let link = format!("/proc/{}/exe", self.pid());
        // The kernel's link leads to the file itself, not to what has its name now.
        let found = FileIdentity::of(Path::new(&link));
        found.filter(|_| self.is_alive())
    }

    /// Its control groups, as `/proc/PID/cgroup` lists them; `None` if it has ended. Blocks.
    #[must_use]
    pub fn cgroups(&self) -> Option<String> {
        use io::Read;
        let path = format!("/proc/{}/cgroup", self.pid());
        let mut text = String::new();
        let file = fs::File::open(path).ok()?;
        file.take(MAX_CGROUPS).read_to_string(&mut text).ok()?;
        self.is_alive().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_process_is_seen_until_it_ends_and_never_taken_for_another() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = PeerProcess::hold(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_alive());
        assert!(process.cgroups().is_some());
        let itself = PeerProcess::hold(i32::try_from(std::process::id()).unwrap()).unwrap();
        let me = FileIdentity::of(&std::env::current_exe().unwrap());
        assert_eq!(itself.program(), me, "our own program");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert_eq!(process.cgroups(), None);
        assert_eq!(process.program(), None);
    }

    #[test]
    fn a_process_that_becomes_another_program_is_seen_as_that() {
        use std::io::Write;
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read go && exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = PeerProcess::hold(i32::try_from(child.id()).unwrap()).unwrap();
        let before = process.program();
        assert_eq!(before, FileIdentity::of(Path::new("/bin/sh")));
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let deadline = std::time::Duration::from_secs(20);
        let began = tokio::time::Instant::now();
        while process.program() == before {
            assert!(began.elapsed() < deadline, "it is still the shell");
            std::thread::yield_now();
        }
        assert!(process.program().is_some(), "it is the same process");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn there_is_no_process_with_an_impossible_number() {
        for number in [0, -1, i32::MAX] {
            assert!(PeerProcess::hold(number).is_err(), "{number}");
        }
    }
}
