//! Telling the process manager how a service does, as `sd_notify(3)` describes it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends one message, such as `READY=1`, to the socket that the process manager named in `NOTIFY_SOCKET`.
pub(crate) fn tell(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_get_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@weft-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        for (socket, address) in [
            (path.as_os_str(), SocketAddr::from_pathname(&path).unwrap()),
            (OsStr::new(&name), abstract_name),
        ] {
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            tell(socket, "READY=1").unwrap();
            let mut text = [0; 16];
            let read = manager.recv(&mut text).unwrap();
            assert_eq!(&text[..read], b"READY=1");
        }
    }
}
