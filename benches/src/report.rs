//! `report`: runs the comparison and writes what came of it, as JSON for programs and Markdown for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::compare::{CompareArgs, Outcome};
use crate::error::{Error, Result, write};
use crate::pair::{Kind, Site, weft_binary};
use crate::sample::{Sample, Spread};

/// What to write, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    compare: CompareArgs,
    /// Fewer repetitions and workloads: within five minutes
    #[arg(long)]
    quick: bool,
    /// Folder to write into
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// The machine that the figures belong to.
#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    date: String,
    command: String,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    machine: &'a Machine,
    samples: &'a [Sample],
    not_measured: &'a [(String, String)],
}

impl ReportArgs {
    /// Runs everything and writes it.
    pub(crate) fn run(mut self) -> Result<()> {
        if self.quick {
            self.compare.quick();
        }
        let machine = Machine::here();
        let dir = tempfile::Builder::new()
            .prefix("weft-benches-")
            .tempdir()
            .map_err(Error::io("make a folder"))?;
        let site = Site::loopback(dir.path(), weft_binary(self.compare.weft.as_deref())?)?;
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {elapsed} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        let outcome = self.compare.run(&site, &mut |all, what| {
            bar.set_length(all as u64);
            bar.inc(1);
            bar.set_message(what.to_owned());
        })?;
        bar.finish_and_clear();
        save(&self.out, &machine, &outcome)
    }
}

fn save(out: &Path, machine: &Machine, outcome: &Outcome) -> Result<()> {
    let document = Document {
        machine,
        samples: &outcome.samples,
        not_measured: &outcome.missing,
    };
    let json = serde_json::to_string_pretty(&document).map_err(Error::because("write JSON"))?;
    write(&out.join("compare.json"), &json)?;
    let text = markdown(machine, outcome);
    write(&out.join("compare.md"), &text)?;
    println!("{text}");
    Ok(())
}

impl Machine {
    fn here() -> Self {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = time::OffsetDateTime::now_utc();
        Self {
            cpu: model.map_or_else(String::new, |m| m.trim_matches([' ', '\t', ':']).to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            date: now.date().to_string(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }
}

/// One table for each workload: medians, and ratios to the TLS copy pair within each repetition.
fn markdown(machine: &Machine, outcome: &Outcome) -> String {
    let Machine {
        cpu,
        cores,
        kernel,
        date,
        command,
    } = machine;
    let mut text = format!(
        "# weft beside other pairs, on loopback\n\n\
         Written by `weft-benches {command}` on {date}: {cpu}, {cores} cores, Linux {kernel}, other load present.\n\
         client → A → B → server, closed loop; CPU is user and system time of A and B together for one request. A ratio\n\
         is to the TCP+TLS copy pair in the same repetition: median (quartiles). Absolute figures belong to the machine.\n"
    );
    let mut by_workload: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for sample in &outcome.samples {
        by_workload
            .entry(sample.workload.name())
            .or_default()
            .push(sample);
    }
    for (workload, samples) in by_workload {
        let _ = write!(text, "\n## {workload}\n\n");
        text.push_str("| pair | req/s | p50 µs | p99 µs | p99.9 µs | CPU µs/req | ratio of CPU | Mb/s | CPU s/GB | RSS MiB | failed |\n");
        text.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
        for kind in Kind::ALL {
            row(&mut text, kind.name(), &samples);
        }
    }
    if !outcome.missing.is_empty() {
        text.push_str("\n## Not measured\n\n");
        for (what, why) in &outcome.missing {
            let _ = writeln!(text, "- {what}: {why}");
        }
    }
    text
}

fn row(text: &mut String, subject: &str, samples: &[&Sample]) {
    let own: Vec<&&Sample> = samples.iter().filter(|s| s.subject == subject).collect();
    if own.is_empty() {
        return;
    }
    let median = |value: &dyn Fn(&Sample) -> Option<f64>, digits: usize| {
        Spread::of(own.iter().filter_map(|s| value(s))).map_or_else(
            || "–".to_owned(),
            |spread| format!("{:.digits$}", spread.median),
        )
    };
    let ratio = Spread::of(own.iter().filter_map(|s| {
        let base = samples
            .iter()
            .find(|b| b.subject == Kind::TlsCopy.name() && b.repetition == s.repetition)?;
        Some(s.cpu_us()? / base.cpu_us()?)
    }));
    let ratio = ratio.map_or_else(
        || "–".to_owned(),
        |r| format!("{:.2} ({:.2}–{:.2})", r.median, r.low, r.high),
    );
    let failed: u64 = own.iter().map(|s| s.load.failed + s.load.unfinished).sum();
    let _ = writeln!(
        text,
        "| {subject} | {} | {} | {} | {} | {} | {ratio} | {} | {} | {} | {failed} |",
        median(&|s| Some(s.rate()), 0),
        median(&|s| s.latency("p50"), 0),
        median(&|s| s.latency("p99"), 0),
        median(&|s| s.latency("p99.9"), 0),
        median(&|s| s.cpu_us(), 1),
        median(&|s| Some(s.mbit()), 0),
        median(&|s| s.cpu_per_gb(), 2),
        median(&|s| s.rss_mib(), 1),
    );
}
