//! As much HTTP/1.1 as the tests need, over any stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request on a connection of its own: status and body.
pub async fn get<S>(mut stream: S, path: &str) -> io::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    // Not to the end of the connection, which Envoy holds open for a second more.
    loop {
        if let Some(whole) = whole(&answer) {
            return Ok(whole);
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Status and body, once all of it is there.
fn whole(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let complete = match length.and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    };
    complete.then(|| (status, body.to_owned()))
}

/// The same without TLS.
pub async fn plain(addr: &str, path: &str) -> io::Result<(u16, String)> {
    get(TcpStream::connect(addr.trim()).await?, path).await
}
