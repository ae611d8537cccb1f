//! Writes a profile in the format of `go tool pprof`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::frames::{Location, shown, stand_in};
use super::protobuf::Message;
use super::sampled::{Label, Profile, Sample, SampleType};
use super::symbols::{Frame, Symbols, object_at};
use crate::stack::Object;

impl Profile {
    /// Returns the profile in the pprof format, compressed with gzip, as `go tool pprof` reads it.
    ///
    /// Looks up the functions, files and lines of all addresses, which takes some 100 ms and some 10 MB for a large executable;
    /// the memory is freed before this returns. Call it on a thread that may block.
    pub fn to_pprof(&self) -> Vec<u8> {
        let symbols = Symbols::of_profile(self);
        encode(self, &symbols, missing_names(self, &symbols))
    }

    /// Returns the profile in the pprof format with addresses and build ids, but without names. Takes well below a
    /// millisecond. `go tool pprof` finds the names in the executable.
    pub fn to_pprof_without_symbols(&self) -> Vec<u8> {
        encode(self, &Symbols::default(), None)
    }
}

/// Returns a remark, if the stacks lead through the executable and no function of it has a name.
fn missing_names(profile: &Profile, symbols: &Symbols) -> Option<&'static str> {
    let addresses = || profile.samples.iter().flat_map(|sample| sample.stack.iter().copied());
    let is_inside =
        |address: &usize| object_at(&profile.objects, *address).is_some_and(|object| object.path.is_none());
    let mut inside = addresses().filter(is_inside).peekable();
    let is_missing = inside.peek().is_some() && inside.all(|address| symbols.at(address).is_empty());
    is_missing.then_some("the executable has no names: it is stripped, or its file was replaced")
}

pub(super) fn encode(profile: &Profile, symbols: &Symbols, remark: Option<&str>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(&uncompressed(profile, symbols, remark));
    encoder.finish().unwrap_or_default()
}

fn uncompressed(profile: &Profile, symbols: &Symbols, remark: Option<&str>) -> Vec<u8> {
    let mut tables = Tables::new(&profile.objects);
    let mut body = Message::default();
    for sample_type in &profile.types {
        tables.sample_type(&mut body, 1, *sample_type);
    }
    for sample in &profile.samples {
        tables.sample(&mut body, profile, sample, symbols);
    }
    for (index, object) in profile.objects.iter().enumerate() {
        let has_names = tables.objects_with_names.get(index).is_some_and(|has_names| *has_names);
        tables.mapping(&mut body, index, object, has_names);
    }
    let start = profile.time.checked_sub(profile.duration);
    let since_epoch = start.and_then(|start| start.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    body.signed(9, nanoseconds(since_epoch));
    body.signed(10, nanoseconds(profile.duration));
    if let Some((period_type, period)) = profile.period {
        tables.sample_type(&mut body, 11, period_type);
        body.signed(12, period);
    }
    let mut comments: Vec<_> = profile.comments.iter().map(|comment| tables.text(comment)).collect();
    if let Some(error) = &profile.error {
        comments.push(tables.text(&error.to_string()));
    }
    comments.extend(remark.map(|remark| tables.text(remark)));
    if !comments.is_empty() {
        body.numbers(13, comments);
    }
    if let Some(default) = profile.types.get(profile.kind.default_value()) {
        let name = tables.text(default.name);
        body.number(14, name);
    }
    [body, tables.locations, tables.functions, tables.texts].map(Message::into_bytes).concat()
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The tables that samples refer to by number. Numbers begin with 1; the number of a text is its index in the table.
struct Tables<'a> {
    objects: &'a [Object],
    objects_with_names: Vec<bool>,
    texts: Message,
    known_texts: HashMap<String, u64>,
    functions: Message,
    known_functions: HashMap<(u64, u64, u64), u64>,
    locations: Message,
    known_locations: HashMap<LocationKey, u64>,
}

#[derive(PartialEq, Eq, Hash)]
enum LocationKey {
    Address { address: usize, skipped: usize },
    StandIn(&'static str),
}

impl<'a> Tables<'a> {
    fn new(objects: &'a [Object]) -> Self {
        let mut tables = Tables {
            objects,
            objects_with_names: vec![false; objects.len()],
            texts: Message::default(),
            known_texts: HashMap::new(),
            functions: Message::default(),
            known_functions: HashMap::new(),
            locations: Message::default(),
            known_locations: HashMap::new(),
        };
        // The first text has to be empty.
        tables.text("");
        tables
    }

    fn text(&mut self, text: &str) -> u64 {
        if let Some(known) = self.known_texts.get(text) {
            return *known;
        }
        let index = self.known_texts.len() as u64;
        self.texts.bytes(6, text.as_bytes());
        self.known_texts.insert(text.to_owned(), index);
        index
    }

    fn sample_type(&mut self, body: &mut Message, field: u32, sample_type: SampleType) {
        let (name, unit) = (self.text(sample_type.name), self.text(sample_type.unit));
        body.message(field, |message| {
            message.number(1, name);
            message.number(2, unit);
        });
    }

    fn sample(&mut self, body: &mut Message, profile: &Profile, sample: &Sample, symbols: &Symbols) {
        let mut locations: Vec<_> =
            shown(profile.kind, sample, symbols).iter().map(|place| self.location(place)).collect();
        locations.extend(stand_in(sample).map(|name| self.stand_in(name)));
        let labels: Vec<_> = sample.labels.iter().map(|(key, label)| self.label(key, label)).collect();
        body.message(2, |message| {
            message.numbers(1, locations);
            message.numbers(2, sample.values.iter().map(|value| value.cast_unsigned()));
            for (key, text, number, unit) in labels {
                message.message(3, |message| {
                    message.number(1, key);
                    message.number(2, text);
                    message.signed(3, number);
                    message.number(4, unit);
                });
            }
        });
    }

    fn label(&mut self, key: &str, label: &Label) -> (u64, u64, i64, u64) {
        let key = self.text(key);
        match label {
            Label::Text(text) => (key, self.text(text), 0, 0),
            Label::Number(number, unit) => (key, 0, *number, self.text(unit)),
        }
    }

    fn location(&mut self, place: &Location<'_>) -> u64 {
        let key = LocationKey::Address { address: place.address, skipped: place.skipped };
        let next = self.known_locations.len() as u64 + 1;
        let id = *self.known_locations.entry(key).or_insert(next);
        if id != next {
            return id;
        }
        let object = object_at(self.objects, place.address);
        let mapping =
            object.and_then(|object| self.objects.iter().position(|other| std::ptr::eq(object, other)));
        if let Some(has_names) = mapping.and_then(|index| self.objects_with_names.get_mut(index)) {
            *has_names |= !place.frames.is_empty();
        }
        let lines: Vec<_> = place.frames.iter().map(|frame| (self.function(frame), frame.line)).collect();
        self.locations.message(4, |message| {
            message.number(1, id);
            message.number(2, mapping.map_or(0, |index| index as u64 + 1));
            // Within the call rather than after it.
            message.number(3, (place.address as u64).saturating_sub(1));
            for (function, line) in lines {
                message.message(4, |message| {
                    message.number(1, function);
                    message.number(2, line.into());
                });
            }
        });
        id
    }

    /// A location that is no place in the code.
    fn stand_in(&mut self, name: &'static str) -> u64 {
        let next = self.known_locations.len() as u64 + 1;
        let id = *self.known_locations.entry(LocationKey::StandIn(name)).or_insert(next);
        if id == next {
            let function = self.function_of(name, name, "");
            self.locations.message(4, |message| {
                message.number(1, id);
                message.message(4, |message| message.number(1, function));
            });
        }
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        self.function_of(&frame.name, &frame.mangled, &frame.file)
    }

    fn function_of(&mut self, name: &str, mangled: &str, file: &str) -> u64 {
        let (name, mangled, file) = (self.text(name), self.text(mangled), self.text(file));
        let next = self.known_functions.len() as u64 + 1;
        let id = *self.known_functions.entry((name, mangled, file)).or_insert(next);
        if id == next {
            self.functions.message(5, |message| {
                message.number(1, id);
                message.number(2, name);
                message.number(3, mangled);
                message.number(4, file);
            });
        }
        id
    }

    fn mapping(&mut self, body: &mut Message, index: usize, object: &Object, has_names: bool) {
        let executable = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let path = object.path.as_deref().unwrap_or(&executable).to_string_lossy();
        let build_id = object.build_id.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let (file, build_id) = (self.text(&path), self.text(&build_id));
        body.message(3, |message| {
            message.number(1, index as u64 + 1);
            // To the byte, as whole pages may hold the ends of other segments, which Go's tool would take for this one.
            message.number(2, object.code.start as u64);
            message.number(3, object.code.end as u64);
            message.number(4, object.file_offset as u64);
            message.number(5, file);
            message.number(6, build_id);
            // Functions, files, lines and inlined functions are known.
            for field in 7..=10 {
                message.number(field, has_names.into());
            }
        });
    }
}
