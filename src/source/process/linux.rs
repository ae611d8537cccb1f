//! Reads the process from `/proc` and the system calls beside it.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::sample::{Io, Memory, Process};
use crate::source::linux::calls as sys;
use crate::source::linux::files::{FileReader, OpenFile, number_of};

/// `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    threads: u64,
    /// The start of the process, in ticks since the boot.
    start: u64,
}

pub(super) struct Sampler {
    reader: FileReader,
    memory: OpenFile,
    threads: OpenFile,
    file_descriptors: OpenFile,
    disk_io: Option<OpenFile>,
    page_size: Option<u64>,
    ticks_per_second: Option<u64>,
    /// The id and the start of this process.
    start: Option<(u32, u64)>,
}

impl Sampler {
    pub(super) fn new(disk_io: bool) -> Self {
        Sampler {
            reader: FileReader::new(),
            memory: OpenFile::new("/proc/self/statm"),
            threads: OpenFile::new("/proc/self/task"),
            file_descriptors: OpenFile::new("/proc/self/fd"),
            disk_io: disk_io.then(|| OpenFile::new("/proc/self/io")),
            page_size: sys::page_size(),
            ticks_per_second: sys::ticks_per_second(),
            start: None,
        }
    }

    pub(super) fn sample(&mut self) -> Process {
        self.reader.refresh();
        let page_size = self.page_size;
        Process {
            memory: page_size
                .and_then(|size| self.reader.parsed(&mut self.memory, |text| Memory::parse(text, size))),
            threads: self.threads(),
            file_descriptors: self.file_descriptors(),
            uptime: self.start().and_then(|start| self.since(start)),
            io: self.disk_io.as_mut().and_then(|file| self.reader.parsed(file, Io::parse)),
            ..Process::by_usage()
        }
    }

    /// Returns the start of the process, in ticks since the boot. It is read once.
    fn start(&mut self) -> Option<u64> {
        let process = self.reader.process();
        match self.start {
            Some((known, start)) if known == process => Some(start),
            _ => {
                let start = self.stat()?.start;
                self.start = Some((process, start));
                Some(start)
            }
        }
    }

    /// Returns the number of threads. `/proc/self/stat` has it too, for which the kernel visits each thread.
    fn threads(&mut self) -> Option<u64> {
        // A directory without subdirectories has two links. The kernel adds one for each thread.
        let links =
            self.reader.metadata(&mut self.threads).and_then(|directory| directory.nlink().checked_sub(2));
        links.filter(|threads| *threads > 0).or_else(|| Some(self.stat()?.threads))
    }

    fn file_descriptors(&mut self) -> Option<u64> {
        const DIRECTORY: &str = "/proc/self/fd";
        // A process that must not be traced may look at the directory, but not open it.
        let directory = self.reader.metadata(&mut self.file_descriptors);
        match directory.or_else(|| std::fs::metadata(DIRECTORY).ok())?.len() {
            // A kernel before 6.2. One of the entries is the directory that this call reads.
            0 => (std::fs::read_dir(DIRECTORY).ok()?.count() as u64).checked_sub(1),
            size => Some(size),
        }
    }

    fn stat(&mut self) -> Option<Stat> {
        self.reader.parsed(&mut OpenFile::new("/proc/self/stat"), Stat::parse)
    }

    fn since(&self, start: u64) -> Option<f64> {
        let start = Duration::try_from_secs_f64(start as f64 / self.ticks_per_second? as f64).ok()?;
        // Ticks are coarser than the clock, which can be behind the start right after it.
        Some(sys::since_boot()?.saturating_sub(start).as_secs_f64())
    }
}

impl Memory {
    fn parse(text: &[u8], page_size: u64) -> Option<Self> {
        let mut pages = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let mut bytes = || pages.next()?.parse::<u64>().ok()?.checked_mul(page_size);
        Some(Memory { size: bytes()?, resident: bytes()? })
    }
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // The second field is the name in parentheses. It may hold any bytes, also parentheses and spaces.
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(text.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
        // proc(5) counts fields from 1; the third is the first one after the name.
        let threads = fields.nth(20 - 3)?.parse().ok()?;
        let start = fields.nth(22 - 20 - 1)?.parse().ok()?;
        Some(Stat { threads, start })
    }
}

impl Io {
    fn parse(text: &[u8]) -> Option<Self> {
        Some(Io { read: number_of(text, "read_bytes:")?, written: number_of(text, "write_bytes:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"8756 (cat) R 8691 8691 3180 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 17 0 152872 3133440 \
        360 18446744073709551615 94721030246400 94721030266281 140732768192224 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";

    #[test]
    fn stat_is_read_after_the_name() {
        assert_eq!(Stat::parse(STAT), Some(Stat { threads: 17, start: 152_872 }));
        for name in [&b"a b"[..], b") R 1 2 (", b"\xff\n)", b""] {
            let rest = STAT.strip_prefix(b"8756 (cat").unwrap();
            let text = [b"8756 (", name, rest].concat();
            assert_eq!(Stat::parse(&text), Stat::parse(STAT), "{name:?}");
        }
    }

    #[test]
    fn a_truncated_or_malformed_stat_has_no_value() {
        let start_ends = STAT.windows(6).position(|field| field == b"152872").unwrap() + 6;
        // A cut in the last number itself cannot be detected.
        for length in 0..start_ends - 5 {
            assert_eq!(Stat::parse(&STAT[..length]), None, "cut after {length} bytes");
        }
        let wrong = String::from_utf8(STAT.to_vec()).unwrap().replace(" 17 0 152872", " 17 0 -3");
        assert_eq!(Stat::parse(wrong.as_bytes()), None);
    }

    #[test]
    fn statm_is_in_pages() {
        let memory = Memory { size: 765 * 4096, resident: 403 * 4096 };
        assert_eq!(Memory::parse(b"765 403 376 5 0 123 0\n", 4096), Some(memory));
        for text in [&b""[..], b"765", b"765 x", b"-1 403", b"18446744073709551615 403 1", b"\xff 1"] {
            assert_eq!(Memory::parse(text, 4096), None, "{text:?}");
        }
    }

    #[test]
    fn io_counts_the_bytes_of_the_disk() {
        let text = b"rchar: 7296\nwchar: 320\nsyscr: 14\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 9\n";
        assert_eq!(Io::parse(text), Some(Io { read: 4096, written: 512 }));
        assert_eq!(Io::parse(&text[..text.len() - 60]), None);
        assert_eq!(Io::parse(b""), None);
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    const STATS: [&[u8]; 2] = [
        b"8756 (cat) R 8691 8691 3180 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 17 0 152872 3133440 360 18446744073709551615\n",
        b"1 (a) b (c)) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 26 22216704 3200 18446744073709551615 1 1 0 0\n",
    ];

    /// Returns a field by its number in proc(5).
    fn field(text: &[u8], number: usize) -> Option<u64> {
        let after = text.rsplit(|byte| *byte == b')').next()?;
        String::from_utf8_lossy(after).split_ascii_whitespace().nth(number - 3)?.parse().ok()
    }

    #[test]
    fn any_stat_is_read_as_written_or_refused() {
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &STATS)?;
            let stat = Stat::parse(&text);
            if let Some(stat) = stat {
                assert_eq!((Some(stat.threads), Some(stat.start)), (field(&text, 20), field(&text, 22)));
            }
            Ok(stat.is_some())
        });
    }

    #[test]
    fn any_statm_is_read_as_written_or_refused() {
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &[b"765 403 376 5 0 123 0\n", b"4503599627370495 1 0 0 0 0 0\n"])?;
            let page_size = *u.choose(&[4096, 65536])?;
            let memory = Memory::parse(&text, page_size);
            if let Some(Memory { size, resident }) = memory {
                assert!(size.is_multiple_of(page_size) && resident.is_multiple_of(page_size));
            }
            Ok(memory.is_some())
        });
    }

    #[test]
    fn any_io_is_read_as_written_or_refused() {
        const IO: &[u8] = b"rchar: 7296\nwchar: 320\nsyscr: 14\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 9\n";
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &[IO])?;
            let io = Io::parse(&text);
            let has = |key: &[u8]| text.windows(key.len()).any(|window| window == key);
            assert!(io.is_none() || has(b"read_bytes: ") && has(b"write_bytes: "), "{text:?}");
            Ok(io.is_some())
        });
    }
}
