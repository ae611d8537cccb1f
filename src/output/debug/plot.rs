//! A plot, drawn as SVG.
//!
//! It is drawn here and not in the browser because no plotting library for browsers comes as a crate of a fitting
//! size: the one that does weighs more than a megabyte, for lines that are seldom looked at. A browser then has
//! nothing to run but the exchange of one picture for the next.

use plotters::prelude::*;

use super::history::{Line, SECONDS, Unit};

pub(super) const SIZE: (u32, u32) = (480, 200);

/// As many points has a line at most: one for two pixels. Where that is less than there are, each is the highest of a
/// few, so that no peak is lost.
const POINTS: usize = 200;

/// As many lines as there are colours.
pub(super) const COLOURS: usize = 8;
/// These stand for colours that the style sheet gives, one set for light and one for dark.
const TEXT: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(2, 0, 0);
/// Where scales end. In search of round numbers for far larger ones plotters does not come to an end.
const HIGHEST: f64 = 1e15;

const fn colour(line: usize) -> RGBColor {
    RGBColor(3, 0, (line % COLOURS) as u8)
}

/// How many of so many values come to one point.
pub(super) fn step(values: usize) -> usize {
    values.div_ceil(POINTS).max(1)
}

/// The picture, unless it cannot be drawn.
pub(super) fn svg(lines: &[Line], unit: Unit) -> Option<String> {
    let mut svg = String::new();
    draw(lines, unit, SVGBackend::with_string(&mut svg, SIZE)).ok()?;
    Some(svg)
}

fn draw<'a>(
    lines: &[Line],
    unit: Unit,
    backend: SVGBackend<'a>,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let area = backend.into_drawing_area();
    // `max` passes over what is no number.
    let highest = lines.iter().flat_map(|line| &line.values).copied().fold(unit.least_top(), f64::max);
    let top = highest.min(HIGHEST) * 1.05;
    let span = Span::of(lines.iter().map(|line| line.values.len()).max().unwrap_or_default());
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8)
        .margin_right(20)
        .x_label_area_size(28)
        .y_label_area_size(66)
        .build_cartesian_2d(-span.length..0.0, 0.0..top)?;
    let label = ("sans-serif", 17).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(label)
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|ago| if *ago == 0.0 { "now".into() } else { format!("{ago} {}", span.unit) })
        .y_label_formatter(&|value| unit.text(*value))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let step = step(line.values.len());
        // From the latest backwards. `max` passes over what is no number.
        let steps = line.values.rchunks(step).map(|values| values.iter().copied().fold(f64::NAN, f64::max));
        let points = steps.enumerate().map(|(ago, value)| (-((ago * step) as f64) / span.seconds, value));
        let points: Vec<_> = points.collect();
        // A line has gaps where there was nothing to read.
        for run in points.split(|(_, value)| !value.is_finite()).filter(|run| !run.is_empty()) {
            chart.draw_series(LineSeries::new(run.iter().copied(), colour(index).stroke_width(2)))?;
        }
    }
    area.present()
}

/// The time that is shown: more as there is more to show.
struct Span {
    unit: &'static str,
    /// How many of it are shown.
    length: f64,
    /// How long it is.
    seconds: f64,
}

impl Span {
    fn of(samples: usize) -> Self {
        match samples {
            0..=60 => Span { unit: "s", length: 60.0, seconds: 1.0 },
            61..=300 => Span { unit: "min", length: 5.0, seconds: 60.0 },
            _ => Span { unit: "min", length: SECONDS as f64 / 60.0, seconds: 60.0 },
        }
    }
}

impl Unit {
    /// The least that the scale reaches up to, so that nothing is not drawn as if it were much.
    fn least_top(self) -> f64 {
        match self {
            Unit::Bytes => 1000.0,
            Unit::Count => 1.0,
            Unit::Seconds => 0.001,
            Unit::Share => 1.0,
        }
    }

    /// A value as people write it.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.0} %", value * 100.0),
            Unit::Bytes => scaled(value, &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Unit::Count => scaled(value, &[(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]),
            Unit::Seconds => scaled(value, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
        }
    }
}

/// Three digits and the largest unit that the value has one of.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fitting = units.iter().find(|(size, _)| value >= *size).or(units.last());
    let (size, unit) = fitting.copied().unwrap_or((1.0, ""));
    let value = value / size;
    let digits = match value {
        value if value >= 100.0 || value == value.trunc() => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: impl IntoIterator<Item = f64>) -> Line {
        Line { name: "line".into(), values: values.into_iter().collect() }
    }

    #[test]
    fn values_are_written_as_people_do() {
        let cases = [
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Bytes, 999.0, "999 B"),
            (Unit::Bytes, 1536.0, "1.54 kB"),
            (Unit::Bytes, 50e6, "50 MB"),
            (Unit::Bytes, 123_456_789.0, "123 MB"),
            (Unit::Bytes, 1e18, "1000000 TB"),
            (Unit::Count, 0.25, "0.25"),
            (Unit::Count, 1234.0, "1.23 k"),
            (Unit::Count, 100.0, "100"),
            (Unit::Seconds, 0.0, "0 µs"),
            (Unit::Seconds, 0.0025, "2.5 ms"),
            (Unit::Seconds, 10.0, "10 s"),
            (Unit::Share, 0.5, "50 %"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.text(value), text);
        }
    }

    #[test]
    fn lines_are_drawn_with_their_gaps() {
        let whole = svg(&[line((0..600).map(f64::from))], Unit::Count).unwrap();
        let drawn = |svg: &str| svg.matches("#030000").count();
        assert_eq!(drawn(&whole), 1, "{whole}");
        let gap = svg(&[line([1.0, 2.0, f64::NAN, 3.0, 4.0])], Unit::Count).unwrap();
        assert_eq!(drawn(&gap), 2, "{gap}");
    }

    #[test]
    fn a_peak_of_a_second_is_seen_in_ten_minutes() {
        let highest = |svg: &str| {
            let line = svg.split("<polyline").find(|line| line.contains("#030000")).unwrap();
            let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
            let heights = points.split_whitespace().map(|point| point.split_once(',').unwrap().1);
            (heights.clone().count(), heights.map(|height| height.parse::<i32>().unwrap()).min().unwrap())
        };
        for peak in [0, 1, 298, 299, 300, 598, 599] {
            let values = (0..600).map(|second| if second == peak { 10.0 } else { 0.0 });
            let (points, height) = highest(&svg(&[line(values)], Unit::Count).unwrap());
            assert!(points <= POINTS, "{points}");
            assert!(height < 20, "at second {peak} the line reaches {height} pixels from the top");
        }
    }

    #[test]
    fn whatever_there_is_is_drawn() {
        for values in
            [vec![], vec![0.0], vec![f64::NAN; 3], vec![f64::MAX; 600], vec![5e-324; 2], vec![1e300, 0.0]]
        {
            for unit in [Unit::Bytes, Unit::Count, Unit::Seconds, Unit::Share] {
                let svg = svg(&[line(values.clone()), line([])], unit).unwrap();
                assert!(svg.starts_with("<svg"), "{values:?}: {svg}");
            }
        }
    }
}
