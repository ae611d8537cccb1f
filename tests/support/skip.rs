//! Checks that a machine may not be able to make.

/// Reports that a tool or a permission is missing, so that a check is left out.
///
/// # Panics
/// If `NO_SKIPS` is set, as it is where every check has to be made.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("NO_SKIPS").is_none(), "cannot be checked here: {reason}");
    eprintln!("skipped: {reason}");
}
