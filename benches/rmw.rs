//! Counts the atomic read-modify-writes that a program executes, exactly: callgrind counts the executions of each
//! instruction, and the bytes of the program say which of them lock a cache line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use object::{Object, ObjectSegment};

/// The counts of a measured region.
#[derive(Clone, Debug, Default)]
pub struct Executed {
    pub instructions: u64,
    /// The read-modify-writes of the program's own code, by function.
    pub own: BTreeMap<String, u64>,
    /// Those of shared libraries: the C library.
    pub others: u64,
}

impl Executed {
    /// Returns the read-modify-writes of the program's own code.
    pub fn own(&self) -> u64 {
        self.own.values().sum()
    }
}

/// Runs a program under callgrind and counts what its threads execute inside the function `region`, which has an unmangled
/// name. Returns `None` without valgrind.
pub fn count(program: &Path, arguments: &[impl AsRef<OsStr>], region: &str) -> Option<Executed> {
    let file = tempfile::NamedTempFile::new().ok()?;
    let options = [
        format!("--callgrind-out-file={}", file.path().display()),
        format!("--toggle-collect={region}"),
        "--dump-instr=yes".into(),
        "--dump-line=no".into(),
        "--compress-strings=no".into(),
        "--compress-pos=no".into(),
    ];
    crate::callgrind_by(&options, program, arguments, &[])?;
    let report = fs::read_to_string(file.path()).ok()?;
    Some(add_up(&report, program))
}

/// Reads callgrind's report: objects (`ob=`), functions (`fn=`), and lines with an address and a count. The line after
/// `calls=` has what the called function executed, which is counted there.
fn add_up(report: &str, program: &Path) -> Executed {
    let mut executed = Executed::default();
    let mut codes: BTreeMap<&str, Code> = BTreeMap::new();
    let (mut object, mut function, mut is_call) = ("", "", false);
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = name;
            codes.entry(object).or_insert_with(|| Code::read(object));
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            if std::mem::take(&mut is_call) {
                continue;
            }
            let mut fields = rest.split(' ');
            let (Some(address), Some(count)) = (fields.next(), fields.next()) else { continue };
            let address = u64::from_str_radix(address, 16).unwrap_or_default();
            let count: u64 = count.parse().unwrap_or_default();
            executed.instructions += count;
            if codes.get(object).is_some_and(|code| is_read_modify_write(code.at(address))) {
                if Path::new(object) == program {
                    *executed.own.entry(function.to_owned()).or_default() += count;
                } else {
                    executed.others += count;
                }
            }
        }
    }
    executed
}

/// The code of a file, by address.
struct Code(Vec<(u64, Vec<u8>)>);

impl Code {
    fn read(path: &str) -> Self {
        let content = fs::read(path).unwrap_or_default();
        let segments = object::File::parse(&*content).map(|file| {
            let segment =
                |segment: object::Segment<'_, '_>| Some((segment.address(), segment.data().ok()?.to_vec()));
            file.segments().filter_map(segment).collect()
        });
        Code(segments.unwrap_or_default())
    }

    /// Returns the bytes from an address on.
    fn at(&self, address: u64) -> &[u8] {
        let found = self.0.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset..)
        });
        found.unwrap_or_default()
    }
}

/// Returns true if the instruction has the prefix `lock`, or is an `xchg` with memory, which locks without it.
fn is_read_modify_write(code: &[u8]) -> bool {
    let mut code = code.iter().copied();
    loop {
        match code.next() {
            Some(0xf0) => return true,
            // Other prefixes.
            Some(0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf2 | 0xf3) => {}
            // Registers alone have the two upper bits.
            Some(0x86 | 0x87) => return code.next().is_some_and(|operands| operands >> 6 != 3),
            _ => return false,
        }
    }
}
