//! The pages of docs/performance.

use super::{All, bars, lossy, markdown, plots};
use crate::error::Result;
use crate::meta::Meta;

/// Says who writes a page.
const WRITTEN: &str = "*Written by `weft-benches report` (benches/README.md); do not edit.*\n\n";

/// File names and their texts.
pub(super) fn all(all: &All) -> Result<Vec<(String, String)>> {
    let mut pages = vec![("README.md".to_owned(), index(all))];
    if let Some(measured) = &all.compare {
        let tables = markdown::comparison(&measured.found);
        let text = page(
            "weft beside other pairs, on loopback",
            COMPARE,
            &measured.meta,
        );
        pages.push(("compare.md".to_owned(), text + &tables));
    }
    if let Some(measured) = &all.lossy {
        let text = page(
            "weft beside other pairs, over bad links",
            LOSSY,
            &measured.meta,
        );
        let window = format!(
            "Each turn counts {} s, downloads half of that.\n\n",
            measured.found.window_s
        );
        let tables = lossy::tables(&measured.found);
        pages.push(("lossy.md".to_owned(), text + &window + &tables));
    }
    if let Some(measured) = &all.scale {
        let text = page("A control node by size", SCALE, &measured.meta);
        let table = markdown::scale(&measured.found);
        pages.push(("scale.md".to_owned(), text + &table));
    }
    if let Some(measured) = &all.micro {
        let text = page("The parts by themselves", MICRO, &measured.meta);
        let table = markdown::parts(&measured.found);
        pages.push(("micro.md".to_owned(), text + &table));
    }
    for (name, plot) in plots::all(all) {
        pages.push((name.to_owned(), plot.svg()?));
    }
    Ok(pages)
}

const COMPARE: &str = "\
client → A → B → server on loopback, in a network namespace of the run's own, both proxies on the same two cores as
client and server, TCP with CUBIC, P-256 certificates, mutual TLS 1.3; what each proxy is given is in `benches/configs/`.
Every process has one thread for its traffic; weft has what its defaults are. CPU is user and system time of A and B
together. A ratio is to the TCP+TLS copy pair in the same repetition, repetitions alternate: median (quartiles).
Ratios travel between machines, absolute figures do not. Latency is that of a machine on which client, server and
proxies share the cores.

![CPU of a request](compare-cpu.svg)

![Bulk](compare-bulk.svg)

";

const LOSSY: &str = "\
The same pairs, A and B in two network namespaces joined by `weft-netsim` (docs/netsim.md): `cross-region` is 80 ms of
round trip, 100 Mb/s, a queue of 200 packets; its loss is independent and each way. One link for each turn, the same
seeds for all pairs. Requests are due at fixed moments (open loop), and latency counts from when a request was *due*, so
a stall shows in all requests that it held up; *never caught up* means that requests were left without an answer 10 s
after the last was due. Requests have 3 header fields. TCP's congestion control is set by route, in both namespaces; that
of Envoy's QUIC by its connection options; weft's is its own (docs/adr/0007-lossy-paths.md). A turn whose link was late,
because this machine had no CPU for it, or in which a bare timer of the usual priority woke more than 4 ms late at p99, is
done again, twice at most; † marks what is late still, and is to be
read with care: short of CPU, every pair is slower than its link makes it.

![p99 by loss, 1 KiB](lossy-1k.svg)

![p99 by loss, 10 KiB](lossy-10k.svg)

![Goodput by loss](lossy-bulk.svg)

";

const SCALE: &str = "\
One real control node (a process of its own) and simulated sidecars, all of them in one other process on the same cores:
each has a UDP socket, a QUIC connection and a sync stream of its own, acknowledges what comes and decides nothing. So
the times of a push have the CPU of all sidecars in them; the CPU figure is the control node's alone.

![Push](scale-push.svg)

";

const MICRO: &str = "\
What every request, push or join goes through, one at a time, warm, on one thread. Times are of a release build: median
(quartiles) of samples of at least 20 ms. Instructions are callgrind's: the difference between two runs that do it a
different number of times. `.ci/run` compares those of a debug build with `benches/instructions.json`.

";

/// The begin of a page.
fn page(title: &str, explanation: &str, meta: &Meta) -> String {
    format!("# {title}\n\n{WRITTEN}{explanation}{}", circumstances(meta))
}

fn circumstances(meta: &Meta) -> String {
    let commands: Vec<String> = meta
        .commands
        .iter()
        .map(|text| format!("`{text}`"))
        .collect();
    let versions: Vec<String> = meta
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "| | |\n|---|---|\n| date | {} |\n| command | {} |\n| machine | {} |\n| kernel | Linux {} |\n\
         | versions | {} |\n| load average before and after | {:.1}, {:.1} |\n\n",
        meta.date,
        commands.join("<br>"),
        meta.machine,
        meta.kernel,
        versions.join(", "),
        meta.load.0,
        meta.load.1
    )
}

fn index(all: &All) -> String {
    let mut text = format!(
        "# What weft costs, and what it gives\n\n{WRITTEN}\
         Ratios travel between machines, absolute figures do not. What is not measured says so.\n\n"
    );
    let mut link = |there: bool, line: &str| {
        if there {
            text.push_str(line);
        }
    };
    link(
        all.lossy.is_some(),
        "- [Over bad links](lossy.md): latency and goodput where packets get lost\n",
    );
    link(
        all.compare.is_some(),
        "- [On loopback](compare.md): CPU, throughput, latency and memory beside other pairs\n",
    );
    link(
        all.scale.is_some(),
        "- [By size](scale.md): pushes, joins and renewals of a control node\n",
    );
    if all.micro.is_some() {
        text.push_str(
            "- [The parts](micro.md): routing, policy, snapshots, certificates by themselves\n",
        );
    }
    text.push_str("- [Notes](notes.md): what costs, and what was measured once\n\n");
    if all.lossy.is_some() {
        text.push_str("![p99 by loss, 1 KiB](lossy-1k.svg)\n\n");
    }
    text.push_str("## The bars\n\n");
    text.push_str(&bars::table(all));
    text
}
