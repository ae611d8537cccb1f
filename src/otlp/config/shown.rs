//! Shows the values of settings without the secrets in them.

use crate::otlp::config::secrets::{HIDDEN, Secrets};

/// A path segment of a URL that is as long as this is taken for a token.
const TOKEN: usize = 24;

/// Any other text before `://` may be a part of a secret.
const SHOWN_SCHEMES: [&str; 9] = ["ftp", "grpc", "grpcs", "http", "https", "socks4", "socks5", "tcp", "unix"];

/// A URL, or a text that should be one, without user, password, query, and path segments that look like tokens.
pub(crate) fn shown_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return if starts_with_host(text) { shown_after_scheme(text) } else { HIDDEN.to_owned() };
    };
    let is_known = SHOWN_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str());
    format!("{}://{}", if is_known { scheme } else { HIDDEN }, shown_after_scheme(rest))
}

/// Without a scheme, a text may be anything.
fn starts_with_host(text: &str) -> bool {
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_name = |word: &str| word.len() < TOKEN && word.chars().all(|c| c.is_ascii_alphanumeric());
    let is_port = port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit());
    name.split(['.', '-']).all(is_name)
        && is_port
        && (!port.is_empty() || name.contains('.') || name == "localhost")
        || text.starts_with("unix:/")
}

fn shown_after_scheme(text: &str) -> String {
    // A password may contain anything, hence goes first.
    let (user, text) = text.rsplit_once('@').map_or(("", text), |(_, rest)| ("[hidden]@", rest));
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let (path, query) = text.split_at(end);
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-._~:[]%+,=".contains(character);
    let segments = path.split('/').enumerate().map(|(index, segment)| {
        let is_token = index > 0 && segment.chars().count() >= TOKEN;
        if is_token || !segment.chars().all(is_plain) { HIDDEN } else { segment }
    });
    let query = if query.is_empty() { "" } else { "?[hidden]" };
    format!("{user}{}{query}", segments.collect::<Vec<_>>().join("/"))
}

/// The parts of a URL that [`shown_url`] hides, for the answers that quote the URL.
pub(crate) fn secrets_of_url(text: &str, secrets: &mut Secrets) {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some((user, _)) = path.rsplit_once('@') {
        user.split(':').for_each(|part| secrets.add(part));
    }
    let parameters = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    let tokens = path.split('/').skip(1).filter(|segment| segment.chars().count() >= TOKEN);
    for secret in parameters.chain(tokens) {
        secrets.add(secret);
        let decoded = percent_encoding::percent_decode_str(secret).decode_utf8_lossy();
        secrets.add(&decoded);
    }
}

/// A value that should be a word or a number. A long one may be a secret that got into the wrong variable.
pub(crate) fn shown_word(value: &str) -> &str {
    const MAX_WORD: usize = 16;
    let is_plain = value.chars().all(|character| character.is_ascii_graphic() || character == ' ');
    if is_plain && value.len() <= MAX_WORD { value } else { HIDDEN }
}

/// The name of a file. Anything that does not look like one may be the text of a key.
#[cfg(feature = "otlp-tls")]
pub(crate) fn shown_path(value: &str) -> &str {
    if looks_like_path(value) { value } else { HIDDEN }
}

#[cfg(feature = "otlp-tls")]
pub(crate) fn looks_like_path(value: &str) -> bool {
    const MAX_NAME: usize = 64;
    let names = || value.split(['/', '\\']);
    let is_rooted = value.starts_with(['/', '~', '.']) || value.get(1..3) == Some(":\\");
    let has_extension =
        value.rsplit_once('.').is_some_and(|(_, extension)| (1..=4).contains(&extension.len()));
    !value.contains("-----")
        && !value.chars().any(char::is_control)
        && names().all(|name| name.len() <= MAX_NAME)
        && (is_rooted || has_extension)
}
