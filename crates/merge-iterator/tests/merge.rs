//! The merge and the visibility against sorted maps, over random sources, seqnos, bounds and moves.

use std::convert::Infallible;
use std::ops::Bound;

use internal_key::{Cursor, InternalKey, Kind, OwnedInternalKey, SeqNo, Trailer};
use merge_iterator::slice::SliceEntry;
use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor, VisibleError};
use proptest::prelude::*;

fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

fn entry(key: &[u8], number: u64, kind: Kind, value: &[u8]) -> SliceEntry {
    (key.to_vec(), Trailer::new(seqno(number), kind), value.to_vec())
}

fn put(key: &str, number: u64) -> SliceEntry {
    entry(key.as_bytes(), number, Kind::Put, format!("{key}@{number}").as_bytes())
}

fn sort(entries: &mut [SliceEntry]) {
    entries.sort_by(|a, b| InternalKey::new(&a.0, a.1).cmp(&InternalKey::new(&b.0, b.1)));
}

/// Few keys with many versions, some sharing their head, some differing in trailing zeros only.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(vec![0u8, 1]), 0..4),
        prop::sample::select(vec![&b"same head a"[..], b"same head b", b"same hea", b"same head", b"\xff"])
            .prop_map(<[u8]>::to_vec),
    ]
}

/// Entries of distinct seqnos, each dealt to one of a few sources.
fn sources() -> impl Strategy<Value = Vec<Vec<SliceEntry>>> {
    let one = (keys(), prop::sample::select(vec![Kind::Put, Kind::Put, Kind::Delete, Kind::SingleDelete]), 0usize..5);
    (prop::collection::vec(one, 0..80), 1usize..6).prop_map(|(dealt, count)| {
        let mut sources = vec![Vec::new(); count];
        for (at, (key, kind, source)) in dealt.into_iter().enumerate() {
            // From 0 on: compaction may one day write zeros.
            let value = if kind == Kind::Put { at.to_string() } else { String::new() };
            sources[source % count].push(entry(&key, at as u64, kind, value.as_bytes()));
        }
        sources.iter_mut().for_each(|source| sort(source));
        sources
    })
}

fn cursors(sources: &[Vec<SliceEntry>]) -> Vec<SliceCursor> {
    sources.iter().map(|source| SliceCursor::new(source.clone())).collect()
}

fn all_sorted(sources: &[Vec<SliceEntry>]) -> Vec<SliceEntry> {
    let mut all = sources.concat();
    sort(&mut all);
    all
}

#[derive(Debug, Clone)]
enum Move {
    First,
    Last,
    Seek(Vec<u8>, u64),
    SeekBefore(Vec<u8>, u64),
    Next(usize),
    Prev(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => (keys(), 0u64..90).prop_map(|(key, at)| Move::Seek(key, at)),
        2 => (keys(), 0u64..90).prop_map(|(key, at)| Move::SeekBefore(key, at)),
        4 => (1usize..6).prop_map(Move::Next),
        4 => (1usize..6).prop_map(Move::Prev),
    ];
    prop::collection::vec(one, 1..40)
}

/// An index into a sorted array that moves as the contract of cursors says.
struct Model {
    len: usize,
    at: Option<usize>,
}

impl Model {
    fn stand(&mut self, at: Option<usize>) {
        self.at = at.filter(|&at| at < self.len);
    }

    fn step(&mut self, forward: bool) {
        self.stand(self.at.and_then(|at| if forward { Some(at + 1) } else { at.checked_sub(1) }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// I1, I2: a merge is a cursor over the sorted sum of its sources, wherever it is sent.
    #[test]
    fn a_merge_moves_as_one_sorted_array_does(sources in sources(), moves in moves()) {
        let all = all_sorted(&sources);
        let mut merge = MergeCursor::new(cursors(&sources));
        let mut model = Model { len: all.len(), at: None };
        prop_assert!(!merge.valid());
        for one in moves {
            let below = |target: InternalKey<'_>| all.partition_point(|e| InternalKey::new(&e.0, e.1) < target);
            let steps = match &one {
                Move::Next(steps) | Move::Prev(steps) => *steps,
                _ => 1,
            };
            for _ in 0..steps {
                let Ok(()) = match &one {
                    Move::First => { model.stand(Some(0)); merge.seek_to_first() }
                    Move::Last => { model.stand(all.len().checked_sub(1)); merge.seek_to_last() }
                    Move::Seek(key, at) => {
                        let target = InternalKey::seek(key, seqno(*at));
                        model.stand(Some(below(target)));
                        merge.seek(target)
                    }
                    Move::SeekBefore(key, at) => {
                        let target = InternalKey::seek(key, seqno(*at));
                        model.stand(below(target).checked_sub(1));
                        merge.seek_before(target)
                    }
                    Move::Next(_) => { model.step(true); merge.next() }
                    Move::Prev(_) => { model.step(false); merge.prev() }
                };
                let stands = merge.valid().then(|| {
                    let Ok(value) = merge.value();
                    let value = value.to_vec();
                    (merge.user_key().to_vec(), merge.trailer(), value)
                });
                prop_assert_eq!(stands.as_ref(), model.at.map(|at| &all[at]));
            }
        }
    }

    /// I4: at every seqno and within any bounds a reader sees what a map built up to that seqno holds, wherever it moves.
    #[test]
    fn a_reader_sees_what_the_writes_up_to_its_seqno_left(
        sources in sources(),
        at in 0u64..85,
        lower in bounds(),
        upper in bounds(),
        moves in moves(),
    ) {
        let mut live = std::collections::BTreeMap::new();
        let mut by_seqno = sources.concat();
        by_seqno.sort_by_key(|entry| entry.1);
        for (key, trailer, value) in by_seqno.into_iter().filter(|entry| entry.1.seqno() <= seqno(at)) {
            match trailer.kind() {
                Kind::Put => live.insert(key, (trailer, value)),
                _ => live.remove(&key),
            };
        }
        let within = |key: &[u8]| (match &lower {
            Bound::Included(bound) => key >= &bound[..],
            Bound::Excluded(bound) => key > &bound[..],
            Bound::Unbounded => true,
        }) && (match &upper {
            Bound::Included(bound) => key <= &bound[..],
            Bound::Excluded(bound) => key < &bound[..],
            Bound::Unbounded => true,
        });
        let all: Vec<_> = live.into_iter().filter(|(key, _)| within(key)).collect();

        let bounds = (lower.as_ref().map(|key| &key[..]), upper.as_ref().map(|key| &key[..]));
        let mut seen = VisibleCursor::new(MergeCursor::new(cursors(&sources)), seqno(at), bounds);
        let mut model = Model { len: all.len(), at: None };
        prop_assert!(!seen.valid());
        for one in moves {
            let steps = match &one {
                Move::Next(steps) | Move::Prev(steps) => *steps,
                _ => 1,
            };
            for _ in 0..steps {
                match &one {
                    Move::First => { model.stand(Some(0)); seen.seek_to_first() }
                    Move::Last => { model.stand(all.len().checked_sub(1)); seen.seek_to_last() }
                    Move::Seek(key, _) => {
                        model.stand(Some(all.partition_point(|row| row.0 < *key)));
                        seen.seek(key)
                    }
                    Move::SeekBefore(key, _) => {
                        model.stand(all.partition_point(|row| row.0 <= *key).checked_sub(1));
                        seen.seek_for_prev(key)
                    }
                    Move::Next(_) => { model.step(true); seen.next() }
                    Move::Prev(_) => { model.step(false); seen.prev() }
                }.unwrap();
                let stands = seen.valid().then(|| {
                    let value = seen.value().unwrap().to_vec();
                    (seen.user_key().to_vec(), (seen.trailer(), value))
                });
                prop_assert_eq!(stands.as_ref(), model.at.map(|at| &all[at]));
            }
        }
    }
}

fn bounds() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        2 => Just(Bound::Unbounded),
        1 => keys().prop_map(Bound::Included),
        1 => keys().prop_map(Bound::Excluded),
    ]
}

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// I1: entries equal in key and trailer come in the order of their sources, and backwards in the opposite one.
#[test]
fn of_equal_entries_the_earlier_source_comes_first() {
    let source = |value: &str| SliceCursor::new([entry(b"k", 1, Kind::Put, value.as_bytes())]);
    let mut merge = MergeCursor::new(vec![source("0"), source("1"), source("2")]);
    let mut walk = |forward: bool| {
        let mut order = Vec::new();
        let Ok(()) = if forward { merge.seek_to_first() } else { merge.seek_to_last() };
        while merge.valid() {
            order.push(merge.source_index().unwrap());
            let Ok(()) = if forward { merge.next() } else { merge.prev() };
        }
        order
    };
    assert_eq!(walk(true), [0, 1, 2]);
    assert_eq!(walk(false), [2, 1, 0]);
}

/// I1: no sources, and empty ones, are a merge of nothing.
#[test]
fn a_merge_of_nothing_stands_nowhere() {
    for sources in [vec![], vec![SliceCursor::new([])], vec![SliceCursor::new([]), SliceCursor::new([])]] {
        let mut merge = MergeCursor::new(sources);
        let Ok(()) = merge.seek_to_first();
        assert!(!merge.valid());
        let Ok(()) = merge.seek_before(InternalKey::seek(b"x", SeqNo::MAX));
        assert!(!merge.valid());
        let (Ok(()), Ok(())) = (merge.next(), merge.prev());
        assert!(!merge.valid() && merge.source_index().is_none());
    }
}

/// I4: thousands of versions of one key are passed by seeks, both ways, and on either side of the reader's seqno.
#[test]
fn many_versions_of_a_key_cost_a_few_steps() {
    let mut entries = vec![put("a", 1), put("z", 1)];
    entries.extend((2..5000).map(|number| put("m", number)));
    sort(&mut entries);
    let counting = Counting { inner: SliceCursor::new(entries), moves: 0 };
    let mut seen = VisibleCursor::new(counting, seqno(2500), ALL);
    let mut forward = Vec::new();
    seen.seek_to_first().unwrap();
    while seen.valid() {
        forward.push(String::from_utf8(seen.value().unwrap().to_vec()).unwrap());
        seen.next().unwrap();
    }
    assert_eq!(forward, ["a@1", "m@2500", "z@1"]);
    seen.seek_to_last().unwrap();
    let mut backward = Vec::new();
    while seen.valid() {
        backward.push(String::from_utf8(seen.value().unwrap().to_vec()).unwrap());
        seen.prev().unwrap();
    }
    forward.reverse();
    assert_eq!(backward, forward);
    assert!(seen.inner().moves < 60, "{} moves for three rows, twice", seen.inner().moves);
}

/// I5: a kind that cannot be read yet is named with its key, from either side, and a seek elsewhere goes on.
#[test]
fn an_unsupported_kind_is_an_error_that_names_the_key() {
    for kind in [Kind::RangeDelete, Kind::Merge, Kind::ValuePointer] {
        let entries = [put("a", 1), entry(b"m", 2, kind, b"operand"), put("z", 3)];
        let mut seen = VisibleCursor::new(SliceCursor::new(entries), seqno(9), ALL);
        let expected = VisibleError::UnsupportedKind { key: b"m"[..].into(), seqno: seqno(2), kind };
        seen.seek_to_first().unwrap();
        assert_eq!(seen.next(), Err(expected.clone()));
        assert!(!seen.valid());
        seen.seek_to_last().unwrap();
        assert_eq!(seen.user_key(), b"z");
        assert_eq!(seen.prev(), Err(expected.clone()));
        assert!(!seen.valid());
        assert_eq!(expected.to_string(), format!("unsupported kind {kind} of key \"m\" at #2"));
        let mut before = VisibleCursor::new(seen.into_inner(), seqno(1), ALL);
        before.seek_to_first().unwrap();
        before.next().unwrap();
        assert!(!before.valid(), "what a reader cannot see is no error to it");
    }
}

/// I4: bounds that exclude each other hold nothing, and a seek outside of bounds lands inside or nowhere.
#[test]
fn bounds_cut_and_inverted_bounds_are_empty() {
    let entries = || SliceCursor::new([put("", 1), put("b", 2), put("d", 3)]);
    let over = |lower, upper| VisibleCursor::new(entries(), seqno(9), (lower, upper));
    let keys = |mut seen: VisibleCursor<SliceCursor>| {
        let mut keys = Vec::new();
        seen.seek_to_first().unwrap();
        while seen.valid() {
            keys.push(String::from_utf8(seen.user_key().to_vec()).unwrap());
            seen.next().unwrap();
        }
        keys
    };
    assert_eq!(keys(over(Bound::Unbounded, Bound::Included(b""))), [""]);
    assert_eq!(keys(over(Bound::Excluded(b""), Bound::Excluded(b"d"))), ["b"]);
    assert_eq!(keys(over(Bound::Unbounded, Bound::Excluded(b""))), [""; 0]);
    assert_eq!(keys(over(Bound::Included(b"d"), Bound::Included(b"b"))), [""; 0]);
    assert_eq!(keys(over(Bound::Excluded(b"b"), Bound::Excluded(b"b"))), [""; 0]);
    let mut seen = over(Bound::Included(b"b"), Bound::Excluded(b"d"));
    seen.seek(b"a").unwrap();
    assert_eq!(seen.user_key(), b"b");
    seen.seek(b"c").unwrap();
    assert!(!seen.valid());
    seen.seek_for_prev(b"x").unwrap();
    assert_eq!(seen.user_key(), b"b");
    seen.seek_for_prev(b"a").unwrap();
    assert!(!seen.valid());
}

/// A cursor that counts how often it was moved.
#[derive(Debug)]
struct Counting {
    inner: SliceCursor,
    moves: usize,
}

/// A cursor that fails at the `n`th move, once.
struct Failing {
    inner: SliceCursor,
    moves_until_failure: usize,
    failed: bool,
}

impl Failing {
    fn moving(&mut self, body: impl FnOnce(&mut SliceCursor) -> Result<(), Infallible>) -> Result<(), &'static str> {
        match self.moves_until_failure.checked_sub(1) {
            Some(left) => self.moves_until_failure = left,
            None if !self.failed => {
                self.failed = true;
                let Ok(()) = self.inner.seek(InternalKey::seek(b"\xff\xff", SeqNo::ZERO));
                return Err("planned");
            }
            None => {}
        }
        let Ok(()) = body(&mut self.inner);
        Ok(())
    }
}

macro_rules! forwarding_cursor {
    ($name:ty, $error:ty, |$self:ident, $body:ident| $moving:expr) => {
        impl Cursor for $name {
            type Error = $error;
            fn valid(&self) -> bool {
                self.inner.valid()
            }
            fn user_key(&self) -> &[u8] {
                self.inner.user_key()
            }
            fn trailer(&self) -> Trailer {
                self.inner.trailer()
            }
            fn value(&mut self) -> Result<&[u8], $error> {
                let Ok(value) = self.inner.value();
                Ok(value)
            }
            forwarding_cursor!(@moves $error, |$self, $body| $moving; seek_to_first() seek_to_last()
                seek(target: InternalKey<'_>) seek_before(target: InternalKey<'_>) next() prev());
        }
    };
    (@moves $error:ty, |$self:ident, $body:ident| $moving:expr; ) => {};
    (@moves $error:ty, |$self:ident, $body:ident| $moving:expr; $method:ident($($arg:ident: $type:ty)?) $($rest:tt)*) => {
        fn $method(&mut self $(, $arg: $type)?) -> Result<(), $error> {
            let $self = self;
            let $body = |inner: &mut SliceCursor| inner.$method($($arg)?);
            $moving
        }
        forwarding_cursor!(@moves $error, |$self, $body| $moving; $($rest)*);
    };
}

forwarding_cursor!(Counting, Infallible, |this, body| {
    this.moves += 1;
    body(&mut this.inner)
});
forwarding_cursor!(Failing, &'static str, |this, body| this.moving(body));

/// I3: whichever move of whichever source fails, the error comes back, nothing is lent after it, and the next seek
/// starts afresh.
#[test]
fn an_error_invalidates_and_a_later_seek_retries() {
    let sources = [vec![put("a", 1), put("d", 4)], vec![put("b", 2), put("e", 5)], vec![put("c", 3)]];
    let walk = |merge: &mut MergeCursor<Failing>| -> Result<Vec<OwnedInternalKey>, &'static str> {
        let mut keys = Vec::new();
        merge.seek_to_first()?;
        while merge.valid() {
            keys.push(merge.key().to_owned());
            merge.next()?;
        }
        merge.seek_to_last()?;
        merge.prev()?;
        merge.next()?;
        Ok(keys)
    };
    let mut failures = 0;
    for failing in 0..sources.len() {
        for moves_until_failure in 0..12 {
            let make = |(index, source): (usize, &Vec<SliceEntry>)| Failing {
                inner: SliceCursor::new(source.clone()),
                moves_until_failure: if index == failing { moves_until_failure } else { usize::MAX },
                failed: false,
            };
            let mut merge = MergeCursor::new(sources.iter().enumerate().map(make).collect());
            match walk(&mut merge) {
                Ok(keys) => assert_eq!(keys.len(), 5, "the failure lies beyond the walk"),
                Err(error) => {
                    failures += 1;
                    assert_eq!(error, "planned");
                    assert!(!merge.valid());
                    assert_eq!(merge.next(), Ok(()), "an invalid merge does not move");
                    assert!(!merge.valid());
                    assert_eq!(walk(&mut merge).map(|keys| keys.len()), Ok(5));
                }
            }
        }
    }
    assert!(failures > 12, "only {failures} failures were reached");
}
