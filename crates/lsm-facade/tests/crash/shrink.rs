//! Leaves out what a failure does not need.

/// Finds few of the numbers below `count` for which `fails` still says yes, in their order. It does for all of them, and
/// is not asked that again.
///
/// Ever smaller pieces are left out, then single numbers, until none can go.
pub(crate) fn shrink(count: usize, mut fails: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    let mut piece = count.div_ceil(2).max(1);
    loop {
        let mut start = 0;
        let mut less = false;
        while start < kept.len() {
            let end = (start + piece).min(kept.len());
            let without: Vec<usize> = [&kept[..start], &kept[end..]].concat();
            if fails(&without) {
                kept = without;
                less = true;
            } else {
                start = end;
            }
        }
        if piece == 1 && !less {
            return kept;
        }
        piece = piece.div_ceil(2).max(1);
    }
}

#[test]
fn what_a_failure_needs_is_found_whatever_else_stands_around_it() {
    for needed in [vec![], vec![0], vec![3, 17], vec![0, 1, 2, 40, 41, 63]] {
        let mut asked = 0;
        let found = shrink(64, |kept| {
            asked += 1;
            needed.iter().all(|step| kept.contains(step))
        });
        assert_eq!(found, needed);
        assert!(asked < 400, "{asked} times for {needed:?}");
    }
}

#[test]
fn a_failure_that_needs_everything_keeps_everything() {
    assert_eq!(shrink(5, |kept| kept.len() == 5), [0, 1, 2, 3, 4]);
    assert_eq!(shrink(0, |_| true), [0_usize; 0]);
}
