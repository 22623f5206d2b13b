//! The difference of two texts, line by line, as a failing script prints it.

/// Draws how `found` differs from `expected`: common lines after two spaces, missing ones after `- `, new ones after `+ `.
///
/// Costs the product of the line counts in time and memory: meant for a page of text, not for files.
///
/// ```
/// assert_eq!(test_support::diff::diff("a\nb\nd", "a\nc\nd"), "  a\n- b\n+ c\n  d\n");
/// ```
pub fn diff(expected: &str, found: &str) -> String {
    let left: Vec<&str> = expected.lines().collect();
    let right: Vec<&str> = found.lines().collect();
    // common[i][j]: length of the longest common subsequence of left[i..] and right[j..].
    let mut common = vec![vec![0_usize; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] =
                if left[i] == right[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut drawn) = (0, 0, String::new());
    let mut draw = |sign: &str, line: &str| {
        drawn.push_str(sign);
        drawn.push_str(line);
        drawn.push('\n');
    };
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            draw("  ", left[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || (i < left.len() && common[i + 1][j] >= common[i][j + 1]) {
            draw("- ", left[i]);
            i += 1;
        } else {
            draw("+ ", right[j]);
            j += 1;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn lines_on_one_side_only_are_marked() {
        assert_eq!(diff("", "a"), "+ a\n");
        assert_eq!(diff("a", ""), "- a\n");
        assert_eq!(diff("a\nb\nc", "b\nc\nd"), "- a\n  b\n  c\n+ d\n");
        assert_eq!(diff("same", "same"), "  same\n");
    }
}
