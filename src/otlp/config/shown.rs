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

/// True for a text without a scheme that is no host, hence a secret that got into the wrong variable. It must not even be
/// looked up.
pub(crate) fn is_no_host(text: &str) -> bool {
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let is_token = |word: &str| word.len() >= TOKEN;
    // Some clouds name hosts at random, but a token has no port.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let is_random = is_random(host, MIN_RANDOM_PATH) || host.split(['.', '-']).any(is_token);
    !text.contains("://") && !has_port && is_random
}

/// Without a scheme, a text may be anything.
fn starts_with_host(text: &str) -> bool {
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_name = |word: &str| word.len() < TOKEN && word.chars().all(|c| c.is_ascii_alphanumeric());
    let is_port = port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit());
    !is_random(host, MIN_RANDOM_PATH)
        && name.split(['.', '-']).all(is_name)
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
    if is_plain && value.len() <= MAX_WORD && !is_random(value, MIN_RANDOM_WORD) { value } else { HIDDEN }
}

/// In characters. A shorter text is not judged by [`is_random`].
const MIN_RANDOM_WORD: usize = 10;
const MIN_RANDOM_PATH: usize = 22;

/// True if the text changes between small letters, capitals and digits as often as a random one does.
fn is_random(text: &str, min_length: usize) -> bool {
    let class = |character: char| (character.is_ascii_digit(), character.is_ascii_uppercase());
    let mut changes = 0;
    let mut length = 0;
    let mut last = None;
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            length += 1;
            changes += usize::from(last.is_some_and(|last| last != class(character)));
            last = Some(class(character));
        } else {
            last = None;
        }
    }
    length >= min_length && changes * 10 >= length * 3
}

/// The name of a file, without parts that look like tokens. Anything that does not look like a name may be the text of
/// a key or another secret.
#[cfg(feature = "otlp-tls")]
pub(crate) fn shown_path(value: &str) -> String {
    if let Some((quote, inner)) = quoted(value) {
        return format!("{quote}{}{quote}", shown_path(inner));
    }
    if value.is_empty() {
        return String::new();
    }
    if !looks_like_path(value) {
        return HIDDEN.to_owned();
    }
    let is_separator = |character: char| character == '/' || character == '\\';
    let parts = value.split_inclusive(is_separator).map(|part| {
        let name = part.trim_end_matches(is_separator);
        let is_shown = !is_token(name) && name.len() <= MAX_NAME;
        if is_shown { part.to_owned() } else { part.replace(name, HIDDEN) }
    });
    parts.collect()
}

#[cfg(feature = "otlp-tls")]
fn quoted(value: &str) -> Option<(char, &str)> {
    let quote = value.chars().next().filter(|first| ['"', '\''].contains(first))?;
    Some((quote, value.strip_prefix(quote)?.strip_suffix(quote)?))
}

/// In bytes. The names of files of keys are shorter.
#[cfg(feature = "otlp-tls")]
const MAX_NAME: usize = 64;

/// True if one of the words of a name is as long as a token.
#[cfg(feature = "otlp-tls")]
fn is_token(name: &str) -> bool {
    let is_between = |character: char| !character.is_ascii_alphanumeric();
    name.split(is_between).any(|word| word.len() >= TOKEN)
}

/// The usual names of the files of certificates and keys.
#[cfg(feature = "otlp-tls")]
const EXTENSIONS: [&str; 11] = ["ca", "cer", "cert", "crt", "der", "key", "p12", "pem", "pfx", "pub", "txt"];

/// True if the value begins as a path does or ends as the name of a key or a certificate does. A token has dots and
/// slashes too, but is random.
#[cfg(feature = "otlp-tls")]
fn looks_like_path(value: &str) -> bool {
    let is_drive = value.get(1..3).is_some_and(|rest| [":\\", ":/"].contains(&rest));
    let is_rooted = ["/", "~/", "./", "../", "\\\\"].iter().any(|root| value.starts_with(root)) || is_drive;
    let extension = value.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let has_extension = extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()));
    let is_plain = |character: char| character.is_alphanumeric() || "/\\.-_ ~:+@,()".contains(character);
    !value.contains("-----")
        && value.chars().all(is_plain)
        && !is_random(value, MIN_RANDOM_PATH)
        && (is_rooted || has_extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_secrets() {
        for (url, shown) in [
            ("http://h:4318/v1/metrics", "http://h:4318/v1/metrics"),
            ("https://user:p@ss@h:1/x", "https://[hidden]@h:1/x"),
            ("https://user:pa/ss@h:1/x", "https://[hidden]@h:1/x"),
            ("https://h/in/0123456789abcdefghijklmn/x?k=v#f", "https://h/in/[hidden]/x?[hidden]"),
            ("https://h/#access_token=s3cret", "https://h/?[hidden]"),
            ("https://h/a;s3cret", "https://h/[hidden]"),
            ("s3cret://h", "[hidden]://h"),
            ("collector.example:4317", "collector.example:4317"),
            ("unix:/run/otel.sock", "unix:/run/otel.sock"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", HIDDEN),
            ("aB3dE5fG7hJ9.kL1mN3pQ5rS7", HIDDEN),
            ("s3cret", HIDDEN),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
    }

    #[test]
    fn tokens_are_no_hosts() {
        for secret in [
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
            "user:s3cret@eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl/",
            "correcthorsebatterystaple",
        ] {
            assert!(is_no_host(secret), "{secret}");
        }
        for host in ["collector", "h:4317", "user:s3cret@p:1", "10.0.0.1:3128", "[fd00::1]:3128", "http://x"]
        {
            assert!(!is_no_host(host), "{host}");
        }
        assert!(!is_no_host("a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5-1234.elb.example:4317"));
        assert!(!is_no_host("opentelemetry-collector.monitoring.svc.cluster.local:4317"));
    }

    #[test]
    #[cfg(feature = "otlp-tls")]
    fn names_of_files_are_shown() {
        for path in [
            "/etc/ssl/certs/ca-certificates.crt",
            "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "/run/secrets/otel-collector-client-certificate.pem",
            "/tmp/.tmpA1b2C3/authority.pem",
            "..data/tls.key",
            "./client",
            "~/certs/Client 2.PEM",
            "client.pem",
            "C:\\certs\\client.pem",
            "/srv/schl\u{fc}ssel/k.key",
            "'/c.key'",
            "",
        ] {
            assert_eq!(shown_path(path), path);
        }
        assert_eq!(
            shown_path("/nix/store/6ww5ni1p3zkc0g3i9ysln3hm5z6iv6zh-nss-cacert/etc/ssl/certs/ca-bundle.crt"),
            "/nix/store/[hidden]/etc/ssl/certs/ca-bundle.crt"
        );
    }

    #[test]
    #[cfg(feature = "otlp-tls")]
    fn keys_and_tokens_are_no_names_of_files() {
        for secret in [
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "eyJhbGciOiJIUzI1NiJ9.e30.abcd",
            "xoxb-1234.abcd",
            "SG.ab12.cd34",
            "/9j/4AAQSkZJRgABAQEAYABgAAD",
            "/eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln",
            "./aB3dE5fG7hJ9kL1mN3pQ5rS7",
            "~s3cret",
            ".s3cret",
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw",
            "glsa_x1Y2z3.dEf",
            "hunter2.pass",
            "-----BEGIN PRIVATE KEY-----.pem",
            "/a\nb.pem",
            "/p$ss%word",
        ] {
            assert_eq!(shown_path(secret), HIDDEN, "{secret}");
        }
        assert_eq!(shown_path("/correcthorsebatterystaple"), "/[hidden]");
        assert_eq!(shown_path("correcthorsebatterystaple.pem"), HIDDEN);
    }

    #[test]
    fn short_words_are_shown_and_random_ones_are_not() {
        for word in ["60s", "1e3", "http/xml", "Delta2", "otlp,prometheus", "\"otlp\"", "2024-01-01"] {
            assert_eq!(shown_word(word), word);
        }
        for secret in ["aB3dE5fG7hJ9", "s3cret-that-went-astray", "12ab34cd56ef"] {
            assert_eq!(shown_word(secret), HIDDEN, "{secret}");
        }
    }
}
