//! The system platform against real sockets and files.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_env::{DiskError, Env, Mode, PeerAddr, Tasks};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn tcp_carries_bytes_and_reset_is_an_error_at_the_peer() {
    let env = Env::system();
    let listener = env.listen(loopback()).await.unwrap();
    let mut near = env.connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.tcp(), near.local_addr());
    assert!(far.peer_cred().is_none());
    near.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
    near.reset();
    let error = far.read(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn errors_name_the_address_and_the_cause() {
    let env = Env::system();
    let taken = env.listen(loopback()).await.unwrap();
    let addr = taken.local_addr().unwrap();
    let tcp = env.listen(addr).await.unwrap_err();
    assert_eq!(tcp.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(
        tcp.to_string(),
        format!("cannot listen on {addr}: address in use")
    );
    drop(taken);
    let refused = env.connect(addr).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("cannot connect to {addr}: connection refused")
    );

    let udp = env.bind_udp(loopback()).unwrap();
    let addr = udp.local_addr().unwrap();
    let error = env.bind_udp(addr).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot bind UDP {addr}: address in use")
    );

    let unknown = env.resolve("no-such-host.invalid", 80).await.unwrap_err();
    assert!(
        unknown.to_string().contains("no-such-host.invalid"),
        "{unknown}"
    );
}

#[tokio::test]
async fn addresses_in_text_resolve_to_themselves() {
    let found = Env::system().resolve("127.0.0.1", 15008).await.unwrap();
    assert_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 15008))]);
}

#[tokio::test]
async fn a_unix_socket_is_private_and_replaced_only_when_stale() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let path = dir.path().join("admin.sock");
    let listener = env.listen_unix(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    let busy = env.listen_unix(&path).await.unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::AddrInUse, "{busy}");

    let accepted = env.spawn(async move {
        // The probe of the attempt above comes first.
        listener.accept().await.unwrap();
        (listener.accept().await.unwrap(), listener)
    });
    let near = env.connect_unix(&path).await.unwrap();
    let ((far, peer), listener) = accepted.await.unwrap();
    assert_eq!(peer, PeerAddr::Unix);
    assert_eq!(
        far.peer_cred().unwrap().pid,
        Some(std::process::id() as i32)
    );
    drop((near, far, listener));
    assert!(!path.exists(), "a listener takes its socket file with it");

    // What a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    env.listen_unix(&path).await.unwrap();

    std::fs::write(&path, "precious").unwrap();
    let error = env.listen_unix(&path).await.unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn files_are_written_whole_with_their_mode() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let root = dir.path().join("a/state");
    let path = root.join("key.pem");
    let place = (root.clone(), path.clone());
    env.disk(move |disk| {
        let (root, path) = place;
        disk.create_dir_private(&root, &["key.pem"]).unwrap();
        disk.write_atomic(&path, b"one", Mode::Secret).unwrap();
        disk.write_atomic(&root.join("cert.pem"), b"cert", Mode::Public)
            .unwrap();
        disk.write_atomic(&path, b"two", Mode::Secret).unwrap();
        assert_eq!(disk.read(&path, 3).unwrap(), b"two");
        assert!(matches!(
            disk.read(&path, 2),
            Err(DiskError::TooLarge { limit: 2, .. })
        ));
        assert_eq!(
            disk.list(&root).unwrap(),
            [root.join("cert.pem"), path.clone()]
        );
        assert_eq!(disk.read_optional(&root.join("none"), 9).unwrap(), None);
        assert!(disk.exists(&path).unwrap());
    })
    .await;
    assert_eq!(
        (mode(&root), mode(&path), mode(&root.join("cert.pem"))),
        (0o700, 0o600, 0o644)
    );
    env.disk(move |disk| {
        disk.remove(&path).unwrap();
        disk.remove(&path).unwrap();
        assert!(disk.read(&path, 9).unwrap_err().is_not_found());
    })
    .await;
}

#[tokio::test]
async fn a_lock_has_one_holder() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let path = dir.path().join("lock");
    env.disk(move |disk| {
        // flock belongs to the open file, so a second open in this process stands for another process.
        let held = disk.lock(&path).unwrap();
        let error = disk.lock(&path).unwrap_err();
        assert!(matches!(error, DiskError::Locked { .. }));
        assert!(
            error.to_string().contains("held by another process"),
            "{error}"
        );
        drop(held);
        let _again = disk.lock(&path).unwrap();
    })
    .await;
}

#[tokio::test]
async fn disk_errors_name_the_path_and_the_cause() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let path = dir.path().join("missing/file");
    let target = path.clone();
    let error = env
        .disk(move |disk| disk.write_atomic(&target, b"", Mode::Public))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot write {}: no such file or directory", path.display())
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_cancels_waits_and_aborts_the_rest() {
    let tasks = Tasks::new(&Env::system());
    let token = tasks.token();
    let willing = tasks.spawn(async move { token.cancelled().await });
    assert!(
        tasks.shutdown(Duration::from_secs(1)).await,
        "a willing task ends by itself"
    );
    willing.await.unwrap();

    let tasks = Tasks::new(&Env::system());
    let child = tasks.child();
    let stubborn = child.spawn(std::future::pending::<()>());
    assert_eq!((tasks.len(), child.len()), (1, 1));
    assert!(
        !tasks.shutdown(Duration::from_secs(1)).await,
        "a stubborn task is aborted"
    );
    assert!(stubborn.await.unwrap_err().is_cancelled());
    assert!(child.token().is_cancelled() && tasks.is_empty());
}

#[tokio::test]
async fn tasks_end_with_their_owner() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let tasks = Tasks::new(&Env::system());
    let flag = Flag(ended.clone());
    let task = tasks.spawn(async move {
        let _flag = flag;
        std::future::pending::<()>().await;
    });
    drop(tasks);
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(ended.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_batch_of_jumbo_packets_arrives_whole() {
    let env = Env::system();
    let (near, far) = (
        env.bind_udp(loopback()).unwrap(),
        env.bind_udp(loopback()).unwrap(),
    );
    let (segments, segment) = (near.max_transmit_segments().min(10), 8_952);
    let contents = vec![7; segments * segment];
    let transmit = quinn::udp::Transmit {
        destination: far.local_addr().unwrap(),
        ecn: None,
        contents: &contents,
        segment_size: Some(segment),
        src_ip: None,
    };
    let mut poller = near.clone().create_io_poller();
    std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx))
        .await
        .unwrap();
    near.try_send(&transmit).unwrap();
    let mut arrived = 0;
    let mut buffer = vec![0; 65_536];
    while arrived < contents.len() {
        let mut meta = [quinn::udp::RecvMeta::default()];
        let mut bufs = [io::IoSliceMut::new(&mut buffer)];
        let receive = std::future::poll_fn(|cx| far.poll_recv(cx, &mut bufs, &mut meta));
        tokio::time::timeout(Duration::from_secs(5), receive)
            .await
            .expect("every packet of the batch arrives")
            .unwrap();
        arrived += meta[0].len;
    }
}
