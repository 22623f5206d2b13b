//! Programs that a fresh machine lacks: looked for, and installed where `apt-get` can.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::shell::{Outcome, Workspace, cargo, run};

/// The first of the programs that is there.
pub(crate) fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    programs
        .iter()
        .find_map(|program| std::env::split_paths(&path).map(|dir| dir.join(program)).find(|at| at.is_file()))
}

/// The first of the programs that is there; installs the package if none is.
///
/// # Errors
/// Says what to install by hand where it cannot be done here.
pub(crate) fn find_or_install(programs: &[&str], package: &str) -> Outcome<PathBuf> {
    if let Some(found) = find(programs) {
        return Ok(found);
    }
    install(&[package])?;
    find(programs).ok_or_else(|| format!("the package {package} brought none of {}", programs.join(", ")))
}

/// Installs those packages of Debian and its kin that are not installed; leaves apt alone if all are.
pub(crate) fn install(packages: &[&str]) -> Outcome {
    let absent: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let by_hand = format!("install by hand what this machine calls {}", absent.join(", "));
    if find(&["apt-get"]).is_none() {
        return Err(format!("there is no apt-get here: {by_hand}"));
    }
    println!("installing what is missing: {}", absent.join(", "));
    let apt = |arguments: &[&str]| {
        let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
        if !is_root() {
            command.args(["-n", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(command)
    };
    let mut arguments = vec!["install", "-y", "-q"];
    arguments.extend(&absent);
    // The lists of packages may be too old, or none may have been fetched yet.
    apt(&arguments)
        .or_else(|_| apt(&["update", "-q"]).and_then(|()| apt(&arguments)))
        .map_err(|failure| format!("{failure}; {by_hand}"))
}

/// The program of that name and exact version, built from crates.io into `target/tools` if it is not there yet.
pub(crate) fn cargo_tool(package: &str, version: &str) -> Outcome<PathBuf> {
    cargo_tool_with(package, version, package)
}

/// The same where the program is not called as its package is.
pub(crate) fn cargo_tool_with(package: &str, version: &str, program: &str) -> Outcome<PathBuf> {
    let at = place_of_tool(package, version)?;
    let path = at.join("bin").join(program);
    if !path.is_file() {
        println!("installing {package} {version} into {}", at.display());
        let mut command = cargo(&["install", "--quiet", "--locked", package, "--version", &format!("={version}")]);
        command.arg("--root").arg(&at).arg("--target-dir").arg(at.join("build"));
        run(command)?;
        // The program is what is wanted, not what it was made from.
        let _ = std::fs::remove_dir_all(at.join("build"));
    }
    path.is_file().then_some(path).ok_or_else(|| format!("{package} {version} brought no {program}"))
}

/// The program of that name and exact version, if it was installed before.
pub(crate) fn cargo_tool_if_there(package: &str, version: &str) -> Option<PathBuf> {
    Some(place_of_tool(package, version).ok()?.join("bin").join(package)).filter(|path| path.is_file())
}

/// A directory for each version: one that stays behind is not mistaken for another.
fn place_of_tool(package: &str, version: &str) -> Outcome<PathBuf> {
    Ok(Workspace::load()?.target_dir.join("tools").join(format!("{package}-{version}")))
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}", package]).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"ii"))
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    uid == Some("0")
}
