//! Decides which frames of a stack are shown.

use super::sampled::{ProfileKind, Sample};
use super::symbols::{Frame, Symbols};

/// Takes the place of what is missing at the root end of a stack.
pub(crate) const CUT: &str = "[frames cut off]";
/// Takes the place of a stack that is not known.
pub(crate) const UNKNOWN: &str = "[no stack]";

/// One address of a stack with the functions that are shown of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) address: usize,
    /// The innermost first. Empty if no name is known.
    pub(crate) frames: &'a [Frame],
    /// How many inlined functions at this address are left out.
    pub(crate) skipped: usize,
}

/// Returns the places of a stack, leaf first.
///
/// Of profiles of memory, the frames of the allocator, of this library and of the crates `core` and `alloc` are cut off the
/// leaf, so that the first frame is the one that wanted the memory. Of stalls, the frames of Tokio's loop are cut off the root.
pub(crate) fn shown<'a>(kind: ProfileKind, sample: &Sample, symbols: &'a Symbols) -> Vec<Place<'a>> {
    let place = |address: &usize| Place { address: *address, frames: symbols.at(*address), skipped: 0 };
    let places: Vec<_> = sample.stack.iter().map(place).collect();
    match kind {
        ProfileKind::Heap | ProfileKind::Allocs => without_allocator(&places),
        ProfileKind::Stalls => without_loop(&places),
        ProfileKind::Cpu | ProfileKind::Tasks | ProfileKind::Threads => places,
    }
}

fn without_allocator<'a>(places: &[Place<'a>]) -> Vec<Place<'a>> {
    for (index, place) in places.iter().enumerate() {
        if let Some(skipped) = place.frames.iter().position(|frame| !is_allocation(&frame.name)) {
            let frames = place.frames.get(skipped..).unwrap_or_default();
            let first = Place { frames, skipped, ..*place };
            return std::iter::once(first).chain(places.iter().skip(index + 1).copied()).collect();
        }
        if place.frames.is_empty() {
            break;
        }
    }
    // Without a name, or with nothing else in it.
    places.to_vec()
}

fn is_allocation(name: &str) -> bool {
    const CRATES: [&str; 5] =
        ["alloc", "core", "opentelemetry_instrumentation_runtime", "__rustc", "std::alloc"];
    const SHIMS: [&str; 4] = ["__rust_", "__rdl_", "__rg_", "_RNvCs"];
    // `<alloc::vec::Vec<T> as core::clone::Clone>::clone`, `<T as alloc::vec::SpecFromElem>::from_elem`
    let inner = name.trim_start_matches(['<', '&', '[']);
    let is_of = |path: &str| {
        CRATES.iter().any(|name| {
            path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::") || rest.starts_with('['))
        })
    };
    let of_trait = || name.strip_prefix('<').and_then(|name| name.split_once(" as "));
    is_of(inner)
        // Of a type that is a parameter or a primitive. The trait alone says nothing about a type of the program's.
        || of_trait().is_some_and(|(of, by)| !of.contains("::") && is_of(by))
        || SHIMS.iter().any(|shim| inner.starts_with(shim))
}

fn without_loop<'a>(places: &[Place<'a>]) -> Vec<Place<'a>> {
    let Some(outermost) = places.iter().rposition(|place| place.frames.iter().any(is_worker_loop)) else {
        return places.to_vec();
    };
    let is_plumbing = |place: &Place<'_>| place.frames.iter().all(|frame| is_plumbing(&frame.name));
    let end = places
        .iter()
        .take(outermost)
        .rposition(|place| !is_plumbing(place))
        .map_or(outermost, |last| last + 1);
    places.iter().take(end).copied().collect()
}

/// Returns true if a function belongs to the loop of a worker of Tokio's.
pub(crate) fn is_worker_loop(frame: &Frame) -> bool {
    frame.name.contains("tokio::runtime::scheduler::")
}

/// Returns true if a function stands between Tokio's loop and the program's futures.
fn is_plumbing(name: &str) -> bool {
    let inner = name.trim_start_matches(['<', '&']);
    ["tokio::", "core::", "std::", "alloc::", "opentelemetry_instrumentation_runtime::", "__rust"]
        .iter()
        .any(|prefix| inner.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_recognised_by_name() {
        for name in [
            "alloc::vec::Vec<T,A>::push",
            "<alloc::vec::Vec<T,A> as core::iter::Extend<T>>::extend",
            "<T as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
            "__rust_alloc",
            "__rustc[5224e6b81cd82a8f]::__rust_alloc",
            "<opentelemetry_instrumentation_runtime::CountingAllocator<A> as core::alloc::GlobalAlloc>::alloc",
        ] {
            assert!(is_allocation(name), "{name}");
        }
        for name in [
            "my_service::leak",
            "<my_service::Cache as core::default::Default>::default",
            "allocator_user::run",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
        ] {
            assert!(!is_allocation(name), "{name}");
        }
    }
}
