//! The page.

use axum::body::Bytes;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::history::{History, Line, PLOTS, Plot, Unit};
use super::plot;
use crate::output::memstats::{sum, total};
use crate::snapshot::Snapshot;

pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str = include_str!("page.js");

/// The whole page, with the plots of the moment.
pub(super) fn page(plots: &Bytes) -> String {
    let plots = String::from_utf8_lossy(plots);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Runtime" }
                // So that the browser does not look for one.
                link rel="icon" href="data:,";
                link rel="stylesheet" href="runtime/page.css";
                script src="runtime/page.js" defer {}
            }
            body {
                header {
                    h1 { "Runtime" }
                    p #connection role="status" data-state="off" { "not connected" }
                    nav {
                        a href="metrics.json" { "metrics.json" }
                        a href="events" { "events" }
                        a href="vars" { "vars" }
                    }
                }
                main #plots { (PreEscaped(plots)) }
            }
        }
    };
    page.into_string()
}

/// What changes each second.
pub(super) fn plots(snapshot: &Snapshot, history: &History) -> String {
    let markup = html! {
        (status(snapshot, history))
        div.plots { @for plot in PLOTS { (figure(plot, &history.lines(plot))) } }
    };
    // A server-sent event cannot carry one, and a task's name may.
    markup.into_string().replace('\r', " ")
}

/// Whether a worker is stuck now, and how the process stands against its limits.
fn status(snapshot: &Snapshot, history: &History) -> Markup {
    let number = |name| sum(snapshot, name).and_then(|value| value.as_f64());
    let bytes = |name| number(name).map(|value| Unit::Bytes.text(value));
    let count = |name| number(name).map(|value| value.to_string());
    let of = |value: Option<String>, limit: Option<String>| {
        value.map(|value| limit.map_or_else(|| value.clone(), |limit| format!("{value} of {limit}")))
    };
    let descriptors = count("process.unix.file_descriptor.count");
    let facts = [
        ("resident", of(bytes("process.memory.usage"), bytes("rust.memory.limit"))),
        ("file descriptors", of(descriptors, count("rust.file_descriptor.limit"))),
        ("threads", count("process.thread.count")),
        ("CPUs", count("rust.cpu.count")),
        ("workers", count("tokio.worker.count")),
        ("stalls", count("tokio.worker.stalls")),
        ("up", number("process.uptime").map(whole_seconds)),
    ];
    html! {
        @match (history.stalled_for(), total(snapshot, "tokio.worker.stalls")) {
            (0, None) => {}
            (0, Some(_)) => { p #stall data-stalled="no" { "No worker is stalled." } }
            (seconds, _) => {
                p #stall data-stalled="yes" role="alert" {
                    "A worker is stalled: it has made no progress for " (seconds) " s."
                }
            }
        }
        dl.facts {
            @for (name, text) in facts {
                @if let Some(text) = text { div { dt { (name) } dd { (text) } } }
            }
        }
    }
}

fn whole_seconds(seconds: f64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds as u64)).to_string()
}

fn figure(plot: &Plot, lines: &[Line]) -> Markup {
    html! {
        figure data-plot=(plot.title) {
            figcaption {
                h2 { (plot.title) }
                ul {
                    @for (index, line) in lines.iter().enumerate() {
                        li data-line=(index % plot::COLOURS) {
                            span.name { (line.name) }
                            " "
                            span.value { (line.latest().map_or("–".into(), |value| plot.unit.text(value))) }
                        }
                    }
                }
            }
            @match (lines, plot::svg(lines, plot.unit)) {
                ([], _) | (_, None) => { p.nothing { "Nothing to show: " (plot.needs) "." } }
                (_, Some(svg)) => { div role="img" aria-label=(plot.title) { (PreEscaped(svg)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::output::debug::change::Change;
    use crate::output::debug::history;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    #[test]
    fn a_name_is_text_whatever_is_in_it() {
        let name = "<script>alert('\"')</script>&\r\n\u{0}</svg>";
        let attributes = none().and("rust.task.name", Arc::<str>::from(name));
        let now = snapshot(0, vec![("rust.task.count", attributes, Value::U64(1))]);
        let mut history = History::default();
        history.push(&Change { last: &now, now: &now, time: Duration::from_secs(1) });
        let html = plots(&now, &history);
        assert!(html.contains("&lt;script&gt;alert("), "{html}");
        assert!(!html.contains("<script") && !html.contains('\r'), "{html}");
    }

    #[test]
    fn ten_minutes_of_every_plot_are_drawn_in_time() {
        let history = history::tests::after(history::SECONDS as u64);
        let now = snapshot(0, Vec::new());
        let html = plots(&now, &history);
        assert_eq!(html.matches("<figure").count(), PLOTS.len());
        assert!(html.len() < 300_000, "{} bytes", html.len());
    }

    #[test]
    fn nothing_is_taken_from_elsewhere() {
        let html = page(&Bytes::from_static(b"<p>plots</p>"));
        assert!(html.contains("<p>plots</p>"));
        for text in [&html, STYLE, SCRIPT] {
            assert!(!text.contains("http") && !text.contains("\"//") && !text.contains("url("), "{text}");
        }
    }
}
