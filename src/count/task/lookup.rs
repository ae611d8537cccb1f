//! Finds the number of a name without a lock when this thread has found it before.
//!
//! A text of the program and a source location have an address that never changes. Each thread remembers the names of
//! the last few addresses; only an address that it does not remember takes the lock of the list. `benches/task.rs` shows
//! both: the name of a `String` always takes the lock, and under the hooks every poll looks its location up.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::Location;

use super::location;
use super::name::{NameId, NameOrigin};
use super::names::NAMES;
use super::thread::uncharged;

/// Returns the number of a name.
pub(crate) fn name_of_text(name: Cow<'static, str>) -> NameId {
    match name {
        Cow::Borrowed(text) => {
            let key = (text.as_ptr().addr(), text.len());
            remembered(key, || Some(name_of_str(text))).unwrap_or(NameId::OTHER)
        }
        Cow::Owned(text) => name_of_str(&text),
    }
}

/// Returns the number of a name that may not outlive the call. It allocates only for a new name.
pub(crate) fn name_of_str(name: &str) -> NameId {
    uncharged(|| NAMES.find_or_add(name, NameOrigin::Program))
}

/// Returns the number of a name if it is known.
#[cfg(feature = "tower")]
pub(crate) fn known_name(name: &str) -> Option<NameId> {
    NAMES.find(name)
}

/// Returns the number of a location's name: `src/server.rs:88`. `None` for the spawns of this library.
#[inline]
pub(crate) fn name_of_location(location: &'static Location<'static>, origin: NameOrigin) -> Option<NameId> {
    let address = address(location);
    // No text has that length.
    remembered((address, usize::MAX), || {
        uncharged(|| NAMES.find_or_add_location(address, origin, || location::label(location)))
    })
}

/// Counts no task that is spawned at this location from now on.
#[cfg(tokio_unstable)]
pub(crate) fn exclude(location: &'static Location<'static>) {
    uncharged(|| NAMES.exclude_location(address(location)));
}

#[inline]
fn address(location: &'static Location<'static>) -> usize {
    std::ptr::from_ref(location).addr()
}

/// A name that this thread has looked up.
#[derive(Clone, Copy)]
struct Entry {
    /// Address and length of the text; an address of 0 is an empty entry.
    key: (usize, usize),
    generation: u32,
    name: Option<NameId>,
}

const ENTRIES: usize = 64;

thread_local! {
    static CACHE: [Cell<Entry>; ENTRIES] =
        const { [const { Cell::new(Entry { key: (0, 0), generation: 0, name: None }) }; ENTRIES] };
}

#[inline]
fn remembered(key: (usize, usize), find: impl FnOnce() -> Option<NameId>) -> Option<NameId> {
    let generation = NAMES.generation();
    CACHE.with(|cache| {
        // Constants that the compiler puts side by side get different entries.
        let index = (key.0 ^ (key.0 >> 6) ^ (key.0 >> 12)) / 8 % ENTRIES;
        let Some(entry) = cache.get(index) else { return find() };
        let known = entry.get();
        if known.key == key && known.generation == generation {
            return known.name;
        }
        let name = find();
        entry.set(Entry { key, generation, name });
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_another_name() {
        let whole = "lookup: connection";
        let name = |text: &'static str| NAMES.text(name_of_text(Cow::Borrowed(text)));
        for _ in 0..2 {
            assert_eq!(name(whole), whole);
            assert_eq!(name(&whole[..15]), &whole[..15]);
        }
        assert_eq!(name_of_text(Cow::Owned(whole.to_owned())), name_of_text(Cow::Borrowed(whole)));
    }

    #[test]
    fn texts_that_share_an_entry_keep_their_names() {
        let texts: Vec<&'static str> =
            (0..2 * ENTRIES).map(|index| &*format!("lookup: {index}").leak()).collect();
        NAMES.set_limit(1000);
        for _ in 0..2 {
            for text in &texts {
                assert_eq!(NAMES.text(name_of_text(Cow::Borrowed(text))), *text);
            }
        }
    }
}
