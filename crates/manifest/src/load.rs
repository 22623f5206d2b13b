//! From files to a value: what opening, reloading and creating share. Writes nothing.
//!
//! - **M5** Another process may append to the edit file meanwhile: what looks like damage in it is read anew before it counts.
//! - **M2** Every checksum that `global.json` names is verified before anything is made of the bytes.
//! - **M6** A missing `global.json` beside a table, a level file, an edit file or a segment is damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::{DirectoryEntry, Environment, FileError};
use internal_key::{KeyspaceId, Level};
use xxhash_rust::xxh3::xxh3_64;

use crate::edit_file::{Chain, replay};
use crate::global::{self, GLOBAL_BYTES_MAX, Global, LevelFile};
use crate::level::{self, LevelIdentity};
use crate::paths::{
    BACKUP_PREFIX, parse_edits_name, parse_keyspace_name, parse_level_name, parse_segment_name, parse_table_name,
};
use crate::{DatabasePaths, DecodeError, KeyspaceState, LevelState, Manifest, ManifestError, OpenMode, Place};

/// Everything that the files say.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What `global.json` and the level files say.
    pub(crate) base: Arc<Manifest>,
    /// The same after the edit file's lines.
    pub(crate) current: Arc<Manifest>,
    /// `global.json` itself.
    pub(crate) global: Global,
    /// Its length.
    pub(crate) global_bytes: u64,
    /// Where the edit file's lines end, if there is one.
    pub(crate) chain: Option<Chain>,
}

/// Reads `global.json`, or `None` if it does not exist.
pub(crate) fn read_global(
    env: &Environment,
    paths: &DatabasePaths,
    mode: OpenMode,
) -> Result<Option<(Global, u64)>, ManifestError> {
    let file = paths.global();
    match env.files.read(&file, GLOBAL_BYTES_MAX) {
        Ok(bytes) => Ok(Some((global::decode(&file, &bytes, mode)?, bytes.len() as u64))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads what `global` names. Levels that `known` read before are shared, not read again.
pub(crate) fn read_named(
    env: &Environment,
    paths: &DatabasePaths,
    global: Global,
    global_bytes: u64,
    known: Option<&Manifest>,
) -> Result<Loaded, ManifestError> {
    let mut base = global.manifest.clone();
    for (&(keyspace, level), file) in &global.levels {
        let shared = known.and_then(|known| known.keyspaces.get(&keyspace)).map(|state| &state.levels[level.index()]);
        let shared = shared.filter(|state| state.generation == file.generation && state.checksum == file.checksum);
        let state = match shared {
            Some(state) => Arc::clone(state),
            None => Arc::new(read_level(env, paths, &base, keyspace, level, file)?),
        };
        if let Some(owner) = base.keyspaces.get_mut(&keyspace).map(Arc::make_mut) {
            owner.levels[level.index()] = state;
        }
    }
    global::check_counters(&paths.global(), &base)?;
    let base = Arc::new(base);
    let (current, chain) = match global.edits {
        None => (Arc::clone(&base), None),
        Some(edits) => {
            let file = paths.edits(edits.generation);
            let read = || read_exactly(env, &file, edits.bytes, &paths.global());
            let (current, chain) = replay_beside_a_writer(&base, &file, edits.salt, read)?;
            global::check_counters(&file, &current)?;
            (Arc::new(current), Some(chain))
        }
    };
    Ok(Loaded { base, current, global, global_bytes, chain })
}

/// Applies the lines of the edit file, which `read` reads, to `base`.
///
/// Its writer may append to it meanwhile: a line that it stored behind the place where the reading was, and the next one, which
/// it stored before the reading came there, look like damage. So what looks like it is read again, until that changes nothing.
fn replay_beside_a_writer(
    base: &Manifest,
    file: &Path,
    salt: u64,
    mut read: impl FnMut() -> Result<Vec<u8>, ManifestError>,
) -> Result<(Manifest, Chain), ManifestError> {
    let mut bytes = read()?;
    loop {
        match replay_lines(base, file, salt, &bytes) {
            Ok(replayed) => return Ok(replayed),
            Err(damage) => {
                let again = read()?;
                if again == bytes {
                    return Err(damage.into());
                }
                bytes = again;
            }
        }
    }
}

fn replay_lines(base: &Manifest, file: &Path, salt: u64, bytes: &[u8]) -> Result<(Manifest, Chain), DecodeError> {
    let mut current = base.clone();
    let chain = replay(file, bytes, salt, |line, place| {
        for edit in &line {
            current = current.apply(edit).map_err(|refusal| {
                DecodeError::damaged(file, place.clone(), "an edit that fits the one before", refusal.to_string())
            })?;
        }
        current.generation = current.generation.saturating_add(1);
        Ok(())
    })?;
    Ok((current, chain))
}

fn read_level(
    env: &Environment,
    paths: &DatabasePaths,
    manifest: &Manifest,
    keyspace: KeyspaceId,
    level: Level,
    named: &LevelFile,
) -> Result<LevelState, ManifestError> {
    let file = paths.level(keyspace, level, named.generation);
    let bytes = read_exactly(env, &file, named.bytes, &paths.global())?;
    let checksum = xxh3_64(&bytes);
    if checksum != named.checksum && !planted_faults::planted("manifest-level-checksum-unchecked") {
        let expected = format!("xxh3 {:016x}, as global.json names it", named.checksum);
        return Err(DecodeError::damaged(&file, Place::File, expected, format!("{checksum:016x}")).into());
    }
    let identity = LevelIdentity { database_id: manifest.database_id, keyspace, level, generation: named.generation };
    let runs = level::decode(&file, &bytes, identity)?;
    Ok(LevelState { runs, generation: named.generation, checksum: named.checksum })
}

/// The whole content of a file that must be `bytes` long.
fn read_exactly(env: &Environment, file: &Path, bytes: u64, named_by: &Path) -> Result<Vec<u8>, ManifestError> {
    let opened = match env.files.open(file) {
        Ok(opened) => opened,
        Err(error) if error.is_not_found() => {
            return Err(ManifestError::Missing { file: file.to_owned(), named_by: named_by.to_owned() });
        }
        Err(error) => return Err(error.into()),
    };
    // Before allocating: the length that was named is bounded, the file's own is not.
    if opened.len() != bytes {
        let (expected, found) = (format!("{bytes} bytes, as global.json names it"), format!("{} bytes", opened.len()));
        return Err(DecodeError::damaged(file, Place::File, expected, found).into());
    }
    let mut content = vec![0; bytes as usize];
    opened.read_exact_at(0, &mut content)?;
    Ok(content)
}

/// The entries of a directory; none if it does not exist.
pub(crate) fn entries(env: &Environment, dir: &Path) -> Result<Vec<DirectoryEntry>, FileError> {
    match env.files.read_dir(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

/// A file that shows that a database was here (M6), if there is one: a table, a level file, an edit file, a migrated
/// manifest's backup, or a log segment that is not empty.
pub(crate) fn evidence(env: &Environment, paths: &DatabasePaths) -> Result<Option<PathBuf>, FileError> {
    if planted_faults::planted("manifest-lost-global-is-an-empty-database") {
        return Ok(None);
    }
    let ours =
        |entry: &DirectoryEntry| parse_edits_name(&entry.name).is_some() || entry.name.starts_with(BACKUP_PREFIX);
    if let Some(entry) = entries(env, paths.dir())?.iter().find(|entry| ours(entry)) {
        return Ok(Some(paths.dir().join(&entry.name)));
    }
    let tables = paths.tables_dir();
    if let Some(entry) = entries(env, &tables)?.iter().find(|entry| parse_table_name(&entry.name).is_some()) {
        return Ok(Some(tables.join(&entry.name)));
    }
    for keyspace in entries(env, &paths.keyspaces_dir())? {
        if parse_keyspace_name(&keyspace.name).is_none() {
            continue;
        }
        let dir = paths.keyspaces_dir().join(&keyspace.name);
        if let Some(entry) = entries(env, &dir)?.iter().find(|entry| parse_level_name(&entry.name).is_some()) {
            return Ok(Some(dir.join(&entry.name)));
        }
    }
    for segment in entries(env, &paths.log_dir())? {
        let file = paths.log_dir().join(&segment.name);
        if parse_segment_name(&segment.name).is_some() && env.files.file_len(&file)? > 0 {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The error for a directory without `global.json`: nothing is here, or something was lost (M6).
pub(crate) fn nothing_here(env: &Environment, paths: &DatabasePaths) -> Result<ManifestError, FileError> {
    let dir = paths.dir().to_owned();
    Ok(match evidence(env, paths)? {
        Some(evidence) => ManifestError::Lost { dir, evidence },
        None => ManifestError::NotFound { dir },
    })
}

/// Every level of every living keyspace that differs between two manifests, by identity: what is shared is equal.
pub(crate) fn changed_levels(before: &Manifest, after: &Manifest) -> Vec<(KeyspaceId, Level)> {
    let mut changed = Vec::new();
    for (id, state) in &after.keyspaces {
        let old: Option<&Arc<KeyspaceState>> = before.keyspaces.get(id);
        if old.is_some_and(|old| Arc::ptr_eq(old, state)) {
            continue;
        }
        for (index, level) in state.levels.iter().enumerate() {
            let same = match old.map(|old| &old.levels[index]) {
                Some(old) => Arc::ptr_eq(old, level) || (old.runs.is_empty() && level.runs.is_empty()),
                None => level.runs.is_empty(),
            };
            if !same {
                changed.push((*id, Level(index as u8)));
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit_file::encode_line;
    use crate::{Change, DatabaseId, Edit};

    /// M3, M5: a line that was stored while the file was read, behind the reading, with the next one before it, is no damage:
    /// it stands there when it is read again. What is damaged stays so.
    #[test]
    fn lines_that_come_while_they_are_read_are_no_damage() {
        const SALT: u64 = 0x5A17;
        let (mut chain, mut bytes, mut ends) = (Chain::new(SALT), Vec::new(), vec![0]);
        for seqno in 1..=4 {
            let seqno = internal_key::SeqNo::new(seqno).unwrap();
            let (line, next) = encode_line(chain, &[&Edit::of(Change::RaiseLastSeqno(seqno))]);
            bytes.extend_from_slice(&line);
            ends.push(bytes.len());
            chain = next;
        }
        bytes.resize(bytes.len() + 64, 0);
        let missed = |line: usize| {
            let mut bytes = bytes.clone();
            bytes[ends[line - 1]..ends[line]].fill(0);
            bytes
        };
        let base = Manifest::empty(DatabaseId(1));
        let replay = |mut images: Vec<Vec<u8>>| {
            let last = images.pop().unwrap();
            let mut images = images.into_iter();
            replay_beside_a_writer(&base, Path::new("edits.1.jsonl"), SALT, || {
                Ok(images.next().unwrap_or(last.clone()))
            })
        };
        let (current, chain) = replay(vec![missed(2), missed(3), bytes.clone()]).unwrap();
        assert_eq!((current.last_seqno.get(), chain.next), (4, 5));
        assert!(matches!(replay(vec![missed(2), missed(3)]), Err(ManifestError::Decode(_))));
    }
}
