//! Network namespaces by name, as `ip netns` knows them.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Error;

/// A network namespace that has a name (`/run/netns/NAME`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of that name, which must be there.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if it is not.
    pub fn existing(name: &str) -> Result<Self, Error> {
        let namespace = Self::named(name)?;
        if namespace.path().exists() {
            Ok(namespace)
        } else {
            Err(Error::NoNamespace(name.to_owned()))
        }
    }

    /// Makes a namespace of that name, with its loopback device up and no IPv6 of its own accord: a kernel
    /// that looks for routers and neighbours by itself would shift the numbers of the packets under test.
    ///
    /// # Errors
    /// [`Error::Ip`], for instance because the name is taken.
    pub fn create(name: &str) -> Result<Self, Error> {
        let namespace = Self::named(name)?;
        ip(&["netns", "add", name], None)?;
        let set_up = namespace
            .set("net/ipv6/conf/default/addr_gen_mode", "1")
            .and_then(|()| namespace.set("net/ipv4/conf/default/rp_filter", "0"))
            .and_then(|()| namespace.set("net/ipv4/conf/all/rp_filter", "0"))
            .and_then(|()| namespace.configure("link set lo up\n"));
        match set_up {
            Ok(()) => Ok(namespace),
            Err(error) => {
                let _ = namespace.delete();
                Err(error)
            }
        }
    }

    fn named(name: &str) -> Result<Self, Error> {
        let fits = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if fits {
            Ok(Self {
                name: name.to_owned(),
            })
        } else {
            Err(Error::BadName(name.to_owned()))
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Moves the calling thread into the namespace, for good: sockets that it opens from here on live there.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if it has gone, [`Error::NeedsRoot`] without the privilege.
    pub fn enter(&self) -> Result<(), Error> {
        let file = File::open(self.path()).map_err(|_| Error::NoNamespace(self.name.clone()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|_| Error::NeedsRoot)
    }

    /// What `work` gives, done by a thread of its own in the namespace.
    ///
    /// # Errors
    /// As [`Namespace::enter`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("in-namespace".into())
                .spawn_scoped(scope, || self.enter().map(|()| work()))
                .map_err(Error::system("start a thread"))?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Carries out commands of `ip`, one a line, in the namespace.
    ///
    /// # Errors
    /// [`Error::Ip`] with the first that it refused.
    pub fn configure(&self, commands: &str) -> Result<(), Error> {
        ip(&["-netns", &self.name, "-batch", "-"], Some(commands))
    }

    /// Sets a kernel parameter of the namespace, named by its path below `/proc/sys`. One that this kernel
    /// does not have (IPv6 left out, say) needs no setting.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses the value.
    pub fn set(&self, parameter: &str, value: &str) -> Result<(), Error> {
        // The kernel shows the parameters of the namespace of whoever opens the file.
        let path = PathBuf::from("/proc/sys").join(parameter);
        self.run(|| match std::fs::write(&path, value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::system(
                "set a kernel parameter in the namespace",
            )(error)),
            _ => Ok(()),
        })?
    }

    /// Packets that the device dropped on their way out, because nobody read them in time.
    pub(crate) fn dropped_by(&self, device: &str) -> Option<u64> {
        let table = self
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
            .ok()?
            .ok()?;
        transmit_drops(&table, device)
    }

    /// Removes the name; the kernel takes the namespace down when the last process in it and the
    /// last file of a TUN device in it have gone.
    ///
    /// # Errors
    /// [`Error::Ip`] if there is none.
    pub fn delete(&self) -> Result<(), Error> {
        ip(&["netns", "delete", &self.name], None)
    }
}

/// The 12th figure of the device's line: transmit, dropped.
fn transmit_drops(table: &str, device: &str) -> Option<u64> {
    table.lines().find_map(|line| {
        let (name, figures) = line.split_once(':')?;
        if name.trim() != device {
            return None;
        }
        figures.split_whitespace().nth(11)?.parse().ok()
    })
}

/// Runs `ip`.
fn ip(arguments: &[&str], input: Option<&str>) -> Result<(), Error> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|_| Error::NoIproute)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Some(input) = input
    {
        // `ip` that ends early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(Error::system("wait for `ip`"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let failed = input.and_then(|input| failed_line(input, &message));
    Err(Error::Ip {
        command: failed.map_or_else(|| arguments.join(" "), str::to_owned),
        message: message
            .lines()
            .next()
            .unwrap_or("no reason given")
            .to_owned(),
    })
}

/// The command that `ip -batch` names as "Command failed -:3".
fn failed_line<'a>(input: &'a str, message: &str) -> Option<&'a str> {
    let number = message.split("Command failed -:").nth(1)?;
    let number: usize = number.split_whitespace().next()?.parse().ok()?;
    input.lines().nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_out_of_the_directory_are_refused() {
        for name in ["", "../x", ".", "-a", "a/b", "a b", &"x".repeat(65)] {
            let error = Namespace::existing(name).unwrap_err();
            assert!(matches!(error, Error::BadName(_)), "'{name}': {error}");
        }
        let absent = Namespace::existing("weft-test-not-there").unwrap_err();
        assert!(absent.to_string().contains("weft-test-not-there"));
    }

    #[test]
    fn drops_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n weft0: 0 0 0 0 0 0 0 0 900 9 0 42 0 0 0 0\n";
        assert_eq!(transmit_drops(table, "weft0"), Some(42));
        assert_eq!(transmit_drops(table, "lo"), Some(12));
        assert_eq!(transmit_drops(table, "weft1"), None);
    }

    #[test]
    fn a_batch_that_fails_names_its_line() {
        let input = "link set lo up\naddr add nonsense dev lo\n";
        let message = "Error: any valid prefix is expected.\nCommand failed -:2\n";
        assert_eq!(
            failed_line(input, message),
            Some("addr add nonsense dev lo")
        );
    }
}
