//! The one order, checked against its definition.

use std::cmp::{Ordering, Reverse};

use internal_key::{InternalKey, Kind, OwnedInternalKey, SeqNo, Trailer, key_head, successor_of_prefix};
use proptest::prelude::*;

/// Short keys over few bytes: many are equal, or prefixes of each other.
fn user_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(b'a'), Just(0xFE), Just(0xFF)];
    prop::collection::vec(byte, 0..12)
}

fn entry_key() -> impl Strategy<Value = OwnedInternalKey> {
    let seqno = prop_oneof![0..4_u64, Just(SeqNo::MAX.get())];
    (user_key(), seqno, prop::sample::select(&Kind::ALL[..])).prop_map(|(user_key, seqno, kind)| {
        let trailer = Trailer::new(SeqNo::new(seqno).unwrap(), kind);
        OwnedInternalKey { user_key: user_key.into(), trailer }
    })
}

proptest! {
    #[test]
    fn user_key_ascends_then_seqno_descends_then_kind_descends(left in entry_key(), right in entry_key()) {
        let sort_key = |key: &OwnedInternalKey| {
            (key.user_key.to_vec(), Reverse(key.trailer.seqno()), Reverse(key.trailer.kind()))
        };
        prop_assert_eq!(left.cmp(&right), sort_key(&left).cmp(&sort_key(&right)));
        prop_assert_eq!(left.borrow().cmp(&right.borrow()), left.cmp(&right), "owned and borrowed agree");
        prop_assert_eq!(left == right, left.cmp(&right) == Ordering::Equal);
        prop_assert_eq!(left.borrow().to_owned(), left);
    }

    /// A reader lands on the newest version that it may see: everything before the target is an earlier key or newer.
    #[test]
    fn a_seek_target_parts_newer_versions_from_visible_ones(entry in entry_key(), key in user_key(), at in 0..5_u64) {
        let at = SeqNo::new(at).unwrap();
        let target = InternalKey::seek(&key, at);
        let before = *entry.user_key < *key || (*entry.user_key == *key && entry.trailer.seqno() > at);
        prop_assert_eq!(entry.borrow() < target, before);
        prop_assert_ne!(entry.borrow(), target, "no entry equals a seek target");
    }

    #[test]
    fn unequal_heads_decide_the_order(left in user_key(), right in user_key()) {
        match key_head(&left).cmp(&key_head(&right)) {
            Ordering::Equal => {
                let common = left.len().min(right.len()).min(8);
                prop_assert_eq!(&left[..common], &right[..common], "equal heads mean equal beginnings");
            }
            decided => prop_assert_eq!(decided, left.cmp(&right)),
        }
    }

    #[test]
    fn the_successor_of_a_prefix_is_the_least_key_above_all_that_begin_so(prefix in user_key(), key in user_key()) {
        match successor_of_prefix(&prefix) {
            Some(successor) => {
                let in_range = *key >= *prefix && *key < *successor;
                prop_assert_eq!(in_range, key.starts_with(&prefix));
            }
            None => {
                prop_assert!(prefix.iter().all(|&byte| byte == 0xFF));
                prop_assert_eq!(key >= prefix, key.starts_with(&prefix));
            }
        }
    }
}

#[test]
fn keys_are_drawn_as_golden_scripts_write_them() {
    let key =
        |bytes, number, kind| InternalKey::new(bytes, Trailer::new(SeqNo::new(number).unwrap(), kind)).to_string();
    assert_eq!(key(b"a", 9, Kind::Delete), "a#9 delete");
    assert_eq!(key(b"", 0, Kind::Put), "#0 put");
    assert_eq!(key(b"\x00\xffz", 7, Kind::Merge), "\\x00\\xffz#7 merge");
    assert_eq!(format!("{:?}", InternalKey::seek(b"a", SeqNo::ZERO)), "a#0 seek");
}
