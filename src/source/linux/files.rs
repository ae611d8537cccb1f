//! Reads and parses the kernel's text files.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::util::log;

/// Reads files one after the other into the same buffer.
pub(crate) struct FileReader {
    /// The process that reads. A child after `fork` is another one.
    process: u32,
    path: PathBuf,
    buffer: Vec<u8>,
    /// The files that have no valid content. There has been a warning for each.
    malformed: Vec<PathBuf>,
}

impl FileReader {
    /// The longest text that is read. The longest file in practice, the list of mounts, is far shorter.
    const MAX_LENGTH: usize = 1 << 24;
    /// Room for each of the files that a collection reads.
    const FIRST_LENGTH: usize = 1 << 13;

    pub(crate) fn new() -> Self {
        FileReader {
            process: std::process::id(),
            path: PathBuf::new(),
            buffer: vec![0; Self::FIRST_LENGTH],
            malformed: Vec::new(),
        }
    }

    /// Finds out which process reads. Must be called before each collection.
    pub(crate) fn refresh(&mut self) {
        self.process = std::process::id();
    }

    /// Opens and reads a file, and closes it. Returns `None` if it cannot be read.
    pub(crate) fn read(&mut self, directory: &Path, name: &str) -> Option<&[u8]> {
        self.path.as_mut_os_string().clear();
        self.path.push(directory);
        self.path.push(name);
        let file = File::open(&self.path).ok()?;
        let mut length = 0;
        loop {
            match self.read_at(&file, length).ok()? {
                0 => return self.buffer.get(..length),
                read => length += read,
            }
        }
    }

    /// Reads and parses a file that stays open. Returns `None` if it cannot be read, or if its content is not valid, for
    /// which there is one warning.
    pub(crate) fn parsed<T>(
        &mut self,
        file: &mut OpenFile,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.read_open(file)?);
        if parsed.is_none() && !self.malformed.contains(&file.path) {
            self.malformed.push(file.path.clone());
            log::keep_warning("a file of the system has an unknown format", file.path.to_string_lossy());
        }
        parsed
    }

    /// Returns the files of which there was a warning.
    #[cfg(test)]
    pub(crate) fn malformed(&self) -> impl Iterator<Item = &Path> {
        self.malformed.iter().map(PathBuf::as_path)
    }

    /// Reads a file that stays open. Returns `None` if it cannot be read.
    pub(crate) fn read_open(&mut self, file: &mut OpenFile) -> Option<&[u8]> {
        let was_open = file.open.is_some();
        let mut length = self.length_of(file);
        if length.is_err() {
            // The control group has been removed, for example. There may be a new one of its name.
            file.open = None;
            if was_open {
                length = self.length_of(file);
            }
        }
        file.open.take_if(|open| length.is_err() || !open.is_counted);
        self.buffer.get(..length.ok()?)
    }

    /// Returns what the kernel says of a file or directory that stays open, or `None` if it cannot be opened.
    pub(crate) fn metadata(&self, file: &mut OpenFile) -> Option<Metadata> {
        let metadata = match &file.open {
            // One call finds out that it is the same file, and the answer.
            Some(open) if open.process == self.process => open.metadata(),
            _ => None,
        };
        let metadata = metadata.or_else(|| file.opened_by(self.process).ok()?.metadata().ok());
        file.open.take_if(|open| !open.is_counted);
        metadata
    }

    /// Returns the id of the process that reads.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Reads a file that stays open, and returns the length of its text.
    fn length_of(&mut self, file: &mut OpenFile) -> io::Result<usize> {
        let process = self.process;
        let mut length = 0;
        loop {
            // Once more at the end only where the text has filled the buffer: the kernel writes each of these files at
            // once, as far as there is room.
            let read = self.read_at(file.opened_by(process)?, length)?;
            length += read;
            if read == 0 || length < self.buffer.len() {
                return Ok(length);
            }
        }
    }

    /// Reads from an offset into the buffer behind as many bytes, and returns how many bytes it has read.
    fn read_at(&mut self, file: &File, offset: usize) -> io::Result<usize> {
        if offset >= self.buffer.len() {
            self.buffer.resize((2 * offset).min(Self::MAX_LENGTH), 0);
        }
        let room = self.buffer.get_mut(offset..).unwrap_or_default();
        loop {
            match file.read_at(room, offset as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// A file that stays open between collections, since opening one takes several times as long as reading it.
///
/// It is opened when it is first read, and again when it cannot be read any more, by a child after `fork` (for which
/// `/proc/self` is another directory), and when its descriptor has become another file, as in a daemon that closes all
/// descriptors. Once [`MAX`](Self::MAX) files are open, further ones are closed again after each reading.
pub(crate) struct OpenFile {
    path: PathBuf,
    open: Option<Descriptor>,
}

impl OpenFile {
    /// The number of files that the process keeps open at most.
    pub(crate) const MAX: usize = 16;

    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        OpenFile { path: path.into(), open: None }
    }

    /// Returns the file, opened by this process.
    fn opened_by(&mut self, process: u32) -> io::Result<&File> {
        if !self.open.as_ref().is_some_and(|open| open.process == process && open.is_unchanged()) {
            self.open = None;
            self.open = Some(Descriptor::open(&self.path, process)?);
        }
        self.open.as_ref().and_then(|open| open.file.as_ref()).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// An open file, and what distinguishes it from another one with the same descriptor.
struct Descriptor {
    /// `None` only while it is dropped.
    file: Option<File>,
    process: u32,
    device: u64,
    inode: u64,
    /// True if it is one of those that may stay open.
    is_counted: bool,
}

/// The number of files that stay open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

impl Descriptor {
    fn open(path: &Path, process: u32) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let one_more = |open| (open < OpenFile::MAX).then_some(open + 1);
        let is_counted = OPEN.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        Ok(Descriptor {
            file: Some(file),
            process,
            device: metadata.dev(),
            inode: metadata.ino(),
            is_counted,
        })
    }

    /// Returns true unless the program has closed the descriptor, which is invalid or another file then.
    fn is_unchanged(&self) -> bool {
        self.metadata().is_some()
    }

    /// Returns what the kernel says of the file, or `None` if the descriptor is no longer that of the file.
    fn metadata(&self) -> Option<Metadata> {
        let now = self.file.as_ref()?.metadata().ok()?;
        (now.dev() == self.device && now.ino() == self.inode).then_some(now)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_counted {
            OPEN.fetch_sub(1, Relaxed);
        }
        if !self.is_unchanged()
            && let Some(file) = self.file.take()
        {
            // The descriptor is invalid or the program's. To close it would be to close the program's file.
            _ = file.into_raw_fd();
        }
    }
}

/// Parses a text that is one number.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Returns the number after a key, in a text with a key and a number on each line.
pub(crate) fn number_of(text: &[u8], key: &str) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?;
        number(rest)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    #[test]
    fn a_number_stands_alone() {
        assert_eq!(number(b"4096\n"), Some(4096));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"\n", b"max\n", b"-1\n", b"1 2", b"18446744073709551616", b"0x10", b"\xff"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_key_is_matched_as_a_whole() {
        let text = b"nr_periods 7\nnr_throttled_ 1\nnr_throttled 3\nthrottled_usec\nthrottled_usec x\ncut 5";
        assert_eq!(number_of(text, "nr_throttled"), Some(3));
        assert_eq!(number_of(text, "cut"), Some(5));
        assert_eq!(number_of(text, "throttled_usec"), None);
        assert_eq!(number_of(text, "nr"), None);
        assert_eq!(number_of(b"", "nr"), None);
    }

    #[test]
    fn a_missing_file_has_no_content_and_the_next_one_is_read_afresh() {
        let mut reader = FileReader::new();
        assert!(reader.read(Path::new("/proc/self"), "status").is_some_and(|text| text.len() > 100));
        assert_eq!(reader.read(Path::new("/proc/self"), "no such file"), None);
        assert_eq!(reader.read(Path::new("/proc"), "self"), None, "a directory");
        assert!(reader.read(Path::new("/proc/self"), "statm").is_some_and(|text| text.len() < 100));
        assert_eq!(reader.read_open(&mut OpenFile::new("/proc/self/no such file")), None);
        let mut directory = OpenFile::new("/proc/self");
        assert_eq!(reader.read_open(&mut directory), None);
        assert!(directory.open.is_none(), "what cannot be read does not stay open");
    }

    fn written(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn an_open_file_is_read_from_its_start_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), "a", "long text");
        let (mut reader, mut file) = (FileReader::new(), OpenFile::new(&path));
        for text in
            ["long text", "text", "", &"x".repeat(FileReader::FIRST_LENGTH), &"y".repeat(30_000), "end"]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(reader.read_open(&mut file), Some(text.as_bytes()));
        }
        drop(file);
        assert_eq!(reader.read(directory.path(), "a"), Some(&b"end"[..]));
    }

    #[test]
    fn so_many_files_stay_open_and_the_others_are_read_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let text = |number: usize| format!("text {number}");
        let file = |number| OpenFile::new(written(directory.path(), &text(number), &text(number)));
        let mut files: Vec<_> = (0..OpenFile::MAX + 10).map(file).collect();
        let mut reader = FileReader::new();
        for _ in 0..2 {
            for (number, file) in files.iter_mut().enumerate() {
                assert_eq!(reader.read_open(file), Some(text(number).as_bytes()));
            }
            assert!(files.iter().filter(|file| file.open.is_some()).count() <= OpenFile::MAX);
        }
    }

    #[test]
    fn the_file_of_another_process_is_opened_again() {
        let mut file = OpenFile::new("/proc/self/statm");
        let mut reader = FileReader::new();
        let parent = reader.process.wrapping_add(1);
        assert!(file.opened_by(parent).is_ok());
        assert_eq!(file.open.as_ref().map(|open| open.process), Some(parent));
        assert!(reader.read_open(&mut file).is_some());
        assert!(file.open.is_none_or(|open| open.process == reader.process));
    }

    #[test]
    #[allow(unsafe_code, reason = "closes a descriptor that something else owns, as a daemon does")]
    fn a_descriptor_that_the_program_takes_back_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| written(directory.path(), name, name));
        let theirs = File::open(theirs).unwrap();
        for is_read_again in [true, false] {
            let (mut reader, mut file) = (FileReader::new(), OpenFile::new(&ours));
            let taken = file.opened_by(reader.process).unwrap().as_raw_fd();
            // SAFETY: `dup2` takes any two descriptors. The owner of `taken` is to find out that it is another file.
            assert_eq!(unsafe { libc::dup2(theirs.as_raw_fd(), taken) }, taken);
            if is_read_again {
                assert_eq!(reader.read_open(&mut file), Some(&b"ours"[..]));
            }
            drop(file);
            // SAFETY: `dup2` has opened `taken`, and its former owner no longer owns it.
            let taken = unsafe { File::from_raw_fd(taken) };
            let mut text = [0; 8];
            assert_eq!(taken.read_at(&mut text, 0).unwrap(), "theirs".len(), "it is still open");
        }
    }
}
