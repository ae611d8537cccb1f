//! Joins the stacks of a profile to a tree of calls, the root of a flame graph.

use std::borrow::Cow;
use std::collections::HashMap;

use super::frames::{Location, UNKNOWN, is_plumbing, shown, stand_in};
use super::sampled::{Label, Profile, ProfileKind, Sample};
use super::symbols::Symbols;

/// Stands for functions of std and Tokio that call each other.
const RUN: &str = "[std and Tokio]";

/// The calls of a profile. Only samples that add something count: a profile of growth has negative ones too.
pub(crate) struct Tree<'a> {
    /// Each node stands after its parent. The first is the whole profile.
    pub(crate) nodes: Vec<Node<'a>>,
}

/// A function as called from one chain of callers.
pub(crate) struct Node<'a> {
    pub(crate) name: Cow<'a, str>,
    /// Empty if not known.
    pub(crate) file: &'a str,
    /// The line in the function that the largest sample is in. 0 if not known.
    pub(crate) line: u32,
    /// True for functions of the standard library, of Tokio and of this library, and for what is no function.
    pub(crate) is_plumbing: bool,
    /// The value of the samples that end here, and later of all that contain it.
    pub(crate) value: i64,
    pub(crate) parent: usize,
    /// The largest first.
    pub(crate) children: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// Joins the stacks of a profile by their default value.
    pub(crate) fn new(profile: &'a Profile, symbols: &'a Symbols) -> Self {
        let index = profile.kind.default_value();
        let mut tree = Tree { nodes: vec![Node::new("all".into())] };
        let mut known = HashMap::new();
        for sample in &profile.samples {
            let value = sample.values.get(index).copied().unwrap_or_default();
            let mut at = 0;
            let mut enter = |at: &mut usize, node: Node<'a>| *at = tree.child(&mut known, *at, node);
            if let Some(group) = group(profile.kind, sample) {
                enter(&mut at, Node::new(group.into()));
            }
            // The name of a group says more than that there is no stack.
            let is_grouped = at != 0;
            if let Some(name) = stand_in(sample).filter(|name| *name != UNKNOWN || !is_grouped) {
                enter(&mut at, Node::new(name.into()));
            }
            let places = shown(profile.kind, sample, symbols);
            for node in without_runs(functions(&places)) {
                enter(&mut at, node);
            }
            if let Some(node) = tree.nodes.get_mut(at) {
                node.value = node.value.saturating_add(value);
            }
        }
        tree.add_up();
        tree
    }

    /// Returns the child of a node with a name. It is added if there is none.
    fn child(
        &mut self,
        known: &mut HashMap<(usize, Cow<'a, str>), usize>,
        parent: usize,
        node: Node<'a>,
    ) -> usize {
        let next = self.nodes.len();
        let index = *known.entry((parent, node.name.clone())).or_insert(next);
        if index == next {
            self.nodes.push(Node { parent, ..node });
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.children.push(index);
            }
        }
        index
    }

    /// Adds the value of each node to its parent, and sorts the children.
    fn add_up(&mut self) {
        for index in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get_mut(index) else { continue };
            node.value = node.value.max(0);
            let (value, parent) = (node.value, node.parent);
            if index > 0
                && let Some(parent) = self.nodes.get_mut(parent)
            {
                // What ends in the parent itself may be negative, and counts for nothing then.
                parent.value = parent.value.max(0).saturating_add(value);
            }
        }
        let values: Vec<_> = self.nodes.iter().map(|node| node.value).collect();
        let value = |index: &usize| values.get(*index).copied().unwrap_or_default();
        for node in &mut self.nodes {
            node.children.sort_by_key(|child| std::cmp::Reverse(value(child)));
        }
    }

    pub(crate) fn total(&self) -> i64 {
        self.nodes.first().map_or(0, |root| root.value)
    }
}

impl<'a> Node<'a> {
    fn new(name: Cow<'a, str>) -> Self {
        Node { name, file: "", line: 0, is_plumbing: true, value: 0, parent: 0, children: Vec::new() }
    }
}

/// Returns the functions of a stack, the root first.
fn functions<'a>(places: &[Location<'a>]) -> Vec<Node<'a>> {
    let mut nodes = Vec::new();
    for place in places.iter().rev() {
        if place.frames.is_empty() {
            nodes.push(Node::new(format!("{:#x}", place.address).into()));
        }
        nodes.extend(place.frames.iter().rev().map(|frame| Node {
            file: &frame.file,
            line: frame.line,
            is_plumbing: is_plumbing(frame),
            ..Node::new(Cow::Borrowed(&frame.name))
        }));
    }
    nodes
}

/// Replaces each run of functions of std and Tokio by one row, except where a stack ends in it. Between a thread's start and
/// a future lie some fifty of them, which say nothing about the program.
fn without_runs(functions: Vec<Node<'_>>) -> Vec<Node<'_>> {
    let end = functions.iter().rposition(|function| !function.is_plumbing).unwrap_or_default();
    let mut kept: Vec<Node<'_>> = Vec::new();
    let mut run = 0;
    for (index, function) in functions.into_iter().enumerate() {
        run = if function.is_plumbing && index < end { run + 1 } else { 0 };
        match kept.last_mut() {
            Some(last) if run > 1 => *last = Node::new(RUN.into()),
            _ => kept.push(function),
        }
    }
    kept
}

/// Returns the label that divides the samples before their stacks do.
fn group(kind: ProfileKind, sample: &Sample) -> Option<&str> {
    let wanted = match kind {
        ProfileKind::Tasks => "task",
        ProfileKind::Threads => "thread",
        ProfileKind::Stalls => "cause",
        ProfileKind::Heap | ProfileKind::Allocs | ProfileKind::Cpu => return None,
    };
    sample.labels.iter().find_map(|(key, label)| match label {
        Label::Text(text) if *key == wanted => Some(text.as_ref()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_library_functions_are_one_row_except_at_the_end() {
        let names = |functions: &[(&'static str, bool)]| -> Vec<String> {
            let node = |(name, is_plumbing): &(&'static str, bool)| Node {
                is_plumbing: *is_plumbing,
                ..Node::new(Cow::Borrowed(name))
            };
            let kept = without_runs(functions.iter().map(node).collect());
            kept.into_iter().map(|node| node.name.into_owned()).collect()
        };
        let (library, program) = (true, false);
        let stack = [
            ("a", library),
            ("b", library),
            ("c", library),
            ("main", program),
            ("d", library),
            ("f", program),
        ];
        assert_eq!(names(&stack), [RUN, "main", "d", "f"]);
        let sleeps =
            [("a", library), ("b", library), ("f", program), ("sleep", library), ("nanosleep", library)];
        assert_eq!(names(&sleeps), [RUN, "f", "sleep", "nanosleep"]);
        assert_eq!(names(&[("a", library), ("b", library)]), ["a", "b"], "nothing else is known");
        assert!(names(&[]).is_empty());
    }
}
