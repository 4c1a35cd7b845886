//! Two ways to a peer, tried so that the better one wins where it exists (RFC 8305's idea).

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use crate::{Carrier, DialError};

/// What is tried first, and for how long alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) first: Carrier,
    pub(crate) lead: Duration,
}

/// Who came first.
#[derive(Debug)]
pub(crate) enum Won<Q, T> {
    Quic(Q),
    Tcp(T),
}

/// Dials both ways. The second begins after the first one's lead, or when the first has failed for want of an answer.
///
/// # Errors
/// Over QUIC an answer that says no is final: UDP passes, and TCP would hear the same. Else why both failed.
pub(crate) async fn race<Q, T>(
    addr: SocketAddr,
    plan: Plan,
    quic: impl Future<Output = Result<Q, DialError>>,
    tcp: impl Future<Output = Result<T, DialError>>,
) -> Result<Won<Q, T>, DialError> {
    let (mut quic, mut tcp, mut lead) = (pin!(quic), pin!(tcp), pin!(sleep(plan.lead)));
    let mut both = plan.lead.is_zero();
    let (mut quic_error, mut tcp_error) = (None, None);
    loop {
        tokio::select! {
            biased;
            done = &mut quic, if quic_error.is_none() && (both || plan.first == Carrier::Quic) => {
                match done {
                    Ok(connection) => return Ok(Won::Quic(connection)),
                    Err(error) if is_answer(&error) => return Err(error),
                    Err(error) => quic_error = Some(error),
                }
            }
            done = &mut tcp, if tcp_error.is_none() && (both || plan.first == Carrier::Tcp) => {
                match done {
                    Ok(connection) => return Ok(Won::Tcp(connection)),
                    Err(error) => tcp_error = Some(error),
                }
            }
            () = &mut lead, if !both => {}
        }
        both = true;
        if let (Some(_), Some(_)) = (&quic_error, &tcp_error)
            && let (Some(quic), Some(tcp)) = (quic_error.take(), tcp_error.take())
        {
            return Err(both_failed(addr, quic, tcp));
        }
    }
}

/// Whether somebody answered: then the way is open, and the answer counts.
fn is_answer(error: &DialError) -> bool {
    !matches!(error, DialError::Timeout { .. } | DialError::Failed { .. })
}

fn both_failed(addr: SocketAddr, quic: DialError, tcp: DialError) -> DialError {
    if is_answer(&tcp) {
        return tcp;
    }
    DialError::Unreachable {
        addr,
        quic: Box::new(quic),
        tcp: Box::new(tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn addr() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn silent() -> DialError {
        DialError::Timeout {
            addr: addr(),
            after: MS,
        }
    }

    async fn after<T>(ms: u32, outcome: Result<T, DialError>) -> Result<T, DialError> {
        sleep(MS * ms).await;
        outcome
    }

    /// Who wins, and when.
    async fn run(
        plan: Plan,
        quic: (u32, Result<(), DialError>),
        tcp: (u32, Result<(), DialError>),
    ) -> (String, u128) {
        let began = Instant::now();
        let raced = race(addr(), plan, after(quic.0, quic.1), after(tcp.0, tcp.1)).await;
        let who = match raced {
            Ok(Won::Quic(())) => "quic".to_owned(),
            Ok(Won::Tcp(())) => "tcp".to_owned(),
            Err(error) => error.reason().to_owned(),
        };
        (who, began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn quic_wins_where_it_passes_and_tcp_where_it_does_not() {
        let busy = || Err(DialError::Busy { addr: addr() });
        let refused = || {
            Err(DialError::Failed {
                addr: addr(),
                cause: "refused".to_owned(),
            })
        };
        let quic_first = Plan {
            first: Carrier::Quic,
            lead: MS * 250,
        };
        let tcp_first = Plan {
            first: Carrier::Tcp,
            ..quic_first
        };
        let together = Plan {
            lead: Duration::ZERO,
            ..quic_first
        };
        let cases = [
            (
                "in time",
                quic_first,
                (40, Ok(())),
                (1, Ok(())),
                ("quic", 40),
            ),
            (
                "far away",
                quic_first,
                (300, Ok(())),
                (80, Ok(())),
                ("quic", 300),
            ),
            (
                "blocked",
                quic_first,
                (2_000, Err(silent())),
                (40, Ok(())),
                ("tcp", 290),
            ),
            (
                "fails at once",
                quic_first,
                (1, refused()),
                (40, Ok(())),
                ("tcp", 41),
            ),
            (
                "an answer is final",
                quic_first,
                (5, busy()),
                (1, Ok(())),
                ("busy", 5),
            ),
            (
                "nobody",
                quic_first,
                (2_000, Err(silent())),
                (1, refused()),
                ("timeout", 2_000),
            ),
            (
                "only tcp answers",
                quic_first,
                (2_000, Err(silent())),
                (9, busy()),
                ("busy", 2_000),
            ),
            (
                "remembered",
                tcp_first,
                (2_000, Err(silent())),
                (40, Ok(())),
                ("tcp", 40),
            ),
            (
                "remembered, wrong",
                tcp_first,
                (40, Ok(())),
                (1, refused()),
                ("quic", 41),
            ),
            (
                "remembered, silent",
                tcp_first,
                (40, Ok(())),
                (2_000, refused()),
                ("quic", 290),
            ),
            (
                "suspected",
                together,
                (2_000, Err(silent())),
                (40, Ok(())),
                ("tcp", 40),
            ),
        ];
        for (name, plan, quic, tcp, (who, at)) in cases {
            assert_eq!(run(plan, quic, tcp).await, (who.to_owned(), at), "{name}");
        }
    }
}
