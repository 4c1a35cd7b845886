//! Which traffic, and through which pairs.

use serde::{Deserialize, Serialize};

use super::{CompareArgs, Part};
use crate::load::Mode;
use crate::pairs::Kind;

/// MTU of a usual path, and of one within a data centre.
const MTU: u32 = 1_500;
const JUMBO: u32 = 8_952;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// How.
    pub(crate) traffic: Traffic,
    /// MTU of the link, where it can be set.
    pub(crate) mtu: Option<u32>,
}

/// Requests or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Traffic {
    /// Each connection asks again at once.
    Closed {
        /// Bytes of a reply.
        size: u64,
        /// Fields of request and reply.
        fields: usize,
        /// Connections.
        connections: u32,
    },
    /// Requests at fixed moments.
    Open {
        size: u64,
        fields: usize,
        /// Requests a second.
        rate: u32,
    },
    /// Unary calls on one connection.
    Grpc {
        size: u64,
        /// Calls at a time.
        calls: u32,
    },
    /// Bytes.
    Bulk {
        /// Connections.
        streams: u32,
    },
}

impl Case {
    /// Requests, each when the last on its connection is answered.
    pub(crate) fn closed(size: u64, fields: usize, connections: u32) -> Self {
        Self {
            traffic: Traffic::Closed {
                size,
                fields,
                connections,
            },
            mtu: Some(MTU),
        }
    }

    /// Requests at fixed moments.
    pub(crate) fn open(size: u64, fields: usize, rate: u32) -> Self {
        Self {
            traffic: Traffic::Open { size, fields, rate },
            mtu: Some(MTU),
        }
    }

    /// Unary calls.
    pub(crate) fn grpc(size: u64, calls: u32) -> Self {
        Self {
            traffic: Traffic::Grpc { size, calls },
            mtu: Some(MTU),
        }
    }

    /// Bytes.
    pub(crate) fn bulk(streams: u32, mtu: u32) -> Self {
        Self {
            traffic: Traffic::Bulk { streams },
            mtu: Some(mtu),
        }
    }

    /// Whether a kind of pair carries it.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        match self.traffic {
            Traffic::Bulk { .. } => kind.carries_tcp(),
            Traffic::Grpc { .. } => kind.is_asked_for_grpc(),
            Traffic::Closed { .. } | Traffic::Open { .. } => true,
        }
    }

    /// What the pairs must be put up anew for, if it changes: a connection that knows another MTU would lose
    /// packets, and some proxies are told whether the application speaks HTTP/2.
    pub(super) fn setting(&self) -> (Option<u32>, bool) {
        (self.mtu, matches!(self.traffic, Traffic::Grpc { .. }))
    }

    /// How the client does it.
    pub(crate) fn mode(&self) -> Mode {
        match self.traffic {
            Traffic::Closed { connections, .. } => Mode::Closed { connections },
            Traffic::Open { rate, .. } => Mode::Open {
                rate,
                connections: 256,
            },
            Traffic::Grpc { calls, .. } => Mode::Grpc { calls },
            Traffic::Bulk { streams } => Mode::Bulk { streams },
        }
    }

    /// Bytes and fields of a reply.
    pub(crate) fn reply(&self) -> (u64, usize) {
        match self.traffic {
            Traffic::Closed { size, fields, .. } | Traffic::Open { size, fields, .. } => {
                (size, fields)
            }
            Traffic::Grpc { size, .. } => (size, 3),
            Traffic::Bulk { .. } => (100, 3),
        }
    }

    /// In words.
    pub(crate) fn title(&self) -> String {
        let size = |bytes: u64| match bytes {
            0..1024 => format!("{bytes} B"),
            1024..1_048_576 => format!("{} KiB", bytes / 1024),
            _ => format!("{} MiB", bytes / 1_048_576),
        };
        let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match self.traffic {
            Traffic::Closed {
                size: bytes,
                fields,
                connections,
            } => format!(
                "{}, {fields} fields, {}",
                size(bytes),
                plural(connections, "connection")
            ),
            Traffic::Open {
                size: bytes,
                fields,
                rate,
            } => {
                format!(
                    "{}, {fields} fields, {rate} requests/s at fixed moments",
                    size(bytes)
                )
            }
            Traffic::Grpc { size: bytes, calls } => {
                format!(
                    "unary gRPC, {}, {calls} calls at a time on one connection",
                    size(bytes)
                )
            }
            Traffic::Bulk { streams } => format!(
                "bulk, {}, MTU {}",
                plural(streams, "stream"),
                self.mtu.unwrap_or_default()
            ),
        }
    }
}

/// Everything, or what a quick look needs for most of the bars.
pub(super) fn cases(args: &CompareArgs) -> Vec<Case> {
    let mut cases = Vec::new();
    // First what says how much memory a pair needs for little traffic: what follows leaves its traces.
    if args.part.contains(&Part::Open) {
        cases.push(Case::open(100, 20, 1_000));
        if !args.quick {
            cases.push(Case::open(10 * 1024, 20, 500));
        }
    }
    if args.part.contains(&Part::Closed) {
        cases.extend([
            Case::closed(100, 20, 1),
            Case::closed(100, 3, 32),
            Case::closed(100, 20, 32),
        ]);
        if !args.quick {
            cases.extend([
                Case::closed(100, 3, 1),
                Case::closed(100, 3, 256),
                Case::closed(100, 20, 256),
            ]);
            for size in [10 * 1024, 1024 * 1024] {
                for fields in [3, 20] {
                    let with = |connections| Case::closed(size, fields, connections);
                    cases.extend([1, 32, 256].map(with));
                }
            }
        }
    }
    if args.part.contains(&Part::Grpc) && !args.quick {
        cases.push(Case::grpc(100, 32));
    }
    if args.part.contains(&Part::Bulk) {
        for mtu in [MTU, JUMBO] {
            cases.push(Case::bulk(1, mtu));
            if !args.quick {
                cases.push(Case::bulk(8, mtu));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_say_everything_that_differs() {
        assert_eq!(
            Case::closed(100, 3, 1).title(),
            "100 B, 3 fields, 1 connection"
        );
        assert_eq!(
            Case::closed(1_048_576, 20, 32).title(),
            "1 MiB, 20 fields, 32 connections"
        );
        assert_eq!(Case::bulk(8, 8952).title(), "bulk, 8 streams, MTU 8952");
    }

    #[test]
    fn bulk_goes_through_pairs_that_carry_any_tcp() {
        assert!(Case::bulk(1, 1500).is_for(Kind::WeftL4));
        assert!(!Case::bulk(1, 1500).is_for(Kind::WeftL7));
        assert!(Case::closed(100, 3, 1).is_for(Kind::WeftL7));
    }
}
