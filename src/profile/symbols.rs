//! Finds the functions, files and lines of addresses.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use addr2line::Loader;
use object::Object as _;

use super::object_file::{ObjectFile, path_of};
use super::sampled::Profile;
use crate::count::allocator::samples::without_samples;
#[cfg(feature = "debug")]
use crate::stack;
use crate::stack::{Object, object_of};

/// Returns the names of the functions at these addresses. Unknown addresses are left out.
#[cfg(feature = "debug")]
pub(crate) fn names(addresses: &[usize]) -> Vec<(usize, Arc<str>)> {
    let objects = stack::prepare().map(|()| stack::objects()).unwrap_or_default();
    let symbols = Symbols::load(addresses.iter().copied(), &objects);
    let name = |address: &usize| Some((*address, Arc::clone(&symbols.at(*address).first()?.name)));
    addresses.iter().filter_map(name).collect()
}

/// A function that is called at an address, itself or inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The name as the linker knows it, such as `_ZN4main3fooE`.
    pub(crate) mangled: Arc<str>,
    /// The name as the programmer wrote it, without a hash.
    pub(crate) name: Arc<str>,
    /// Empty if not known.
    pub(crate) file: Arc<str>,
    /// 0 if not known.
    pub(crate) line: u32,
}

/// The functions of a profile's addresses.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    frames: HashMap<usize, Box<[Frame]>>,
    texts: HashMap<String, Arc<str>>,
}

impl Symbols {
    /// Names addresses as a test wants them.
    #[cfg(test)]
    pub(crate) fn of_frames(frames: HashMap<usize, Box<[Frame]>>) -> Self {
        Symbols { frames, texts: HashMap::new() }
    }

    /// Looks up all addresses of a profile.
    pub(crate) fn of_profile(profile: &Profile) -> Self {
        let addresses = profile.samples.iter().flat_map(|sample| sample.stack.iter().copied());
        Symbols::load(addresses, &profile.objects)
    }

    /// Looks up return addresses. Reads the files of the objects that they lie in, and keeps nothing but the result.
    pub(crate) fn load(addresses: impl IntoIterator<Item = usize>, objects: &[Object]) -> Self {
        let mut symbols = Symbols::default();
        symbols.extend(addresses, objects);
        symbols
    }

    /// Looks up the return addresses that are not known yet. The heap profile does not show the memory that this takes.
    pub(crate) fn extend(&mut self, addresses: impl IntoIterator<Item = usize>, objects: &[Object]) {
        without_samples(|| self.look_up_all(addresses, objects));
    }

    fn look_up_all(&mut self, addresses: impl IntoIterator<Item = usize>, objects: &[Object]) {
        let is_new = |address: &usize| !self.frames.contains_key(address);
        let addresses: BTreeSet<usize> = addresses.into_iter().filter(is_new).collect();
        // Those without a name are not looked up again either.
        self.frames.extend(addresses.iter().map(|address| (*address, Box::default())));
        for object in objects {
            // A return address follows the call that it belongs to.
            let inside = object.code.start.saturating_add(1)..object.code.end.saturating_add(1);
            let mut inside = addresses.range(inside).peekable();
            if inside.peek().is_some()
                && let Some(loader) = open(object)
            {
                for address in inside {
                    self.look_up(*address, object, &loader);
                }
            }
        }
        self.texts = HashMap::new();
    }

    /// Returns the number of addresses that were looked up.
    #[cfg(feature = "otlp-profiles")]
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Returns the functions at a return address, the innermost of those that are inlined first. Empty if none is known.
    pub(crate) fn at(&self, address: usize) -> &[Frame] {
        self.frames.get(&address).map_or(&[], |frames| frames)
    }

    fn look_up(&mut self, address: usize, object: &Object, loader: &Loader) {
        let probe = (address - 1).wrapping_sub(object.bias) as u64;
        let mut found = Vec::new();
        let symbol = loader.find_symbol(probe);
        if let Ok(mut frames) = loader.find_frames(probe) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
                let place = frame.location.as_ref();
                let file = place.and_then(|place| place.file).unwrap_or_default().to_owned();
                let line = place.and_then(|place| place.line).unwrap_or_default();
                found.push((name.map(Cow::into_owned), file, line));
            }
        }
        // The outermost one is the function that the symbol table has, if equal functions are not merged. Line tables alone have
        // names without their paths.
        let is_whole = |name: &Option<String>| {
            name.as_ref().is_some_and(|name| name.starts_with("_R") || name.starts_with("_Z"))
        };
        match (found.last_mut(), symbol) {
            (Some((name, ..)), Some(symbol)) if !is_whole(name) => *name = Some(symbol.to_owned()),
            (Some(_), Some(_)) => {}
            (None, Some(symbol)) => found.push((Some(symbol.to_owned()), String::new(), 0)),
            (_, None) => {}
        }
        let named = found.into_iter().filter_map(|(name, file, line)| Some((name?, file, line)));
        let found: Vec<_> = named.map(|(name, file, line)| self.frame(&name, &file, line)).collect();
        if !found.is_empty() {
            self.frames.insert(address, found.into());
        }
    }

    fn frame(&mut self, mangled: &str, file: &str, line: u32) -> Frame {
        let name = format!("{:#}", rustc_demangle::demangle(mangled));
        Frame { mangled: self.text(mangled), name: self.text(&name), file: self.text(file), line }
    }

    /// Keeps each text once.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared = Arc::<str>::from(text);
        self.texts.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// Opens the file of an object, unless it is another one by now than the one in memory.
fn open(object: &Object) -> Option<Loader> {
    if object.path.is_some() && !object.build_id.is_empty() {
        let file = ObjectFile::open(object)?;
        if file.parse()?.build_id().ok().flatten() != Some(&object.build_id) {
            return None;
        }
    }
    Loader::new(path_of(object)).ok()
}

/// Returns the object that a return address lies in.
pub(crate) fn object_at(objects: &[Object], address: usize) -> Option<&Object> {
    object_of(objects, address.checked_sub(1)?)
}
