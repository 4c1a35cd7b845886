//! So many sessions of one epoch, the oldest of which gives way. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Epoch;

/// Sessions by key, each to be taken once.
pub(super) struct Memory<K, V> {
    most: usize,
    /// Of everything in it; `None` while that is nothing.
    epoch: Option<Epoch>,
    kept: BTreeMap<K, Kept<V>>,
    /// Keys by age.
    ages: BTreeMap<u64, K>,
    next: u64,
}

struct Kept<V> {
    age: u64,
    from: SystemTime,
    until: SystemTime,
    value: V,
}

impl<K: Ord + Clone, V> Memory<K, V> {
    /// Room for `most`; none for zero.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            epoch: None,
            kept: BTreeMap::new(),
            ages: BTreeMap::new(),
            next: 0,
        }
    }

    /// Keeps a value from now until then, in the place of an older one under its key. Gives what had to go for want
    /// of room.
    pub(super) fn put(
        &mut self,
        epoch: Epoch,
        key: K,
        (from, until): (SystemTime, SystemTime),
        value: V,
    ) -> Option<V> {
        self.enter(epoch);
        if self.most == 0 || from >= until {
            return Some(value);
        }
        self.remove(&key);
        let gone = match self.kept.len() < self.most {
            true => None,
            false => self.oldest().and_then(|oldest| self.remove(&oldest)),
        };
        let age = self.next;
        self.next += 1;
        self.ages.insert(age, key.clone());
        let kept = Kept {
            age,
            from,
            until,
            value,
        };
        self.kept.insert(key, kept);
        gone.map(|kept| kept.value)
    }

    /// The value under a key, if it is of this epoch and of this time. It is gone from here either way.
    pub(super) fn take(&mut self, epoch: Epoch, key: &K, now: SystemTime) -> Option<V> {
        self.enter(epoch);
        let kept = self.remove(key)?;
        // A clock that was set back must not make it live longer.
        (kept.from <= now && now < kept.until).then_some(kept.value)
    }

    pub(super) fn remove_value(&mut self, key: &K) -> Option<V> {
        self.remove(key).map(|kept| kept.value)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.ages.clear();
        self.epoch = None;
    }

    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.clear();
            self.epoch = Some(epoch);
        }
    }

    fn oldest(&self) -> Option<K> {
        self.ages.first_key_value().map(|(_, key)| key.clone())
    }

    fn remove(&mut self, key: &K) -> Option<Kept<V>> {
        let kept = self.kept.remove(key)?;
        self.ages.remove(&kept.age);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EPOCH: Epoch = Epoch {
        svid: 1,
        bundles: 1,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const fn epoch(svid: u64, bundles: u64) -> Epoch {
        Epoch { svid, bundles }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut memory = Memory::new(2);
        assert_eq!(memory.put(EPOCH, "a", (at(0), at(9)), 1), None);
        assert_eq!(memory.take(EPOCH, &"a", at(1)), Some(1));
        assert_eq!(memory.take(EPOCH, &"a", at(1)), None);
    }

    #[test]
    fn the_oldest_gives_way_and_the_bound_holds() {
        let mut memory = Memory::new(2);
        for (key, value) in [("a", 1), ("b", 2), ("a", 3)] {
            assert_eq!(memory.put(EPOCH, key, (at(0), at(9)), value), None);
        }
        // "a" was put in anew, so "b" is the oldest.
        assert_eq!(memory.put(EPOCH, "c", (at(0), at(9)), 4), Some(2));
        assert_eq!((memory.len(), memory.ages.len()), (2, 2));
        assert_eq!(memory.take(EPOCH, &"a", at(1)), Some(3));
        let mut none = Memory::new(0);
        assert_eq!(none.put(EPOCH, "a", (at(0), at(9)), 1), Some(1));
        assert_eq!(none.len(), 0);
    }

    #[test]
    fn nothing_outlives_its_time_or_its_epoch() {
        let cases = [
            ("in time", EPOCH, at(5), Some(1)),
            ("the last moment", EPOCH, at(9), None),
            ("a clock that was set back", EPOCH, at(0), None),
            ("another SVID", epoch(2, 1), at(5), None),
            ("other bundles", epoch(1, 2), at(5), None),
        ];
        for (what, now_epoch, now, expected) in cases {
            let mut memory = Memory::new(2);
            memory.put(EPOCH, "a", (at(1), at(9)), 1);
            assert_eq!(memory.take(now_epoch, &"a", now), expected, "{what}");
            assert_eq!(memory.take(EPOCH, &"a", at(5)), None, "{what}, later");
        }
        let mut over = Memory::new(2);
        assert_eq!(over.put(EPOCH, "a", (at(9), at(9)), 1), Some(1), "no time");
    }
}
