//! Parity beneath QUIC: for a few datagrams that were sent, one more, from which any one of them can be made again.
//!
//! A message of many packets is too large to be sent twice ([`crate::copies`]), and waits a round trip and more if one
//! of them is lost. Parity costs an eighth of it. The receiver keeps the last datagrams of such a path; when parity
//! names one that it lacks, it puts that one together and hands it to QUIC, which authenticates it like any other:
//! forged parity makes a datagram that no key opens.
//!
//! Pure: [`Group`] is the sender's side, [`Memory`] the receiver's. The form is in `docs/adr/0017-parity.md`:
//!
//! ```text
//! datagram:  MAGIC (8)  group (2)  piece (1)  pieces (1)  part of the message
//! message:   count (1)  XOR of lengths (2)  id (4) x count  XOR of the datagrams, each filled up with zeros
//! ```
//!
//! A datagram's id is its last four bytes: they belong to the tag of QUIC's packet protection (RFC 9001 §5.3), which is
//! as good as random. A message is as long as the longest datagram and a little more, so it usually takes two pieces,
//! the first one as long as that datagram: it fits the path if that one did.

mod memory;

pub(crate) use memory::Memory;

/// No QUIC packet begins like this: it would be one of a short header without its fixed bit (RFC 9287) for a connection
/// with just this ID, and those are drawn at random.
pub(crate) const MAGIC: [u8; 8] = *b"\x1fwparity";
/// Bytes before a piece of the message.
const HEADER: usize = MAGIC.len() + 4;
/// Datagrams of a group. Of fewer than two parity would be a copy.
const FEWEST: usize = 2;
pub(crate) const MOST: usize = 16;
const MOST_PIECES: usize = 2;
/// The shortest datagram that has an id: QUIC's are never shorter (RFC 9001 §5.4.2).
const SHORTEST: usize = 20;
/// The longest that is protected: Ethernet's. Where frames are larger, nothing is so far away that it needs parity.
pub(crate) const LONGEST: usize = 1_500;
const ID: usize = 4;

/// What a datagram is known by.
fn id(datagram: &[u8]) -> [u8; ID] {
    datagram
        .last_chunk::<ID>()
        .copied()
        .expect("only datagrams of at least SHORTEST bytes are looked at")
}

/// Whether it can be part of a group.
fn is_fit(datagram: &[u8]) -> bool {
    (SHORTEST..=LONGEST).contains(&datagram.len()) && !is_parity(datagram)
}

/// Whether it is a piece of parity.
pub(crate) fn is_parity(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// `sum` becomes the XOR of both, the shorter one filled up with zeros.
fn mix(sum: &mut Vec<u8>, with: &[u8]) {
    if sum.len() < with.len() {
        sum.resize(with.len(), 0);
    }
    for (sum, byte) in sum.iter_mut().zip(with) {
        *sum ^= byte;
    }
}

/// Datagrams that were sent, as far as their parity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    ids: Vec<[u8; ID]>,
    lengths: u16,
    sum: Vec<u8>,
}

impl Group {
    /// Takes one in. One that cannot be part of a group is passed over.
    pub(crate) fn add(&mut self, datagram: &[u8]) {
        if !is_fit(datagram) || self.is_full() {
            return;
        }
        self.ids.push(id(datagram));
        self.lengths ^= datagram.len() as u16;
        mix(&mut self.sum, datagram);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ids.len() >= MOST
    }

    /// Whether it is worth parity.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.ids.len() >= FEWEST
    }

    /// Bytes that its parity takes, headers of IP and UDP left out.
    pub(crate) fn cost(&self) -> usize {
        3 + ID * self.ids.len() + self.sum.len() + MOST_PIECES * HEADER
    }

    /// Its parity, as datagrams. `number` tells the pieces of one group from those of others.
    pub(crate) fn pieces(&self, number: u16) -> Vec<Vec<u8>> {
        let mut message = Vec::with_capacity(3 + ID * self.ids.len() + self.sum.len());
        message.push(self.ids.len() as u8);
        message.extend_from_slice(&self.lengths.to_be_bytes());
        message.extend(self.ids.iter().flatten());
        message.extend_from_slice(&self.sum);
        // No piece is longer than a datagram that was just sent that way.
        let room = self.sum.len().saturating_sub(HEADER).max(1);
        let parts: Vec<&[u8]> = message.chunks(room).collect();
        if parts.len() > MOST_PIECES {
            // Of small datagrams the ids alone are longer than two of them.
            return Vec::new();
        }
        let piece = |(index, part): (usize, &&[u8])| {
            let mut datagram = Vec::with_capacity(HEADER + part.len());
            datagram.extend_from_slice(&MAGIC);
            datagram.extend_from_slice(&number.to_be_bytes());
            datagram.extend_from_slice(&[index as u8, parts.len() as u8]);
            datagram.extend_from_slice(part);
            datagram
        };
        parts.iter().enumerate().map(piece).collect()
    }
}

/// A piece of parity, taken apart. `None` of what is not in form.
pub(crate) fn piece(datagram: &[u8]) -> Option<Piece<'_>> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    let (number, rest) = rest.split_first_chunk::<2>()?;
    let ([index, pieces], part) = rest.split_first_chunk::<2>()?;
    let (index, pieces) = (usize::from(*index), usize::from(*pieces));
    let fits = (1..=MOST_PIECES).contains(&pieces) && index < pieces && !part.is_empty();
    (fits && part.len() <= LONGEST).then_some(Piece {
        number: u16::from_be_bytes(*number),
        index,
        pieces,
        part,
    })
}

/// A part of a group's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    number: u16,
    index: usize,
    pieces: usize,
    part: &'a [u8],
}

/// A group as its parity tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    ids: Vec<[u8; ID]>,
    lengths: u16,
    sum: Vec<u8>,
}

/// Reads a whole message. `None` of what is not in form.
fn told(message: &[u8]) -> Option<Told> {
    let (count, rest) = message.split_first()?;
    let (lengths, rest) = rest.split_first_chunk::<2>()?;
    let count = usize::from(*count);
    if !(FEWEST..=MOST).contains(&count) {
        return None;
    }
    let (ids, sum) = rest.split_at_checked(count * ID)?;
    let (ids, _) = ids.as_chunks::<ID>();
    (SHORTEST..=LONGEST).contains(&sum.len()).then(|| Told {
        ids: ids.to_vec(),
        lengths: u16::from_be_bytes(*lengths),
        sum: sum.to_vec(),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
