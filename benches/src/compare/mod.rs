//! The same traffic through each pair, in alternating repetitions.

mod arena;
mod plan;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

pub(crate) use arena::{Arena, enter};
pub(crate) use plan::{Case, Traffic};
pub(crate) use run::{Bench, Comparison, Row, client};

use crate::error::Result;
use crate::pairs::{Congestion, Kind};

/// What to compare.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// Pairs; all without it. May be given several times
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) pair: Vec<Kind>,
    /// Kinds of traffic
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    pub(crate) part: Vec<Part>,
    /// Times that each pair has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repetitions: u32,
    /// Seconds that count in each turn
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    pub(crate) window: f64,
    /// Congestion control of all TCP peers, and of QUIC peers that can be told (needs root)
    #[arg(long, value_enum, default_value_t = Congestion::Cubic)]
    pub(crate) congestion: Congestion,
    /// The binary of weft
    #[arg(long, default_value = "target/release/weft")]
    pub(crate) weft: PathBuf,
    /// Write all figures as JSON into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Fewer kinds of traffic, fewer and shorter turns
    #[arg(long)]
    pub(crate) quick: bool,
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Requests, each when its connection's last is answered
    Closed,
    /// Requests at fixed moments
    Open,
    /// Unary gRPC calls
    Grpc,
    /// Bytes
    Bulk,
}

pub(crate) fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=600.0).contains(&value) => Ok(value),
        _ => Err("from 0.1 to 600".into()),
    }
}

impl CompareArgs {
    /// Few turns, so that a report takes minutes.
    pub(crate) fn quick(mut self) -> Self {
        self.quick = true;
        self.repetitions = self.repetitions.min(3);
        self.window = self.window.min(0.8);
        self
    }

    fn kinds(&self) -> Vec<Kind> {
        match self.pair.as_slice() {
            [] => Kind::all().to_vec(),
            some => some.to_vec(),
        }
    }
}

/// Compares, and gives every figure. Runs inside an [`Arena`].
pub(crate) async fn compare(
    args: &CompareArgs,
    arena: Arena,
    bar: &ProgressBar,
) -> Result<Comparison> {
    let cases = plan::cases(args);
    let mut comparison = Comparison {
        arena,
        ..Comparison::default()
    };
    let turns: usize = cases
        .iter()
        .map(|case| {
            args.kinds()
                .iter()
                .filter(|kind| case.is_for(**kind))
                .count()
        })
        .sum();
    bar.set_length(turns as u64 * u64::from(args.repetitions));
    let mut settings: Vec<_> = cases.iter().map(Case::setting).collect();
    settings.sort_unstable();
    settings.dedup();
    for setting in settings {
        let (mtu, grpc) = setting;
        if let Some(mtu) = mtu {
            arena.set_mtu(mtu).await?;
        }
        let of_setting = || cases.iter().filter(|case| case.setting() == setting);
        let kinds = args.kinds().into_iter();
        let kinds = kinds.filter(|kind| of_setting().any(|case| case.is_for(*kind)));
        let mut bench = Bench::put_up(kinds, args, grpc, bar).await?;
        if comparison.idle.is_empty() {
            comparison.idle = bench.memory();
        }
        for case in of_setting() {
            let window = Duration::from_secs_f64(args.window);
            let rows = bench.run(case, args.repetitions, window, bar).await?;
            comparison.rows.extend(rows);
        }
    }
    Ok(comparison)
}
