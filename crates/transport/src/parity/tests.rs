use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn peer() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 15_008))
}

/// Datagrams of these lengths, which differ from each other.
fn datagrams(lengths: &[usize]) -> Vec<Vec<u8>> {
    let byte = |n: usize, at: usize| (n * 37 + at * 11 + (at >> 8)) as u8 | 0x40;
    let one = |(n, length): (usize, &usize)| {
        let mut datagram: Vec<u8> = (0..*length).map(|at| byte(n, at)).collect();
        let place = datagram.len() - ID;
        datagram[place..].copy_from_slice(&(0x0100_0000 + n as u32).to_be_bytes());
        datagram
    };
    lengths.iter().enumerate().map(one).collect()
}

fn parity_of(sent: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut group = Group::default();
    for datagram in sent {
        group.add(datagram);
    }
    group.pieces(7)
}

/// A receiver that has met parity of this peer before.
fn receiver() -> Memory {
    let mut memory = Memory::default();
    memory.take_from([peer()].into());
    let before = datagrams(&[60, 61]);
    for piece in parity_of(&before) {
        memory.parity(peer(), &piece);
    }
    memory
}

#[test]
fn any_one_of_a_group_is_made_again() {
    let sent = datagrams(&[1_452, 1_452, 1_452, 1_200, 300, 48, 1_452]);
    let pieces = parity_of(&sent);
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| piece.len() <= 1_452));
    for lost in 0..sent.len() {
        let mut memory = receiver();
        for (n, datagram) in sent.iter().enumerate() {
            if n != lost {
                assert_eq!(memory.heard(peer(), datagram), None);
            }
        }
        assert_eq!(memory.parity(peer(), &pieces[1]), None, "half of it");
        let made = memory.parity(peer(), &pieces[0]);
        assert_eq!(made.as_ref(), Some(&sent[lost]), "number {lost}");
        assert_eq!(memory.made(), 1);
        // Nothing is made twice.
        memory.parity(peer(), &pieces[0]);
        assert_eq!(memory.parity(peer(), &pieces[1]), None);
    }
}

#[test]
fn nothing_is_made_where_nothing_is_missing_and_a_late_one_completes_a_group_of_two_gaps() {
    let sent = datagrams(&[1_000, 1_001, 1_002, 1_003]);
    let pieces = parity_of(&sent);
    let mut memory = receiver();
    for datagram in &sent {
        memory.heard(peer(), datagram);
    }
    assert!(pieces.iter().all(|p| memory.parity(peer(), p).is_none()));

    let mut memory = receiver();
    memory.heard(peer(), &sent[0]);
    memory.heard(peer(), &sent[3]);
    assert!(pieces.iter().all(|p| memory.parity(peer(), p).is_none()));
    assert_eq!(memory.heard(peer(), &sent[2]), Some(sent[1].clone()));
}

#[test]
fn strangers_are_not_listened_to_and_nothing_is_kept_before_parity_is_met() {
    let sent = datagrams(&[500, 500, 500]);
    let pieces = parity_of(&sent);
    let mut memory = Memory::default();
    for datagram in &sent[1..] {
        memory.heard(peer(), datagram);
    }
    assert!(pieces.iter().all(|p| memory.parity(peer(), p).is_none()));
    memory.take_from([peer()].into());
    for datagram in &sent[1..] {
        memory.heard(peer(), datagram);
    }
    // The first parity that comes opens the memory; it can make nothing yet.
    assert!(pieces.iter().all(|p| memory.parity(peer(), p).is_none()));
    assert!(memory.takes_from(peer()));
    memory.take_from([].into());
    assert!(!memory.takes_from(peer()));
}

#[test]
fn a_group_has_bounds_and_small_datagrams_are_not_worth_it() {
    let mut group = Group::default();
    group.add(&[0x40; SHORTEST - 1]);
    group.add(&[0x40; LONGEST + 1]);
    assert!(!group.is_worth_it());
    for datagram in datagrams(&[1_400; MOST + 3]) {
        group.add(&datagram);
    }
    assert!(group.is_full());
    let bytes: usize = group.pieces(1).iter().map(Vec::len).sum();
    assert!(bytes <= group.cost() && bytes > 1_400);
    let tiny = parity_of(&datagrams(&[SHORTEST; MOST]));
    assert!(tiny.is_empty(), "its ids are longer than its datagrams");
}

proptest! {
    #[test]
    fn whatever_comes_is_bounded_and_breaks_nothing(
        mut pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20),
    ) {
        let mut memory = receiver();
        for piece in &mut pieces {
            let raw = [&MAGIC[..], piece].concat();
            for made in [memory.parity(peer(), &raw), memory.heard(peer(), piece)].into_iter().flatten() {
                prop_assert!(made.len() <= LONGEST);
            }
        }
    }

    #[test]
    fn the_one_that_is_lost_is_made_whatever_the_lengths(
        lengths in proptest::collection::vec(SHORTEST..=LONGEST, FEWEST..=MOST),
        lost in any::<proptest::sample::Index>(),
    ) {
        let sent = datagrams(&lengths);
        let lost = lost.index(sent.len());
        let mut memory = receiver();
        for (n, datagram) in sent.iter().enumerate() {
            if n != lost {
                memory.heard(peer(), datagram);
            }
        }
        let pieces = parity_of(&sent);
        let mut made = pieces.iter().filter_map(|piece| memory.parity(peer(), piece));
        if !pieces.is_empty() {
            prop_assert_eq!(made.next(), Some(sent[lost].clone()));
        }
    }
}
