//! The main job, on a small tree: whole, killed in the middle, and on damaged content.

mod command;

use std::path::PathBuf;

use command::{Place, lsm, start_and_stop_in_the_middle};

/// A tree of `files` files of 100 lines.
fn sources(place: &Place, files: u32) -> PathBuf {
    let root = place.dir.path().join("tree");
    for file in 0..files {
        let dir = root.join(format!("part {}", file % 7));
        std::fs::create_dir_all(&dir).unwrap();
        let lines: String = (0..100).map(|line| format!("line {line} of file {file}\n")).collect();
        std::fs::write(dir.join(format!("{file}.txt")), lines).unwrap();
    }
    std::fs::write(root.join("latin-1.txt"), b"caf\xe9\n\n\xff").unwrap();
    root
}

fn arguments<'a>(tree: &'a str, db: &'a str) -> Vec<&'a str> {
    vec!["demo", "--sources", tree, "--dir", db, "--entries-min", "1"]
}

#[test]
fn every_line_of_a_tree_is_compared() {
    let place = Place::new();
    let tree = sources(&place, 20);
    let ran = lsm(["demo", "--entries-min", "2003", "--sources", tree.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.ends_with("equal       2,003 entries, each by a get and by two scans\n"), "{}", ran.out);
    let ran = lsm(["demo", "--entries-min", "2004", "--sources", tree.to_str().unwrap()]);
    assert!(ran.fails(3).contains("found 2,003 entries"));
    let missing = place.dir.path().join("missing");
    lsm(["demo", "--sources", missing.to_str().unwrap()]).fails(3);
}

/// P3: a main job that was killed is taken up, and everything is there once.
#[test]
fn a_main_job_that_was_killed_is_taken_up() {
    let place = Place::new();
    let tree = sources(&place, 300);
    let whole = arguments(tree.to_str().unwrap(), place.db());
    let mut reporting = whole.clone();
    reporting.extend(["--report", "1"]);
    let (mut child, _reports) = start_and_stop_in_the_middle(&reporting);
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = lsm(&whole);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("going on after "), "{}", ran.err);
    assert_eq!(place.lsm("count", &["-k", "lines"]).ok(), "30003\n");
}

#[test]
fn a_difference_is_shown_and_fails() {
    let place = Place::new();
    let tree = sources(&place, 3);
    let whole = arguments(tree.to_str().unwrap(), place.db());
    assert_eq!(lsm(&whole).code, 0);
    place.lsm("put", &["tree/part 1/1.txt:0000007", "something else", "-k", "lines"]).ok();
    place.lsm("put", &["tree/stray", "row", "-k", "lines"]).ok();
    place.lsm("delete", &["tree/latin-1.txt:0000001", "-k", "lines"]).ok();
    let ran = lsm(&whole);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("1.txt:0000007: expected \"line 6 of file 1\", found \"something else\""), "{}", ran.err);
    assert!(ran.err.contains("tree/stray: expected nothing, found \"row\""), "{}", ran.err);
    assert!(ran.err.contains("8 entries differ"), "three by gets or scans: {}", ran.err);

    // Other sources: what was there goes.
    std::fs::write(tree.join("new.txt"), "new\n").unwrap();
    let ran = lsm(&whole);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("cleared"), "{}", ran.err);
}
