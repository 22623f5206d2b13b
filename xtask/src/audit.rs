//! `audit-get`: every locked or exchanging instruction that a warm point read executes, and whose cache line it touches.
//!
//! ```text
//!   paths get 2000 1 ─┐
//!   paths get 2000 0 ─┴▶ callgrind, by address ─▶ the difference: 2,000 gets ─┐
//!   objdump of what they executed ─▶ lock ..., xchg with memory, mfence ──────┴▶ addr2line ─▶ whose line?
//! ```
//!
//! - **R1** A read writes to no shared cache line: an instruction that [`KNOWN`] does not explain fails the audit.
//!
//! A locked instruction on a line of the thread's own costs some twenty cycles; on a shared line it costs a miss for
//! every reader, and more with each core. Which one it is cannot be seen in the instruction: it is said in [`KNOWN`],
//! by the function that executes it, after reading that function.
//!
//! What only some gets execute (a table opened, garbage collected) is listed apart, and nobody has to vouch for it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use crate::callgrind::{ByAddress, by_address, count, paths_program};
use crate::shell::{Outcome, Workspace, output_of};
use crate::tools;

/// Gets that are counted.
const GETS: u32 = 2000;

/// An instruction that at most one in so many gets executes is no part of the warm path (a table opened, a bag of garbage
/// collected).
const RARER_THAN: u64 = 100;

/// Whose line a function's locked instruction touches.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// Written by the thread that executes it; others read it only when they publish or collect.
    Own,
}

/// File and function of a locked instruction, innermost first in the chain of inlined calls, and what it touches.
const KNOWN: &[(&str, &str, Line, &str)] = &[
    ("arc-swap", "get_debt", Line::Own, "a slot of this thread's node: says which super version is in use"),
    ("arc-swap", "pay", Line::Own, "the same slot, given back; a publisher takes it over only in the middle of a read"),
    ("crossbeam-epoch", "pin", Line::Own, "the epoch in this thread's participant, exchanged in place of a fence"),
];

/// Counts, looks and prints; fails if there is a line that nobody vouches for.
pub(crate) fn run() -> Outcome {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Err("locked instructions are recognised on x86-64 Linux alone".to_string());
    }
    for program in ["objdump", "addr2line"] {
        tools::find_or_install(&[program], "binutils")?;
    }
    let program = paths_program()?;
    let dir = Workspace::load()?.target_dir.join("audit");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let counted = |repeats: &str| {
        let out = dir.join(format!("callgrind.{repeats}"));
        by_address(&count(&program, &["get", &GETS.to_string(), repeats], &["--dump-instr=yes"], &out)?)
    };
    let executed = difference(&counted("0")?, &counted("1")?);
    let all: u64 = executed.values().sum();
    let mut found = Vec::new();
    let mut objects: Vec<&str> = executed.keys().map(|(object, _)| object.as_str()).collect();
    objects.sort_unstable();
    objects.dedup();
    for object in objects.into_iter().filter(|object| Path::new(object).is_file()) {
        let mut command = Command::new("objdump");
        command.args(["--disassemble", "--no-show-raw-insn", object]);
        for (address, instruction) in locked(&output_of(command)?) {
            if let Some(executions) = executed.get(&(object.to_string(), address)) {
                found.push(Found { instruction, executions: *executions, chain: chain(object, address)? });
            }
        }
    }
    let (warm, rare): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| !found.is_rare());
    println!("{:.0} instructions a warm get, the making of its key included. Locked or exchanging:\n", per_get(all));
    println!("{}", draw(&warm, "UNKNOWN LINE"));
    println!("Executed by at most 1 in {RARER_THAN} gets, and so by none that is only warm: {}.\n", rare.len());
    println!("{}", draw(&rare, "not asked whose line"));
    verdict(&warm)
}

fn per_get(executions: u64) -> f64 {
    executions as f64 / f64::from(GETS)
}

/// What the second run executed beyond the first.
fn difference(without: &ByAddress, with: &ByAddress) -> BTreeMap<(String, u64), u64> {
    with.iter()
        .map(|(place, count)| (place.clone(), count.saturating_sub(without.get(place).copied().unwrap_or(0))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Address and text of every instruction of a disassembly that locks a line or waits for all stores.
fn locked(disassembly: &str) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for line in disassembly.lines() {
        let Some((address, text)) = line.trim_start().split_once(":\t") else { continue };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mnemonic = text.split(' ').next().unwrap_or_default();
        // An exchange with memory locks it without saying so; one of two registers is an idle instruction.
        let exchanges = mnemonic.starts_with("xchg") && text.contains('(');
        if mnemonic == "lock" || exchanges || mnemonic == "mfence" {
            found.push((address, text));
        }
    }
    found
}

/// A locked instruction, and the functions it is inlined in, innermost first.
struct Found {
    instruction: String,
    executions: u64,
    chain: Vec<Frame>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    /// Without the types it was made for.
    function: String,
    /// Path and line.
    place: String,
}

fn chain(object: &str, address: u64) -> Outcome<Vec<Frame>> {
    let mut command = Command::new("addr2line");
    command.args(["--inlines", "--functions", "--demangle", "--exe", object, &format!("{address:#x}")]);
    Ok(frames(&output_of(command)?))
}

fn frames(text: &str) -> Vec<Frame> {
    let mut lines = text.lines();
    let mut frames = Vec::new();
    while let (Some(function), Some(place)) = (lines.next(), lines.next()) {
        let function = function.split('<').next().unwrap_or_default().to_string();
        frames.push(Frame { function, place: place.split(" (").next().unwrap_or_default().to_string() });
    }
    frames
}

impl Found {
    /// Whether it is no part of the warm path.
    fn is_rare(&self) -> bool {
        self.executions <= u64::from(GETS) / RARER_THAN
    }

    /// What is known of the line it touches.
    fn known(&self) -> Option<&'static (&'static str, &'static str, Line, &'static str)> {
        // The innermost function outside of the standard library is the one that decided for this instruction.
        let deciding = self.chain.iter().find(|frame| !frame.place.starts_with("/rustc/"))?;
        let is_it = |(file, function, ..): &&(&str, &str, Line, &str)| {
            deciding.place.contains(file)
                && self
                    .chain
                    .iter()
                    .any(|frame| frame.place.contains(file) && frame.function.rsplit("::").next() == Some(*function))
        };
        KNOWN.iter().find(is_it)
    }
}

/// A line for each, and who executes it; `unknown` is said of one that [`KNOWN`] does not explain.
fn draw(found: &[Found], unknown: &str) -> String {
    let mut text = String::new();
    for instruction in found {
        let line = match instruction.known() {
            Some((.., Line::Own, why)) => format!("own line: {why}"),
            None => unknown.to_string(),
        };
        text.push_str(&format!(
            "{:>7.4} a get  {:<36} {line}\n",
            per_get(instruction.executions),
            instruction.instruction
        ));
        for frame in instruction.chain.iter().filter(|frame| !frame.place.starts_with("/rustc/")).take(4) {
            text.push_str(&format!("               {} ({})\n", frame.function, short_place(&frame.place)));
        }
    }
    let all: u64 = found.iter().map(|instruction| instruction.executions).sum();
    text.push_str(&format!("{:>7.4} a get in all\n", per_get(all)));
    text
}

/// The path from the crate's directory on.
fn short_place(place: &str) -> &str {
    let from = |mark: &str, skip: usize| place.rfind(mark).map(|at| &place[at + skip..]);
    from("/crates/", 1)
        .or_else(|| place.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/')).map(|(_, rest)| rest))
        .unwrap_or(place)
}

fn verdict(found: &[Found]) -> Outcome {
    // That a get executes none at all is nothing that this engine can do: the tool would be blind.
    if found.is_empty() {
        return Err("found no locked instruction at all: the disassembly was not understood".to_string());
    }
    let unknown: HashMap<&str, u64> = found
        .iter()
        .filter(|instruction| instruction.known().is_none())
        .map(|instruction| (instruction.instruction.as_str(), instruction.executions))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("{} locked instructions touch a line that nobody vouches for (R1): see UNKNOWN above", unknown.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(frames: &[(&str, &str)]) -> Found {
        let frame =
            |(function, place): &(&str, &str)| Frame { function: function.to_string(), place: place.to_string() };
        Found { instruction: "lock".into(), executions: 1, chain: frames.iter().map(frame).collect() }
    }

    #[test]
    fn locked_exchanging_and_fencing_instructions_are_seen() {
        let text = "\n0000000000001000 <main>:\n    1000:\tlock cmpxchg %rdx,(%rcx)\n    1005:\txchg   %r8,(%rax,%rdi,8)\n    \
             1009:\txchg   %ax,%ax\n    100b:\tmov    %rax,(%rcx)\n    100e:\tmfence\n";
        let addresses: Vec<u64> = locked(text).into_iter().map(|(address, _)| address).collect();
        assert_eq!(addresses, [0x1000, 0x1005, 0x100e]);
    }

    #[test]
    fn a_line_is_known_by_the_function_that_decided_for_it() {
        let atomic = ("compare_exchange", "/rustc/1/library/core/src/sync/atomic.rs:9");
        let pin = ("pin", "/registry/src/x/crossbeam-epoch-0.9.18/src/internal.rs:4");
        assert!(found(&[atomic, ("compare_exchange", "/crossbeam-epoch-0.9/src/epoch.rs:1"), pin]).known().is_some());
        // The engine's own, inlined into no known function; and one that only happens while a known one runs.
        assert!(found(&[atomic, ("get", "/w/crates/lsm-facade/src/read.rs:4")]).known().is_none());
        assert!(found(&[atomic, ("count", "/w/crates/lsm-facade/src/stats.rs:4"), pin]).known().is_none());
        assert!(found(&[atomic]).known().is_none());
    }

    #[test]
    fn an_unknown_line_fails_and_so_does_a_blind_tool() {
        let pay = found(&[("pay<A>", "/arc-swap-1.9.3/src/debt/mod.rs:76")]);
        assert!(verdict(&[Found { chain: frames("pay<A>\n/arc-swap-1/src/debt/mod.rs:7\n"), ..pay }]).is_ok());
        assert!(verdict(&[found(&[("get", "/w/crates/lsm-facade/src/read.rs:4")])]).unwrap_err().contains("UNKNOWN"));
        assert!(verdict(&[]).is_err());
    }

    #[test]
    fn what_few_gets_execute_is_told_from_what_is_warm() {
        let executed =
            |executions| Found { executions, ..found(&[("collect", "/crossbeam-epoch-0.9/src/internal.rs:1")]) };
        assert!(executed(1).is_rare() && executed(20).is_rare() && !executed(21).is_rare());
        let drawn = draw(&[executed(3)], "not asked whose line");
        assert!(drawn.starts_with(" 0.0015 a get  lock ") && drawn.contains("not asked whose line"), "{drawn}");
        assert!(drawn.contains("collect (") && drawn.ends_with(" 0.0015 a get in all\n"), "{drawn}");
    }

    #[test]
    fn what_preparation_executes_is_taken_off() {
        let at = |counts: &[(u64, u64)]| counts.iter().map(|(at, count)| (("a".to_string(), *at), *count)).collect();
        let left: Vec<_> =
            difference(&at(&[(1, 500), (2, 7)]), &at(&[(1, 2500), (2, 7), (3, 9)])).into_iter().collect();
        assert_eq!(left, [(("a".to_string(), 1), 2000), (("a".to_string(), 3), 9)]);
    }
}
