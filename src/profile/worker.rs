//! Recognises the stack of a worker of Tokio's that is busy.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use object::{Object as _, ObjectSymbol};

use super::frames::{is_idle, is_worker_loop};
use super::object_file::ObjectFile;
use super::symbols::{Symbols, object_at};
use crate::stack::{self, Stack};
use crate::util::mutex::Mutex;

/// Returns true if a stack leads through the loop of a worker, and not through its waiting for work.
///
/// A worker may move to another thread, whose stack must not be taken for the worker's.
pub(super) fn is_busy_worker(stack: &Stack) -> bool {
    let tokio = Tokio::get();
    if tokio.is_loop(stack) {
        return !tokio.is_waiting(stack);
    }
    // The loop may be inlined into a function with another name: debug information knows.
    let [is_loop, is_waiting] = INLINED.lock().look_up(stack);
    is_loop && !is_waiting
}

/// Cuts the loop of the worker off, which calls the same task from several places.
pub(super) fn without_loop(stack: &Stack) -> Stack {
    let is_in_loop = |address: &usize| contains(&Tokio::get().loops, *address);
    Stack {
        frames: stack.frames.iter().copied().take_while(|address| !is_in_loop(address)).collect(),
        ..*stack
    }
}

static INLINED: Mutex<Inlined> = Mutex::new(Inlined { known: None });

/// What debug information says of addresses. Kept, since it takes megabytes to read, and idle threads have few addresses.
struct Inlined {
    /// By address: whether a worker's loop is there, and whether its waiting for work is.
    known: Option<HashMap<usize, [bool; 2]>>,
}

impl Inlined {
    /// More addresses are not kept.
    const LIMIT: usize = 10_000;

    /// Returns whether a stack leads through a worker's loop, and whether through its waiting for work.
    fn look_up(&mut self, stack: &Stack) -> [bool; 2] {
        let known = self.known.get_or_insert_default();
        if known.len() > Self::LIMIT {
            known.clear();
        }
        let new: Vec<_> =
            stack.frames.iter().copied().filter(|address| !known.contains_key(address)).collect();
        if !new.is_empty() {
            let symbols = Symbols::load(new.iter().copied(), &stack::objects());
            known.extend(new.into_iter().map(|address| {
                let frames = symbols.at(address);
                (address, [frames.iter().any(is_worker_loop), frames.iter().any(is_idle)])
            }));
        }
        let of_stack = || stack.frames.iter().filter_map(|address| known.get(address));
        [of_stack().any(|[is_loop, _]| *is_loop), of_stack().any(|[_, is_waiting]| *is_waiting)]
    }
}

/// The addresses of some of Tokio's functions. Looked up once, since the symbol table is large.
#[derive(Debug, Default)]
struct Tokio {
    loops: Vec<Range<usize>>,
    waits: Vec<Range<usize>>,
}

impl Tokio {
    fn get() -> &'static Self {
        static TOKIO: OnceLock<Tokio> = OnceLock::new();
        TOKIO.get_or_init(|| Tokio::load().unwrap_or_default())
    }

    /// Reads the symbol table of the object that this library is linked into, and Tokio with it.
    fn load() -> Option<Self> {
        let objects = stack::objects();
        let object = object_at(&objects, is_busy_worker as fn(&Stack) -> bool as usize + 1)?;
        let file = ObjectFile::open(object)?;
        let file = file.parse()?;
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
    stack.frames.iter().any(|address| contains(functions, *address))
}

/// Returns true if a return address lies in one of the functions.
fn contains(functions: &[Range<usize>], address: usize) -> bool {
    functions.iter().any(|range| range.contains(&address.saturating_sub(1)))
}
