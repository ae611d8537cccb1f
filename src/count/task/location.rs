//! Shortens the source location of a spawn.

use std::panic::Location;

/// Returns `src/server.rs:88` for the program's own workspace, `crate-1.2.3/src/server.rs:88` elsewhere.
pub(crate) fn label(location: &Location<'_>) -> String {
    format!("{}:{}", shorten(&location.file().replace('\\', "/")), location.line())
}

/// Returns the path from the crate's own directory on. Paths within the program's workspace are relative already.
fn shorten(path: &str) -> &str {
    let after = |mark: &str, directories: usize| {
        let (_, rest) = path.split_once(mark)?;
        rest.splitn(directories + 1, '/').nth(directories)
    };
    // The registry's directory says nothing. A repository's and its revision's say which code it is.
    if let Some(short) = after("/registry/src/", 1).or_else(|| after("/git/checkouts/", 0)) {
        return short;
    }
    if !is_absolute(path) {
        return path;
    }
    // A crate by path, vendored, or the standard library: the directory that holds `src`, else the last one.
    let end = path.rfind("/src/").or_else(|| path.rfind('/')).unwrap_or(0);
    let start = path.get(..end).and_then(|parents| parents.rfind('/')).map_or(0, |slash| slash + 1);
    path.get(start..).unwrap_or(path).trim_start_matches('/')
}

/// Returns whether a path is absolute on any system, since a program may have been compiled on another one.
fn is_absolute(path: &str) -> bool {
    path.starts_with('/') || path.get(1..3) == Some(":/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_crate() {
        let registry = "/home/u/.cargo/registry/src/index.example.org-0123456789abcdef";
        for (path, short) in [
            ("src/server.rs", "src/server.rs"),
            ("crates/api/src/server.rs", "crates/api/src/server.rs"),
            (&format!("{registry}/h2-0.4.6/src/server.rs"), "h2-0.4.6/src/server.rs"),
            (&format!("{registry}/h2-0.4.6/src/a/src/b.rs"), "h2-0.4.6/src/a/src/b.rs"),
            (
                "/home/u/.cargo/git/checkouts/h2-0123456789abcdef/1a2b3c4/src/server.rs",
                "h2-0123456789abcdef/1a2b3c4/src/server.rs",
            ),
            ("/home/u/vendor/h2/src/server.rs", "h2/src/server.rs"),
            ("/home/u/app/examples/leak.rs", "examples/leak.rs"),
            ("/rustc/0123abcd/library/std/src/thread/mod.rs", "std/src/thread/mod.rs"),
            ("C:/Users/u/.cargo/registry/src/index-1/h2-0.4.6/src/server.rs", "h2-0.4.6/src/server.rs"),
            ("C:/app/h2/src/server.rs", "h2/src/server.rs"),
            ("/server.rs", "server.rs"),
            ("/src/server.rs", "src/server.rs"),
            ("", ""),
        ] {
            assert_eq!(shorten(path), short, "{path}");
        }
    }

    #[test]
    fn the_line_follows_the_path() {
        let location = Location::caller();
        assert_eq!(label(location), format!("src/count/task/location.rs:{}", location.line()));
    }
}
