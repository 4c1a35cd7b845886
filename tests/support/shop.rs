//! A small mesh of real processes: orders calls invoices.

use std::net::SocketAddr;

use super::{Running, World, eventually, get};

pub(crate) const ALLOW_ORDERS: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata:
  name: only-orders
spec:
  targetRefs:
    - kind: Service
      name: invoices
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [spiffe://weft.local/ns/default/sa/orders]
";

/// orders, two instances of invoices with their applications, and a control node.
pub(crate) struct Shop {
    pub(crate) control: Running,
    pub(crate) orders: Running,
    pub(crate) invoices: Vec<Running>,
    pub(crate) apps: Vec<Running>,
    pub(crate) orders_args: Vec<String>,
    pub(crate) invoices_args: Vec<Vec<String>>,
    pub(crate) control_addr: SocketAddr,
    // Last: its folder outlives the processes.
    pub(crate) world: World,
}

impl Shop {
    #[track_caller]
    pub(crate) fn open(instances: usize) -> Self {
        Self::with(instances, &[], None)
    }

    /// The same with more flags for every sidecar, and perhaps another TCP application.
    #[track_caller]
    pub(crate) fn with(instances: usize, flags: &[&str], tcp: Option<SocketAddr>) -> Self {
        let (world, pin) = World::initialised();
        let control = world.control();
        let control_addr = control.addr("mesh");
        let at = control_addr.to_string();
        let policy = world.file("policy.yaml", ALLOW_ORDERS);
        world.admin(&["apply", "-f", &policy]).ok();
        let (mut apps, mut invoices, mut invoices_args) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..instances {
            let name = format!("invoices-{number}");
            let app = world.app(&name);
            let token = world.token("invoices", "10m");
            let mut args = world.sidecar_args(&name, &at, &pin, &token);
            args.push(format!("--app={}", app.addr("http")));
            args.push(format!(
                "--app=tcp/5432={}",
                tcp.unwrap_or_else(|| app.addr("tcp"))
            ));
            args.extend(flags.iter().map(|flag| (*flag).to_owned()));
            invoices.push(world.start(&name, &args));
            apps.push(app);
            invoices_args.push(args);
        }
        let token = world.token("orders", "10m");
        let mut orders_args = world.sidecar_args("orders", &at, &pin, &token);
        orders_args.push("--tcp-listen=127.0.0.1:0=invoices:5432".to_owned());
        orders_args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let orders = world.start("orders", &orders_args);
        let shop = Self {
            control,
            orders,
            invoices,
            apps,
            orders_args,
            invoices_args,
            control_addr,
            world,
        };
        shop.serves("at first");
        shop
    }

    /// Waits until a request of orders is answered by invoices.
    #[track_caller]
    pub(crate) fn serves(&self, when: &str) {
        let outbound = self.orders.addr("outbound");
        eventually(&format!("invoices to answer orders {when}"), || {
            let reply = get(outbound, "invoices", "/echo").ok()?;
            (reply.status == 200).then_some(())
        });
    }

    /// Sidecars that the control node says are live.
    pub(crate) fn live(&self) -> usize {
        let status = self.world.admin(&["status", "-o", "json"]).json();
        let sidecars = status["sidecars"].as_array().unwrap().iter();
        sidecars.filter(|s| s["state"] == "live").count()
    }

    pub(crate) fn restart_control(&mut self) {
        let args = self.world.control_args(&self.control_addr.to_string());
        self.control = self.world.start("control", &args);
    }
}

/// The sidecar keeps its mesh port when it starts again, so that those who know it find it there.
pub(crate) fn on_the_same_port(args: &[String], sidecar: &Running) -> Vec<String> {
    let mut args = args.to_vec();
    args.retain(|arg| !arg.starts_with("--listen="));
    args.push(format!("--listen={}", sidecar.addr("mesh")));
    args
}
