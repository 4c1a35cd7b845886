//! The rules of Workload Endpoint and Workload API, one test for each, with a bare client.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use tonic::Code;
use weft_certs::{CertificateDer, X509Svid};
use weft_env::Env;
use weft_workload::WorkloadSocket;

use crate::lab::*;
use crate::raw::{Bundles, Nothing, Svids, TRUE, channel, stream};

const SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

async fn svids(lab: &Lab) -> Result<tonic::Streaming<Svids>, tonic::Status> {
    within(stream(channel(&lab.socket).await, SVID, TRUE, Nothing {})).await
}

async fn bundles(lab: &Lab) -> tonic::Streaming<Bundles> {
    let opened = stream(channel(&lab.socket).await, BUNDLES, TRUE, Nothing {});
    within(opened).await.unwrap()
}

async fn next<T>(stream: &mut tonic::Streaming<T>) -> T {
    within(stream.message()).await.unwrap().unwrap()
}

async fn refused(lab: &Lab, path: &'static str, metadata: &[(&'static str, &str)]) -> Code {
    let channel = channel(&lab.socket).await;
    let answer = within(stream::<_, Svids>(channel, path, metadata, Nothing {})).await;
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// The certificates that stand one behind the other.
fn split(mut ders: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut found = Vec::new();
    while !ders.is_empty() {
        // Long form of two bytes: a certificate has between 256 bytes and 64 KiB.
        assert_eq!(ders[..2], [0x30, 0x82]);
        let len = 4 + usize::from(u16::from_be_bytes([ders[2], ders[3]]));
        found.push(CertificateDer::from(ders[..len].to_vec()));
        ders = &ders[len..];
    }
    found
}

#[tokio::test]
async fn workload_endpoint_6_1_a_call_without_the_security_header_is_an_invalid_argument() {
    let lab = Lab::new().await;
    let calls = [SVID, BUNDLES, "/SpiffeWorkloadAPI/FetchWITSVID"];
    let metadata: [&[(&'static str, &str)]; 5] = [
        &[],
        &[("workload.spiffe.io", "false")],
        &[("workload.spiffe.io", "True")],
        &[("workload.spiffe.io", "")],
        &[("workload-spiffe-io", "true")],
    ];
    for call in calls {
        for metadata in metadata {
            let code = refused(&lab, call, metadata).await;
            assert_eq!(code, Code::InvalidArgument, "{call} {metadata:?}");
        }
    }
    assert_eq!(refused(&lab, SVID, TRUE).await, Code::Ok);
}

#[tokio::test]
async fn workload_api_calls_that_are_not_supported_are_unimplemented() {
    let lab = Lab::new().await;
    for call in [
        "/SpiffeWorkloadAPI/FetchWITSVID",
        "/SpiffeWorkloadAPI/FetchWITBundles",
        "/SpiffeWorkloadAPI/Other",
        "/other.Service/Call",
        "/",
    ] {
        assert_eq!(
            refused(&lab, call, TRUE).await,
            Code::Unimplemented,
            "{call}"
        );
    }
}

#[tokio::test]
async fn a_process_that_no_entry_fits_is_denied_everything() {
    let not_me = rustix::process::geteuid().as_raw() + 1;
    let myself = std::env::current_exe().unwrap();
    let (myself, other) = (myself.display(), "/bin/sh");
    let denied = [
        vec![],
        vec![format!("uid={not_me}")],
        vec![format!("exe={other}")],
        vec![format!("uid={not_me} exe={myself}")],
        vec!["unit=no-such-unit.service".to_owned()],
    ];
    for texts in denied {
        let entries = texts.iter().map(|text| text.parse().unwrap()).collect();
        let lab = Lab::with(entries, in_an_hour()).await;
        for call in [SVID, BUNDLES] {
            let code = refused(&lab, call, TRUE).await;
            assert_eq!(code, Code::PermissionDenied, "{texts:?} {call}");
        }
    }
    let allowed = vec![format!("exe={myself}").parse().unwrap()];
    let lab = Lab::with(allowed, in_an_hour()).await;
    assert_eq!(refused(&lab, SVID, TRUE).await, Code::Ok);
}

#[tokio::test]
async fn workload_api_4_1_an_svid_comes_at_once_and_complete() {
    let lab = Lab::new().await;
    let message = next(&mut svids(&lab).await.unwrap()).await;
    assert_eq!(message.svids.len(), 1);
    let svid = &message.svids[0];
    assert_eq!(svid.spiffe_id, INVOICES);
    assert_eq!(svid.hint, "");
    assert!(message.crl.is_empty() && message.federated.is_empty());
    let chain = split(&svid.chain);
    let current = lab.identity.current();
    assert_eq!(chain, current.svid.chain(), "leaf first, then its issuers");
    assert_eq!(split(&svid.bundle), std::slice::from_ref(&lab.root.der));
    let read = X509Svid::new(chain, svid.key.clone()).expect("a PKCS#8 key that fits the leaf");
    read.validate(&current.bundles, SystemTime::now())
        .expect("a chain that leads to the bundle");
}

#[tokio::test]
async fn workload_api_4_3_each_rotation_is_a_new_message_with_the_whole_state() {
    let lab = Lab::new().await;
    let other = Ca::root("other.example");
    let mut stream = svids(&lab).await.unwrap();
    let first = next(&mut stream).await;
    lab.rotate();
    let second = next(&mut stream).await;
    assert_ne!(first.svids[0].key, second.svids[0].key);
    let leaf = split(&second.svids[0].chain).remove(0);
    assert_eq!(weft_certs::serial_of(&leaf).unwrap(), lab.serial());

    lab.trust([bundle("other.example", &[&other])]);
    let third = next(&mut stream).await;
    assert_eq!(third.svids, second.svids, "what stayed is told again");
    let federated: Vec<_> = third.federated.iter().collect();
    assert_eq!(federated.len(), 1);
    assert_eq!(federated[0].0, "spiffe://other.example");
    assert_eq!(split(federated[0].1), std::slice::from_ref(&other.der));

    lab.trust([]);
    let fourth = next(&mut stream).await;
    assert!(fourth.federated.is_empty(), "what is missing is withdrawn");
}

#[tokio::test]
async fn workload_api_bundles_are_told_by_the_id_of_their_trust_domain_and_again_when_they_change()
{
    let lab = Lab::new().await;
    let other = Ca::root("other.example");
    let mut stream = bundles(&lab).await;
    let first = next(&mut stream).await;
    let names: Vec<_> = first.bundles.keys().map(String::as_str).collect();
    assert_eq!(names, ["spiffe://weft.local"]);
    // An SVID's rotation is none of its business: the next message is that of the new bundle.
    lab.rotate();
    lab.trust([bundle("other.example", &[&other])]);
    let second = next(&mut stream).await;
    let names: Vec<_> = second.bundles.keys().map(String::as_str).collect();
    assert_eq!(names, ["spiffe://other.example", "spiffe://weft.local"]);
    assert_eq!(
        split(&second.bundles["spiffe://weft.local"]),
        std::slice::from_ref(&lab.root.der)
    );
}

#[tokio::test]
async fn workload_api_4_4_an_identity_that_is_withdrawn_ends_the_stream_with_permission_denied() {
    let lab = Lab::new().await;
    let mut stream = svids(&lab).await.unwrap();
    next(&mut stream).await;
    lab.revoke();
    let end = within(stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied, "{end}");
    assert_eq!(
        refused(&lab, SVID, TRUE).await,
        Code::PermissionDenied,
        "nor is it given to who comes later"
    );
}

#[tokio::test]
async fn an_svid_that_has_expired_is_not_given_out_but_the_caller_is_to_try_again() {
    let lab = Lab::with(vec![me()], SystemTime::now() - Duration::from_secs(10)).await;
    assert_eq!(refused(&lab, SVID, TRUE).await, Code::Unavailable);
    lab.rotate();
    assert_eq!(refused(&lab, SVID, TRUE).await, Code::Ok);
}

#[tokio::test]
async fn a_sidecar_that_stops_says_so_on_each_stream_and_takes_its_socket_along() {
    let lab = Lab::new().await;
    let mut stream = svids(&lab).await.unwrap();
    next(&mut stream).await;
    let tasks = lab.tasks.clone();
    let stopped = within(tasks.shutdown(PROMPT)).await;
    assert!(stopped, "its tasks end by themselves");
    let end = within(stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(!lab.socket.exists());
}

#[tokio::test]
async fn every_user_can_connect_to_the_socket_and_nobody_can_take_its_place() {
    let lab = Lab::new().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&lab.socket) & 0o777, 0o666);
    assert_eq!(mode(lab.socket.parent().unwrap()) & 0o777, 0o755);
    let env = Env::system();
    let error = WorkloadSocket::open(&env, &lab.socket).await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");

    let open = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(open.path(), everybody).unwrap();
    let error = WorkloadSocket::open(&env, &open.path().join("s")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("not safe for a socket"), "{error}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Large {
        #[prost(bytes = "vec", tag = "99")]
        padding: Vec<u8>,
    }
    let lab = Lab::new().await;
    let large = Large {
        padding: vec![0; 70 * 1024],
    };
    let channel = channel(&lab.socket).await;
    let answer = within(stream::<_, Svids>(channel, SVID, TRUE, large)).await;
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
}

/// What a process of this user is answered, by curl: the gRPC status.
fn status_for(user: u32, lab: &Lab) -> String {
    let root = lab.socket.parent().unwrap().parent().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root, everybody).unwrap();
    let empty = root.join("empty-message");
    std::fs::write(&empty, [0; 5]).unwrap();
    let (user, socket, empty) = (
        format!("--reuid={user}"),
        lab.socket.display().to_string(),
        format!("@{}", empty.display()),
    );
    let output = std::process::Command::new("setpriv")
        .args([&user, "--clear-groups", "--regid=65534"])
        .args(["curl", "--silent", "--show-error", "--max-time", "2"])
        .args(["--http2-prior-knowledge", "--unix-socket", &socket])
        .args(["--header", "content-type: application/grpc"])
        .args(["--header", "te: trailers"])
        .args(["--header", "workload.spiffe.io: true"])
        .args(["--data-binary", &empty, "--dump-header", "-"])
        .args(["--output", "/dev/null"])
        .arg(format!("http://localhost{SVID}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = said
        .lines()
        .find_map(|line| line.strip_prefix("grpc-status: "));
    // A stream that goes on has no status yet.
    match status {
        Some(status) => status.to_owned(),
        None => said.lines().next().unwrap_or_default().trim().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_user_can_connect_and_is_told_apart_by_the_kernel() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("skipped, only root can become another user");
        return;
    }
    let lab = Lab::with(vec!["uid=4242 gid=65534".parse().unwrap()], in_an_hour()).await;
    assert_eq!(status_for(4242, &lab), "HTTP/2 200", "it gets its SVID");
    assert_eq!(status_for(4243, &lab), "7", "permission denied");
    assert_eq!(
        refused(&lab, SVID, TRUE).await,
        Code::PermissionDenied,
        "nor is root somebody else"
    );
}
