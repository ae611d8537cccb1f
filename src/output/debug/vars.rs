//! The answer of `/debug/vars`, as Go's `expvar` serves it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::output::json;
use crate::output::memstats::{MemStats, Pauses, Stats};
use crate::snapshot::Snapshot;

pub(super) struct Vars<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) pauses: &'a Pauses,
    pub(super) command_line: bool,
}

impl Serialize for Vars<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cmdline", &command_line(self.command_line))?;
        map.serialize_entry("memstats", &MemStats(Stats { snapshot: self.snapshot, pauses: self.pauses }))?;
        json::write_snapshot(&mut map, self.snapshot)?;
        map.end()
    }
}

/// Returns the program's arguments, or nothing if they are not to be shown.
pub(super) fn command_line(shown: bool) -> Vec<String> {
    let arguments = std::env::args_os().take(if shown { usize::MAX } else { 0 });
    arguments.map(|argument| argument.to_string_lossy().into_owned()).collect()
}
