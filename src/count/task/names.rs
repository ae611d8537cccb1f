//! The names of tasks, each told apart once and for all.

use crate::util::mutex::Mutex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicUsize};

use super::counters::Slab;
use super::thread::unseen;

/// The name of what is not told apart.
pub(crate) const OTHER: &str = "_OTHER";

/// A name's number: 0 is [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const OTHER: NameId = NameId(0);
    /// What has no name and is not to be counted.
    const NONE: NameId = NameId(u32::MAX - 1);

    pub(crate) fn new(index: usize) -> Self {
        u32::try_from(index).map_or(NameId::OTHER, NameId)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who gave a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Giver {
    /// The program.
    Program,
    /// The place at which the task was spawned.
    Place,
}

/// All names of this process.
pub(crate) struct Names {
    list: Mutex<List>,
    known: Known,
}

struct List {
    /// The names in the order of their numbers, with whoever gave it first, and their numbers. They stay for the
    /// life of the process, which is why there is a limit.
    names: Vec<(&'static str, Giver)>,
    numbers: Option<HashMap<&'static str, NameId>>,
    limit: usize,
}

impl Names {
    pub(crate) const fn new() -> Self {
        let list = List { names: Vec::new(), numbers: None, limit: 200 };
        Names { list: Mutex::new(list), known: Known([const { Slot::new() }; Known::SLOTS]) }
    }

    /// The number of a name that the program gave. Neither locks nor allocates for a text compiled into the
    /// program that has been seen before.
    pub(crate) fn of_text(&self, name: Cow<'static, str>) -> NameId {
        let Cow::Borrowed(text) = name else {
            return unseen(|| self.lock().find_or_add(&name, Giver::Program));
        };
        let key = (text.as_ptr().addr(), text.len());
        self.known.get(key).unwrap_or_else(|| unseen(|| self.add(key, text, Giver::Program)))
    }

    /// The number of the name that belongs to something that never moves or ends, if it has one. Neither locks nor
    /// allocates when that has been seen before.
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "places are told by Tokio's hooks alone"))]
    #[inline]
    pub(crate) fn of_place<T>(
        &self,
        place: &'static T,
        label: impl FnOnce(&T) -> Option<String>,
    ) -> Option<NameId> {
        // No text has that length.
        let key = (std::ptr::from_ref(place).addr(), usize::MAX);
        let id = self.known.get(key).unwrap_or_else(|| self.add_place(key, || label(place)));
        (id != NameId::NONE).then_some(id)
    }

    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "places are told by Tokio's hooks alone"))]
    #[cold]
    #[inline(never)]
    fn add_place(&self, key: (usize, usize), label: impl FnOnce() -> Option<String>) -> NameId {
        unseen(|| match label() {
            Some(label) => self.add(key, &label, Giver::Place),
            None => self.known.put(key, NameId::NONE, &mut self.lock()),
        })
    }

    #[cold]
    fn add(&self, key: (usize, usize), name: &str, giver: Giver) -> NameId {
        let mut list = self.lock();
        let id = list.find_or_add(name, giver);
        self.known.put(key, id, &mut list)
    }

    /// How many names are told apart beside [`OTHER`]. Those that are already stay.
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut list = self.lock();
        list.limit = limit.min(Slab::NAMES - 1);
        self.known.forget(NameId::OTHER, &mut list);
    }

    /// How many names there may come to be, [`OTHER`] included.
    #[cfg(feature = "view")]
    pub(crate) fn most(&self) -> usize {
        let list = self.lock();
        list.names.len().max(list.limit + 1)
    }

    /// Appends the names that are not in `names` yet.
    pub(crate) fn extend(&self, names: &mut Vec<(&'static str, Giver)>) {
        let list = self.lock();
        names.extend(list.names.get(names.len()..).unwrap_or_default());
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }
}

impl List {
    fn find_or_add(&mut self, name: &str, giver: Giver) -> NameId {
        let numbers = self.numbers.get_or_insert_default();
        if self.names.is_empty() {
            self.names.push((OTHER, Giver::Program));
            numbers.insert(OTHER, NameId::OTHER);
        }
        if let Some(id) = numbers.get(name) {
            return *id;
        }
        if name.is_empty() || self.names.len() > self.limit {
            return NameId::OTHER;
        }
        let id = NameId::new(self.names.len());
        let name: &'static str = String::leak(name.to_owned());
        self.names.push((name, giver));
        numbers.insert(name, id);
        id
    }
}

/// The numbers of texts and places by their address: a table that is read without a lock and written under the
/// list's. What finds no room is looked up in the list each time.
struct Known([Slot; Known::SLOTS]);

struct Slot {
    /// 0 where there is nothing yet.
    address: AtomicUsize,
    length: AtomicUsize,
    id: AtomicU32,
}

impl Slot {
    const FORGOTTEN: u32 = u32::MAX;

    const fn new() -> Self {
        Slot { address: AtomicUsize::new(0), length: AtomicUsize::new(0), id: AtomicU32::new(0) }
    }

    /// What is known of an address and length, unless another slot has to tell.
    #[inline]
    fn answer(&self, (address, length): (usize, usize)) -> Option<Option<NameId>> {
        match self.address.load(Acquire) {
            0 => Some(None),
            found if found == address && self.length.load(Relaxed) == length => {
                let id = self.id.load(Relaxed);
                Some((id != Slot::FORGOTTEN).then_some(NameId(id)))
            }
            _ => None,
        }
    }
}

impl Known {
    const SLOTS: usize = 1 << 12;
    const PROBES: usize = 16;

    #[inline]
    fn slots(&self, address: usize) -> impl Iterator<Item = &Slot> {
        // Fibonacci hashing: the top bits of the product are well mixed.
        let hash = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - 12);
        (0..Known::PROBES).filter_map(move |probe| self.0.get((hash as usize + probe) % Known::SLOTS))
    }

    #[inline]
    fn get(&self, key: (usize, usize)) -> Option<NameId> {
        let mut slots = self.slots(key.0);
        // Mostly the first one tells.
        let first = slots.next().and_then(|slot| slot.answer(key));
        first.unwrap_or_else(|| Known::get_from(slots, key))
    }

    #[cold]
    #[inline(never)]
    fn get_from<'a>(mut slots: impl Iterator<Item = &'a Slot>, key: (usize, usize)) -> Option<NameId> {
        slots.find_map(|slot| slot.answer(key)).flatten()
    }

    /// Under the list's lock.
    fn put(&self, (address, length): (usize, usize), id: NameId, _: &mut List) -> NameId {
        for slot in self.slots(address) {
            let found = slot.address.load(Relaxed);
            if found == 0 || (found == address && slot.length.load(Relaxed) == length) {
                slot.length.store(length, Relaxed);
                slot.id.store(id.0, Relaxed);
                slot.address.store(address, Release);
                break;
            }
        }
        id
    }

    /// Under the list's lock.
    fn forget(&self, id: NameId, _: &mut List) {
        let taken = self.0.iter().filter(|slot| slot.address.load(Relaxed) != 0);
        for slot in taken.filter(|slot| slot.id.load(Relaxed) == id.0) {
            slot.id.store(Slot::FORGOTTEN, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(names: &Names, name: &'static str) -> usize {
        names.of_text(Cow::Borrowed(name)).index()
    }

    fn all(names: &Names) -> Vec<&'static str> {
        let mut list = Vec::new();
        names.extend(&mut list);
        list.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn equal_names_have_one_number_wherever_they_come_from() {
        let names = Names::new();
        let borrowed = id(&names, "connection");
        assert_eq!(names.of_text(Cow::Owned("connection".into())).index(), borrowed);
        assert_eq!(
            names.of_place(&"/src/connection", |_| Some("connection".into())),
            Some(NameId::new(borrowed))
        );
        let copy: &'static str = String::from("connection").leak();
        assert_eq!(id(&names, copy), borrowed);
        assert_eq!(all(&names), [OTHER, "connection"]);
    }

    #[test]
    fn a_part_of_a_text_is_another_name() {
        let names = Names::new();
        let whole = "connection";
        assert_ne!(id(&names, whole), id(&names, &whole[..7]));
        assert_eq!(id(&names, whole), id(&names, whole));
        assert_eq!(all(&names), [OTHER, "connection", "connect"]);
    }

    #[test]
    fn past_the_limit_names_are_not_told_apart_until_it_is_raised() {
        let names = Names::new();
        names.set_limit(2);
        assert_eq!(["a", "b", "c", "d", "a"].map(|name| id(&names, name)), [1, 2, 0, 0, 1]);
        names.set_limit(3);
        assert_eq!(["a", "b", "c", "d"].map(|name| id(&names, name)), [1, 2, 3, 0]);
        names.set_limit(0);
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| id(&names, name)), [1, 2, 3, 0, 0]);
    }

    #[test]
    fn no_name_is_no_name_of_its_own() {
        let names = Names::new();
        assert_eq!(["", OTHER].map(|name| id(&names, name)), [0, 0]);
        assert_eq!(all(&names), [OTHER]);
    }

    #[test]
    fn what_has_no_name_is_not_given_one() {
        let names = Names::new();
        for _ in 0..2 {
            assert_eq!(names.of_place(&1, |_| None), None);
        }
        assert_eq!(all(&names), [""; 0]);
    }

    #[test]
    fn more_places_than_are_kept_by_address_still_have_their_names() {
        let names = Names::new();
        names.set_limit(Known::SLOTS * 2);
        let places: &'static [u64] = vec![0; Known::SLOTS * 2].leak();
        for round in 0..2 {
            for (index, place) in places.iter().enumerate() {
                let name = names.of_place(place, |_| Some(format!("place {index}")));
                assert_eq!(name, Some(NameId::new(index + 1)), "round {round}");
            }
        }
    }
}
