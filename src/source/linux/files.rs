//! Reads and parses the kernel's text files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads files one after the other into the same buffer.
///
/// It opens a file for each reading, which costs some 5 us. A file kept open would take a descriptor from the
/// application, show the parent process after a `fork`, and be another file once a daemon has closed all descriptors
/// that it inherited.
#[derive(Default)]
pub(crate) struct Reader {
    path: PathBuf,
    text: Vec<u8>,
}

impl Reader {
    /// The longest text that is read. The longest file in practice, the list of mounts, is far shorter.
    const MAX_LENGTH: u64 = 1 << 24;

    /// Returns the whole file, or `None` if it cannot be read.
    pub(crate) fn read(&mut self, directory: &Path, name: &str) -> Option<&[u8]> {
        self.path.as_mut_os_string().clear();
        self.path.push(directory);
        self.path.push(name);
        self.text.clear();
        // `take` also keeps std from querying the file's size, which is 0 here, on every reading.
        File::open(&self.path).ok()?.take(Self::MAX_LENGTH).read_to_end(&mut self.text).ok()?;
        Some(&self.text)
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
        let mut reader = Reader::default();
        assert!(reader.read(Path::new("/proc/self"), "status").is_some_and(|text| text.len() > 100));
        assert_eq!(reader.read(Path::new("/proc/self"), "no such file"), None);
        assert_eq!(reader.read(Path::new("/proc"), "self"), None, "a directory");
        assert!(reader.read(Path::new("/proc/self"), "statm").is_some_and(|text| text.len() < 100));
    }
}
