//! Who waits for snapshots is found by their drop, once. That no drop is missed beside a look is a model's to show.

mod support;

use internal_key::KeyspaceId;
use support::seqno;
use version_history::KeptForSnapshots;

const ONE: KeyspaceId = KeyspaceId(1);
const OTHER: KeyspaceId = KeyspaceId(2);

#[test]
fn a_note_is_taken_once_by_the_drop_of_a_snapshot_below_it() {
    let kept = KeptForSnapshots::default();
    assert_eq!(kept.take_above(seqno(0)), []);
    assert_eq!(kept.look(ONE, seqno(5), || "what was taken"), "what was taken");
    kept.look(OTHER, seqno(9), || ());
    assert_eq!(kept.take_above(seqno(9)), [], "nothing waits for who reads at or above what was noted");
    assert_eq!(kept.take_above(seqno(5)), [OTHER]);
    assert_eq!(kept.take_above(seqno(5)), []);
    assert_eq!(kept.take_above(seqno(4)), [ONE]);
    assert_eq!(kept.take_above(seqno(0)), []);
}

#[test]
fn a_later_look_takes_back_nothing_that_an_earlier_one_has_noted() {
    let kept = KeptForSnapshots::default();
    kept.look(ONE, seqno(5), || ());
    kept.look(ONE, seqno(3), || ());
    assert_eq!(kept.take_above(seqno(4)), [ONE]);
}
