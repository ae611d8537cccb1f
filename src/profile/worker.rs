//! Recognises the stack of a worker of Tokio's that is busy.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use object::read::ReadCache;
use object::{Object as _, ObjectSymbol};

use super::frames::{is_idle, is_worker_loop};
use super::symbols::{Symbols, object_at};
use crate::count::allocator::samples::without_samples;
use crate::stack::{self, Stack};

/// Returns true if a stack leads through the loop of a worker, and not through its waiting for work.
///
/// A worker may move to another thread, whose stack must not be taken for the worker's.
pub(super) fn is_busy_worker(stack: &Stack) -> bool {
    static TOKIO: OnceLock<Tokio> = OnceLock::new();
    let tokio = TOKIO.get_or_init(|| without_samples(Tokio::load).unwrap_or_default());
    if tokio.is_loop(stack) {
        return !tokio.is_waiting(stack);
    }
    // The loop may be inlined into a function with another name: debug information knows.
    let symbols = Symbols::load(stack.frames.iter().copied(), &stack::objects());
    let frames = || stack.frames.iter().flat_map(|address| symbols.at(*address));
    frames().any(is_worker_loop) && !frames().any(is_idle)
}

/// The addresses of some of Tokio's functions. Looked up once, since the symbol table is large.
#[derive(Debug, Default)]
struct Tokio {
    loops: Vec<Range<usize>>,
    waits: Vec<Range<usize>>,
}

impl Tokio {
    /// Reads the symbol table of the object that this library is linked into, and Tokio with it.
    fn load() -> Option<Self> {
        let objects = stack::objects();
        let object = object_at(&objects, is_busy_worker as fn(&Stack) -> bool as usize + 1)?;
        let cache =
            ReadCache::new(File::open(object.path.as_deref().unwrap_or(Path::new("/proc/self/exe"))).ok()?);
        let file = object::File::parse(&cache).ok()?;
        let mut tokio = Tokio::default();
        for symbol in file.symbols() {
            // Both ways of mangling write the parts of a path one after the other, each with its length.
            let Ok(name) = symbol.name() else { continue };
            let Some((_, path)) = name.split_once("5tokio7runtime") else { continue };
            let start = object.bias.wrapping_add(symbol.address() as usize);
            let range = start..start.saturating_add(symbol.size() as usize);
            if path.starts_with("6driver") || path.contains("4park") {
                tokio.waits.push(range);
            } else if path.starts_with("9scheduler") {
                tokio.loops.push(range);
            }
        }
        Some(tokio)
    }

    fn is_loop(&self, stack: &Stack) -> bool {
        has(&self.loops, stack)
    }

    /// Returns true if the part of the stack above the innermost loop waits for work. `block_on` inside a task waits, too, but
    /// that is the task's doing: it waits by `runtime::park`, a worker by the driver.
    fn is_waiting(&self, stack: &Stack) -> bool {
        has(&self.waits, stack)
    }
}

fn has(functions: &[Range<usize>], stack: &Stack) -> bool {
    stack
        .frames
        .iter()
        .any(|address| functions.iter().any(|range| range.contains(&address.saturating_sub(1))))
}
