//! Shows the latest sample: in place on a terminal, as plain lines elsewhere.

use std::io::{IsTerminal, Result, Write, stdout};
use std::time::{Duration, Instant};

use crate::series::History;
use crate::summary::{self, Stalls};
use crate::table;

/// How often a service that exports elsewhere writes its three lines to a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Screen {
    /// The URL of the debug page.
    page: String,
    source: Source,
    stalls: Stalls,
    logged: Option<Instant>,
}

enum Source {
    Exports,
    /// Snapshots, while the exports go to this endpoint.
    Snapshots(String),
}

/// A line and whether it is shown in bold.
struct Line {
    text: String,
    bold: bool,
}

impl Screen {
    pub(crate) fn of_exports(page: String) -> Self {
        Screen { page, source: Source::Exports, stalls: Stalls::default(), logged: None }
    }

    pub(crate) fn of_snapshots(endpoint: String, page: String) -> Self {
        Screen { page, source: Source::Snapshots(endpoint), stalls: Stalls::default(), logged: None }
    }

    /// Says where the exports go, where no terminal shows it all the time.
    pub(crate) fn begin(&self) -> Result<()> {
        match &self.source {
            Source::Snapshots(endpoint) if !stdout().is_terminal() => {
                writeln!(stdout(), "the demo exports to {endpoint} (Ctrl-C ends it)")?;
                writeln!(stdout(), "page: {}", self.page)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn show(&mut self, history: &History) -> Result<()> {
        let now = Instant::now();
        self.stalls.update(history);
        let mut out = stdout().lock();
        if out.is_terminal() {
            let (width, height) = terminal_size::terminal_size()
                .map_or((usize::MAX, usize::MAX), |(width, height)| (width.0.into(), height.0.into()));
            // A line that wraps or scrolls would end the refreshing in place.
            write!(out, "\x1b[H")?;
            for line in self.lines(history, now).iter().take(height.saturating_sub(1)) {
                let text: String = line.text.chars().take(width).collect();
                let (bold, plain) = if line.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
                writeln!(out, "{bold}{text}{plain}\x1b[K")?;
            }
            write!(out, "\x1b[J")?;
        } else if matches!(self.source, Source::Exports) {
            self.lines(history, now).iter().try_for_each(|line| writeln!(out, "{}", line.text.trim_end()))?;
            writeln!(out)?;
        } else if self.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL) {
            self.logged = Some(now);
            self.summary(history, now)
                .iter()
                .try_for_each(|line| writeln!(out, "{}", line.text.trim_end()))?;
        }
        out.flush()
    }

    fn lines(&self, history: &History, now: Instant) -> Vec<Line> {
        let plain = |text: String| Line { text, bold: false };
        let mut lines =
            vec![plain(self.title(history)), plain(format!("page: {}", self.page)), plain(String::new())];
        lines.extend(self.summary(history, now));
        lines.push(plain(String::new()));
        let tasks = table::tasks(history, &self.stalls, now).into_iter();
        lines.extend(tasks.map(|text| Line { bold: text.ends_with(['<', '!']), text }));
        lines.push(plain(String::new()));
        lines.extend(table::metrics(history).into_iter().map(plain));
        lines
    }

    fn title(&self, history: &History) -> String {
        let (number, count) = (history.samples(), history.current().count());
        match &self.source {
            Source::Exports => format!("export {number}: {count} series received over OTLP (Ctrl-C ends it)"),
            Source::Snapshots(endpoint) => {
                format!("snapshot {number}: {count} series, exported to {endpoint} (Ctrl-C ends it)")
            }
        }
    }

    fn summary(&self, history: &History, now: Instant) -> Vec<Line> {
        let lines = summary::lines(history, &self.stalls, now).into_iter();
        lines
            .map(|line| Line { text: format!("{:<8}{}", line.mark, line.text), bold: !line.mark.is_empty() })
            .collect()
    }
}
