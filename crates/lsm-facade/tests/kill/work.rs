//! What the children write: commit `n` of a writer is decided by the seed, the writer and `n` alone.

use std::collections::BTreeMap;

use test_support::Rng;

/// Threads that write, each its own keys.
pub(crate) const WRITERS: usize = 2;

/// The keyspaces. Every commit is one batch that does the same in both.
pub(crate) const NAMES: [&str; 2] = ["left", "right"];

/// What a keyspace holds.
pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// One commit: what is put or removed, in order.
pub(crate) struct Commit {
    pub(crate) entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Whether its writer waits until it would survive a power cut too.
    pub(crate) synced: bool,
}

/// Where the number of a writer's last commit stands.
pub(crate) fn last_key(writer: usize) -> Vec<u8> {
    format!("{writer}/last").into_bytes()
}

/// The writer's commit of that number, counted from 1.
pub(crate) fn commit(seed: u64, writer: usize, number: u64) -> Commit {
    let mut rng = Rng::new(seed ^ ((writer as u64) << 56) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Seldom so many that the batch becomes a table of its own (P11).
    let count = if rng.one_in(50) { rng.within(80..160) } else { rng.within(1..6) };
    let mut entries: Vec<_> = (0..count)
        .map(|_| {
            let key = format!("{writer}/{:04}", rng.below(400)).into_bytes();
            let len = rng.below(300) as usize;
            (key, (!rng.one_in(5)).then(|| rng.bytes(len)))
        })
        .collect();
    entries.push((last_key(writer), Some(number.to_be_bytes().to_vec())));
    Commit { entries, synced: rng.one_in(20) }
}

/// Does to `contents` what the commit does to each keyspace.
pub(crate) fn apply(seed: u64, writer: usize, number: u64, contents: &mut Contents) {
    for (key, value) in commit(seed, writer, number).entries {
        match value {
            Some(value) => contents.insert(key, value),
            None => contents.remove(&key),
        };
    }
}

/// The number of the writer's last commit in there; 0 for none.
pub(crate) fn last_commit(contents: &Contents, writer: usize) -> u64 {
    let bytes = contents.get(&last_key(writer));
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.as_slice().try_into().expect("a number of 8 bytes")))
}

/// The first key that is not the same in both.
pub(crate) fn first_difference(left: &Contents, right: &Contents) -> Option<Vec<u8>> {
    left.keys().chain(right.keys()).find(|key| left.get(*key) != right.get(*key)).cloned()
}

#[test]
fn a_commit_is_the_same_whenever_it_is_asked_for_and_unlike_the_next() {
    let once = commit(1, 0, 7).entries;
    assert!(once == commit(1, 0, 7).entries && once != commit(1, 0, 8).entries && once != commit(1, 1, 7).entries);
    let mut contents = Contents::new();
    apply(1, 0, 7, &mut contents);
    assert_eq!((last_commit(&contents, 0), last_commit(&contents, 1)), (7, 0));
    assert_eq!(first_difference(&contents, &contents.clone()), None);
    assert_eq!(first_difference(&contents, &Contents::new()), contents.keys().next().cloned());
}
