//! What sidecars are to know, and how it differs from what one of them was sent last. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde_json::Value;
use weft_wire::{ControlMessage, FrameError, Update};

use crate::store::{Change, Entry, Revision};

/// Prefixes of the store that sidecars see.
pub(crate) const PUSHED: [&str; 4] = ["config/", "endpoint/", "service/", "trust/"];

/// Changed keys remembered for deltas. A session further behind gets everything.
const MAX_LOG_KEYS: usize = 65_536;
/// Encoded updates kept for sessions that stand at the same revision.
const MAX_CACHED: usize = 16;

/// Whether sidecars see this key.
pub(crate) fn is_pushed(key: &str) -> bool {
    PUSHED.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether this key says where instances are: of such changes there are many, and none is worth a push of its own.
pub(crate) fn is_about_places(key: &str) -> bool {
    ["endpoint/", "service/"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// The pushed map at its newest revision, with enough of the past for deltas.
#[derive(Debug, Default)]
pub(crate) struct PushState {
    revision: Revision,
    entries: BTreeMap<String, Value>,
    /// Keys changed by each revision after `log_base`.
    log: VecDeque<(Revision, Vec<String>)>,
    log_base: Revision,
    log_keys: usize,
    /// Frames from a revision (`None`: whole) to the newest.
    cache: BTreeMap<Option<Revision>, Bytes>,
}

impl PushState {
    /// Takes a range of the whole store, at the start or after a gap. What differs becomes one delta.
    pub(crate) fn load(&mut self, revision: Revision, entries: &[Entry]) {
        let next: BTreeMap<String, Value> = entries
            .iter()
            .filter(|entry| is_pushed(&entry.key))
            .filter_map(|entry| Some((entry.key.clone(), parse(&entry.key, &entry.value)?)))
            .collect();
        let mut changed: BTreeSet<&String> = self
            .entries
            .keys()
            .filter(|key| !next.contains_key(*key))
            .collect();
        changed.extend(
            next.iter()
                .filter(|(key, value)| self.entries.get(*key) != Some(value))
                .map(|(key, _)| key),
        );
        let changed = changed.into_iter().cloned().collect();
        if self.revision == 0 {
            self.log_base = revision;
            self.revision = revision;
        } else if revision > self.revision {
            self.remember(revision, changed);
        }
        self.entries = next;
        self.cache.clear();
    }

    /// Takes one transaction of the store. False if sidecars do not see any of it.
    pub(crate) fn apply(&mut self, revision: Revision, changes: &[Change]) -> bool {
        let mut changed = Vec::new();
        for change in changes.iter().filter(|change| is_pushed(&change.key)) {
            let value = change.value.as_ref();
            match value.and_then(|value| parse(&change.key, value)) {
                Some(value) => {
                    self.entries.insert(change.key.clone(), value);
                }
                None => {
                    self.entries.remove(&change.key);
                }
            }
            changed.push(change.key.clone());
        }
        if changed.is_empty() || revision <= self.revision {
            return false;
        }
        self.remember(revision, changed);
        self.cache.clear();
        true
    }

    fn remember(&mut self, revision: Revision, changed: Vec<String>) {
        self.revision = revision;
        self.log_keys += changed.len();
        self.log.push_back((revision, changed));
        while self.log_keys > MAX_LOG_KEYS {
            let Some((oldest, keys)) = self.log.pop_front() else {
                break;
            };
            self.log_base = oldest;
            self.log_keys -= keys.len();
        }
    }

    /// The newest revision that sidecars see.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Values under a prefix, in the order of their keys.
    #[cfg(test)]
    fn keys(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// What takes a sidecar from `sent` (`None`: from nothing) to the newest revision; `None` if it is there.
    pub(crate) fn update_since(&self, sent: Option<Revision>) -> Option<Update> {
        match sent {
            Some(sent) if sent >= self.revision => None,
            Some(sent) if sent >= self.log_base => Some(self.delta(sent)),
            Some(_) | None => Some(Update {
                revision: self.revision,
                whole: true,
                set: self.entries.clone(),
                unset: Vec::new(),
            }),
        }
    }

    fn delta(&self, sent: Revision) -> Update {
        let start = self.log.partition_point(|(revision, _)| *revision <= sent);
        let changed: BTreeSet<&String> = self
            .log
            .range(start..)
            .flat_map(|(_, keys)| keys.iter())
            .collect();
        let mut update = Update {
            revision: self.revision,
            whole: false,
            set: BTreeMap::new(),
            unset: Vec::new(),
        };
        for key in changed {
            match self.entries.get(key) {
                Some(value) => {
                    update.set.insert(key.clone(), value.clone());
                }
                None => update.unset.push(key.clone()),
            }
        }
        update
    }

    /// [`update_since`](Self::update_since) as a frame, encoded once for all sessions at the same revision.
    ///
    /// # Errors
    /// [`FrameError`] if it is too large to be sent.
    pub(crate) fn frame_since(
        &mut self,
        sent: Option<Revision>,
    ) -> Result<Option<(Revision, Bytes)>, FrameError> {
        if let Some(frame) = self.cache.get(&sent) {
            return Ok(Some((self.revision, frame.clone())));
        }
        let Some(update) = self.update_since(sent) else {
            return Ok(None);
        };
        let frame = weft_wire::encode(&ControlMessage::Update(update))?;
        if self.cache.len() < MAX_CACHED {
            self.cache.insert(sent, frame.clone());
        }
        Ok(Some((self.revision, frame)))
    }
}

/// Values are written as JSON by this program; one that is not is left out, with a trace of it.
fn parse(key: &str, value: &[u8]) -> Option<Value> {
    match serde_json::from_slice(value) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(key, %error, "a stored value is not JSON; it is not pushed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, mod_revision: Revision) -> Entry {
        Entry {
            key: key.to_owned(),
            value: Bytes::from(value.to_owned()),
            mod_revision,
        }
    }

    fn put(key: &str, value: &str) -> Change {
        Change {
            key: key.to_owned(),
            value: Some(Bytes::from(value.to_owned())),
        }
    }

    fn gone(key: &str) -> Change {
        Change {
            key: key.to_owned(),
            value: None,
        }
    }

    fn at_five() -> PushState {
        let mut state = PushState::default();
        let entries = [
            entry("config/A/d/x", "1", 3),
            entry("endpoint/d/s/i", "2", 5),
            entry("token/secret", "\"never pushed\"", 4),
        ];
        state.load(5, &entries);
        state
    }

    /// What a sidecar knows after an update.
    fn follow(known: &mut BTreeMap<String, Value>, update: &Update) {
        if update.whole {
            known.clear();
        }
        for key in &update.unset {
            known.remove(key);
        }
        known.extend(update.set.clone());
    }

    #[test]
    fn the_first_update_is_whole_and_only_of_pushed_prefixes() {
        let state = at_five();
        let update = state.update_since(None).unwrap();
        assert!(update.whole);
        assert_eq!(update.revision, 5);
        assert_eq!(state.keys(), ["config/A/d/x", "endpoint/d/s/i"]);
        assert_eq!(update.set.len(), 2);
        assert_eq!(state.update_since(Some(5)), None);
    }

    #[test]
    fn several_revisions_become_one_delta_with_the_newest_values() {
        let mut state = at_five();
        assert!(state.apply(6, &[put("config/A/d/x", "10"), put("config/A/d/y", "11")]));
        assert!(state.apply(7, &[put("config/A/d/x", "12")]));
        assert!(!state.apply(8, &[put("token/other", "1")]), "not pushed");
        assert!(state.apply(9, &[gone("config/A/d/y"), gone("endpoint/d/s/i")]));
        let update = state.update_since(Some(5)).unwrap();
        assert!(!update.whole);
        assert_eq!(update.revision, 9);
        assert_eq!(
            update.set,
            BTreeMap::from([("config/A/d/x".into(), 12.into())])
        );
        assert_eq!(update.unset, ["config/A/d/y", "endpoint/d/s/i"]);
        let late = state.update_since(Some(7)).unwrap();
        assert!(late.set.is_empty());
    }

    #[test]
    fn whoever_follows_deltas_from_any_revision_knows_the_same_as_with_a_whole_update() {
        let mut state = at_five();
        let mut followers: Vec<(Option<Revision>, BTreeMap<String, Value>)> = Vec::new();
        for revision in 6..60_u64 {
            let key = format!("config/A/d/k{}", revision % 7);
            let change = if revision % 3 == 0 {
                gone(&key)
            } else {
                put(&key, &revision.to_string())
            };
            state.apply(revision, &[change]);
            followers.push((None, BTreeMap::new()));
            for (index, (sent, known)) in followers.iter_mut().enumerate() {
                if (revision as usize + index).is_multiple_of(index + 1)
                    && let Some(update) = state.update_since(*sent)
                {
                    follow(known, &update);
                    *sent = Some(update.revision);
                }
            }
        }
        for (sent, known) in &mut followers {
            if let Some(update) = state.update_since(*sent) {
                follow(known, &update);
            }
            assert_eq!(known, &state.entries);
        }
    }

    #[test]
    fn a_session_beyond_the_log_gets_everything() {
        let mut state = at_five();
        for revision in 6..10 {
            let changes: Vec<Change> = (0..MAX_LOG_KEYS / 2)
                .map(|i| put(&format!("config/A/d/k{i}"), "1"))
                .collect();
            state.apply(revision, &changes);
        }
        assert!(state.log_keys <= MAX_LOG_KEYS);
        assert!(state.update_since(Some(5)).unwrap().whole);
        assert!(!state.update_since(Some(8)).unwrap().whole);
    }

    #[test]
    fn a_reload_after_a_gap_is_a_delta_of_what_differs() {
        let mut state = at_five();
        let entries = [
            entry("config/A/d/x", "1", 3),
            entry("config/A/d/new", "9", 20),
        ];
        state.load(30, &entries);
        let update = state.update_since(Some(5)).unwrap();
        assert!(!update.whole);
        assert_eq!(update.revision, 30);
        assert_eq!(update.set.len(), 1);
        assert_eq!(update.unset, ["endpoint/d/s/i"]);
    }

    #[test]
    fn a_delta_is_encoded_once_for_all_sessions_that_need_it() {
        let mut state = at_five();
        state.apply(6, &[put("config/A/d/x", "7")]);
        let (_, first) = state.frame_since(Some(5)).unwrap().unwrap();
        let (revision, second) = state.frame_since(Some(5)).unwrap().unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr(), "the very same bytes");
        assert_eq!(revision, 6);
        state.apply(7, &[put("config/A/d/x", "8")]);
        let (_, third) = state.frame_since(Some(5)).unwrap().unwrap();
        assert_ne!(first, third, "an older frame is not served again");
        assert!(state.frame_since(Some(7)).unwrap().is_none());
    }
}
