//! Numbers as people read them.

/// Returns `12.3 MB`, `4.5 ms`, `678 k`: three digits and a unit. `plus` precedes a positive number.
pub(crate) fn readable(value: f64, unit: &str, plus: &str) -> String {
    let sign = if value < 0.0 { "-" } else { plus };
    let size = value.abs();
    let (scaled, prefix) = match size {
        0.0 => (0.0, ""),
        _ if unit == "s" && size < 1e-3 => (size * 1e6, "u"),
        _ if unit == "s" && size < 1.0 => (size * 1e3, "m"),
        _ if unit == "s" || size < 1e3 => (size, ""),
        _ if size < 1e6 => (size / 1e3, "k"),
        _ if size < 1e9 => (size / 1e6, "M"),
        _ => (size / 1e9, "G"),
    };
    let unit = match unit {
        "By" => "B",
        "s" => "s",
        _ => "",
    };
    let whole = prefix.is_empty() && scaled.fract() == 0.0;
    let digits = if whole || scaled >= 100.0 { 0 } else { 1 };
    format!("{sign}{scaled:.digits$} {prefix}{unit}").trim_end().to_owned()
}
