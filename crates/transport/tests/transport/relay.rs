//! Several generations of a node on one socket. Here they are endpoints of one process: what they share is what two
//! processes would share.

use std::time::Duration;

use tokio::time::timeout;
use weft_env::Env;
use weft_transport::{Earlier, Given, Relay};

use crate::lab::{Ca, LONG, Node, PROMPT, eventually};

/// One generation of invoices.
struct Generation {
    relay: Relay,
    node: Node,
}

impl Generation {
    async fn first(ca: &Ca) -> Self {
        let (env, any) = (Env::system(), "127.0.0.1:0".parse().unwrap());
        Self::on(ca, Relay::open(&env, any, true).await.unwrap()).await
    }

    async fn on(ca: &Ca, relay: Relay) -> Self {
        let own = relay.clone();
        let node = Node::with(ca, "invoices", LONG, |config| config.relay = Some(own)).await;
        Self { relay, node }
    }

    /// What the next generation gets. It reads nothing yet.
    async fn next(&self, ca: &Ca) -> Self {
        let Given {
            udp,
            tcp,
            tag,
            channel,
            mut earlier,
        } = self.relay.give().unwrap();
        earlier.push(Earlier {
            tag,
            pid: 7,
            version: "old".to_owned(),
            channel,
        });
        let relay = Relay::adopt(&Env::system(), (udp, tcp), earlier).unwrap();
        Self::on(ca, relay).await
    }

    fn hand_over(&self, next: &Self) {
        self.relay.pause();
        next.relay.resume();
        self.relay.follow();
        self.node.endpoint.leave();
    }

    /// Ends as a process does.
    async fn end(self) {
        self.node.endpoint.drain(Duration::from_millis(10)).await;
        self.node.tasks.shutdown(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_under_way_goes_on_in_the_old_one_and_what_begins_goes_to_the_new_one() {
    let ca = Ca::new();
    let (first, orders) = (Generation::first(&ca).await, Node::new(&ca, "orders").await);
    let (invoices, back) = (first.node.target("invoices"), orders.target("orders"));
    let calls = async {
        let (called, calling) = tokio::join!(
            orders.get(&invoices, "/wait"),
            first.node.get(&back, "/wait")
        );
        (called.unwrap(), calling.unwrap())
    };
    let upgrades = async {
        first.node.service.waiting.notified().await;
        orders.service.waiting.notified().await;
        let second = first.next(&ca).await;
        first.hand_over(&second);
        assert_eq!(second.relay.earlier(), [(7, "old".to_owned())]);
        // The peer hears that it is to connect again; who asks meanwhile is asked again.
        eventually("the old connection to be retired", || {
            let mut connections = orders.endpoint.connections().into_iter();
            connections.any(|c| c.retired.is_some()).then_some(())
        })
        .await;
        orders.get(&invoices, "/").await.unwrap();
        assert_eq!(second.node.endpoint.connections().len(), 1);
        // And once more, with two generations before it.
        let third = second.next(&ca).await;
        second.hand_over(&third);
        assert_eq!(third.relay.earlier().len(), 2);
        second.end().await;
        eventually("the second to be gone", || {
            (third.relay.earlier().len() == 1).then_some(())
        })
        .await;
        orders.get(&invoices, "/").await.unwrap();
        first.node.service.go.notify_one();
        orders.service.go.notify_one();
        third
    };
    let ((called, calling), third) = timeout(PROMPT, async { tokio::join!(calls, upgrades) })
        .await
        .unwrap();
    assert!(called.ends_with("/sa/orders") && calling.ends_with("/sa/invoices"));
    first.end().await;
    eventually("the first to be gone", || {
        third.relay.earlier().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_that_is_left_alone_reads_for_itself() {
    let ca = Ca::new();
    let (first, orders) = (Generation::first(&ca).await, Node::new(&ca, "orders").await);
    let invoices = first.node.target("invoices");
    let call = orders.get(&invoices, "/wait");
    let loss = async {
        first.node.service.waiting.notified().await;
        let second = first.next(&ca).await;
        first.hand_over(&second);
        let orphaned = first.relay.orphaned();
        assert!(!orphaned.is_cancelled());
        second.end().await;
        timeout(PROMPT, orphaned.cancelled()).await.unwrap();
        first.node.service.go.notify_one();
    };
    let (called, ()) = timeout(PROMPT, async { tokio::join!(call, loss) })
        .await
        .unwrap();
    called.unwrap();
}

#[tokio::test]
async fn one_whose_successor_never_reads_takes_the_socket_back() {
    let ca = Ca::new();
    let (first, orders) = (Generation::first(&ca).await, Node::new(&ca, "orders").await);
    let invoices = first.node.target("invoices");
    orders.get(&invoices, "/").await.unwrap();
    let second = first.next(&ca).await;
    first.relay.pause();
    let call = orders.get(&invoices, "/");
    let back = async {
        second.end().await;
        first.relay.resume();
    };
    let (called, ()) = tokio::join!(call, back);
    called.unwrap();
    assert_eq!(first.node.endpoint.connections().len(), 1, "the same one");
}
