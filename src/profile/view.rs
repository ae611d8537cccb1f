//! Prepares a profile for the page.

use super::flame::{amount, draw, short_path};
use super::sampled::Profile;
use super::symbols::Symbols;
use super::top;

/// The number of places that are listed.
const MAX_PLACES: usize = 10;

/// A profile as the page shows it.
#[derive(Debug)]
pub(crate) struct View {
    /// The flame graph.
    pub(crate) svg: String,
    /// The places in the program with the largest values.
    pub(crate) places: Vec<PlaceView>,
    /// The sum of the values that are shown.
    pub(crate) total: String,
    /// The exact count of the quantity that the total estimates.
    pub(crate) exact: Option<String>,
    /// The standard error of the total.
    pub(crate) error: Option<String>,
    /// The number of different stacks.
    pub(crate) stacks: usize,
}

/// A place in the program.
#[derive(Debug)]
pub(crate) struct PlaceView {
    pub(crate) value: String,
    pub(crate) function: String,
    /// The file and the line. Empty if not known.
    pub(crate) line: String,
}

impl View {
    /// Looks up the names of a profile and draws it.
    pub(crate) fn new(profile: &Profile) -> Self {
        let symbols = Symbols::of_profile(profile);
        let unit = profile.types.get(profile.kind.default_value()).map_or("count", |of| of.unit);
        let places = top::places(profile, &symbols, MAX_PLACES).into_iter().map(|place| PlaceView {
            value: amount(place.value, unit),
            function: place.frame.name.to_string(),
            line: match &*place.frame.file {
                "" => String::new(),
                file => format!("{}:{}", short_path(file), place.frame.line),
            },
        });
        let exact = profile.exact_total().and_then(|exact| i64::try_from(exact).ok());
        View {
            places: places.collect(),
            svg: draw(profile, &symbols),
            total: amount(profile.total(), unit),
            exact: exact.map(|exact| amount(exact, unit)),
            error: profile.standard_error().map(|error| amount(error as i64, unit)),
            stacks: profile.samples().len(),
        }
    }
}
