//! Sequence numbers, kinds and the trailer that packs both.

use internal_key::{Kind, Level, SeqNo, TableId, Trailer, UnknownKind};
use proptest::prelude::*;

#[test]
fn kind_numbers_are_on_disk_and_never_change() {
    let numbers: Vec<u8> = Kind::ALL.iter().map(|&kind| kind as u8).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    let names: Vec<String> = Kind::ALL.iter().map(Kind::to_string).collect();
    assert_eq!(names, ["delete", "put", "single-delete", "range-delete", "merge", "value-pointer"]);
    let tombstones: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_tombstone()).collect();
    assert_eq!(tombstones, [Kind::Delete, Kind::SingleDelete]);
}

#[test]
fn an_unknown_kind_is_an_error_and_never_skipped() {
    for number in 0..=u8::MAX {
        let raw = 7 << 8 | u64::from(number);
        match Kind::try_from(number) {
            Ok(kind) => {
                assert_eq!(kind as u8, number);
                assert_eq!(Trailer::from_raw(raw).unwrap().kind(), kind);
            }
            Err(error) => {
                assert!(number > 5);
                assert_eq!(error, UnknownKind { found: number });
                assert_eq!(Trailer::from_raw(raw), Err(error), "also the seek sentinel is never stored");
            }
        }
    }
    assert_eq!(UnknownKind { found: 9 }.to_string(), "unknown entry kind 9: expected 0 to 5");
}

#[test]
fn sequence_numbers_end_at_56_bits() {
    assert_eq!(SeqNo::new(SeqNo::MAX.get()), Some(SeqNo::MAX));
    assert_eq!(SeqNo::new(SeqNo::MAX.get() + 1), None);
    assert_eq!(SeqNo::MAX.checked_add(0), Some(SeqNo::MAX));
    assert_eq!(SeqNo::MAX.checked_add(1), None);
    assert_eq!(SeqNo::ZERO.checked_add(u64::MAX), None, "no wrapping");
    assert_eq!(SeqNo::ZERO.before(), SeqNo::ZERO);
    assert_eq!(SeqNo::new(5).unwrap().before(), SeqNo::new(4).unwrap());
}

#[test]
#[should_panic(expected = "a seek target has no kind")]
fn a_seek_target_has_no_kind() {
    Trailer::seek(SeqNo::ZERO).kind();
}

#[test]
fn names_are_drawn_with_their_prefix_and_levels_end() {
    assert_eq!((TableId(17).to_string(), Level(2).to_string()), ("t17".to_string(), "L2".to_string()));
    let mut levels = vec![Level::ZERO];
    while let Some(below) = levels.last().and_then(|level| level.below()) {
        levels.push(below);
    }
    assert_eq!(levels.len(), Level::COUNT);
    assert_eq!(levels.last(), Some(&Level::LAST));
}

proptest! {
    #[test]
    fn packing_loses_nothing(number in 0..=SeqNo::MAX.get(), kind in prop::sample::select(&Kind::ALL[..])) {
        let seqno = SeqNo::new(number).unwrap();
        let trailer = Trailer::new(seqno, kind);
        prop_assert_eq!((trailer.seqno(), trailer.kind()), (seqno, kind));
        prop_assert_eq!(Trailer::from_raw(trailer.to_raw()), Ok(trailer));
        prop_assert!(trailer < Trailer::seek(seqno), "the sentinel is above every kind");
    }

    /// P11: a batch stored with relative seqnos reads as if it had been written at its base.
    #[test]
    fn rebasing_adds_to_the_seqno_and_keeps_the_kind(
        number in 0..=SeqNo::MAX.get(),
        base in prop_oneof![0..1_000_u64, any::<u64>()],
        kind in prop::sample::select(&Kind::ALL[..]),
    ) {
        let trailer = Trailer::new(SeqNo::new(number).unwrap(), kind);
        let expected = number.checked_add(base).and_then(SeqNo::new).map(|seqno| Trailer::new(seqno, kind));
        prop_assert_eq!(trailer.rebased(base), expected);
    }
}
