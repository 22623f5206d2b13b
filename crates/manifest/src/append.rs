//! Writing lines: an edit file is begun, or that of a process that died taken over, and each pass appends one (M3).
//!
//! - **M3** The sync of a line is its commit point.
//! - **M7** From the store of a line until its sync has succeeded the outcome is unknown.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use file_system::{FileError, LogFile, LogFileWay};

use crate::commit::PassCost;
use crate::edit_file::{Chain, EDIT_FILE_BYTES_MAX, encode_line, replay};
use crate::global::{self, EditFile};
use crate::obsolete::Obsolete;
use crate::store::{Disk, LevelFiles, OpenEdits, StepError};
use crate::{Edit, Manifest, ManifestStore};

impl ManifestStore {
    /// Names an empty edit file in `global.json`, which says otherwise what it said before.
    pub(crate) fn begin_edit_file(&self, disk: &mut Disk, cost: &mut PassCost) -> Result<(), StepError> {
        let generation = disk.next_generation.max(disk.base.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(1);
        let bytes = self.edit_file_bytes(disk.global_bytes, &disk.levels);
        let path = self.paths.edits(generation);
        let named = |disk: &mut Disk, cost: &mut PassCost| {
            let (file, log) = self.make_edit_file(generation, bytes, cost)?;
            let base = Manifest { generation, ..Manifest::clone(&disk.base) };
            let global = global::encode(&base, &disk.levels, Some(file), disk.migrated_from);
            self.replace_global(&global, cost)?;
            Ok((file, log, base, global.len() as u64))
        };
        match named(disk, cost) {
            Ok((file, log, base, global_bytes)) => {
                disk.base = Arc::new(base);
                disk.global_bytes = global_bytes;
                disk.edits = Some(OpenEdits { file, chain: Chain::new(file.salt), log: Some(log) });
                disk.settled = true;
                self.metrics.lock().edit_files += 1;
                Ok(())
            }
            Err(error) => {
                if matches!(error, StepError::Certain(_)) {
                    disk.obsolete.push(Obsolete::File(path));
                }
                Err(error)
            }
        }
    }

    /// Goes on in a copy of an edit file that another process wrote, whose last sync may have failed: what was read of it is
    /// written anew, durable before `global.json` names it. Returns whether it did; if the file is not what it was when it was
    /// loaded, nothing has changed.
    pub(crate) fn take_over_edit_file(&self, disk: &mut Disk, cost: &mut PassCost) -> Result<bool, StepError> {
        let Some(open) = &disk.edits else { return Ok(false) };
        let (before, loaded, bytes) = (self.paths.edits(open.file.generation), open.chain, open.file.bytes);
        let content = self.env.files.read(&before, EDIT_FILE_BYTES_MAX)?;
        let mut lines = Vec::new();
        let read = replay(&before, &content, open.file.salt, |edits, _| {
            lines.push(edits);
            Ok(())
        });
        if read != Ok(loaded) {
            return Ok(false);
        }
        let generation = disk.next_generation.max(disk.base.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(loaded.next);
        let named = |disk: &mut Disk, cost: &mut PassCost| {
            let (file, log) = self.make_edit_file(generation, bytes, cost)?;
            let (mut chain, mut copy) = (Chain::new(file.salt), Vec::new());
            for edits in &lines {
                let (line, next) = encode_line(chain, &edits.iter().collect::<Vec<_>>());
                copy.extend_from_slice(&line);
                chain = next;
            }
            // As long as they were: only checksums differ.
            debug_assert_eq!(chain.offset, loaded.offset);
            log.store(0, &copy)?;
            cost.bytes += copy.len() as u64;
            if !planted_faults::planted("manifest-lines-taken-over-not-synced") {
                cost.syncs += 1;
                log.sync()?;
            }
            let base = Manifest { generation, ..Manifest::clone(&disk.base) };
            let global = global::encode(&base, &disk.levels, Some(file), disk.migrated_from);
            self.replace_global(&global, cost)?;
            Ok((OpenEdits { file, chain, log: Some(log) }, base, global.len() as u64))
        };
        match named(disk, cost) {
            Ok((edits, base, global_bytes)) => {
                disk.obsolete.push(Obsolete::File(before));
                disk.base = Arc::new(base);
                disk.global_bytes = global_bytes;
                disk.edits = Some(edits);
                disk.settled = true;
                self.fold_due.store(true, Ordering::Relaxed); // A hint.
                self.metrics.lock().edit_files += 1;
                Ok(true)
            }
            Err(error) => {
                if matches!(error, StepError::Certain(_)) {
                    disk.obsolete.push(Obsolete::File(self.paths.edits(generation)));
                }
                Err(error)
            }
        }
    }

    /// How long the edit file beside JSON files of these lengths is. When it is folded, three quarters full, its lines are
    /// as long as what folding writes at most, so that folding doubles the cost of a line at most. The last quarter is for
    /// the lines that come while it is folded.
    pub(crate) fn edit_file_bytes(&self, global_bytes: u64, levels: &LevelFiles) -> u64 {
        let foldable = 2 * global_bytes + levels.values().map(|file| file.bytes).sum::<u64>();
        let bytes = foldable.saturating_add(foldable / 3).max(self.options.edit_file_bytes_min);
        bytes.min(EDIT_FILE_BYTES_MAX).next_multiple_of(512)
    }

    /// Makes an empty edit file, durable with its name. Nothing names it yet.
    pub(crate) fn make_edit_file(
        &self,
        generation: u64,
        bytes: u64,
        cost: &mut PassCost,
    ) -> Result<(EditFile, Arc<dyn LogFile>), FileError> {
        let file = EditFile { generation, bytes, salt: self.env.randomness.next_u64() };
        let path = self.paths.edits(generation);
        // Left by a process that died before it was named.
        if self.env.files.exists(&path)? {
            self.env.files.remove_file(&path)?;
        }
        let log = self.env.files.create_log(&path, bytes, LogFileWay::Written)?;
        cost.syncs += 1;
        if !planted_faults::planted("manifest-edit-file-not-synced") {
            log.sync()?;
        }
        if !planted_faults::planted("manifest-edit-file-name-not-synced") {
            self.sync_dir(self.paths.dir(), cost)?;
        }
        Ok((file, log))
    }

    /// M3: the store and sync of one line is the commit point. If the line does not fit, the file is folded.
    pub(crate) fn append_line(
        &self,
        disk: &mut Disk,
        mut working: Manifest,
        edits: &[&Edit],
        cost: &mut PassCost,
    ) -> Result<(), StepError> {
        let open = disk.edits.as_mut().filter(|open| open.log.is_some());
        let Some((open, log)) = open.and_then(|open| open.log.clone().map(|log| (open, log))) else {
            return self.write_json(disk, working, cost);
        };
        let (line, chain) = encode_line(open.chain, edits);
        if chain.offset > open.file.bytes {
            return self.write_json(disk, working, cost);
        }
        let offset = open.chain.offset;
        // From here on the line may be on disk (M7).
        log.store(offset, &line).map_err(StepError::Uncertain)?;
        cost.bytes += line.len() as u64;
        if !planted_faults::planted("manifest-edit-line-not-synced") {
            cost.syncs += 1;
            log.sync().map_err(StepError::Uncertain)?;
        }
        open.chain = chain;
        let room = open.file.bytes - chain.offset;
        if let Some(tail) = &mut disk.fold {
            tail.lines.push(edits.iter().copied().cloned().collect());
        } else if room < open.file.bytes / 4 {
            self.fold_due.store(true, Ordering::Relaxed); // A hint.
        }
        // What replaying the line will make of it.
        working.generation = disk.base.generation + chain.next - 1;
        disk.next_generation = disk.next_generation.max(working.generation + 1);
        self.current.store(Arc::new(working)); // M5
        self.metrics.lock().lines += 1;
        Ok(())
    }
}
