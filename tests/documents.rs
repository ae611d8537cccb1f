//! Compares facts that stand in several documents: features, versions, file names, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "METRICS.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "RELEASING.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The features of the library that are meant for users.
fn features() -> BTreeSet<String> {
    let manifest = text("Cargo.toml");
    let (_, after) = manifest.split_once("\n[features]\n").expect("a section of features");
    let section = after.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && *name != "default")
        .map(str::to_owned)
        .collect()
}

/// The words in backquotes in the first column of the table of features.
fn documented(document: &str, prefix: &str) -> BTreeSet<String> {
    let text = text(document);
    let lines = text.lines().map(|line| line.strip_prefix(prefix).unwrap_or(line).trim());
    let rows =
        lines.skip_while(|line| !line.starts_with("| feature |")).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn each_feature_is_documented_and_each_documented_feature_exists() {
    let features = features();
    assert!(features.contains("otlp"), "{features:?}");
    for (document, prefix) in [("README.md", ""), ("src/lib.rs", "//!")] {
        let documented = documented(document, prefix);
        let missing: Vec<_> = features.difference(&documented).collect();
        assert!(missing.is_empty(), "{document} lacks {missing:?}");
        let unknown: Vec<_> = documented.difference(&features).collect();
        assert!(unknown.is_empty(), "{document} has features that do not exist: {unknown:?}");
    }
}

/// The version that the manifest asks for, such as `1.54`.
fn version(manifest: &str, start: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
    let number = line.split('"').nth(1).unwrap_or_else(|| panic!("{line}"));
    number.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[test]
fn the_versions_in_the_readme_are_those_of_the_manifest() {
    let manifest = text("Cargo.toml");
    let row = format!(
        "| {} | {} | {} or later | {} or later |",
        version(&manifest, "version = "),
        version(&manifest, "opentelemetry = "),
        version(&manifest, "tokio = "),
        version(&manifest, "rust-version = "),
    );
    assert!(text("README.md").contains(&row), "README.md lacks `{row}`");
}

/// The targets of links and pictures, and the paths in backquotes that begin with a folder of the repository.
fn paths(document: &str) -> Vec<String> {
    let links = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
    let quoted = document.split('`').skip(1).step_by(2);
    let folders = ["src/", "tests/", "deploy/", "examples/", "benches/", "docs/", "model/", "demo/", ".ci/"];
    let quoted = quoted.filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
    // Not a pattern, a command, or an example of a line.
    let quoted = quoted.filter(|word| !word.contains(['*', ' ', '\n', ':']) && !word.contains("NAME"));
    links.chain(quoted).map(|path| path.split('#').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_bound_of_stalls_is_the_same_everywhere() {
    let bound =
        "On stable Tokio, a poll that computes for less than 0.64 s in a task without a name is not noticed.";
    for document in ["README.md", "METRICS.md", "src/runtime_metrics/builder.rs"] {
        let words = text(document).replace("///", " ");
        let words: Vec<_> = words.split_whitespace().collect();
        assert!(words.join(" ").contains(bound), "{document} lacks `{bound}`");
    }
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for path in paths(&text(document)) {
            assert!(root().join(&path).exists(), "{document} names `{path}`");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} paths");
}

/// The lines of the Rust blocks of a document that no documentation test compiles.
fn ignored_blocks<'a>(document: &'a str) -> Vec<Vec<&'a str>> {
    let blocks = document.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = |block: &'a str| block.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    blocks.map(lines).collect()
}

/// The lines of a file's documentation, without indentation.
fn documentation(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| line.trim().strip_prefix("///")).map(str::trim)
}

/// Documentation tests compile the other recipes of the README.
#[test]
fn recipes_that_the_readme_does_not_compile_are_those_of_the_documentation() {
    let readme = text("README.md");
    let sources = ["src/count/task/hooks.rs", "src/runtime_metrics/metrics.rs"].map(text);
    let blocks = ignored_blocks(&readme);
    assert_eq!(blocks.len(), sources.len(), "{blocks:?}");
    for block in blocks {
        let has =
            |source: &String| block.iter().all(|line| documentation(source).any(|known| known == *line));
        assert!(sources.iter().any(has), "no documentation has {block:?}");
    }
}

#[test]
fn every_benchmark_is_documented() {
    let manifest = text("benches/Cargo.toml");
    let names = manifest.split("[[bench]]").skip(1).filter_map(|entry| entry.split('"').nth(1));
    let names: Vec<_> = names.collect();
    assert!(names.len() > 5, "{names:?}");
    let document = text("BENCHMARKS.md");
    for name in names {
        assert!(document.contains(&format!("--bench {name}")), "BENCHMARKS.md lacks {name}");
    }
}

/// The steps of a full run of `.ci/run`.
fn steps() -> Vec<String> {
    let script = text(".ci/run");
    let mut steps = vec!["format".to_owned(), "structure".to_owned()];
    for list in ["\nsteps=(", "\nbeside=("] {
        let (_, after) = script.split_once(list).expect("a list of steps");
        let list = after.split(')').next().unwrap_or_default().replace('\n', " ");
        // Quoted steps have two words.
        for (index, part) in list.split('\'').enumerate() {
            match index % 2 {
                0 => steps.extend(part.split_whitespace().map(str::to_owned)),
                _ => steps.push(format!("'{part}'")),
            }
        }
    }
    steps
}

#[test]
fn the_public_workflow_runs_every_step() {
    let workflow = text(".github/workflows/ci.yml");
    let run: BTreeSet<String> = workflow
        .lines()
        .filter_map(|line| line.split_once("steps: \"")?.1.split_once('"'))
        .flat_map(|(steps, _)| {
            steps.replace("'unstable ", "'unstable_").split(' ').map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|step| step.replace("'unstable_", "'unstable "))
        .collect();
    let steps = steps();
    assert!(steps.len() > 10, "{steps:?}");
    // The workflow has other machines: its jobs `systems` and `musl`. `build` tests nothing.
    for step in steps.into_iter().filter(|step| !step.starts_with("foreign") && !step.starts_with("'build "))
    {
        assert!(run.contains(&step), "no job runs {step}");
    }
}

/// The tests that cannot run on other machines: the machine, the test and the reason.
fn excluded() -> Vec<[String; 3]> {
    let script = text(".ci/foreign");
    let (_, after) = script.split_once("\nexcluded='\n").expect("a list");
    let lines = after.split("\n'").next().unwrap_or_default().lines();
    let cells = |line: &str| line.splitn(3, " | ").map(str::to_owned).collect::<Vec<_>>().try_into();
    lines.map(|line| cells(line).unwrap_or_else(|_| panic!("`{line}`"))).collect()
}

#[test]
fn the_tests_that_cannot_run_elsewhere_are_documented() {
    let excluded = excluded();
    assert!(!excluded.is_empty());
    let document = text("CONTRIBUTING.md");
    let (_, after) = document.split_once("\n| machine | test | reason |\n").expect("a table");
    let rows: BTreeSet<_> = after.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    let listed: Vec<_> = excluded
        .iter()
        .map(|[machine, test, reason]| format!("| {machine} | `{test}` | {reason} |"))
        .collect();
    assert_eq!(rows, listed.iter().map(String::as_str).collect());
}

#[test]
fn the_tests_that_cannot_run_elsewhere_exist() {
    let files = ["tests", "tests/allocator"].map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let files = files.into_iter().flatten().map(|entry| entry.unwrap().path());
    let sources: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for [_, test, _] in excluded() {
        let is_defined = sources.iter().any(|source| source.contains(&format!("\nfn {test}()")));
        assert!(is_defined, "there is no {test}");
    }
}

/// Each target that the script runs suites on has a column, and each program of a suite is in a row.
#[test]
fn the_table_of_targets_has_each_target_and_each_test_program() {
    let document = text("CONTRIBUTING.md");
    let (_, after) = document.split_once("\n| suite | programs |").expect("a table");
    let table: Vec<_> = after.lines().take_while(|line| line.contains('|')).collect();
    let script = text(".ci/foreign");
    let (_, steps) = script.split_once("\nall_suites=(").expect("a list of steps");
    let targets: Vec<_> =
        steps.split("'suites ").skip(1).filter_map(|rest| rest.split(['\'', ' ']).next()).collect();
    assert!(targets.len() > 1, "{targets:?}");
    for target in targets {
        assert!(table[0].contains(&format!("`{target}`")), "no column for {target}");
    }
    let patterns: Vec<_> = table.iter().flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    let has = |name: &str| {
        patterns.iter().any(|pattern| {
            pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start))
        })
    };
    for manifest in ["tests/lean/Cargo.toml", "tests/allocator/Cargo.toml"] {
        let manifest = text(manifest);
        let names = manifest.split("[[test]]").skip(1).filter_map(|entry| entry.split('"').nth(1));
        let unknown: Vec<_> = names.filter(|name| !has(name)).collect();
        assert!(unknown.is_empty(), "no row for {unknown:?}");
    }
}
