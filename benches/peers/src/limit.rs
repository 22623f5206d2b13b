//! A control group with little memory.

use std::fs;
use std::path::{Path, PathBuf};

/// This process is in a group of its own with a memory limit, until this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    group: PathBuf,
    before: PathBuf,
}

impl MemoryLimit {
    /// Makes a group below the one that this process is in, and enters it.
    ///
    /// # Errors
    /// Why it cannot be done here: in most containers it cannot.
    pub(crate) fn enter(bytes: u64) -> Result<Self, String> {
        let (before, file) = find()?;
        let group = group_of(&before, std::process::id());
        let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir(&group).map_err(|error| failed(&group, error))?;
        // From here on the group goes when this is dropped.
        let limit = Self { group, before };
        for (name, text) in [(file, bytes.to_string()), ("cgroup.procs", std::process::id().to_string())] {
            let path = limit.group.join(name);
            fs::write(&path, text).map_err(|error| failed(&path, error))?;
        }
        Ok(limit)
    }

    /// Removes the group of a process that was killed in it.
    pub(crate) fn remove_of(process: u32) {
        if let Ok((before, _)) = find() {
            // It is in nobody's way if it stays.
            let _ = fs::remove_dir(group_of(&before, process));
        }
    }
}

fn group_of(before: &Path, process: u32) -> PathBuf {
    before.join(format!("lab-{process}"))
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // If either fails the group stays behind, empty: it is in nobody's way.
        let _ = fs::write(self.before.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.group);
    }
}

/// The directory of the group that counts this process's memory, and the name of the file that holds the limit.
fn find() -> Result<(PathBuf, &'static str), String> {
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("no control groups: {error}"))?;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be one of the host's.
        let inside = [Path::new(root).join(path), PathBuf::from(root)];
        // The root group of version 2 has no limit of its own, but its children have.
        let counts = |dir: &PathBuf| {
            dir.join(file).exists()
                || fs::read_to_string(dir.join("cgroup.subtree_control")).is_ok_and(|on| on.contains("memory"))
        };
        if let Some(dir) = inside.into_iter().find(counts) {
            return Ok((dir, file));
        }
    }
    Err("no control group counts memory".to_string())
}
