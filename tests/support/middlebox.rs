//! A box between two nodes, which lets TCP pass, and UDP only when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Stands before one address.
pub struct Middlebox {
    addr: SocketAddr,
    udp: Arc<AtomicBool>,
    tcp: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Middlebox {
    /// Lets TCP pass and no UDP.
    pub async fn before(behind: SocketAddr) -> Self {
        let local = "127.0.0.1:0";
        let (socket, listener) = loop {
            let socket = UdpSocket::bind(local).await.unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
                break (socket, listener);
            }
        };
        let addr = socket.local_addr().unwrap();
        let (udp, tcp) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(true)),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(socket, behind, udp.clone()));
        tasks.spawn(streams(listener, behind, tcp.clone()));
        Self {
            addr,
            udp,
            tcp,
            _tasks: tasks,
        }
    }

    /// Where to dial.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn let_udp_pass(&self, pass: bool) {
        self.udp.store(pass, Ordering::Relaxed);
    }

    /// Streams stay open, and nothing comes through.
    pub fn swallow_tcp(&self) {
        self.tcp.store(false, Ordering::Relaxed);
    }
}

/// For one client at a time.
async fn datagrams(front: UdpSocket, behind: SocketAddr, pass: Arc<AtomicBool>) {
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(behind).await.unwrap();
    let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((size, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                if pass.load(Ordering::Relaxed) {
                    let _ = back.send(&there[..size]).await;
                }
            }
            Ok(size) = back.recv(&mut here) => {
                if let Some(client) = client.filter(|_| pass.load(Ordering::Relaxed)) {
                    let _ = front.send_to(&here[..size], client).await;
                }
            }
        }
    }
}

async fn streams(listener: TcpListener, behind: SocketAddr, pass: Arc<AtomicBool>) {
    let mut both = JoinSet::new();
    while let Ok((front, _)) = listener.accept().await {
        let Ok(back) = TcpStream::connect(behind).await else {
            continue;
        };
        let (front_in, front_out) = front.into_split();
        let (back_in, back_out) = back.into_split();
        both.spawn(copy(front_in, back_out, pass.clone()));
        both.spawn(copy(back_in, front_out, pass.clone()));
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    pass: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16_384];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if pass.load(Ordering::Relaxed) && to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    if !pass.load(Ordering::Relaxed) {
        // Nor does an end: whoever notices the silence second must notice it alone. Dropping `to` would tell.
        std::future::pending::<()>().await;
    }
    let _ = to.shutdown().await;
}
