//! Whose a packet is: the first bytes of its destination connection ID.

use weft_env::Rng;

use crate::quic::ID_LEN;

/// What the connection IDs of one process begin with. It tells the processes on one socket apart, and nothing else:
/// the rest of an ID is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; 2]);

impl Tag {
    /// One that is none of `taken`.
    pub(super) fn draw(rng: &mut Rng, taken: &[Self]) -> Self {
        loop {
            let mut tag = [0; 2];
            rng.fill_bytes(&mut tag);
            if !taken.contains(&Self(tag)) {
                return Self(tag);
            }
        }
    }

    /// The tag as a number, to tell another process.
    #[must_use]
    pub fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// The tag of a number.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        Self(number.to_be_bytes())
    }

    /// Marks a connection ID.
    pub(crate) fn mark(self, id: &mut [u8; ID_LEN]) {
        id[..2].copy_from_slice(&self.0);
    }

    /// The tag of a datagram whose destination connection ID may be one of ours. That of a connection's first packet
    /// is the dialler's choice: weft's has 20 bytes, and no tag.
    pub(super) fn of(datagram: &[u8]) -> Option<Self> {
        let id = match datagram.first()? {
            // RFC 9000 §17.3: a short header has no length, so the ID is one of ours.
            first if first & 0x80 == 0 => datagram.get(1..1 + ID_LEN)?,
            // RFC 9000 §17.2: form, version, length of the ID, ID.
            _ if usize::from(*datagram.get(5)?) == ID_LEN => datagram.get(6..6 + ID_LEN)?,
            _ => return None,
        };
        Some(Self([id[0], id[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_where_the_packets_form_has_the_connection_id() {
        let mut id = [9; ID_LEN];
        Tag([1, 2]).mark(&mut id);
        let short = [&[0x40][..], &id, &[0; 20]].concat();
        assert_eq!(Tag::of(&short), Some(Tag([1, 2])));
        let long = |id: &[u8]| {
            let length = u8::try_from(id.len()).unwrap();
            [&[0xe0, 0, 0, 0, 1, length][..], id, &[0; 20]].concat()
        };
        assert_eq!(Tag::of(&long(&id)), Some(Tag([1, 2])));
        assert_eq!(Tag::of(&long(&[7; 20])), None, "a dialler's first packet");
        for whole in [short, long(&id)] {
            for cut in 0..=whole.len() {
                // Nothing is too short to be looked at.
                let _ = Tag::of(&whole[..cut]);
            }
        }
    }

    #[test]
    fn a_new_tag_is_none_of_the_taken() {
        let mut rng = weft_env::Env::system().rng("test");
        let taken: Vec<Tag> = (0..=255)
            .flat_map(|high| (0..=255).map(move |low| Tag([high, low])))
            .filter(|tag| *tag != Tag([3, 4]))
            .collect();
        assert_eq!(Tag::draw(&mut rng, &taken), Tag([3, 4]));
    }
}
