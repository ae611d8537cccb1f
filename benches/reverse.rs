//! Measures two ways to reverse the words of a sentence, with the allocations of each in the form of Go's `ReportAllocs`.
//!
//! `cargo bench -p benches --bench reverse`

use std::hint::black_box;

use opentelemetry_instrumentation_runtime::{CountingAllocator, measure};

#[global_allocator]
static GLOBAL: CountingAllocator = CountingAllocator::system();

const SENTENCE: &str = "the quick brown fox jumps over the lazy dog and runs into the forest";

/// Makes a string for each step.
fn by_prepending(sentence: &str) -> String {
    sentence.split(' ').fold(String::new(), |reversed, word| {
        if reversed.is_empty() { word.into() } else { format!("{word} {reversed}") }
    })
}

/// Makes one string with the final capacity.
fn in_one_buffer(sentence: &str) -> String {
    let mut reversed = String::with_capacity(sentence.len());
    for word in sentence.rsplit(' ') {
        if !reversed.is_empty() {
            reversed.push(' ');
        }
        reversed.push_str(word);
    }
    reversed
}

#[divan::bench]
fn prepending(bencher: divan::Bencher) {
    bencher.bench(|| by_prepending(black_box(SENTENCE)));
}

#[divan::bench]
fn one_buffer(bencher: divan::Bencher) {
    bencher.bench(|| in_one_buffer(black_box(SENTENCE)));
}

fn main() {
    divan::main();
    for (name, reverse) in
        [("prepending", by_prepending as fn(&str) -> String), ("one_buffer", in_one_buffer)]
    {
        let (reversed, stats) = measure(|| reverse(black_box(SENTENCE)));
        assert!(reversed.starts_with("forest the into"));
        println!(
            "{name:<12}{:>6} B/op{:>6} allocs/op",
            stats.allocated,
            stats.allocations + stats.reallocations
        );
    }
}
