//! Loads a small table of words, one of its lines bad, and looks at it with the verbs of the command.
//!
//! `cargo run -p lsm-cli --example lsm-cli`

use std::ffi::OsString;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("words.db").into_os_string();
    let words = dir.path().join("words.csv");
    std::fs::write(&words, "word,kind,text\napple,noun,a fruit\nrun,verb,\"to go, fast\"\nlonely\n")?;

    let lsm = |verb: &str, rest: &[&str]| {
        println!("\n$ lsm {verb} words.db {}", rest.join(" "));
        let arguments = [OsString::from("lsm"), verb.into(), database.clone()].into_iter();
        let code = lsm_cli::run(arguments.chain(rest.iter().map(OsString::from)));
        println!("exit code {code}");
        code
    };
    let words = words.to_string_lossy();
    assert_eq!(lsm("load", &[&words, "--header"]), 4, "the last line is no row");
    assert_eq!(lsm("load", &[&words, "--header", "--on-error", "skip"]), 0);
    assert_eq!(lsm("scan", &["--reverse"]), 0);
    assert_eq!(lsm("get", &["pear"]), 1, "there is no pear");
    assert_eq!(lsm("stats", &[]), 0);
    assert_eq!(lsm("verify", &[]), 0);
    assert_eq!(lsm("inspect", &["--json"]), 0);
    Ok(())
}
