//! What differs between Linux, macOS, other Unixes and Windows.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

#[cfg(unix)]
pub(super) use unix::{allocate, is_safe_to_map, link_count, populate, release, sync_dir, written_ranges};
#[cfg(windows)]
pub(super) use windows::{allocate, is_safe_to_map, link_count, populate, release, sync_dir, written_ranges};

/// Turns a length into the system's signed offset. Beyond it the file is too large anywhere.
#[cfg(unix)]
fn signed(bytes: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

#[cfg(unix)]
mod unix {
    use super::*;
    use memmap2::MmapRaw;
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    use std::os::fd::AsRawFd;

    /// Makes the entries of a directory durable.
    ///
    /// A file system that knows no such call (some network ones say `EINVAL` or `ENOTSUP`) offers nothing better, so
    /// that is no error.
    pub(in super::super) fn sync_dir(path: &Path) -> io::Result<()> {
        match File::open(path)?.sync_all() {
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }

    /// How many names the file at `path` has.
    pub(in super::super) fn link_count(path: &Path) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(path)?))
    }

    /// Touches pages ahead of their use. Advice: a kernel before 5.14 does not know it, and then stores fault.
    pub(in super::super) fn populate(map: &MmapRaw, offset: usize, bytes: usize) {
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::PopulateWrite, offset, bytes);
        #[cfg(not(target_os = "linux"))]
        let _ = (map, offset, bytes);
    }

    /// Takes the pages of a range out of the map, but for the last if the range ends within it. What was stored there is in the file's pages, which a sync writes.
    pub(in super::super) fn release(map: &MmapRaw, offset: usize, bytes: usize) {
        #[cfg(target_os = "linux")]
        {
            let page = page_bytes();
            let (start, end) = (offset / page * page, (offset + bytes) / page * page);
            if start < end {
                // SAFETY: the map is shared, so that giving up its pages loses nothing: what was stored is the file's, and
                // whoever touches the range again finds the same bytes.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (map, offset, bytes);
    }

    /// The size of a page of this machine.
    #[cfg(target_os = "linux")]
    fn page_bytes() -> usize {
        // SAFETY: the call takes and touches no memory of ours.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(4096).max(4096)
    }

    /// Makes the file `bytes` long with every block allocated and reading as zeros where nothing was written.
    pub(in super::super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return file.set_len(0);
        }
        let length = signed(bytes)?;
        #[cfg(target_os = "linux")]
        {
            // Not `posix_fallocate`: where the file system cannot allocate, glibc would write to every block.
            // SAFETY: the descriptor is open for as long as `file` is borrowed; the call touches no memory of ours.
            let result = retry(|| unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) });
            match result {
                // No reservation to be had: such file systems are not on the list of those that are mapped, so a full
                // disk later is an error of a write call and not a signal.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    grow(file, bytes)
                }
                result => result,
            }
        }
        #[cfg(target_os = "macos")]
        {
            let mut wish = libc::fstore_t {
                fst_flags: libc::F_ALLOCATECONTIG | libc::F_ALLOCATEALL,
                fst_posmode: libc::F_PEOFPOSMODE,
                fst_offset: 0,
                fst_length: length.saturating_sub(file.metadata()?.len() as libc::off_t).max(0),
                fst_bytesalloc: 0,
            };
            if wish.fst_length > 0 {
                // SAFETY: `wish` is a live, initialised `fstore_t`, which is what F_PREALLOCATE reads and writes.
                let contiguous = retry(|| unsafe {
                    libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, std::ptr::from_mut(&mut wish))
                });
                if contiguous.is_err() {
                    wish.fst_flags = libc::F_ALLOCATEALL;
                    // SAFETY: as above.
                    retry(|| unsafe {
                        libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, std::ptr::from_mut(&mut wish))
                    })?;
                }
            }
            grow(file, bytes)
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        {
            let _ = length;
            grow(file, bytes)
        }
    }

    /// Makes the file at least `bytes` long, without allocating.
    fn grow(file: &File, bytes: u64) -> io::Result<()> {
        if file.metadata()?.len() < bytes { file.set_len(bytes) } else { Ok(()) }
    }

    /// Runs a system call that says -1 for failure until it is not interrupted.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
        loop {
            if call() != -1 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Whether mapped stores into an allocated file can neither run out of space nor bypass a later sync here: the file
    /// systems below write in place. Copy-on-write, network, stacked and user-space ones are written by calls (L1).
    pub(in super::super) fn is_safe_to_map(file: &File) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            /// ext2, ext3 and ext4.
            const EXT: u64 = 0xEF53;
            const XFS: u64 = 0x5846_5342;
            const TMPFS: u64 = 0x0102_1994;
            // The type's width and sign differ between architectures; the magic numbers fit 32 bits.
            let magic = statfs(file)?.f_type as u64 & 0xFFFF_FFFF;
            Ok(matches!(magic, EXT | XFS | TMPFS))
        }
        #[cfg(target_os = "macos")]
        {
            let name = statfs(file)?.f_fstypename;
            let name: Vec<u8> = name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
            Ok(name == b"apfs" || name == b"hfs")
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        {
            let _ = file;
            Ok(false)
        }
    }

    /// Where bytes between `offset` and `len` may stand that were ever written; `None` where the system cannot tell. Asked
    /// only of file systems that write in place: others were seen to report written pages as holes until they had
    /// reached the disk.
    pub(in super::super) fn written_ranges(file: &File, offset: u64, len: u64) -> Option<Vec<Range<u64>>> {
        #[cfg(target_os = "linux")]
        {
            /// More pieces than this are not told apart: the last one goes to the end.
            const PIECES_MAX: usize = 1024;
            if !is_safe_to_map(file).ok()? {
                return None;
            }
            let seek = |offset: u64, whence: libc::c_int| {
                let offset = signed(offset)?;
                // SAFETY: the descriptor is open for as long as `file` is borrowed. Its offset moves, and nobody uses it.
                match unsafe { libc::lseek(file.as_raw_fd(), offset, whence) } {
                    -1 => Err(io::Error::last_os_error()),
                    found => Ok(found as u64),
                }
            };
            let mut ranges = Vec::new();
            let mut from = offset;
            while from < len {
                let start = match seek(from, libc::SEEK_DATA) {
                    Ok(start) => start,
                    Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
                    Err(_) => return None,
                };
                let end = if ranges.len() + 1 < PIECES_MAX { seek(start, libc::SEEK_HOLE).ok()?.min(len) } else { len };
                if start >= len {
                    break;
                }
                if end <= start {
                    // What made it look written, a page read ahead, has just gone: the answer is of no use.
                    return None;
                }
                ranges.push(start..end);
                from = end;
            }
            Some(ranges)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (file, offset, len);
            None
        }
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn statfs(file: &File) -> io::Result<libc::statfs> {
        let mut answer = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the answer has room for one `statfs`.
        retry(|| unsafe { libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so it filled the answer.
        Ok(unsafe { answer.assume_init() })
    }
}

#[cfg(windows)]
mod windows {
    use super::*;
    use memmap2::MmapRaw;
    use std::ffi::c_void;
    use std::os::windows::io::AsRawHandle;

    /// What `GetFileInformationByHandle` fills in.
    #[repr(C)]
    #[derive(Default)]
    struct ByHandleFileInformation {
        attributes: u32,
        creation_time: [u32; 2],
        last_access_time: [u32; 2],
        last_write_time: [u32; 2],
        volume_serial_number: u32,
        file_size_high: u32,
        file_size_low: u32,
        number_of_links: u32,
        file_index_high: u32,
        file_index_low: u32,
    }

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetFileInformationByHandle(file: *mut c_void, information: *mut ByHandleFileInformation) -> i32;
        fn GetVolumeInformationByHandleW(
            file: *mut c_void,
            volume_name: *mut u16,
            volume_name_size: u32,
            serial_number: *mut u32,
            component_length_max: *mut u32,
            flags: *mut u32,
            file_system_name: *mut u16,
            file_system_name_size: u32,
        ) -> i32;
    }

    /// Windows has no such call: NTFS journals names, and flushing a file makes its own entry durable.
    pub(in super::super) fn sync_dir(path: &Path) -> io::Result<()> {
        // A missing directory is an error everywhere.
        std::fs::metadata(path).map(drop)
    }

    /// How many names the file at `path` has.
    pub(in super::super) fn link_count(path: &Path) -> io::Result<u64> {
        let file = File::open(path)?;
        let mut information = ByHandleFileInformation::default();
        // SAFETY: the handle is open, and `information` is live and laid out as the call expects.
        let done = unsafe { GetFileInformationByHandle(file.as_raw_handle().cast(), &mut information) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(information.number_of_links.into()) }
    }

    /// Nothing: Windows has no call that touches pages for writing without changing them.
    pub(in super::super) fn populate(_map: &MmapRaw, _offset: usize, _bytes: usize) {}

    /// Nothing: a flush of a view goes through it in one piece.
    pub(in super::super) fn release(_map: &MmapRaw, _offset: usize, _bytes: usize) {}

    /// Setting the length allocates, since the file is not sparse.
    pub(in super::super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
        if file.metadata()?.len() < bytes || bytes == 0 { file.set_len(bytes) } else { Ok(()) }
    }

    /// Cannot tell.
    pub(in super::super) fn written_ranges(_file: &File, _offset: u64, _len: u64) -> Option<Vec<Range<u64>>> {
        None
    }

    /// Whether the volume is NTFS (L1).
    pub(in super::super) fn is_safe_to_map(file: &File) -> io::Result<bool> {
        let mut name = [0_u16; 64];
        let nothing = std::ptr::null_mut;
        // SAFETY: the handle is open; the call accepts null for everything that is not asked for, and writes at most
        // the given number of characters into `name`.
        let done = unsafe {
            GetVolumeInformationByHandleW(
                file.as_raw_handle().cast(),
                std::ptr::null_mut(),
                0,
                nothing(),
                nothing(),
                nothing(),
                name.as_mut_ptr(),
                name.len() as u32,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        let length = name.iter().position(|&unit| unit == 0).unwrap_or(name.len());
        Ok(String::from_utf16_lossy(&name[..length]) == "NTFS")
    }
}
