//! Where the socket is, as users write it.

use std::path::PathBuf;

/// Reads the place of the socket: a path, or the address that clients get in `SPIFFE_ENDPOINT_SOCKET`
/// (Workload Endpoint §4: `unix:///path`, nothing else in it).
///
/// # Errors
/// In words, what it is not.
pub fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("unix", rest)) => rest
            .strip_prefix("//")
            .ok_or("an address of a Unix socket is unix:///PATH")?,
        Some(("tcp", _)) => {
            return Err(
                "over TCP a caller cannot be told from another: give the path of a Unix socket"
                    .into(),
            );
        }
        _ => text,
    };
    let is_uri = path.len() != text.len();
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("'{text}' is not an absolute path of a socket"));
    }
    if is_uri && path.contains(['?', '#', '%']) {
        return Err("the address has a query, a fragment or an escape".to_owned());
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_endpoint_4_the_address_is_a_unix_socket_with_an_absolute_path() {
        for (text, path) in [
            ("unix:///run/weft/workload.sock", "/run/weft/workload.sock"),
            ("/run/weft/workload.sock", "/run/weft/workload.sock"),
            ("/run/a:b", "/run/a:b"),
        ] {
            assert_eq!(socket_path(text), Ok(path.into()), "{text}");
        }
        for text in [
            "",
            "blah",
            "unix:opaque",
            "unix://",
            "unix:///",
            "unix://foo",
            "unix://foo/bar",
            "unix:///a?q",
            "unix:///a#f",
            "tcp:opaque",
            "tcp://",
            "tcp://foo",
            "tcp://1.2.3.4",
            "tcp://1.2.3.4:5",
            "tcp://1.2.3.4:5/path",
            "run/workload.sock",
        ] {
            assert!(socket_path(text).is_err(), "{text:?} was taken");
        }
    }
}
