//! Renders the page of a flame graph.

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::endpoint::{ENDPOINTS, Endpoint, Take};
use crate::output::debug::page::head;
use crate::profile::View;

pub(super) const SCRIPT: &str = include_str!("flame.js");
/// The duration of a CPU profile by the button, in seconds.
const CPU_SECONDS: u64 = 10;

/// The part of the page that depends on the profile.
pub(super) enum Content<'a> {
    /// The profile, and the time that it is about if that is not this moment.
    View(&'a View, Option<String>),
    Problem(&'a str),
    /// No profile was requested yet.
    Nothing,
}

/// Returns the page of an endpoint. `moments` are those that it can be compared with.
pub(super) fn page(endpoint: &Endpoint, moments: &[(u64, SystemTime)], content: Content<'_>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(endpoint.title, "/debug/runtime/"))
                script src="/debug/runtime/flame.js" defer {}
            }
            body {
                header {
                    h1 { (endpoint.title) }
                    nav {
                        a href="/debug/runtime" { "runtime" }
                        @for other in ENDPOINTS {
                            a href={ "/debug/runtime/flame/" (other.name) }
                                aria-current=[(other.name == endpoint.name).then_some("page")] { (link(other)) }
                        }
                    }
                }
                (actions(endpoint, moments))
                main { (main(endpoint, content)) }
            }
        }
    };
    page.into_string()
}

fn link(endpoint: &Endpoint) -> &'static str {
    if let Take::Cpu = endpoint.take { "CPU" } else { endpoint.name }
}

fn actions(endpoint: &Endpoint, moments: &[(u64, SystemTime)]) -> Markup {
    let path = format!("/debug/runtime/flame/{}", endpoint.name);
    html! {
        nav.actions {
            @if let Take::Cpu = endpoint.take {
                a.button data-wait=(CPU_SECONDS) href={ (path) "?seconds=" (CPU_SECONDS) } {
                    "Take a profile of " (CPU_SECONDS) " seconds"
                }
            } @else {
                a.button href=(path) { "Now" }
                a.button href={ (path) "?mark" } { "Growth from now on" }
                @for (id, time) in moments {
                    a.button href={ (path) "?since=" (id) } { "Growth since " (clock(*time)) }
                }
            }
        }
    }
}

/// Returns the time of the day, in UTC.
fn clock(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(11..19).map(|clock| format!("{clock} UTC")).unwrap_or(text)
}

fn main(endpoint: &Endpoint, content: Content<'_>) -> Markup {
    let (view, about) = match content {
        Content::Nothing => {
            return html! { p.nothing { "The button takes a profile of what the process does then." } };
        }
        Content::Problem(problem) => {
            return html! { p.nothing role="alert" { "Nothing to show: " (problem) "." } };
        }
        Content::View(view, about) => (view, about),
    };
    html! {
        dl.facts {
            div { dt { "total" } dd #total { (view.total) @if let Some(error) = &view.error { " ± " (error) } } }
            @if let Some(exact) = &view.exact { div { dt { "exact" } dd { (exact) } } }
            div { dt { "stacks" } dd { (view.stacks) } }
            @if let Some(about) = about { div { dt { "time" } dd { (about) } } }
            div { dt { "file" } dd { a href={ "/debug/pprof/" (endpoint.name) } { "for go tool pprof" } } }
        }
        @if view.stacks == 0 {
            p.nothing { "Nothing to show: there are no samples." }
        } @else {
            @if !view.places.is_empty() {
                h2 { "Where" }
                ol.places {
                    @for place in &view.places {
                        li {
                            button type="button" data-find=(place.function) { span.value { (place.value) } " " code { (place.function) } }
                            @if !place.line.is_empty() { " " span.line { (place.line) } }
                        }
                    }
                }
            }
            div.search {
                input #search type="search" placeholder="search functions and files" aria-label="search" autocomplete="off";
                button #reset type="button" { "whole picture" }
                output #found {}
            }
            div #flame { (PreEscaped(&view.svg)) }
            pre #detail { "Select a function to zoom in." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> &'static Endpoint {
        ENDPOINTS.iter().find(|endpoint| endpoint.name == name).unwrap()
    }

    #[test]
    fn the_page_loads_nothing_from_other_hosts_and_has_no_script_or_style_inside() {
        let view = View::new(&crate::profile::threads());
        let html = page(endpoint("threads"), &[(3, SystemTime::UNIX_EPOCH)], Content::View(&view, None));
        assert!(html.contains("?since=3") && html.contains("Growth since 00:00:00 UTC"), "{html}");
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("<script>"), "{html}");
        let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
        for text in [&*without_namespace, SCRIPT] {
            assert!(!text.contains("http") && !text.contains("\"//") && !text.contains("url("), "{text}");
        }
    }

    #[test]
    fn a_problem_is_shown_escaped() {
        let html = page(endpoint("heap"), &[], Content::Problem("<b>"));
        assert!(html.contains("Nothing to show: &lt;b&gt;.") && !html.contains("<svg"), "{html}");
        assert!(page(endpoint("profile"), &[], Content::Nothing).contains("?seconds=10"));
    }
}
