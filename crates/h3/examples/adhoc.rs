#![allow(
    clippy::all,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code
)]
#[path = "../tests/h3/common.rs"]
mod common;
use bytes::{Buf, Bytes};
use common::*;
use http::*;
use std::sync::Arc;

fn certs() -> (
    rustls::pki_types::CertificateDer<'static>,
    rustls::pki_types::PrivateKeyDer<'static>,
) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write("/tmp/aio-cert.pem", key.cert.pem()).unwrap();
    std::fs::write("/tmp/aio-key.pem", key.signing_key.serialize_pem()).unwrap();
    (
        key.cert.der().clone(),
        rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    match args[1].as_str() {
        "certs" => {
            certs();
        }
        "server" => {
            let (cert, key) = certs();
            let mut tls = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert], key)
                .unwrap();
            tls.alpn_protocols = vec![b"h3".to_vec()];
            let cfg = quinn::ServerConfig::with_crypto(Arc::new(
                quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap(),
            ));
            let ep = quinn::Endpoint::server(cfg, "127.0.0.1:0".parse().unwrap()).unwrap();
            println!("{}", ep.local_addr().unwrap().port());
            while let Some(inc) = ep.accept().await {
                let conn = inc.await.unwrap();
                let c2 = conn.clone();
                tokio::spawn(async move {
                    let r = c2.closed().await;
                    eprintln!("server conn closed: {r}");
                });
                serve(conn, weft_h3::Config::default(), echo);
            }
        }
        "client" => {
            let pem = std::fs::read("/tmp/aio-cert.pem").unwrap();
            use rustls::pki_types::pem::PemObject;
            let cert = rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(cert).unwrap();
            let mut tls = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            tls.alpn_protocols = vec![b"h3".to_vec()];
            let mut ep = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            ep.set_default_client_config(quinn::ClientConfig::new(Arc::new(
                quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap(),
            )));
            let conn = ep
                .connect(
                    format!("127.0.0.1:{}", args[2]).parse().unwrap(),
                    "localhost",
                )
                .unwrap()
                .await
                .unwrap();
            let requests = requests(conn.clone());
            let mut ok = 0;
            for n in 0..100 {
                get_ok(&requests, &format!("/g{n}")).await;
                ok += 1;
            }
            println!("client: {ok} GET ok");
            let tasks: Vec<_> = (0..32)
                .map(|n| {
                    let r = requests.clone();
                    tokio::spawn(async move {
                        let body = bytes(n * 3000 + 1);
                        let (mut s, mut rv) = r
                            .send(&request(Method::POST, &format!("/p{n}")), false)
                            .await
                            .unwrap();
                        s.send_data(body.clone()).await.unwrap();
                        let mut t = HeaderMap::new();
                        t.insert("x-sum", "1".parse().unwrap());
                        s.send_trailers(&t).await.unwrap();
                        s.finish().await.unwrap();
                        let resp = rv.response().await.unwrap();
                        assert_eq!(resp.status(), 200);
                        assert_eq!(read_all(&mut rv).await.unwrap(), body);
                        assert_eq!(rv.trailers().await.unwrap().unwrap()["x-sum"], "1");
                    })
                })
                .collect();
            for t in tasks {
                t.await.unwrap();
            }
            println!("client: 32 POST with trailers ok");
            let (mut s, mut rv) = requests.send(&connect(), false).await.unwrap();
            println!(
                "client: CONNECT -> {}",
                rv.response().await.unwrap().status()
            );
            s.send_data(Bytes::from_static(b"ping")).await.unwrap();
            s.finish().await.unwrap();
            println!(
                "client: tunnel {:?}",
                read_all(&mut rv)
                    .await
                    .map(|v| String::from_utf8(v).unwrap())
            );
            conn.close(0x100u32.into(), b"");
            ep.wait_idle().await;
        }
        which @ ("ours" | "h3") => {
            let n: u64 = args[2].parse().unwrap();
            let flight: u64 = args[3].parse().unwrap();
            let extra = args.get(4).is_some();
            let pair = {
                let mut t = quinn::TransportConfig::default();
                t.max_concurrent_bidi_streams(1000u32.into());
                pair_with(t).await
            };
            let mut req = request(Method::POST, "/bench/path");
            if extra {
                for (k, v) in [
                    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) bench/1.0"),
                    ("accept", "application/json"),
                    ("accept-encoding", "gzip, deflate, br"),
                    ("x-request-id", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
                    (
                        "traceparent",
                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    ),
                    ("content-type", "application/json"),
                    ("x-forwarded-for", "10.1.2.3"),
                    ("x-forwarded-proto", "https"),
                    ("cache-control", "no-cache"),
                    (
                        "authorization",
                        "Bearer abcdefghijklmnopqrstuvwxyz0123456789",
                    ),
                ] {
                    req.headers_mut().insert(k, v.parse().unwrap());
                }
            }
            let body = bytes(100);
            let start = cpu();
            let wall = std::time::Instant::now();
            if which == "ours" {
                serve(
                    pair.server.clone(),
                    weft_h3::Config::default(),
                    |_r, mut send, mut recv| async move {
                        while let Some(_) = recv.data().await.unwrap() {}
                        let resp = Response::builder()
                            .header("content-length", "100")
                            .header("content-type", "application/json")
                            .body(())
                            .unwrap();
                        send.send_response_with(&resp, bytes(100), true)
                            .await
                            .unwrap();
                    },
                );
                let requests = requests(pair.client.clone());
                let tasks: Vec<_> = (0..flight)
                    .map(|_| {
                        let r = requests.clone();
                        let req = req.clone();
                        let body = body.clone();
                        tokio::spawn(async move {
                            for _ in 0..n / flight {
                                let (_s, mut rv) =
                                    r.send_with(&req, body.clone(), true).await.unwrap();
                                rv.response().await.unwrap();
                                while let Some(_) = rv.data().await.unwrap() {}
                            }
                        })
                    })
                    .collect();
                for t in tasks {
                    t.await.unwrap();
                }
            } else {
                let conn = pair.server.clone();
                tokio::spawn(async move {
                    let mut server: h3::server::Connection<_, Bytes> = h3::server::builder()
                        .build(h3_quinn::Connection::new(conn))
                        .await
                        .unwrap();
                    while let Ok(Some(res)) = server.accept().await {
                        tokio::spawn(async move {
                            let (_r, mut st) = res.resolve_request().await.unwrap();
                            while let Some(_) = st.recv_data().await.unwrap() {}
                            let resp = Response::builder()
                                .header("content-length", "100")
                                .header("content-type", "application/json")
                                .body(())
                                .unwrap();
                            st.send_response(resp).await.unwrap();
                            st.send_data(bytes(100)).await.unwrap();
                            st.finish().await.unwrap();
                        });
                    }
                });
                let (mut d, r) = h3::client::builder()
                    .build::<_, _, Bytes>(h3_quinn::Connection::new(pair.client.clone()))
                    .await
                    .unwrap();
                tokio::spawn(async move { std::future::poll_fn(|cx| d.poll_close(cx)).await });
                let tasks: Vec<_> = (0..flight)
                    .map(|_| {
                        let mut r = r.clone();
                        let req = req.clone();
                        let body = body.clone();
                        tokio::spawn(async move {
                            for _ in 0..n / flight {
                                let mut st = r.send_request(req.clone()).await.unwrap();
                                st.send_data(body.clone()).await.unwrap();
                                st.finish().await.unwrap();
                                st.recv_response().await.unwrap();
                                while let Some(mut p) = st.recv_data().await.unwrap() {
                                    p.advance(p.remaining());
                                }
                            }
                        })
                    })
                    .collect();
                for t in tasks {
                    t.await.unwrap();
                }
            }
            let us = (cpu() - start) * 1e6 / n as f64;
            println!(
                "{which} flight {flight} extra {extra}: cpu {us:.2} us/req, {:.0} req/s",
                n as f64 / wall.elapsed().as_secs_f64()
            );
        }
        _ => {}
    }
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
