//! Checks that some machines cannot make.

/// Reports that a tool or a permission is missing, so that a check is left out.
///
/// # Panics
/// Panics if `NO_SKIPS` is set, as in CI, where every check must be made.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("NO_SKIPS").is_none(), "cannot be checked here: {reason}");
    eprintln!("skipped: {reason}");
}
