//! Reads the answers of HTTP by their media type, and finds a readable message.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use serde_json::Value;

use crate::otlp::config::secrets::Secrets;
use crate::otlp::send::outcome::Outcome;

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Media {
    Protobuf,
    Json,
    Html,
    Other,
}

impl Media {
    /// By the body itself where the header does not say.
    fn new(headers: &HeaderMap, body: &[u8]) -> Self {
        let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "text/html" | "application/xhtml+xml" => Media::Html,
            media if media.contains("protobuf") => Media::Protobuf,
            media if media.ends_with("json") => Media::Json,
            _ => Self::of_body(body),
        }
    }

    fn of_body(body: &[u8]) -> Self {
        let start: Vec<u8> =
            without_mark(body).trim_ascii_start().iter().take(14).map(u8::to_ascii_lowercase).collect();
        if start.starts_with(b"{") {
            Media::Json
        } else if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
            Media::Html
        } else {
            Media::Other
        }
    }
}

/// Reads an answer with a status of success. The error is a problem.
///
/// Some collectors answer with nothing, in JSON or with a text such as `OK`. A page is from no collector. In protobuf the
/// answers to all signals have the same form.
pub(crate) fn outcome(
    headers: &HeaderMap,
    body: &[u8],
    is_whole: bool,
    secrets: &Secrets,
) -> Result<Outcome, String> {
    let decoded = || ExportMetricsServiceResponse::decode(body).ok();
    match Media::new(headers, body) {
        _ if body.is_empty() => Ok(Outcome::ACCEPTED),
        Media::Html => Err(message(headers, body)),
        Media::Json => Ok(of_json(body, secrets)),
        Media::Protobuf => match decoded() {
            Some(response) => Ok(Outcome::of_response(response, secrets)),
            // The status came in, hence the export was accepted.
            None if !is_whole => Ok(Outcome::ACCEPTED),
            // Some name one media type for all that they answer.
            None => match (Media::of_body(body), std::str::from_utf8(body)) {
                (Media::Html, _) => Err(message(&HeaderMap::new(), body)),
                (Media::Json, _) => Ok(of_json(body, secrets)),
                (_, Ok(text)) if !text.chars().any(is_odd) => Ok(Outcome::ACCEPTED),
                _ => Err("a message in protobuf that is not of OTLP".into()),
            },
        },
        Media::Other => {
            Ok(decoded().map_or(Outcome::ACCEPTED, |response| Outcome::of_response(response, secrets)))
        }
    }
}

/// Without the mark that some systems begin a text with.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

/// The names of the number that was rejected, of each signal.
const REJECTED: [[&str; 2]; 2] =
    [["rejectedDataPoints", "rejected_data_points"], ["rejectedProfiles", "rejected_profiles"]];

/// The names are those of JSON or of protobuf, and a number may be a string.
fn of_json(body: &[u8], secrets: &Secrets) -> Outcome {
    let field = |object: &Value, names: [&str; 2]| names.iter().find_map(|name| object.get(name).cloned());
    let part = serde_json::from_slice(without_mark(body))
        .ok()
        .and_then(|body| field(&body, ["partialSuccess", "partial_success"]));
    let Some(part) = part else { return Outcome::ACCEPTED };
    let rejected = match REJECTED.iter().find_map(|names| field(&part, *names)) {
        Some(Value::String(number)) => {
            let number = number.trim();
            number.parse().or_else(|_| number.parse::<f64>().map(|number| number as i64)).unwrap_or(0)
        }
        Some(number) => number.as_i64().or_else(|| Some(number.as_f64()? as i64)).unwrap_or(0),
        None => 0,
    };
    let message = field(&part, ["errorMessage", "error_message"]);
    Outcome::new(rejected, message.as_ref().and_then(Value::as_str).unwrap_or_default(), secrets)
}

/// Returns the message of an answer with a status of failure, with its secrets.
pub(crate) fn message(headers: &HeaderMap, body: &[u8]) -> String {
    /// `google.rpc.Status`, as far as it is of use here.
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    match Media::new(headers, body) {
        Media::Protobuf => match Status::decode(body) {
            Ok(status) if !status.message.is_empty() => status.message,
            _ => text(body),
        },
        Media::Json => json_message(body).unwrap_or_else(|| text(body)),
        Media::Html => match title(&text(body)) {
            Some(title) => format!("a page of HTML: {title}"),
            None => "a page of HTML".into(),
        },
        Media::Other => text(body),
    }
}

/// The fields in which APIs put their messages.
fn json_message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(without_mark(body)).ok()?;
    let places = ["message", "error", "detail", "error_description", "title", "errors"];
    places.iter().find_map(|place| match body.get(place)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => match list.first()? {
            Value::String(text) => Some(text.clone()),
            inner => inner.get("message")?.as_str().map(str::to_owned),
        },
        inner => inner.get("message")?.as_str().map(str::to_owned),
    })
}

fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    ["title", "h1"].iter().find_map(|tag| {
        let start = lower.find(&format!("<{tag}>"))? + tag.len() + 2;
        let end = start + lower.get(start..)?.find('<')?;
        page.get(start..end).map(|title| title.trim().to_owned()).filter(|title| !title.is_empty())
    })
}

/// Returns the value as text, if it is one.
fn text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.chars().filter(|character| is_odd(*character)).count() * 4 > text.chars().count() {
        true => format!("{} bytes that are not text", body.len()),
        false => text.into_owned(),
    }
}

fn is_odd(character: char) -> bool {
    character == char::REPLACEMENT_CHARACTER || character.is_control() && !character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(media: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !media.is_empty() {
            headers.insert(CONTENT_TYPE, media.parse().unwrap());
        }
        headers
    }

    fn read(media: &str, body: &[u8]) -> Result<Outcome, String> {
        outcome(&headers(media), body, true, &Secrets::default())
    }

    fn rejected(items: u64, message: &str) -> Result<Outcome, String> {
        Ok(Outcome::PartlyRejected { items, message: message.into() })
    }

    /// `partial_success { rejected_data_points: 40, error_message: "old" }`
    const PROTOBUF: &[u8] = b"\x0a\x07\x08\x28\x12\x03old";

    #[test]
    fn rejected_points_are_read_in_every_encoding_and_spelling() {
        for media in [
            "application/x-protobuf",
            "Application/X-Protobuf; v=1",
            "application/protobuf",
            "APPLICATION/VND.GOOGLE.PROTOBUF ;encoding=delimited",
            "",
        ] {
            assert_eq!(read(media, PROTOBUF), rejected(40, "old"), "{media}");
        }
        for media in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/problem+json",
            "TEXT/JSON",
            "application/x-json;a=b;c=d",
            "application/x-protobuf",
            "text/plain",
            "",
        ] {
            for number in ["40", "\"40\"", "40.0", "4e1", "\" 40.0\""] {
                for (part, points, said) in [
                    ("partialSuccess", "rejectedDataPoints", "errorMessage"),
                    ("partial_success", "rejected_data_points", "error_message"),
                ] {
                    let body = format!("{{\"{part}\": {{\"{points}\": {number}, \"{said}\": \"old\"}}}}");
                    assert_eq!(read(media, body.as_bytes()), rejected(40, "old"), "{media} {body}");
                }
            }
        }
    }

    #[test]
    fn zero_rejected_points_are_advice() {
        let advice = |text: &str| Ok(Outcome::Accepted { advice: Some(text.into()) });
        assert_eq!(
            read("application/json", b"{\"partialSuccess\":{\"errorMessage\":\"use\\u001b[1m\\ngzip\"}}"),
            advice("use [1m gzip")
        );
        assert_eq!(read("application/x-protobuf", b"\x0a\x05\x12\x03old"), advice("old"));
        assert_eq!(
            read("application/json", b"{\"partialSuccess\":{\"rejectedDataPoints\":-1}}"),
            Ok(Outcome::ACCEPTED)
        );
    }

    #[test]
    fn any_success_but_a_page_is_accepted() {
        for (media, body) in [
            ("text/plain", "OK"),
            ("", "OK"),
            ("application/json", "{}"),
            ("application/json", "OK"),
            ("application/json", "null"),
            ("application/octet-stream", "\u{1}"),
            ("text/html", ""),
            ("application/x-protobuf", "OK"),
            ("application/x-protobuf", "{}"),
            ("Application/Protobuf", "accepted\r\n"),
            ("application/json", "\u{feff}{}"),
        ] {
            assert_eq!(read(media, body.as_bytes()), Ok(Outcome::ACCEPTED), "{media} {body}");
        }
        assert!(read("application/x-protobuf", &[0xff; 9]).is_err());
        for (media, body) in [
            ("Text/HTML; charset=x", "<title>Sign in</title>"),
            ("", " <!DOCTYPE html><h1>Sign in</h1>"),
            ("application/x-protobuf", "<html><h1>Sign in</h1>"),
            ("Application/XHTML+XML", "<title>Sign in</title>"),
        ] {
            assert_eq!(read(media, body.as_bytes()), Err("a page of HTML: Sign in".into()));
        }
    }

    #[test]
    fn a_failure_has_a_readable_message() {
        let said = |media, body: &[u8]| message(&headers(media), body);
        assert_eq!(said("Application/X-Protobuf", b"\x08\x03\x12\x03old"), "old");
        assert_eq!(said("application/json", b"{\"code\":3,\"message\":\"old\"}"), "old");
        assert_eq!(said("application/json", b"{\"error\":{\"message\":\"old\"}}"), "old");
        assert_eq!(said("application/json", b"{\"error\":[\"old\"]}"), "old");
        assert_eq!(said("text/json", b"{\"errors\":[{\"message\":\"old\"}]}"), "old");
        assert_eq!(said("application/json", b"[1]"), "[1]");
        assert_eq!(said("text/plain", b"old\n"), "old\n");
        assert_eq!(said("", &[0, 1, 2, 0xff]), "4 bytes that are not text");
        assert_eq!(said("", b""), "");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    const TOKEN: &str = "s3cretT0ken4711wxyz";
    const MEDIA: [&[u8]; 7] = [
        b"application/x-protobuf",
        b"application/json; charset=utf-8",
        b"text/html",
        b"application/problem+json",
        b"text/plain",
        b"application/grpc",
        b"",
    ];
    const BODIES: [&[u8]; 10] = [
        b"\x0a\x07\x08\x28\x12\x03old",
        b"\x0a\x1c\x08\x28\x12\x18no s3cretT0ken4711wxyz here",
        b"\x08\x03\x12\x18no s3cretT0ken4711wxyz here",
        b"{\"partialSuccess\": {\"rejectedDataPoints\": \"40\", \"errorMessage\": \"no s3cretT0ken4711wxyz here\"}}",
        b"{\"partial_success\": {\"rejected_profiles\": 4e1, \"error_message\": \"old\"}}",
        b"{\"error\": {\"code\": 3, \"message\": \"no s3cretT0ken4711wxyz here\"}}",
        b"{\"errors\": [{\"message\": \"\\u0073\\u0033cretT0ken4711wxyz\"}]}",
        b"<!doctype html><html><head><title>no s3cretT0ken4711wxyz here</title></head><h1>Sign in</h1></html>",
        b"\xef\xbb\xbf{\"message\": \"old\"}",
        b"OK",
    ];

    #[test]
    fn any_answer_is_read_without_its_secrets() {
        let mut secrets = Secrets::default();
        secrets.add(&format!("Bearer {TOKEN}"));
        run(400, 4 << 20, |u| {
            let (media, body) = (edited(u, &MEDIA)?, edited(u, &BODIES)?);
            let mut headers = HeaderMap::new();
            headers.extend(http::HeaderValue::from_bytes(&media).ok().map(|media| (CONTENT_TYPE, media)));
            let outcome = outcome(&headers, &body, u.arbitrary()?, &secrets);
            let problem = outcome.as_ref().err().map(|problem| secrets.excerpt(problem));
            let message = secrets.excerpt(&message(&headers, &body));
            let shown = format!("{message} {} {:?}", problem.unwrap_or_default(), outcome.as_ref().ok());
            let shown = shown.to_ascii_lowercase();
            let token = TOKEN.to_ascii_lowercase();
            for part in 0..=token.len() - 8 {
                assert!(!shown.contains(&token[part..part + 8]), "{shown}");
            }
            assert!(message.chars().count() <= 300 && !message.contains('\n'), "{message:?}");
            Ok(outcome.is_ok())
        });
    }
}
