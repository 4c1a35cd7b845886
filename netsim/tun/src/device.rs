//! TUN devices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::ioctl::{Setter, ioctl, opcode};

use crate::error::Error;
use crate::namespace::Namespace;

/// A TUN device in a namespace: whole IP packets, one a read. It ends with its file, so no death of this
/// process can leave one behind.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

/// Room in the device for what comes while the CPU is away: 20 ms at 300 Mb/s are 500 full packets; small
/// packets come faster.
const QUEUE: u32 = 8192;

impl Device {
    /// Makes the device and takes it up.
    pub(crate) fn create(namespace: &Namespace, name: &str, mtu: u32) -> Result<Self, Error> {
        let failed = |source| Error::Device {
            device: name.to_owned(),
            namespace: namespace.name().to_owned(),
            source,
        };
        let fd = namespace.run(|| open(name))?.map_err(failed)?;
        namespace.set(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1")?;
        namespace.configure(&format!(
            "link set dev {name} mtu {mtu} txqueuelen {QUEUE} up\n"
        ))?;
        Ok(Self { fd })
    }

    /// Its file, for `poll`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next packet that the kernel routed into the device, or `None` if there is none now.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(len) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands a packet to the kernel, as if it came from a wire; whether it took it.
    pub(crate) fn write(&self, packet: &[u8]) -> bool {
        rustix::io::write(&self.fd, packet).is_ok()
    }
}

/// `struct ifreq` of Linux: a name, then a union of which `TUNSETIFF` reads the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const IFF_TUN: u16 = 0x0001;
/// Packets only, without four bytes about each before it.
const IFF_NO_PI: u16 = 0x1000;
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<libc::c_int>(b'T', 202);

#[allow(unsafe_code, reason = "no safe wrapper of TUNSETIFF is in the tree")]
fn open(name: &str) -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    if name.len() >= request.name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name is longer than 15 bytes",
        ));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which on 64-bit Linux is 40 bytes with the name
    // first and the flags at 16, as `InterfaceRequest` is (checked below); `Setter` owns it for the call.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    Ok(file.into())
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());
