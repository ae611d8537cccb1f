//! Keeps secrets out of everything that is printed.
//!
//! Every text that an endpoint, a proxy or a library wrote goes through [`Secrets::excerpt`] before it is shown, and
//! every URL through [`shown_url`](crate::otlp::config::shown::shown_url).

use std::collections::HashSet;

/// Replaces anything that may be a secret.
pub(crate) const HIDDEN: &str = "[hidden]";

/// The length of a quotation from an answer, in characters.
const MAX_EXCERPT: usize = 300;
/// The part of an answer that is read, in bytes. It leaves enough for an excerpt after much is hidden.
const MAX_TEXT: usize = 8 * 1024;
/// In characters, of what is left out before such an end: more than [`PIECE`] characters take, however they are escaped.
const MARGIN: usize = 256;
/// Any part of a secret that is as long as this is hidden, so that an endpoint may cut it where it likes.
const PIECE: usize = 6;
/// Shorter secrets are none, such as a tenant's number, and would hide parts of ordinary words.
const MIN_SECRET: usize = 4;
/// Words that stand before a secret.
const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "token", "apikey", "negotiate"];
/// The number of encodings on top of each other that are undone.
const MAX_ENCODINGS: usize = 2;
/// The number of escapes inside each other that are undone.
const MAX_ESCAPES: usize = 4;

/// The texts that must not be printed: the values of headers, and the secret parts of URLs.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// In lower case and without white space, each as long as [`PIECE`] or a whole short secret.
    pieces: HashSet<Vec<u8>>,
}

impl Secrets {
    pub(crate) fn add(&mut self, secret: &str) {
        let words = secret.split_whitespace();
        let without_scheme: Vec<&str> =
            words.filter(|word| !SCHEMES.contains(&word.to_ascii_lowercase().as_str())).collect();
        self.add_bytes(without_scheme.concat().as_bytes());
        for word in without_scheme {
            self.add_bytes(word.as_bytes());
            // `Basic dXNlcjpwYXNz` may come back as the user and the password.
            let decoded = View::new(word.trim_end_matches('=')).base64(0);
            if let Some(decoded) = decoded.filter(|decoded| decoded.bytes.iter().all(u8::is_ascii_graphic)) {
                decoded.bytes.split(|byte| *byte == b':').for_each(|part| self.add_bytes(part));
            }
        }
    }

    fn add_bytes(&mut self, secret: &[u8]) {
        let secret: Vec<u8> =
            secret.iter().filter(|byte| is_kept(**byte)).map(u8::to_ascii_lowercase).collect();
        match secret.len() {
            PIECE.. => self.pieces.extend(secret.windows(PIECE).map(<[u8]>::to_vec)),
            MIN_SECRET.. => self.pieces.extend([secret]),
            _ => {}
        }
    }

    /// Makes a text fit to be printed: without secrets, in one line, and not long. Secrets go before it is cut, so that
    /// no half of one is left.
    pub(crate) fn excerpt(&self, text: &str) -> String {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let seen = text.get(..end).unwrap_or_default();
        let mut redacted = self.redact(seen);
        if end < text.len() {
            // A secret that the end cuts is not recognised by the few characters before it.
            let kept = redacted.chars().count().saturating_sub(MARGIN);
            redacted = redacted.chars().take(kept).collect();
        }
        one_line(&redacted).chars().take(MAX_EXCERPT).collect()
    }

    fn redact(&self, text: &str) -> String {
        if self.pieces.is_empty() {
            return text.to_owned();
        }
        let mut hidden = vec![false; text.len()];
        self.mark(View::new(text), &mut hidden, MAX_ENCODINGS);
        let mut result = String::new();
        let mut is_hiding = false;
        for (index, character) in text.char_indices() {
            // The text between two parts of a secret is too short to be useful.
            let rest = hidden.get(index..).unwrap_or_default();
            let is_secret = rest.first() == Some(&true)
                || is_hiding && rest.iter().take(PIECE).any(|is_hidden| *is_hidden);
            match (is_secret, is_hiding) {
                (true, false) => result.push_str(HIDDEN),
                (true, true) => {}
                (false, _) => result.push(character),
            }
            is_hiding = is_secret;
        }
        result
    }

    /// Marks the bytes of the text that hold a secret, as they are or encoded.
    fn mark(&self, view: View, hidden: &mut [bool], encodings: usize) {
        let mut layer = Some(view);
        for _ in 0..=MAX_ESCAPES {
            let Some(view) = layer else { break };
            self.mark_plain(&view, hidden);
            if encodings > 0 {
                let base64 = (0..4).map(|offset| view.base64(offset));
                let hexadecimal = (0..2).map(|offset| view.hexadecimal(offset));
                for decoded in base64.chain(hexadecimal).flatten() {
                    self.mark(decoded, hidden, encodings - 1);
                }
            }
            layer = view.unescaped();
        }
    }

    fn mark_plain(&self, view: &View, hidden: &mut [bool]) {
        let lower = view.bytes.to_ascii_lowercase();
        for length in MIN_SECRET..=PIECE {
            for (window, spans) in lower.windows(length).zip(view.spans.windows(length)) {
                if self.pieces.contains(window)
                    && let (Some((start, _)), Some((_, end))) = (spans.first(), spans.last())
                    && let Some(part) = hidden.get_mut(*start..*end)
                {
                    part.fill(true);
                }
            }
        }
    }
}

/// Never shows a secret, nor how many there are.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// White space and control characters may stand anywhere in an encoded text.
fn is_kept(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !byte.is_ascii_control()
}

/// Decoded bytes, and which bytes of the original text each comes from.
struct View {
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl View {
    fn new(text: &str) -> Self {
        let kept = text.bytes().enumerate().filter(|(_, byte)| is_kept(*byte));
        kept.map(|(index, byte)| (byte, (index, index + 1))).collect()
    }

    /// Decodes runs of characters that stand for `bits` bits each, beginning with the one at `offset` of each run.
    /// `None` if there is nothing to decode.
    fn digits(&self, bits: u32, offset: usize, value: impl Fn(u8) -> Option<u32>) -> Option<View> {
        let mut decoded = View { bytes: Vec::new(), spans: Vec::new() };
        let (mut skip, mut buffer, mut filled, mut start) = (offset, 0_u32, 0, 0);
        for (byte, (from, to)) in self.bytes.iter().zip(&self.spans) {
            let Some(digit) = value(*byte) else {
                // A separate byte keeps two runs apart.
                if !decoded.bytes.is_empty() {
                    decoded.push(0, (*from, *to));
                }
                (skip, buffer, filled) = (offset, 0, 0);
                continue;
            };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if filled == 0 {
                start = *from;
            }
            buffer = buffer << bits | digit;
            filled += bits;
            if filled >= 8 {
                filled -= 8;
                decoded.push((buffer >> filled & 0xff) as u8, (start, *to));
                buffer &= (1 << filled) - 1;
                start = *from;
            }
        }
        (decoded.bytes.len() >= MIN_SECRET).then_some(decoded)
    }

    /// Both alphabets, with padding or without.
    fn base64(&self, offset: usize) -> Option<View> {
        self.digits(6, offset, |byte| match byte {
            b'A'..=b'Z' => Some(u32::from(byte - b'A')),
            b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
            b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
            b'+' | b'-' => Some(62),
            b'/' | b'_' => Some(63),
            _ => None,
        })
    }

    /// With colons between the bytes or without.
    fn hexadecimal(&self, offset: usize) -> Option<View> {
        let bytes = self.bytes.iter().copied().zip(self.spans.iter().copied());
        let plain: View = bytes.filter(|(byte, _)| *byte != b':').collect();
        plain.digits(4, offset, |byte| char::from(byte).to_digit(16))
    }

    /// Undoes the escapes of URLs, JSON, HTML and C, once. `None` if there are none.
    fn unescaped(&self) -> Option<View> {
        let mut result = View { bytes: Vec::new(), spans: Vec::new() };
        let mut index = 0;
        let mut found = false;
        while let (Some(rest), Some((start, end))) = (self.bytes.get(index..), self.spans.get(index)) {
            let Some(byte) = rest.first() else { break };
            let (character, length) = match escape(rest) {
                Some(escape) => {
                    found = true;
                    escape
                }
                None => (char::from(*byte), 1),
            };
            let end = self.spans.get(index + length - 1).map_or(*end, |(_, end)| *end);
            match u8::try_from(u32::from(character)) {
                // Not ASCII and not an escape: a byte of a longer character.
                Ok(byte) if length == 1 || byte.is_ascii() => result.push(byte, (*start, end)),
                _ => {
                    let mut bytes = [0; 4];
                    character
                        .encode_utf8(&mut bytes)
                        .bytes()
                        .for_each(|byte| result.push(byte, (*start, end)));
                }
            }
            index += length;
        }
        found.then(|| {
            result
                .bytes
                .iter()
                .copied()
                .zip(result.spans.iter().copied())
                .filter(|(byte, _)| is_kept(*byte))
                .collect()
        })
    }

    fn push(&mut self, byte: u8, span: (usize, usize)) {
        self.bytes.push(byte);
        self.spans.push(span);
    }
}

impl FromIterator<(u8, (usize, usize))> for View {
    fn from_iter<I: IntoIterator<Item = (u8, (usize, usize))>>(bytes: I) -> Self {
        let (bytes, spans) = bytes.into_iter().unzip();
        View { bytes, spans }
    }
}

/// The character that an escape at the beginning of the text stands for, and the length of the escape.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        char::from_u32(u32::from_str_radix(digits, radix).ok()?)
    };
    match text {
        [b'%', a, b, ..] => Some((number(&[*a, *b], 16)?, 3)),
        [b'\\', b'u', b'{', ..] => {
            let end = text.iter().take(10).position(|byte| *byte == b'}')?;
            Some((number(text.get(3..end)?, 16)?, end + 1))
        }
        [b'\\', b'u', a, b, c, d, ..] => Some((number(&[*a, *b, *c, *d], 16)?, 6)),
        [b'\\', b'x', a, b, ..] => Some((number(&[*a, *b], 16)?, 4)),
        [b'\\', b'U', digits @ ..] => Some((number(digits.get(..8)?, 16)?, 10)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((number(&[*a, *b, *c], 8)?, 4))
        }
        // A line break in a string is white space, and left out.
        [b'\\', b'n' | b'r' | b't', ..] => Some((' ', 2)),
        [b'\\', byte, ..] if byte.is_ascii_punctuation() => Some((char::from(*byte), 2)),
        [b'&', ..] => {
            let length = text.iter().take(10).position(|byte| *byte == b';')? + 1;
            let character = match text.get(1..length - 1)? {
                [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
                [b'#', digits @ ..] => number(digits, 10)?,
                name => ENTITIES.iter().find(|(known, _)| known.as_bytes() == name)?.1,
            };
            Some((character, length))
        }
        _ => None,
    }
}

/// The characters beyond letters and digits that some writers of HTML escape.
const ENTITIES: [(&str, char); 33] = [
    ("amp", '&'),
    ("apos", '\''),
    ("ast", '*'),
    ("bsol", '\\'),
    ("colon", ':'),
    ("comma", ','),
    ("commat", '@'),
    ("dollar", '$'),
    ("equals", '='),
    ("excl", '!'),
    ("grave", '`'),
    ("gt", '>'),
    ("Hat", '^'),
    ("hyphen", '-'),
    ("lbrace", '{'),
    ("lbrack", '['),
    ("lcub", '{'),
    ("lowbar", '_'),
    ("lpar", '('),
    ("lsqb", '['),
    ("lt", '<'),
    ("num", '#'),
    ("percnt", '%'),
    ("period", '.'),
    ("plus", '+'),
    ("quest", '?'),
    ("quot", '"'),
    ("rcub", '}'),
    ("rpar", ')'),
    ("rsqb", ']'),
    ("semi", ';'),
    ("sol", '/'),
    ("vert", '|'),
];

/// One line without control characters, and without those that change the direction of a text or cannot be seen.
fn one_line(text: &str) -> String {
    let is_invisible = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let spaced: String =
        text.chars().map(|character| if is_invisible(character) { ' ' } else { character }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        values.iter().for_each(|value| secrets.add(value));
        secrets
    }

    #[test]
    fn an_excerpt_is_one_readable_line_cut_between_characters() {
        let none = Secrets::default();
        assert_eq!(none.excerpt("a\u{1b}[1m\r\n\tb\u{0}\u{202e}c\u{feff}"), "a [1m b c");
        for character in ["x", "\u{e9}", "\u{65e5}", "\u{1f980}"] {
            let excerpt = none.excerpt(&character.repeat(MAX_TEXT));
            assert_eq!(excerpt, character.repeat(MAX_EXCERPT));
        }
    }

    #[test]
    fn secrets_are_hidden_before_the_text_is_cut() {
        let secret = "0123456789VWQZKJ";
        let secrets = secrets(&[secret]);
        for before in 0..40 {
            // By either limit.
            for around in [MAX_EXCERPT - 30 + before, MAX_TEXT - 30 + before] {
                for filler in [" ", "x", "\u{e9}"] {
                    let text = filler.repeat(around / filler.len()) + secret + "zzz";
                    let excerpt = secrets.excerpt(&text);
                    assert!(!excerpt.contains(|c: char| secret.contains(c)), "{around}: {excerpt}");
                }
            }
        }
    }

    #[test]
    fn escapes_of_many_languages_are_undone() {
        let secret = "k/9+a_b=c&d<e";
        let secrets = secrets(&[secret]);
        let each = |write: &dyn Fn(char) -> String| secret.chars().map(write).collect::<String>();
        let code = |character: char| u32::from(character);
        for echo in [
            each(&|c| format!("\\u{{{:x}}}", code(c))),
            each(&|c| format!("\\U{:08x}", code(c))),
            each(&|c| format!("\\{:03o}", code(c))),
            each(&|c| format!("\\x{:02X}", code(c))),
            each(&|c| format!("&#x{:x};", code(c))),
            each(&|c| format!("{:02x}:", code(c))),
            each(&|c| format!("{:02x} ", code(c))),
            "k&sol;9&plus;a&lowbar;b&equals;c&amp;d&lt;e".into(),
            "k\\/9+a_b=c\\u0026d\\u003ce".into(),
            "k%2F9%2Ba_b%3Dc%26d%3Ce".into(),
            "k%252F9%252Ba_b%253Dc%2526d%253Ce".into(),
        ] {
            let excerpt = secrets.excerpt(&format!("no {echo}"));
            assert_eq!(excerpt.trim_end_matches([':', ' ']), "no [hidden]", "{echo}");
        }
    }
}
