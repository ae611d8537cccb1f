//! Draws a profile as a flame graph.
//!
//! The crate `inferno` draws them too, but its pictures carry their own script and style, which the content policy of the
//! debug page refuses.

use std::fmt::Write as _;

use super::sampled::Profile;
use super::symbols::Symbols;
use super::tree::{Node, Tree};
use crate::util::scale::{BYTES, COUNTS, SECONDS, scaled};

/// The height of a row, in pixels.
const ROW: usize = 18;
/// The width of a picture outside of a page, in pixels.
const WIDTH: u32 = 1200;
/// The most functions that are drawn, the largest ones.
const MAX_NODES: usize = 4000;
/// A function with a smaller share of the whole is not drawn.
const MIN_SHARE: f64 = 0.0005;
/// The colours of functions, by crate. The text is dark on all of them.
const COLOURS: [&str; 8] =
    ["#f4b183", "#f7c873", "#e8d36b", "#b9d77e", "#93d5b0", "#93c9ec", "#b7b6f2", "#eeabc6"];
/// The colour of the standard library, of Tokio and of rows that are no function.
const QUIET: &str = "#d6d9e0";

impl Profile {
    /// Returns a flame graph as an SVG picture: each row is called by the row above it, and the width of a function is its
    /// share of the value that is shown first. The text of a function shows its file, line and value when pointed at.
    ///
    /// Functions of the standard library and of Tokio that call each other are one row, except where a stack ends in them.
    ///
    /// The picture has no script and loads nothing, so that it can stand in any page. A profile that is a
    /// [`delta`](Self::delta) is drawn by what has grown. Takes as long as [`to_pprof`](Self::to_pprof).
    ///
    /// ```no_run
    /// use opentelemetry_instrumentation_runtime::profile;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// std::fs::write("heap.svg", profile::heap().to_flame_graph())
    /// # }
    /// ```
    pub fn to_flame_graph(&self) -> String {
        draw(self, &Symbols::of_profile(self))
    }
}

/// Returns a value with its unit, such as `12.5 MB`.
pub(crate) fn amount(value: i64, unit: &str) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let value = value.unsigned_abs() as f64;
    let text = match unit {
        "bytes" => scaled(value, BYTES),
        "nanoseconds" => scaled(value / 1e9, SECONDS),
        _ => scaled(value, COUNTS),
    };
    format!("{sign}{text}")
}

/// Draws the functions of a profile whose addresses were looked up.
pub(crate) fn draw(profile: &Profile, symbols: &Symbols) -> String {
    let sample_type = profile.types.get(profile.kind.default_value());
    let (name, unit) = sample_type.map_or(("", "count"), |of| (of.name, of.unit));
    let tree = Tree::new(profile, symbols);
    let total = tree.total();
    if total == 0 {
        return picture(1, "");
    }
    let smallest = smallest_drawn(&tree);
    let (mut rows, mut drawn) = (0, String::new());
    // The node, its row, and the share of the whole that lies left of it.
    let mut todo = vec![(0, 0, 0_i64)];
    while let Some((index, row, left)) = todo.pop() {
        let Some(node) = tree.nodes.get(index) else { continue };
        rows = rows.max(row + 1);
        let percent = |value: i64| value as f64 / total as f64 * 100.0;
        let (x, y, width) = (percent(left), row * ROW, percent(node.value));
        let (label, title) = if index == 0 {
            let text = format!("{name}: {}", amount(total, unit));
            (text.clone(), text)
        } else {
            (short(&node.name), title(node, total, unit))
        };
        let fill = colour(node);
        // A failure is impossible: the target is a text.
        let _ = write!(
            drawn,
            "<svg class=\"frame\" x=\"{x:.4}%\" y=\"{y}\" width=\"{width:.4}%\" height=\"{ROW}\"><title>{}</title>\
             <rect width=\"100%\" height=\"100%\" fill=\"{fill}\" stroke=\"#ffffff\"/>\
             <text x=\"4\" y=\"13\" fill=\"#1c2230\">{}</text></svg>",
            escaped(&title),
            escaped(&label),
        );
        let mut next = Vec::new();
        let mut left = left;
        for child in &node.children {
            let value = tree.nodes.get(*child).map_or(0, |child| child.value);
            if value >= smallest && value > 0 {
                next.push((*child, row + 1, left));
            }
            left = left.saturating_add(value);
        }
        // The largest child is drawn next, so that a function is followed by all that it calls.
        todo.extend(next.into_iter().rev());
    }
    picture(rows, &drawn)
}

/// Returns the least value that is drawn.
fn smallest_drawn(tree: &Tree<'_>) -> i64 {
    let mut values: Vec<_> = tree.nodes.iter().map(|node| node.value).collect();
    values.sort_unstable_by_key(|value| std::cmp::Reverse(*value));
    let by_number = values.get(MAX_NODES).map_or(0, |value| value.saturating_add(1));
    by_number.max((tree.total() as f64 * MIN_SHARE) as i64)
}

fn picture(rows: usize, drawn: &str) -> String {
    let height = rows * ROW;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flame\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">{drawn}</svg>\n"
    )
}

fn title(node: &Node<'_>, total: i64, unit: &str) -> String {
    let share = node.value as f64 / total as f64 * 100.0;
    let place = if node.file.is_empty() {
        String::new()
    } else {
        format!("{}:{}\n", short_path(node.file), node.line)
    };
    format!("{}\n{place}{} ({share:.1} %)", node.name, amount(node.value, unit))
}

/// Returns the path of a file without what only says where this machine keeps it: the folder of Cargo's registry, and the
/// folder of the standard library.
pub(crate) fn short_path(file: &str) -> &str {
    let of_registry = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    let of_library = || file.strip_prefix("/rustc/")?.split_once('/');
    of_registry.or_else(of_library).map_or(file, |(_, rest)| rest)
}

/// Returns the end of a path, which says more than its beginning where there is little room.
fn short(name: &str) -> String {
    let mut depth = 0_usize;
    let mut starts = vec![0];
    let bytes = name.as_bytes();
    for (index, pair) in bytes.windows(2).enumerate() {
        match pair {
            [b'<', _] => depth += 1,
            // Not the end of an arrow.
            [b'>', _] if !name.get(..index).is_some_and(|before| before.ends_with('-')) => {
                depth = depth.saturating_sub(1);
            }
            [b':', b':'] if depth == 0 => starts.push(index + 2),
            _ => {}
        }
    }
    let is_closure = |start: &usize| name.get(*start..).is_some_and(|rest| rest.starts_with("{{"));
    let named: Vec<_> = starts.into_iter().filter(|start| !is_closure(start)).collect();
    let start = named.len().checked_sub(2).and_then(|second_last| named.get(second_last));
    start.and_then(|start| name.get(*start..)).unwrap_or(name).to_owned()
}

/// Returns a colour by the crate of a function.
fn colour(node: &Node<'_>) -> &'static str {
    if node.is_plumbing {
        return QUIET;
    }
    let of_crate = node.name.trim_start_matches(['<', '&', '[', '*']).split("::").next().unwrap_or_default();
    let sum = of_crate.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLOURS.get(sum % COLOURS.len()).copied().unwrap_or(QUIET)
}

/// Returns a text as it stands in XML. Control characters, which XML cannot have, become spaces.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() && char != '\n' => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::sampled::{ProfileKind, Sample, SampleType};
    use super::*;

    fn profile(samples: &[(&[usize], i64)]) -> Profile {
        let sample = |(stack, value): &(&[usize], i64)| Sample {
            stack: (*stack).into(),
            values: vec![*value],
            ..Sample::default()
        };
        let types = [SampleType::new("threads", "count")];
        Profile::new(ProfileKind::Threads, &types, samples.iter().map(sample).collect())
    }

    /// The label, the place and the width of each function.
    fn frames(svg: &str) -> Vec<(String, String, String, String)> {
        let attribute = |frame: &str, name: &str| {
            frame.split_once(&format!(" {name}=\"")).unwrap().1.split('"').next().unwrap().to_owned()
        };
        svg.split("<svg class=\"frame\"")
            .skip(1)
            .map(|frame| {
                let label = frame.rsplit("</text>").nth(1).unwrap().rsplit('>').next().unwrap().to_owned();
                (label, attribute(frame, "x"), attribute(frame, "y"), attribute(frame, "width"))
            })
            .collect()
    }

    #[test]
    fn callers_stand_above_and_the_largest_on_the_left() {
        let svg = draw(&profile(&[(&[1, 9], 1), (&[2, 9], 3), (&[9], 4)]), &Symbols::default());
        let expected = [
            ("threads: 8", "0.0000%", "0", "100.0000%"),
            ("0x9", "0.0000%", "18", "100.0000%"),
            ("0x2", "0.0000%", "36", "37.5000%"),
            ("0x1", "37.5000%", "36", "12.5000%"),
        ];
        let frames = frames(&svg);
        let frames: Vec<_> = frames.iter().map(|(a, b, c, d)| (&**a, &**b, &**c, &**d)).collect();
        assert_eq!(frames, expected);
        assert!(svg.contains("height=\"54\""), "{svg}");
    }

    #[test]
    fn what_has_shrunk_is_left_out() {
        let svg = draw(&profile(&[(&[1, 9], 5), (&[2, 9], -3), (&[3], -4)]), &Symbols::default());
        let frames = frames(&svg);
        let labels: Vec<_> = frames.iter().map(|frame| &*frame.0).collect();
        assert_eq!(labels, ["threads: 5", "0x9", "0x1"]);
        let nothing = draw(&profile(&[(&[1], -3)]), &Symbols::default());
        assert!(nothing.starts_with("<svg") && !nothing.contains("frame"), "{nothing}");
    }

    #[test]
    fn a_picture_has_a_bounded_number_of_functions() {
        let stacks: Vec<[usize; 2]> = (1..=20_000).map(|leaf| [leaf, 1 << 20]).collect();
        let samples: Vec<_> = stacks.iter().map(|stack| (&stack[..], 1)).collect();
        let svg = draw(&profile(&samples), &Symbols::default());
        assert!(svg.matches("class=\"frame\"").count() <= MAX_NODES, "{} bytes", svg.len());
        assert!(svg.contains("0x100000"), "what they have in common is drawn");
    }

    #[test]
    fn long_names_show_their_end() {
        for (name, expected) in [
            ("main", "main"),
            ("demo::load::fill_cache::{{closure}}", "load::fill_cache::{{closure}}"),
            ("<alloc::vec::Vec<T> as a::B>::push", "<alloc::vec::Vec<T> as a::B>::push"),
            ("a::b::c::<fn(u8) -> d::e>::f", "<fn(u8) -> d::e>::f"),
            ("", ""),
        ] {
            assert_eq!(short(name), expected);
        }
    }

    #[test]
    fn paths_of_this_machine_are_cut_off() {
        for (path, expected) in [
            (
                "/home/me/.cargo/registry/src/index-1949cf8c/tokio-1.54.1/src/task.rs",
                "tokio-1.54.1/src/task.rs",
            ),
            ("/rustc/59807616e1fa/library/alloc/src/vec/mod.rs", "library/alloc/src/vec/mod.rs"),
            ("/home/me/service/src/main.rs", "/home/me/service/src/main.rs"),
            ("src/main.rs", "src/main.rs"),
        ] {
            assert_eq!(short_path(path), expected);
        }
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("<T as \"x\">&\u{0}\r"), "&lt;T as &quot;x&quot;&gt;&amp;  ");
    }
}
