//! What the engine must answer, said in the simplest way: every version of every key, kept for ever.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use internal_key::{KeyspaceId, SeqNo, successor_of_prefix};

/// One version of a key: its sequence number, and the value or `None` for a tombstone.
pub type ModelVersion = (SeqNo, Option<Vec<u8>>);

/// A multi-version map for each keyspace. Reads name the seqno that they see; nothing is ever thrown away, except by
/// [`truncate_after`](ReferenceModel::truncate_after).
///
/// Writes come in seqno order, as the engine's do; a batch is its writes with ascending seqnos, so that in a batch the
/// last write of a key wins.
///
/// ```
/// use internal_key::{KeyspaceId, SeqNo};
/// use test_support::ReferenceModel;
///
/// let at = |number| SeqNo::new(number).unwrap();
/// let fruit = KeyspaceId(1);
/// let mut model = ReferenceModel::new();
/// model.create_keyspace(fruit, at(0));
/// model.put(fruit, b"apple", b"red", at(1));
/// model.put(fruit, b"pear", b"green", at(2));
/// model.delete(fruit, b"apple", at(3));
/// assert_eq!(model.get(fruit, b"apple", at(2)), Some(&b"red"[..]));
/// assert_eq!(model.get(fruit, b"apple", at(3)), None);
/// assert_eq!(model.range(fruit, .., at(3)).collect::<Vec<_>>(), [(&b"pear"[..], &b"green"[..])]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferenceModel {
    keyspaces: BTreeMap<KeyspaceId, ModelKeyspace>,
    last_seqno: SeqNo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelKeyspace {
    /// It lives for reads at or above this.
    created: SeqNo,
    /// And below this.
    dropped: Option<SeqNo>,
    /// Versions ascending by seqno.
    keys: BTreeMap<Vec<u8>, Vec<ModelVersion>>,
}

impl ModelKeyspace {
    fn lives_at(&self, at: SeqNo) -> bool {
        self.created <= at && self.dropped.is_none_or(|dropped| at < dropped)
    }
}

/// What a reader at `at` sees of a key with these versions.
fn visible(versions: &[ModelVersion], at: SeqNo) -> Option<&[u8]> {
    let newer = versions.partition_point(|(seqno, _)| *seqno <= at);
    versions[..newer].last()?.1.as_deref()
}

impl ReferenceModel {
    /// A model without keyspaces.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest seqno that anything was done with.
    pub fn last_seqno(&self) -> SeqNo {
        self.last_seqno
    }

    /// A keyspace begins to exist, empty, for reads at or above `at`.
    ///
    /// # Panics
    /// If the id was ever used: ids are not reused.
    pub fn create_keyspace(&mut self, keyspace: KeyspaceId, at: SeqNo) {
        self.advance(at);
        let created = ModelKeyspace { created: at, dropped: None, keys: BTreeMap::new() };
        assert!(self.keyspaces.insert(keyspace, created).is_none(), "{keyspace} was used before");
    }

    /// A keyspace ceases to exist for reads at or above `at`; below, it answers as before.
    ///
    /// # Panics
    /// If it does not live.
    pub fn drop_keyspace(&mut self, keyspace: KeyspaceId, at: SeqNo) {
        self.living(keyspace, at).dropped = Some(at);
    }

    /// Whether a keyspace lives for a reader at `at`.
    pub fn exists(&self, keyspace: KeyspaceId, at: SeqNo) -> bool {
        self.keyspaces.get(&keyspace).is_some_and(|keyspace| keyspace.lives_at(at))
    }

    /// The keyspaces that live for a reader at `at`, by id.
    pub fn keyspaces(&self, at: SeqNo) -> impl Iterator<Item = KeyspaceId> {
        self.keyspaces.iter().filter(move |(_, keyspace)| keyspace.lives_at(at)).map(|(id, _)| *id)
    }

    /// `key` has `value` from `seqno` on.
    ///
    /// # Panics
    /// If the keyspace does not live, or `seqno` is not above the key's newest version.
    pub fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8], seqno: SeqNo) {
        self.write(keyspace, key, Some(value.to_vec()), seqno);
    }

    /// `key` has no value from `seqno` on. Deleting what does not exist is legal.
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn delete(&mut self, keyspace: KeyspaceId, key: &[u8], seqno: SeqNo) {
        self.write(keyspace, key, None, seqno);
    }

    /// No key of the keyspace has a value from `seqno` on; below, it answers as before (P12).
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn clear(&mut self, keyspace: KeyspaceId, seqno: SeqNo) {
        for versions in self.living(keyspace, seqno).keys.values_mut() {
            if versions.last().is_some_and(|(_, value)| value.is_some()) {
                push_version(versions, seqno, None);
            }
        }
    }

    /// Forgets everything that was done above `seqno`: what a crash may do to what was never synced.
    pub fn truncate_after(&mut self, seqno: SeqNo) {
        self.keyspaces.retain(|_, keyspace| keyspace.created <= seqno);
        for keyspace in self.keyspaces.values_mut() {
            keyspace.dropped = keyspace.dropped.filter(|dropped| *dropped <= seqno);
            keyspace.keys.retain(|_, versions| {
                versions.retain(|(version, _)| *version <= seqno);
                !versions.is_empty()
            });
        }
        self.last_seqno = self.last_seqno.min(seqno);
    }

    /// The value of `key` for a reader at `at`; `None` where the keyspace does not live.
    pub fn get(&self, keyspace: KeyspaceId, key: &[u8], at: SeqNo) -> Option<&[u8]> {
        let keyspace = self.keyspaces.get(&keyspace).filter(|keyspace| keyspace.lives_at(at))?;
        visible(keyspace.keys.get(key)?, at)
    }

    /// Every version of `key`, tombstones included, ascending by seqno: what compaction must keep or may drop (C2).
    pub fn versions(&self, keyspace: KeyspaceId, key: &[u8]) -> &[ModelVersion] {
        self.keyspaces.get(&keyspace).and_then(|keyspace| keyspace.keys.get(key)).map_or(&[], Vec::as_slice)
    }

    /// What a reader at `at` sees in `range`, in key order, from either end. An inverted range is empty.
    pub fn range(
        &self,
        keyspace: KeyspaceId,
        range: impl RangeBounds<Vec<u8>>,
        at: SeqNo,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        let keyspace = self.keyspaces.get(&keyspace).filter(|keyspace| keyspace.lives_at(at));
        let bounds = (as_bytes(range.start_bound()), as_bytes(range.end_bound()));
        let keys = keyspace.filter(|_| !is_empty(&bounds)).map(|keyspace| keyspace.keys.range::<[u8], _>(bounds));
        keys.into_iter().flatten().filter_map(move |(key, versions)| Some((key.as_slice(), visible(versions, at)?)))
    }

    /// What a reader at `at` sees under `prefix`, in key order, from either end.
    pub fn prefix(
        &self,
        keyspace: KeyspaceId,
        prefix: &[u8],
        at: SeqNo,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        let end = successor_of_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.range(keyspace, (Bound::Included(prefix.to_vec()), end), at)
    }

    fn write(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<Vec<u8>>, seqno: SeqNo) {
        push_version(self.living(keyspace, seqno).keys.entry(key.to_vec()).or_default(), seqno, value);
    }

    fn living(&mut self, keyspace: KeyspaceId, at: SeqNo) -> &mut ModelKeyspace {
        self.advance(at);
        let found = self.keyspaces.get_mut(&keyspace).filter(|keyspace| keyspace.lives_at(at));
        found.unwrap_or_else(|| panic!("{keyspace} does not live at {at}"))
    }

    fn advance(&mut self, to: SeqNo) {
        self.last_seqno = self.last_seqno.max(to);
    }
}

fn push_version(versions: &mut Vec<ModelVersion>, seqno: SeqNo, value: Option<Vec<u8>>) {
    assert!(versions.last().is_none_or(|(newest, _)| *newest < seqno), "versions come in seqno order: {seqno}");
    versions.push((seqno, value));
}

fn as_bytes(bound: Bound<&Vec<u8>>) -> Bound<&[u8]> {
    bound.map(Vec::as_slice)
}

/// Whether the bounds are ones that `BTreeMap::range` refuses or that hold nothing anyway.
fn is_empty(bounds: &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyGenerator, for_each_seed};

    const KS: KeyspaceId = KeyspaceId(3);

    fn at(number: u64) -> SeqNo {
        SeqNo::new(number).unwrap()
    }

    fn keys(model: &ReferenceModel, seqno: u64) -> Vec<&[u8]> {
        model.range(KS, .., at(seqno)).map(|(key, _)| key).collect()
    }

    #[test]
    fn readers_see_their_own_seqno() {
        let mut model = ReferenceModel::new();
        model.create_keyspace(KS, at(0));
        model.put(KS, b"a", b"1", at(1));
        model.put(KS, b"a", b"2", at(2));
        model.delete(KS, b"a", at(4));
        let seen: Vec<_> = (0..6).map(|number| model.get(KS, b"a", at(number))).collect();
        assert_eq!(seen, [None, Some(&b"1"[..]), Some(&b"2"[..]), Some(&b"2"[..]), None, None]);
        assert_eq!(model.versions(KS, b"a").len(), 3);
    }

    #[test]
    fn a_clear_hides_what_was_and_nothing_that_comes() {
        let mut model = ReferenceModel::new();
        model.create_keyspace(KS, at(0));
        model.put(KS, b"a", b"1", at(1));
        model.put(KS, b"b", b"1", at(2));
        model.clear(KS, at(3));
        model.put(KS, b"b", b"2", at(4));
        assert_eq!(keys(&model, 2), [b"a", b"b"]);
        assert_eq!(keys(&model, 3), Vec::<&[u8]>::new());
        assert_eq!(keys(&model, 4), [b"b"]);
    }

    #[test]
    fn a_dropped_keyspace_answers_older_readers_only() {
        let mut model = ReferenceModel::new();
        model.create_keyspace(KS, at(1));
        model.put(KS, b"a", b"1", at(2));
        model.drop_keyspace(KS, at(3));
        assert!(!model.exists(KS, at(0)) && model.exists(KS, at(2)) && !model.exists(KS, at(3)));
        assert_eq!(keys(&model, 2), [b"a"]);
        assert_eq!(keys(&model, 3), Vec::<&[u8]>::new());
        assert_eq!(model.keyspaces(at(2)).collect::<Vec<_>>(), [KS]);
        model.truncate_after(at(2));
        assert!(model.exists(KS, at(9)), "the drop was undone");
        assert_eq!(model.last_seqno(), at(2));
    }

    #[test]
    fn truncation_equals_never_having_written() {
        for_each_seed(0..20, |rng| {
            let generator = KeyGenerator::up_to(8, rng);
            let mut whole = ReferenceModel::new();
            whole.create_keyspace(KS, at(0));
            let cut = rng.within(1..200);
            let mut until_cut = None;
            for number in 1..200 {
                match rng.below(10) {
                    0 => whole.clear(KS, at(number)),
                    1..4 => whole.delete(KS, &generator.key(rng), at(number)),
                    _ => whole.put(KS, &generator.key(rng), b"v", at(number)),
                }
                if number == cut {
                    until_cut = Some(whole.clone());
                }
            }
            whole.truncate_after(at(cut));
            assert_eq!(Some(whole), until_cut);
        });
    }

    #[test]
    fn a_range_is_the_filter_of_all_keys() {
        for_each_seed(0..20, |rng| {
            let generator = KeyGenerator::up_to(10, rng);
            let mut model = ReferenceModel::new();
            model.create_keyspace(KS, at(0));
            for number in 1..100 {
                model.put(KS, &generator.key(rng), b"v", at(number));
            }
            for _ in 0..50 {
                let range = generator.range(rng);
                let expected: Vec<_> =
                    keys(&model, 99).into_iter().filter(|key| range.contains(&key.to_vec())).collect();
                let forward: Vec<_> = model.range(KS, range.clone(), at(99)).map(|(key, _)| key).collect();
                let backward: Vec<_> = model.range(KS, range, at(99)).rev().map(|(key, _)| key).collect();
                assert_eq!(forward, expected);
                assert_eq!(backward, expected.into_iter().rev().collect::<Vec<_>>());
                let prefix = generator.prefix(rng);
                let expected: Vec<_> = keys(&model, 99).into_iter().filter(|key| key.starts_with(&prefix)).collect();
                assert_eq!(model.prefix(KS, &prefix, at(99)).map(|(key, _)| key).collect::<Vec<_>>(), expected);
            }
        });
    }

    #[test]
    #[should_panic(expected = "seqno order")]
    fn writes_out_of_order_are_refused() {
        let mut model = ReferenceModel::new();
        model.create_keyspace(KS, at(0));
        model.put(KS, b"a", b"1", at(2));
        model.put(KS, b"a", b"1", at(2));
    }
}
