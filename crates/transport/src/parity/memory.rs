//! The receiver's side: what came, and what can be made of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::{ID, Told, id, is_fit, mix, piece, told};

/// Datagrams kept of a path: some milliseconds of what parity is given for.
const KEPT: usize = 64;
/// Groups that lack more than one datagram, kept because those may just be late.
const OPEN: usize = 4;
/// Paths of which anything is kept: 100 KB each.
const MOST_PATHS: usize = 128;

/// What arrived lately on paths whose peers send parity.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Whose parity is taken: live peers that agreed on it.
    from: BTreeSet<SocketAddr>,
    paths: BTreeMap<SocketAddr, Path>,
    made: u64,
}

/// Of one path, since its first parity.
#[derive(Debug, Default)]
struct Path {
    recent: VecDeque<Vec<u8>>,
    /// A message of which a piece is missing.
    half: Option<Half>,
    open: VecDeque<Told>,
}

#[derive(Debug)]
struct Half {
    number: u16,
    index: usize,
    part: Vec<u8>,
}

impl Memory {
    /// Takes parity from these alone, from now on.
    pub(crate) fn take_from(&mut self, peers: BTreeSet<SocketAddr>) {
        self.paths.retain(|path, _| peers.contains(path));
        self.from = peers;
    }

    pub(crate) fn takes_from(&self, peer: SocketAddr) -> bool {
        self.from.contains(&peer)
    }

    /// Datagrams that were made again.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// A datagram of QUIC came. Whatever it completes is in the answer.
    pub(crate) fn heard(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let path = self.paths.get_mut(&from)?;
        if !is_fit(datagram) {
            return None;
        }
        path.keep(datagram.to_vec());
        let made = path.try_again(id(datagram))?;
        self.made += 1;
        Some(made)
    }

    /// A piece of parity came. What was lost is in the answer, if it is one datagram and the parity is whole.
    pub(crate) fn parity(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        if !self.from.contains(&from)
            || (self.paths.len() >= MOST_PATHS && !self.paths.contains_key(&from))
        {
            return None;
        }
        let piece = piece(datagram)?;
        let path = self.paths.entry(from).or_default();
        let message = match piece.pieces {
            1 => piece.part.to_vec(),
            _ => path.whole(piece.number, piece.index, piece.part)?,
        };
        let made = path.make(told(&message)?)?;
        self.made += 1;
        Some(made)
    }
}

impl Path {
    fn keep(&mut self, datagram: Vec<u8>) {
        if self.recent.len() >= KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(datagram);
    }

    /// The message of two pieces, when the second one is here.
    fn whole(&mut self, number: u16, index: usize, part: &[u8]) -> Option<Vec<u8>> {
        match self.half.take() {
            Some(half) if half.number == number && half.index != index => {
                let (first, second) = match index {
                    0 => (part, &half.part[..]),
                    _ => (&half.part[..], part),
                };
                Some([first, second].concat())
            }
            _ => {
                self.half = Some(Half {
                    number,
                    index,
                    part: part.to_vec(),
                });
                None
            }
        }
    }

    /// The one that is missing. A group that lacks more is kept for a while.
    fn make(&mut self, told: Told) -> Option<Vec<u8>> {
        let mut known: BTreeMap<[u8; ID], &[u8]> = BTreeMap::new();
        for datagram in &self.recent {
            known.insert(id(datagram), datagram);
        }
        let missing = told.ids.iter().filter(|id| !known.contains_key(*id));
        match missing.count() {
            0 => None,
            1 => {
                let (mut sum, mut length) = (told.sum, told.lengths);
                for datagram in told.ids.iter().filter_map(|id| known.get(id)) {
                    mix(&mut sum, datagram);
                    length ^= datagram.len() as u16;
                }
                sum.truncate(usize::from(length));
                let made = (is_fit(&sum) && sum.len() == usize::from(length)).then_some(sum)?;
                self.keep(made.clone());
                Some(made)
            }
            _ => {
                if self.open.len() >= OPEN {
                    self.open.pop_front();
                }
                self.open.push_back(told);
                None
            }
        }
    }

    /// One that was late has come: perhaps its group lacks but one now.
    fn try_again(&mut self, came: [u8; ID]) -> Option<Vec<u8>> {
        let place = self.open.iter().position(|told| told.ids.contains(&came))?;
        let told = self.open.remove(place)?;
        self.make(told)
    }
}
