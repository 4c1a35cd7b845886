//! The application behind every pair: `GET /SIZE/FIELDS` over HTTP/1.1, as cheap as can be.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Place, listen, serve};
use crate::error::Result;
use crate::workload::reply_head;

/// Bodies that are larger are written in pieces of this size.
const PIECE: usize = 256 << 10;
/// More than any request head of this package.
const MAX_HEAD: usize = 64 << 10;

/// Serves until killed.
pub(super) async fn run(place: Place) -> Result<()> {
    serve(listen(&place).await?, connection).await
}

async fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    let mut input: Vec<u8> = Vec::with_capacity(8 << 10);
    let mut asked = (u64::MAX, 0);
    let mut reply = Vec::new();
    let piece = vec![b'x'; PIECE];
    loop {
        let Some(end) = head_end(&input) else {
            if input.len() > MAX_HEAD || stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let now = path(&input[..end]).ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
        input.drain(..end);
        if now != asked {
            asked = now;
            reply = reply_head(now.0, now.1);
            if now.0 <= PIECE as u64 {
                reply.resize(reply.len() + now.0 as usize, b'x');
            }
        }
        stream.write_all(&reply).await?;
        let mut left = if asked.0 <= PIECE as u64 { 0 } else { asked.0 };
        while left > 0 {
            let now = left.min(PIECE as u64);
            stream.write_all(&piece[..now as usize]).await?;
            left -= now;
        }
    }
}

/// Where the head ends, after its empty line.
pub(super) fn head_end(input: &[u8]) -> Option<usize> {
    input
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Size and fields from the request line, absolute form too.
fn path(head: &[u8]) -> Option<(u64, u8)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let mut parts = target.rsplit('/');
    let fields = parts.next()?.parse().ok()?;
    Some((parts.next()?.parse().ok()?, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_size_and_fields() {
        assert_eq!(path(b"GET /10240/20 HTTP/1.1\r\n"), Some((10240, 20)));
        assert_eq!(path(b"GET http://a/5/3 HTTP/1.1\r\n"), Some((5, 3)));
        assert_eq!(path(b"POST /1/1 HTTP/1.1\r\n"), None);
        assert_eq!(head_end(b"a\r\n\r\nb"), Some(5));
    }
}
