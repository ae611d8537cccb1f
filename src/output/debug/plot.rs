//! Draws a plot as SVG.
//!
//! The server draws because no plotting library for browsers comes as a crate of a fitting size: the smallest one weighs
//! more than a megabyte. A browser then only has to exchange one picture for the next.

use plotters::prelude::*;

use super::line::{Line, SECONDS, Unit, values_per_point};

const SIZE: (u32, u32) = (480, 200);
/// The number of colours for lines in the style sheet.
pub(super) const COLOURS: usize = 8;
/// The style sheet replaces these colours, by one set for light and one for dark.
const TEXT: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(2, 0, 0);
/// The largest value that is drawn: plotters does not find round numbers for much larger scales.
const MAX_VALUE: f64 = 1e15;

const fn colour(line: usize) -> RGBColor {
    RGBColor(3, 0, (line % COLOURS) as u8)
}

/// Draws the lines. Returns nothing if plotters fails.
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
    // `max` ignores NaN.
    let highest = lines.iter().flat_map(|line| &line.values).copied().fold(unit.min_top(), f64::max);
    let top = highest.min(MAX_VALUE) * 1.05;
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
        let step = values_per_point(line.values.len());
        // From the latest value backwards. A point is the highest of its values, so that no peak is lost.
        let steps = line.values.rchunks(step).map(|values| values.iter().copied().fold(f64::NAN, f64::max));
        let points = steps.enumerate().map(|(ago, value)| (-((ago * step) as f64) / span.seconds, value));
        let points: Vec<_> = points.collect();
        // A line has a gap where nothing could be read.
        for run in points.split(|(_, value)| !value.is_finite()).filter(|run| !run.is_empty()) {
            chart.draw_series(LineSeries::new(run.iter().copied(), colour(index).stroke_width(2)))?;
        }
    }
    area.present()
}

/// The time that the plot shows, which grows with the samples.
struct Span {
    unit: &'static str,
    /// The number of units that the plot shows.
    length: f64,
    /// The unit in seconds.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::debug::line::MAX_POINTS;

    fn line(values: impl IntoIterator<Item = f64>) -> Line {
        Line { name: "line".into(), values: values.into_iter().collect() }
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
    fn a_peak_of_one_second_shows_in_ten_minutes() {
        let highest = |svg: &str| {
            let line = svg.split("<polyline").find(|line| line.contains("#030000")).unwrap();
            let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
            let heights = points.split_whitespace().map(|point| point.split_once(',').unwrap().1);
            (heights.clone().count(), heights.map(|height| height.parse::<i32>().unwrap()).min().unwrap())
        };
        for peak in [0, 1, 298, 299, 300, 598, 599] {
            let values = (0..600).map(|second| if second == peak { 10.0 } else { 0.0 });
            let (points, height) = highest(&svg(&[line(values)], Unit::Count).unwrap());
            assert!(points <= MAX_POINTS, "{points}");
            assert!(height < 20, "at second {peak} the line reaches {height} pixels from the top");
        }
    }

    #[test]
    fn any_values_are_drawn() {
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
