//! Many simulated sidecars against one real control node: how long a change takes to be in force everywhere,
//! and what it costs the node.
//!
//! The node is a process of its own (`weft control`, as its users run it). The sidecars are all in this
//! process, each with a UDP socket, a QUIC connection and a sync stream of its own; they acknowledge what
//! comes, and decide nothing. Sidecars of the same service share an identity: signing is measured by itself,
//! and the node's rate limit for it (50 a second) would be all that the rest of the run shows.

mod control;
mod run;
mod sidecar;

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stats::Spread;

/// How many of what.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScaleArgs {
    /// Numbers of sidecars
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    pub(crate) sidecars: Vec<usize>,
    /// Numbers of services that they are spread over
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    pub(crate) services: Vec<usize>,
    /// Changes that are pushed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) pushes: u32,
    /// Longest time for one mesh to come up, in seconds
    #[arg(long, default_value_t = 240)]
    pub(crate) patience: u64,
    /// The binary of weft
    #[arg(long, default_value = "target/release/weft")]
    pub(crate) weft: PathBuf,
    /// Write all figures as JSON into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Two small meshes, few pushes
    #[arg(long)]
    pub(crate) quick: bool,
}

impl ScaleArgs {
    /// What fits into a minute.
    pub(crate) fn quick(mut self) -> Self {
        self.sidecars = vec![100, 300];
        self.services = vec![100];
        self.pushes = self.pushes.min(5);
        self
    }
}

/// One mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mesh {
    pub(crate) sidecars: usize,
    pub(crate) services: usize,
    /// What was found, or why there is nothing.
    pub(crate) found: std::result::Result<Found, String>,
}

/// What one mesh showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Services that joined, a second, and how often the node said "too many now".
    pub(crate) joins_per_s: f64,
    pub(crate) joins_limited: u64,
    /// Sidecars that connected and got the whole config, a second.
    pub(crate) syncs_per_s: f64,
    /// From the request to write until all receipts were in, ms.
    pub(crate) push_all_ms: Spread,
    /// From the request to write until one sidecar had the change, ms: over all sidecars and pushes.
    pub(crate) push_p50_ms: f64,
    pub(crate) push_p99_ms: f64,
    /// CPU of the control node for a push, µs for each sidecar.
    pub(crate) push_cpu_us: Spread,
    /// Certificates renewed a second, and refused by the rate limit.
    pub(crate) renewals_per_s: f64,
    pub(crate) renewals_limited: u64,
    /// CPU of the control node for a renewal, µs.
    pub(crate) renewal_cpu_us: Option<f64>,
    /// Memory of the control node, bytes.
    pub(crate) rss: u64,
}

/// Every combination that was asked for.
pub(crate) async fn scale(args: &ScaleArgs, bar: &ProgressBar) -> Result<Vec<Mesh>> {
    let mut meshes = Vec::new();
    let pairs = args
        .sidecars
        .iter()
        .flat_map(|n| args.services.iter().map(|m| (*n, *m)));
    // More services than sidecars would be the same mesh again.
    let pairs: Vec<(usize, usize)> = pairs
        .filter(|(sidecars, services)| services <= sidecars)
        .collect();
    bar.set_length(pairs.len() as u64);
    for (sidecars, services) in pairs {
        bar.set_message(format!("{sidecars} sidecars of {services} services"));
        let found = run::mesh(args, sidecars, services, bar).await;
        let found = found.map_err(|error| error.to_string());
        if let Err(reason) = &found {
            bar.println(format!(
                "{sidecars} sidecars of {services} services: not measured: {reason}"
            ));
        }
        meshes.push(Mesh {
            sidecars,
            services,
            found,
        });
        bar.inc(1);
    }
    Ok(meshes)
}
