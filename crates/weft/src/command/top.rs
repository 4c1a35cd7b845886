//! `weft top`: the table of edges.

use weft_control::Edge;

use super::admin::{connect, failed};
use crate::cli::TopArgs;
use crate::failure::Failure;
use crate::output::{self, Table};

pub(super) async fn run(args: TopArgs) -> Result<(), Failure> {
    let list = connect(&args.admin).await?.edges().await.map_err(failed)?;
    output::show(args.output.output, &list, || table(&list.edges))
}

/// Source → destination: requests, success rate, p50, p90, p99, as each side saw them.
pub(crate) fn table(edges: &[Edge]) -> String {
    let mut table = Table::new(
        &[
            "SOURCE",
            "",
            "DESTINATION",
            "PROTOCOL",
            "SEEN BY",
            "REQUESTS",
            "SUCCESS",
            "P50",
            "P90",
            "P99",
        ],
        "no traffic has been reported yet",
    );
    for edge in edges {
        let latency = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), output::millis);
        table.row([
            edge.source.clone(),
            "→".to_owned(),
            edge.destination.clone(),
            edge.protocol.clone(),
            edge.reporter.clone(),
            edge.requests.to_string(),
            format!("{:.2} %", edge.success_rate * 100.0),
            latency(edge.p50_us),
            latency(edge.p90_us),
            latency(edge.p99_us),
        ]);
    }
    table.render()
}
