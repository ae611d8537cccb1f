//! Decides which frames of a stack are shown.

use super::sampled::{ProfileKind, Sample};
use super::symbols::{Frame, Symbols};

/// Takes the place of what is missing at the root end of a stack.
const CUT: &str = "[frames cut off]";
/// Takes the place of a stack that is not known.
pub(crate) const UNKNOWN: &str = "[no stack]";

/// One address of a stack with the functions that are shown of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location<'a> {
    pub(crate) address: usize,
    /// The innermost first. Empty if no name is known.
    pub(crate) frames: &'a [Frame],
    /// The number of inlined functions at this address that are left out.
    pub(crate) skipped: usize,
}

/// Returns what stands for the root end of a stack that is missing, or for a whole one.
pub(crate) fn stand_in(sample: &Sample) -> Option<&'static str> {
    if sample.stack.is_empty() {
        Some(sample.stand_in.unwrap_or(UNKNOWN))
    } else {
        sample.is_cut.then_some(CUT)
    }
}

/// Returns the places of a stack, leaf first.
///
/// Of profiles of memory and of tasks, the frames of the allocator, of this library and of the crates `core` and `alloc` are cut off the
/// leaf, so that the first frame is the one that wanted the memory or spawned. Of stalls, the frames of Tokio's loop are cut off the root.
pub(crate) fn shown<'a>(kind: ProfileKind, sample: &Sample, symbols: &'a Symbols) -> Vec<Location<'a>> {
    let place = |address: &usize| Location { address: *address, frames: symbols.at(*address), skipped: 0 };
    let places: Vec<_> = sample.stack.iter().map(place).collect();
    match kind {
        ProfileKind::Heap | ProfileKind::Allocs | ProfileKind::Tasks => without_allocator(&places),
        ProfileKind::Stalls => without_loop(&places),
        ProfileKind::Cpu | ProfileKind::Threads => places,
    }
}

fn without_allocator<'a>(places: &[Location<'a>]) -> Vec<Location<'a>> {
    for (index, place) in places.iter().enumerate() {
        if let Some(skipped) = place.frames.iter().position(|frame| !is_allocation(frame)) {
            let frames = place.frames.get(skipped..).unwrap_or_default();
            let first = Location { frames, skipped, ..*place };
            return std::iter::once(first).chain(places.iter().skip(index + 1).copied()).collect();
        }
        if place.frames.is_empty() {
            break;
        }
    }
    // Without a name, or with nothing else in it.
    places.to_vec()
}

fn is_allocation(frame: &Frame) -> bool {
    const SHIMS: [&str; 4] = ["__rust_", "__rdl_", "__rg_", "std::alloc::"];
    // `core` passes requests on, such as `Iterator::collect`.
    is_of_crate(frame, "alloc")
        || is_of_crate(frame, "core")
        || is_own(frame)
        || SHIMS.iter().any(|shim| frame.name.starts_with(shim))
        || frame.name.starts_with("__rustc")
}

/// Returns true if a function belongs to this library.
fn is_own(frame: &Frame) -> bool {
    is_of_crate(frame, "opentelemetry_instrumentation_runtime")
        || frame.file.contains("/src/count/allocator/")
}

/// Returns true if a function belongs to a crate: by its name if that has a path, otherwise by its file, as line tables alone
/// have names without paths for inlined functions.
fn is_of_crate(frame: &Frame, name: &str) -> bool {
    let is_in = |path: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    if let Some(inner) = frame.name.strip_prefix('<') {
        // The type of `<T as Trait>::function` decides if it has a path. A parameter or a primitive has none.
        let type_has_path = |of: &str| of.contains("::");
        let of_trait = inner.split_once(" as ");
        return is_in(inner.trim_start_matches(['&', '[', '*', '<']))
            || of_trait.is_some_and(|(of, by)| !type_has_path(of) && is_in(by));
    }
    let path = frame.name.split('<').next().unwrap_or_default();
    if path.contains("::") {
        return is_in(path);
    }
    let in_library = frame.file.split_once("/library/").and_then(|(_, path)| path.strip_prefix(name));
    let in_registry = || {
        let (_, path) = frame.file.rsplit_once("/registry/src/")?;
        path.split('/').nth(1)?.strip_prefix(name)?.strip_prefix('-')
    };
    in_library.is_some_and(|rest| rest.starts_with('/'))
        || in_registry().is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

fn without_loop<'a>(places: &[Location<'a>]) -> Vec<Location<'a>> {
    let Some(outermost) = places.iter().rposition(|place| place.frames.iter().any(is_worker_loop)) else {
        return places.to_vec();
    };
    let is_plumbing = |place: &Location<'_>| place.frames.iter().all(is_plumbing);
    let last_before =
        |end: usize, is_wanted: &dyn Fn(&Location<'_>) -> bool| places.iter().take(end).rposition(is_wanted);
    // A worker of the multi-thread scheduler polls tasks only. With optimisation, functions with equal code share a name, which
    // may be that of another crate in the middle of the loop.
    let polls_tasks = places.get(outermost).is_some_and(|place| {
        place.frames.iter().any(|frame| is_in_runtime(frame, "scheduler::multi_thread"))
    });
    let poll = last_before(outermost, &|place| place.frames.iter().any(|frame| is_in_runtime(frame, "task")));
    let loop_start = poll.filter(|_| polls_tasks).unwrap_or(outermost);
    let end = last_before(loop_start, &|place| !is_plumbing(place)).map_or(loop_start, |last| last + 1);
    places.iter().take(end).copied().collect()
}

/// Returns true if a function belongs to the loop of a worker of Tokio's.
pub(crate) fn is_worker_loop(frame: &Frame) -> bool {
    is_in_runtime(frame, "scheduler")
}

/// Returns true if a function belongs to a module of `tokio::runtime`, by its name or its file.
fn is_in_runtime(frame: &Frame, module: &str) -> bool {
    let in_name = |path: &str| path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"));
    let in_file = |path: &str| {
        module.split("::").try_fold(path, |path, part| path.strip_prefix(part)?.strip_prefix('/')).is_some()
    };
    frame.name.split("tokio::runtime::").skip(1).any(in_name)
        || frame.file.split("/src/runtime/").skip(1).any(in_file)
}

/// Returns true if a function is where a worker waits for work. `block_on` inside a task waits elsewhere.
pub(crate) fn is_idle(frame: &Frame) -> bool {
    frame.name.contains("tokio::runtime::driver::")
        || (frame.name.contains("tokio::runtime::scheduler::") && frame.name.contains("::park"))
        || frame.file.ends_with("/src/runtime/driver.rs")
        || frame.file.ends_with("/src/runtime/scheduler/multi_thread/park.rs")
}

/// Returns the first function that belongs to the program or to a library other than Tokio and the standard library.
pub(crate) fn first_of_program<'a>(locations: &[Location<'a>]) -> Option<&'a Frame> {
    // Functions of the C library have no path.
    let mut frames = locations.iter().flat_map(|location| location.frames);
    frames.find(|frame| !is_plumbing(frame) && (frame.name.contains("::") || frame.file.ends_with(".rs")))
}

/// Returns true if a function stands between Tokio's loop and the program's futures.
pub(crate) fn is_plumbing(frame: &Frame) -> bool {
    const SHIM: &str = "__rust_try";
    ["tokio", "core", "std", "alloc"].iter().any(|name| is_of_crate(frame, name))
        || is_own(frame)
        || &*frame.name == SHIM
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, file: &str) -> Frame {
        Frame { mangled: name.into(), name: name.into(), file: file.into(), line: 0 }
    }

    #[test]
    fn the_allocator_is_recognised_by_name_and_by_file() {
        for name in [
            "alloc::vec::Vec<T,A>::push",
            "<alloc::vec::Vec<T,A> as core::iter::Extend<T>>::extend",
            "<T as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
            "core::iter::traits::iterator::Iterator::collect",
            "__rust_alloc",
            "__rustc::__rust_alloc",
            "<opentelemetry_instrumentation_runtime::CountingAllocator<A> as core::alloc::GlobalAlloc>::alloc",
        ] {
            assert!(is_allocation(&frame(name, "")), "{name}");
        }
        for name in [
            "my_service::leak",
            "<my_service::Cache as core::default::Default>::default",
            "alloc_user::run",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
        ] {
            assert!(!is_allocation(&frame(name, "/rustc/5980/library/alloc/src/vec/mod.rs")), "{name}");
        }
        assert!(is_allocation(&frame("push", "/rustc/5980/library/alloc/src/vec/mod.rs")));
        assert!(!is_allocation(&frame("push", "/home/me/service/src/queue.rs")));
        let tokio = "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/task.rs";
        assert!(is_plumbing(&frame("poll", tokio)));
        assert!(is_plumbing(&frame("with_budget<core::task::Poll<()>, tokio::runtime::Core>", tokio)));
        assert!(!is_plumbing(&frame("poll", &tokio.replace("tokio-1", "tokio-util-0"))));
        assert!(!is_plumbing(&frame("serve<tokio::net::TcpStream>", "/home/me/service/src/main.rs")));
    }

    #[test]
    fn a_merged_function_within_the_loop_is_cut_off_too() {
        let names = [
            "my_service::block",
            "my_service::serve::{{closure}}",
            "tokio::runtime::task::raw::poll",
            "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
            "other::call_once",
            "tokio::runtime::scheduler::multi_thread::worker::Context::run",
            "start_thread",
        ];
        let frames: Vec<[Frame; 1]> = names.iter().map(|name| [frame(name, "")]).collect();
        let places: Vec<_> =
            frames.iter().map(|frames| Location { address: 1, frames, skipped: 0 }).collect();
        let shown: Vec<_> = without_loop(&places).iter().map(|place| &*place.frames[0].name).collect();
        assert_eq!(shown, names[..2]);
        let file =
            "/home/me/.cargo/registry/src/index/tokio-1.54.1/src/runtime/scheduler/multi_thread/worker.rs";
        assert!(
            is_worker_loop(&frame("run", file))
                && is_in_runtime(&frame("run", file), "scheduler::multi_thread")
        );
        assert!(!is_in_runtime(&frame("run", file), "task"));
    }

    #[test]
    fn the_loop_is_cut_off_and_the_chain_of_polls_is_kept() {
        let names = [
            "std::thread::sleep",
            "my_service::block",
            "my_service::serve::{{closure}}",
            "<tokio::time::Timeout<T> as core::future::Future>::poll",
            "my_service::main::{{closure}}",
            "tokio::runtime::task::raw::poll",
            "tokio::runtime::scheduler::multi_thread::worker::Context::run",
            "std::sys::backtrace::__rust_begin_short_backtrace",
            "start_thread",
        ];
        let frames: Vec<[Frame; 1]> = names.iter().map(|name| [frame(name, "")]).collect();
        let places: Vec<_> =
            frames.iter().map(|frames| Location { address: 1, frames, skipped: 0 }).collect();
        let shown: Vec<_> = without_loop(&places).iter().map(|place| &*place.frames[0].name).collect();
        assert_eq!(shown, names[..5]);
    }
}
