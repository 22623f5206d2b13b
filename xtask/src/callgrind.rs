//! Runs a path of `benches/examples/paths.rs` under callgrind and reads what it counted.
//!
//! ```text
//!   ob=(2) /path/to/paths         the object; a name stands where its number is met first
//!   fn=(7) get'with_latest'main   the function, and who called it
//!   0x18e914 50 2000              address, line, instructions; "+4" and "*" follow the address before
//!   calls=2000 0x1050 0           the next line says what the called one cost: it is no cost of this one's own
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{Outcome, build_executables, cargo, drawn};
use crate::tools;

/// The program of paths, built as it is shipped.
pub(crate) fn paths_program() -> Outcome<PathBuf> {
    let build = cargo(&["build", "--quiet", "--release", "--package", "benches", "--example", "paths"]);
    let built = build_executables(build)?;
    built.into_iter().find(|(name, _)| name == "paths").map(|(_, path)| path).ok_or("Cargo built no `paths`".into())
}

/// Runs the program under callgrind and returns what it counted.
pub(crate) fn count(program: &Path, arguments: &[&str], options: &[&str], out: &Path) -> Outcome<String> {
    tools::find_or_install(&["valgrind"], "valgrind")?;
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display())).args(options);
    command.arg(program).args(arguments).stdout(Stdio::null());
    let line = drawn(&command);
    let output = command.output().map_err(|error| format!("`{line}` could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::read_to_string(out).map_err(|error| format!("{}: {error}", out.display()))
}

/// Instructions at an address of an object.
pub(crate) type ByAddress = HashMap<(String, u64), u64>;

/// What each instruction executed, of a run with `--dump-instr=yes`.
pub(crate) fn by_address(text: &str) -> Outcome<ByAddress> {
    let mut costs = ByAddress::new();
    each_cost(text, |line| *costs.entry((line.object.to_string(), line.address)).or_default() += line.instructions)?;
    Ok(costs)
}

/// What each function executed itself, by the chain of who called it, outermost first, of a run with
/// `--separate-callers`: `main;get;search 2000`.
pub(crate) fn by_stack(text: &str) -> Outcome<HashMap<String, u64>> {
    let mut costs = HashMap::new();
    each_cost(text, |line| {
        let chain: Vec<&str> = line.function.split('\'').rev().collect();
        *costs.entry(chain.join(";")).or_default() += line.instructions;
    })?;
    Ok(costs)
}

struct CostLine<'a> {
    object: &'a str,
    function: &'a str,
    address: u64,
    instructions: u64,
}

fn each_cost(text: &str, mut take: impl FnMut(CostLine<'_>)) -> Outcome {
    let with_addresses = text.lines().any(|line| line.starts_with("positions:") && line.contains("instr"));
    let (mut objects, mut functions) = (HashMap::new(), HashMap::new());
    let (mut object, mut function) = ("", "");
    let (mut address, mut is_call) = (0_u64, false);
    for line in text.lines() {
        let unread = || format!("callgrind's output has another shape than expected: {line}");
        if let Some(name) = line.strip_prefix("ob=") {
            object = named(&mut objects, name).ok_or_else(unread)?;
        } else if let Some(name) = line.strip_prefix("cob=") {
            named(&mut objects, name).ok_or_else(unread)?;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = named(&mut functions, name).ok_or_else(unread)?;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(&mut functions, name).ok_or_else(unread)?;
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let mut words = line.split(' ');
            let at = words.next().ok_or_else(unread)?;
            if with_addresses {
                address = follow(address, at).ok_or_else(unread)?;
                words.next();
            }
            let instructions = words.next().map_or(Some(0), |count| count.parse().ok()).ok_or_else(unread)?;
            if !std::mem::take(&mut is_call) {
                take(CostLine { object, function, address, instructions });
            }
        }
    }
    Ok(())
}

/// The name behind `(7) name` or `(7)`.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> Option<&'a str> {
    let (number, name) = text.split_once(')')?;
    if !name.is_empty() {
        names.insert(number, name.trim_start());
    }
    names.get(number).copied()
}

/// The address that `0x10c0`, `+4`, `-4` or `*` stands for after another.
fn follow(before: u64, text: &str) -> Option<u64> {
    if text == "*" {
        return Some(before);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    before.checked_add_signed(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_ADDRESSES: &str = "positions: instr line\nevents: Ir\n\nob=(1) /bin/a\nfl=(1) a.rs\nfn=(1) main\n\
        0x10 5 1\n+4 6 2\ncob=(2) /lib/b\ncfn=(2) inner\ncalls=3 0x20 0\n* 6 900\n-4 5 10\nob=(2)\nfn=(2)\n0x20 0 7\n";

    #[test]
    fn own_costs_are_summed_by_address_and_calls_are_left_out() {
        let costs = by_address(WITH_ADDRESSES).unwrap();
        let at = |object: &str, address| costs.get(&(object.to_string(), address)).copied();
        assert_eq!((at("/bin/a", 0x10), at("/bin/a", 0x14), at("/lib/b", 0x20)), (Some(11), Some(2), Some(7)));
        assert_eq!(costs.len(), 3);
    }

    #[test]
    fn callers_become_stacks() {
        let text = "positions: line\nevents: Ir\nfn=(1) get'main\n5 10\n+1 4\nfn=(2) main\n7 1\ncalls=1 0\n7 14\n";
        let costs = by_stack(text).unwrap();
        assert_eq!((costs["main;get"], costs["main"], costs.len()), (14, 1, 2));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(by_address("positions: instr line\nfn=(3)\n").is_err());
        assert!(by_address("positions: instr line\n0xz 1 1\n").is_err());
    }
}
