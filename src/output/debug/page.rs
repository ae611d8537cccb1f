//! Renders the page.

use axum::body::Bytes;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::history::History;
use super::line::{Line, Unit};
use super::plot;
use super::plots::{PLOTS, Plot};
use super::stalls::Stall;
use crate::output::sum::sum;
use crate::snapshot::Snapshot;

pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str = include_str!("page.js");

/// The flame graphs that the page links to from the top.
const PROFILES: [(&str, &str); 4] =
    [("memory", "heap"), ("stalls", "stalls"), ("tasks", "tasks"), ("CPU", "profile")];

/// Returns the head of a page, with the path of the folder that has the style sheet.
pub(super) fn head(title: &str, folder: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        title { (title) }
        // Without an icon the browser requests one.
        link rel="icon" href="data:,";
        link rel="stylesheet" href={ (folder) "page.css" };
    }
}

/// Returns the whole page with the present plots.
pub(super) fn page(plots: &Bytes) -> String {
    let plots = String::from_utf8_lossy(plots);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head("Runtime", "runtime/"))
                script src="runtime/page.js" defer {}
            }
            body {
                header {
                    h1 { "Runtime" }
                    p #connection role="status" data-state="off" { "not connected" }
                    nav {
                        @if cfg!(feature = "profile") {
                            @for (name, path) in PROFILES { a href={ "/debug/runtime/flame/" (path) } { (name) } }
                            a href="pprof/" { "pprof" }
                        }
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

/// Returns the part of the page that changes each second.
pub(super) fn plots(snapshot: &Snapshot, stalls: &[Stall], history: &History) -> String {
    let markup = html! {
        (stall_banner(snapshot, stalls))
        (facts(snapshot))
        div.plots { @for plot in PLOTS { (figure(plot, &history.lines(plot))) } }
    };
    // A server-sent event cannot carry a carriage return, but a task's name can.
    markup.into_string().replace('\r', " ")
}

fn stall_banner(snapshot: &Snapshot, stalls: &[Stall]) -> Markup {
    html! {
        @if !stalls.is_empty() {
            div #stall data-stalled="yes" role="alert" {
                @for stall in stalls { p { (sentence(stall)) } }
                @if cfg!(feature = "profile") {
                    p { a href="/debug/runtime/flame/stalls" { "What the workers did while they were stalled" } }
                }
            }
        } @else if snapshot.get("tokio.worker.stalls").is_some() {
            p #stall data-stalled="no" { "No worker is stalled." }
        }
    }
}

fn sentence(stall: &Stall) -> String {
    let Stall { runtime, worker, cause, task, duration, .. } = stall;
    let time = Unit::Seconds.text(duration.as_secs_f64());
    let task = task.map(|task| format!("; task: {task}")).unwrap_or_default();
    let place = stall.place().map(|place| format!("; in {place}")).unwrap_or_default();
    format!(
        "A worker is stalled: no progress for {time}; runtime: {runtime}, worker {worker}; cause: {cause}{task}{place}"
    )
}

/// The process against its limits.
fn facts(snapshot: &Snapshot) -> Markup {
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
                h2 {
                    (plot.title)
                    @if cfg!(feature = "profile") {
                        " " a.profile href={ "/debug/runtime/flame/" (plot.profile) } { "code" }
                    }
                }
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
    use crate::output::debug::line::SECONDS;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    #[test]
    fn a_name_is_escaped() {
        let name = "<script>alert('\"')</script>&\r\n\u{0}</svg>";
        let attributes = none().and("rust.task.name", Arc::<str>::from(name));
        let now = snapshot(0, vec![("rust.task.count", attributes, Value::U64(1))]);
        let mut history = History::default();
        history.push(&Change { last: &now, now: &now, time: Duration::from_secs(1) });
        let html = plots(&now, &[], &history);
        assert!(html.contains("&lt;script&gt;alert("), "{html}");
        assert!(!html.contains("<script") && !html.contains('\r'), "{html}");
    }

    #[test]
    fn a_stall_is_shown_with_its_runtime_and_cause_only_while_it_lasts() {
        let now = snapshot(0, vec![("tokio.worker.stalls", none(), Value::U64(1))]);
        let stall = Stall {
            runtime: "<io>".into(),
            worker: 3,
            cause: "blocked",
            task: Some("orders"),
            duration: Duration::from_millis(700),
            #[cfg(feature = "profile")]
            stack: None,
        };
        let html = plots(&now, &[stall], &History::default());
        let text = "A worker is stalled: no progress for 700 ms; runtime: &lt;io&gt;, worker 3; cause: blocked; task: orders";
        assert!(html.contains(text) && html.contains(r#"data-stalled="yes""#), "{html}");
        let html = plots(&now, &[], &History::default());
        assert!(html.contains(r#"data-stalled="no""#) && !html.contains("no progress"), "{html}");
    }

    #[test]
    fn ten_minutes_of_every_plot_are_less_than_400_kb() {
        let history = history::tests::after(SECONDS as u64);
        let now = snapshot(0, Vec::new());
        let html = plots(&now, &[], &history);
        assert_eq!(html.matches("<figure").count(), PLOTS.len());
        assert!(html.len() < 400_000, "{} bytes", html.len());
    }

    #[test]
    fn the_page_loads_nothing_from_other_hosts() {
        let html = page(&Bytes::from_static(b"<p>plots</p>"));
        assert!(html.contains("<p>plots</p>"));
        for text in [&html, STYLE, SCRIPT] {
            assert!(!text.contains("http") && !text.contains("\"//") && !text.contains("url("), "{text}");
        }
    }
}
