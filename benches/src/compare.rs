//! `compare`: every pair on loopback, in alternating repetitions.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::pair::{Kind, Pair, Site};
use crate::process::Place;
use crate::sample::{Load, Sample};
use crate::workload::{Span, Workload};

/// What to compare.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompareArgs {
    /// Only these pairs (the TLS copy pair is always there: ratios are to it)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// Repetitions of everything
    #[arg(long, default_value_t = 5)]
    pub(crate) repetitions: u32,
    /// Measured milliseconds of each run
    #[arg(long, default_value_t = 1000)]
    pub(crate) measured_ms: u64,
    /// Sizes of replies in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10 << 10, 1 << 20])]
    pub(crate) sizes: Vec<u64>,
    /// Header fields each way
    #[arg(long, value_delimiter = ',', default_values_t = [3, 20])]
    pub(crate) fields: Vec<u8>,
    /// Connections of the client
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256])]
    pub(crate) connections: Vec<u32>,
    /// Requests a second of open loops with 1 KiB, on a fixed schedule
    #[arg(long, value_delimiter = ',', default_values_t = [2_000])]
    pub(crate) rates: Vec<u32>,
    /// The weft binary; the one beside this without it
    #[arg(long)]
    pub(crate) weft: Option<PathBuf>,
}

impl CompareArgs {
    /// Few enough to be done within five minutes.
    pub(crate) fn quick(&mut self) {
        self.repetitions = self.repetitions.min(3);
        self.sizes.retain(|size| *size < 1 << 20);
        self.connections.retain(|count| *count < 256);
    }

    fn workloads(&self) -> Vec<Workload> {
        let mut all = Vec::new();
        for size in &self.sizes {
            for fields in &self.fields {
                let each = self.connections.iter();
                all.extend(each.map(|count| Workload::closed(*size, *fields, *count)));
            }
        }
        all.extend(self.rates.iter().map(|rate| Workload::open(1 << 10, *rate)));
        all
    }

    fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| {
            self.only.is_empty() || *kind == Kind::TlsCopy || self.only.contains(kind)
        };
        Kind::ALL.into_iter().filter(wanted).collect()
    }

    /// Runs everything, telling `step` what comes next out of how many.
    pub(crate) fn run(&self, site: &Site, step: &mut dyn FnMut(usize, &str)) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut pairs = Vec::new();
        for kind in self.kinds() {
            match site.start(kind) {
                Ok(pair) => pairs.push(pair),
                Err(error) => outcome
                    .missing
                    .push((kind.name().to_owned(), error.to_string())),
            }
        }
        let workloads = self.workloads();
        let steps = workloads.len() * self.repetitions as usize * pairs.len();
        let span = Span {
            warm_up: Duration::from_millis(self.measured_ms / 4),
            measured: Duration::from_millis(self.measured_ms),
        };
        for workload in workloads {
            for repetition in 0..self.repetitions {
                for place in 0..pairs.len() {
                    // Each repetition begins with another pair, so that no place in the row is special.
                    let pair = &pairs[(place + repetition as usize) % pairs.len()];
                    step(steps, &format!("{}: {}", pair.kind.name(), workload.name()));
                    outcome.samples.push(Sample {
                        subject: pair.kind.name().to_owned(),
                        setting: String::new(),
                        workload,
                        repetition,
                        late: false,
                        load: pair.load(&site.near, workload, span)?,
                    });
                }
            }
        }
        Ok(outcome)
    }
}

/// Samples, and what could not be measured and why.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was measured.
    pub(crate) samples: Vec<Sample>,
    /// Names with reasons.
    pub(crate) missing: Vec<(String, String)>,
}

impl Pair {
    /// One run of the load against this pair.
    pub(crate) fn load(&self, near: &Place, workload: Workload, span: Span) -> Result<Load> {
        let mut command = near.this()?;
        command
            .args(["role", "load"])
            .arg(format!("--to={}", self.entry))
            .arg(format!("--host={}", self.host))
            .arg(format!("--size={}", workload.size))
            .arg(format!("--fields={}", workload.fields))
            .arg(format!("--connections={}", workload.connections))
            .arg(format!("--rate={}", workload.rate))
            .arg(format!("--warm-up-ms={}", span.warm_up.as_millis()))
            .arg(format!("--measured-ms={}", span.measured.as_millis()));
        for process in &self.proxies {
            command.arg(format!("--watch={}={}", process.name, process.pid()));
        }
        let output = command.output().map_err(Error::io("run the load"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::said(format!("the load failed: {said}")));
        }
        serde_json::from_slice(&output.stdout).map_err(Error::because("the load's output"))
    }
}
