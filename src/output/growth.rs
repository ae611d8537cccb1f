//! The stacks whose memory has grown most, as a line of the monitor has them.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::profile::{self, GrownStack, Profile};

/// The number of stacks of a line.
const STACKS: usize = 5;

/// Compares the heap profile with the one before.
pub(crate) struct Growth {
    every: u32,
    lines: u32,
    earlier: Profile,
}

impl Growth {
    /// Begins to compare. Every `every`-th line has stacks.
    pub(crate) fn start(every: u32) -> Self {
        Growth { every: every.max(1), lines: 0, earlier: profile::heap() }
    }

    /// Returns the stacks of the next line. `None` if it is to have none, or if no heap profile runs.
    pub(crate) fn next(&mut self) -> Option<Vec<GrownStack>> {
        self.lines += 1;
        if self.lines < self.every {
            return None;
        }
        self.lines = 0;
        let now = profile::heap();
        let stacks = profile::grown(&now.delta(&self.earlier), STACKS);
        let has_samples = now.error().is_none();
        self.earlier = now;
        has_samples.then_some(stacks)
    }
}

impl Serialize for GrownStack {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bytes", &self.bytes)?;
        if let Some(frame) = &self.frame {
            map.serialize_entry("function", &*frame.name)?;
            if !frame.file.is_empty() {
                map.serialize_entry("file", &*frame.file)?;
                map.serialize_entry("line", &frame.line)?;
            }
        }
        map.serialize_entry("stack", &self.stack)?;
        map.end()
    }
}
