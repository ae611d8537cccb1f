//! The names of tasks and their numbers.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::chunks::Chunks;
use super::name::{NameId, NameOrigin};
use crate::util::mutex::Mutex;

/// The name that everything beyond the limit is counted under.
pub(crate) const OTHER: &str = "_OTHER";

/// The names of this process.
pub(crate) static NAMES: Names = Names::new();

pub(crate) struct Names {
    list: Mutex<List>,
    /// The names by number, for readers that must not lock.
    texts: Chunks<OnceLock<&'static str>>,
    generation: AtomicU32,
}

struct List {
    /// The names by number, each with the origin that was first. They stay for the life of the process, which is why
    /// there is a limit.
    names: Vec<(&'static str, NameOrigin)>,
    /// `None` until the first use, since a map cannot be made in a constant.
    maps: Option<Maps>,
    limit: usize,
}

#[derive(Default)]
struct Maps {
    by_text: HashMap<&'static str, NameId>,
    /// By the address of the location. `None` is a location that is not counted.
    by_location: HashMap<usize, Option<NameId>>,
}

impl Names {
    pub(crate) const fn new() -> Self {
        let list = List { names: Vec::new(), maps: None, limit: 200 };
        Names { list: Mutex::new(list), texts: Chunks::new(), generation: AtomicU32::new(0) }
    }

    /// Returns the number of a name and adds the name if it is new and within the limit.
    pub(crate) fn find_or_add(&self, name: &str, origin: NameOrigin) -> NameId {
        self.find_or_add_in(&mut self.list.lock(), name, origin)
    }

    /// Returns the number of a name that is known.
    #[cfg(any(test, feature = "tower"))]
    pub(crate) fn find(&self, name: &str) -> Option<NameId> {
        self.list.lock().maps.as_ref()?.by_text.get(name).copied()
    }

    /// Returns the number of the name of something that never moves or ends, such as a source location.
    pub(crate) fn find_or_add_location(
        &self,
        address: usize,
        origin: NameOrigin,
        label: impl FnOnce() -> String,
    ) -> Option<NameId> {
        let mut list = self.list.lock();
        if let Some(known) = list.maps.get_or_insert_default().by_location.get(&address) {
            return *known;
        }
        let name = Some(self.find_or_add_in(&mut list, &label(), origin));
        list.maps.get_or_insert_default().by_location.insert(address, name);
        name
    }

    /// Excludes a location: its tasks are not counted.
    #[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "only hooks count tasks by their location"))]
    pub(crate) fn exclude_location(&self, address: usize) {
        let previous = self.list.lock().maps.get_or_insert_default().by_location.insert(address, None);
        if previous != Some(None) {
            self.generation.fetch_add(1, Relaxed);
        }
    }

    fn find_or_add_in(&self, list: &mut List, name: &str, origin: NameOrigin) -> NameId {
        if list.names.is_empty() {
            self.add(list, OTHER, NameOrigin::Program);
        }
        if name.is_empty() {
            return NameId::OTHER;
        }
        if let Some(id) = list.maps.get_or_insert_default().by_text.get(name) {
            return *id;
        }
        if list.names.len() > list.limit {
            return NameId::OTHER;
        }
        self.add(list, String::leak(name.to_owned()), origin)
    }

    fn add(&self, list: &mut List, name: &'static str, origin: NameOrigin) -> NameId {
        let id = NameId::new(list.names.len());
        if let Some(text) = self.texts.get_or_allocate(id.index(), OnceLock::new) {
            text.get_or_init(|| name);
        }
        list.names.push((name, origin));
        list.maps.get_or_insert_default().by_text.insert(name, id);
        id
    }

    /// Returns the text of a name. It neither locks nor allocates: a signal handler may call it.
    pub(crate) fn text(&self, name: NameId) -> &'static str {
        self.texts.get(name.index()).and_then(OnceLock::get).copied().unwrap_or(OTHER)
    }

    /// Sets how many names there may be beside [`OTHER`]. Names that exist stay.
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut list = self.list.lock();
        list.limit = limit.min(Chunks::CAPACITY - 1);
        if let Some(maps) = &mut list.maps {
            maps.by_location.retain(|_, name| *name != Some(NameId::OTHER));
        }
        self.generation.fetch_add(1, Relaxed);
    }

    /// A number that changes when something known may get another name.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// Returns how many names there may be, [`OTHER`] included.
    #[cfg(feature = "view")]
    pub(crate) fn max(&self) -> usize {
        let list = self.list.lock();
        list.names.len().max(list.limit + 1)
    }

    /// Appends the names that are not in `names` yet.
    pub(crate) fn extend(&self, names: &mut Vec<(&'static str, NameOrigin)>) {
        let list = self.list.lock();
        names.extend(list.names.get(names.len()..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(names: &Names, name: &str) -> usize {
        names.find_or_add(name, NameOrigin::Program).index()
    }

    fn all(names: &Names) -> Vec<&'static str> {
        let mut list = Vec::new();
        names.extend(&mut list);
        list.into_iter().map(|(name, _)| name).collect()
    }

    fn id_of_location(names: &Names, address: usize) -> Option<NameId> {
        names.find_or_add_location(address, NameOrigin::Location, || format!("location {address}"))
    }

    #[test]
    fn equal_names_have_one_number() {
        let names = Names::new();
        let first = id(&names, "location 1");
        assert_eq!(id(&names, "location 1"), first);
        assert_eq!(id_of_location(&names, 1), Some(NameId::new(first)));
        assert_eq!(id_of_location(&names, 1), Some(NameId::new(first)));
        assert_eq!(all(&names), [OTHER, "location 1"]);
        assert_eq!(names.text(NameId::new(first)), "location 1");
        assert_eq!(names.find("location 1"), Some(NameId::new(first)));
        assert_eq!(names.find("another"), None);
    }

    #[test]
    fn beyond_the_limit_names_share_one_number_until_it_is_raised() {
        let names = Names::new();
        names.set_limit(2);
        assert_eq!(["a", "b", "c", "d", "a"].map(|name| id(&names, name)), [1, 2, 0, 0, 1]);
        assert_eq!(id_of_location(&names, 1), Some(NameId::OTHER));
        names.set_limit(4);
        assert_eq!(["a", "b", "c"].map(|name| id(&names, name)), [1, 2, 3]);
        assert_eq!(id_of_location(&names, 1), Some(NameId::new(4)));
        assert_eq!(id(&names, "d"), 0);
        names.set_limit(0);
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| id(&names, name)), [1, 2, 3, 0, 0]);
    }

    #[test]
    fn an_empty_name_is_no_name() {
        let names = Names::new();
        assert_eq!(["", OTHER].map(|name| id(&names, name)), [0, 0]);
        assert_eq!(all(&names), [OTHER]);
    }

    #[test]
    fn an_excluded_location_has_no_name() {
        let names = Names::new();
        let before = names.generation();
        names.exclude_location(1);
        assert_ne!(names.generation(), before, "a thread may know it under a name");
        let before = names.generation();
        names.exclude_location(1);
        assert_eq!(names.generation(), before);
        assert_eq!(id_of_location(&names, 1), None);
        assert_eq!(all(&names), [""; 0]);
    }
}
