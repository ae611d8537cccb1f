//! Finds the number of a name without a lock when this thread has found it before.
//!
//! A text of the program and a source location have an address that never changes. Each thread remembers the names of
//! the last few addresses, and those of the last few other texts, such as the routes of requests, by a hash. Only a name
//! that the thread does not remember takes the lock of the list. `benches/task` shows both.

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
    let find = || uncharged(|| Some(NAMES.find_or_add(name, NameOrigin::Program)));
    recalled("", name, find).unwrap_or(NameId::OTHER)
}

/// Returns the number of the name `first second`. It allocates only for a new name or a very long one.
#[cfg(feature = "tower")]
pub(crate) fn name_of_two(first: &str, second: &str) -> NameId {
    let parts = [first, " ", second];
    let find = || {
        let mut buffer = [0; 256];
        uncharged(|| match join(&mut buffer, &parts) {
            Some(name) => Some(NAMES.find_or_add(name, NameOrigin::Program)),
            None => Some(NAMES.find_or_add(&parts.concat(), NameOrigin::Program)),
        })
    };
    recalled(first, second, find).unwrap_or(NameId::OTHER)
}

/// Writes the parts into the buffer if it has room.
#[cfg(feature = "tower")]
fn join<'a>(buffer: &'a mut [u8], parts: &[&str]) -> Option<&'a str> {
    let mut length = 0;
    for part in parts {
        let end = length + part.len();
        buffer.get_mut(length..end)?.copy_from_slice(part.as_bytes());
        length = end;
    }
    std::str::from_utf8(buffer.get(..length)?).ok()
}

/// Returns the number of a name if it is known.
#[cfg(feature = "tower")]
pub(crate) fn known_name(name: &str) -> Option<NameId> {
    recalled("", name, || NAMES.find(name))
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

thread_local! {
    /// Names and their texts by the hash of the text. An empty text is an empty entry.
    static TEXTS: [Cell<(&'static str, NameId)>; ENTRIES] =
        const { [const { Cell::new(("", NameId::OTHER)) }; ENTRIES] };
}

/// Returns the number of the name `first second`, or of `second` if there is no first part. A name keeps its number, so that
/// the text is all that has to be compared. [`NameId::OTHER`] is not remembered: its names may get numbers of their own.
#[inline]
fn recalled(first: &str, second: &str, find: impl FnOnce() -> Option<NameId>) -> Option<NameId> {
    TEXTS.with(|texts| {
        let Some(entry) = texts.get(hash(first, second) as usize % ENTRIES) else { return find() };
        let (text, name) = entry.get();
        if is_made_of(text, first, second) {
            return Some(name);
        }
        let name = find()?;
        if name != NameId::OTHER {
            entry.set((NAMES.text(name), name));
        }
        Some(name)
    })
}

/// A hash that spreads the names of a program over the entries. An entry's text is compared: nothing depends on the hash but
/// the time. Of the first part, the method of a request, it takes the first byte and the length.
#[inline]
fn hash(first: &str, second: &str) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let seed = first.len() as u64 + u64::from(first.as_bytes().first().copied().unwrap_or_default());
    let bytes = second.as_bytes();
    let hash = match bytes.last_chunk::<8>() {
        Some(end) => {
            let words = bytes.as_chunks::<8>().0.iter().chain([end]);
            words.fold(seed, |hash, word| mix(hash, u64::from_ne_bytes(*word)))
        }
        None => mix(seed, bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
    };
    mix(hash, bytes.len() as u64) >> 32
}

#[inline]
fn is_made_of(text: &str, first: &str, second: &str) -> bool {
    if first.is_empty() {
        return text == second && !second.is_empty();
    }
    let rest = text.strip_prefix(first).and_then(|rest| rest.strip_prefix(' '));
    rest == Some(second)
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
    fn parts_make_one_name_and_another_text_with_the_same_hash_is_another() {
        for text in ["lookup GET /a/{id}", "lookup GET /b"] {
            let (first, second) = text.split_once(' ').unwrap();
            let find = || Some(NAMES.find_or_add(text, NameOrigin::Program));
            for _ in 0..2 {
                assert_eq!(recalled(first, second, find), Some(name_of_str(text)));
            }
        }
        assert!(is_made_of("a b", "a", "b") && is_made_of("a b", "", "a b") && is_made_of("a ", "a", ""));
        for (text, first, second) in [
            ("a b", "a", ""),
            ("a b", "a", "bc"),
            ("a b", "", "b"),
            ("a b", "a ", "b"),
            ("", "", ""),
            ("ab", "a", "b"),
        ] {
            assert!(!is_made_of(text, first, second), "{text:?} {first:?} {second:?}");
        }
        let many: Vec<_> = (0..3 * ENTRIES).map(|index| format!("lookup: many {index}")).collect();
        NAMES.set_limit(1000);
        for _ in 0..2 {
            for text in &many {
                assert_eq!(NAMES.text(name_of_str(text)), *text);
            }
        }
    }

    #[test]
    #[cfg(feature = "tower")]
    fn a_name_that_is_too_long_for_the_buffer_is_not_cut() {
        let mut buffer = [0; 8];
        assert_eq!(join(&mut buffer, &["GET", " ", "/abc"]), Some("GET /abc"));
        assert_eq!(join(&mut buffer, &["GET", " ", "/abcd"]), None);
        let long = format!("/{}", "a".repeat(300));
        assert_eq!(NAMES.text(name_of_two("lookup", &long)), format!("lookup {long}"));
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
