//! Bars, lying, in groups: the one kind of plot that all of these figures need.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

/// Sizes in pixels.
const WIDTH: u32 = 860;
const LEFT: i32 = 205;
const RIGHT: i32 = 110;
const TOP: i32 = 84;
const BOTTOM: i32 = 34;
const BAR: i32 = 11;
const GAP: i32 = 9;
const FONT: &str = "Helvetica, Arial, sans-serif";

/// Of weft, and of all others: light to dark by series.
const OURS: [RGBColor; 3] = [
    RGBColor(110, 205, 185),
    RGBColor(25, 155, 130),
    RGBColor(5, 95, 80),
];
const OTHERS: [RGBColor; 3] = [
    RGBColor(190, 200, 212),
    RGBColor(128, 144, 164),
    RGBColor(72, 86, 106),
];
const INK: RGBColor = RGBColor(30, 36, 44);
const FAINT: RGBColor = RGBColor(222, 226, 232);

/// What a bar says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// So much.
    Figure(f64),
    /// More than any figure: it never came to an end.
    Never,
    /// Nothing is known.
    Missing,
}

impl From<Option<f64>> for Value {
    fn from(figure: Option<f64>) -> Self {
        figure.map_or(Self::Missing, Self::Figure)
    }
}

/// Some bars of the same name, one for each series.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Whether they are weft's.
    pub(crate) ours: bool,
    pub(crate) values: Vec<Value>,
}

/// A plot.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    pub(crate) title: String,
    /// What the figures are, and which way is better.
    pub(crate) subtitle: String,
    /// Names of the series, at most three.
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<Group>,
    /// Whether each step of the axis is ten times the last.
    pub(crate) log: bool,
}

impl Bars {
    /// The plot as SVG.
    pub(crate) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let height = TOP
            + BOTTOM
            + self
                .groups
                .iter()
                .map(|group| self.height(group))
                .sum::<i32>();
        let size = (WIDTH, u32::try_from(height).unwrap_or(WIDTH));
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            self.draw(&area, height)
                .map_err(|error| Error::Protocol(format!("the plot '{}': {error}", self.title)))?;
        }
        Ok(svg)
    }

    fn height(&self, group: &Group) -> i32 {
        BAR * i32::try_from(group.values.len()).unwrap_or(1) + GAP
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        height: i32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        area.fill(&WHITE)?;
        area.draw(&Text::new(self.title.clone(), (12, 12), text(18, INK)))?;
        area.draw(&Text::new(self.subtitle.clone(), (12, 36), text(12, INK)))?;
        let axis = Axis::of(self);
        for (value, label) in axis.ticks() {
            let x = axis.x(value);
            let line = [(x, TOP - 6), (x, height - BOTTOM)];
            area.draw(&PathElement::new(line, FAINT))?;
            let style = text(11, INK).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(label, (x, height - BOTTOM + 6), style))?;
        }
        self.draw_legend(area)?;
        let mut y = TOP;
        for group in &self.groups {
            self.draw_group(area, &axis, group, y)?;
            y += self.height(group);
        }
        area.present()
    }

    fn draw_legend<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
    ) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let mut x = LEFT;
        for (index, name) in self.series.iter().enumerate() {
            for (offset, colours) in [(0, OURS), (11, OTHERS)] {
                let corner = (x + offset, 57);
                let square = [corner, (corner.0 + 9, corner.1 + 9)];
                area.draw(&Rectangle::new(square, colours[index % 3].filled()))?;
            }
            area.draw(&Text::new(name.clone(), (x + 25, 56), text(12, INK)))?;
            x += 45 + 7 * i32::try_from(name.chars().count()).unwrap_or(0);
        }
        Ok(())
    }

    fn draw_group<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        axis: &Axis,
        group: &Group,
        top: i32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let middle = top + (self.height(group) - GAP) / 2;
        let style = text(12, INK).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(group.name.clone(), (LEFT - 8, middle), style))?;
        let colours = if group.ours { OURS } else { OTHERS };
        for (index, value) in group.values.iter().enumerate() {
            let y = top + BAR * i32::try_from(index).unwrap_or(0);
            let (end, label) = match value {
                Value::Figure(figure) => (axis.x(*figure), number(*figure)),
                Value::Never => (axis.end(), "never caught up".to_owned()),
                Value::Missing => (LEFT, "not measured".to_owned()),
            };
            let bar = [(LEFT, y), (end.max(LEFT + 1), y + BAR - 2)];
            area.draw(&Rectangle::new(bar, colours[index % 3].filled()))?;
            let style = text(10, INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label, (end + 5, y + BAR / 2 - 1), style))?;
        }
        Ok(())
    }
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour)
}

/// Three digits, no more.
fn number(value: f64) -> String {
    match value {
        0.0..1.0 => format!("{value:.2}"),
        1.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// From values to pixels.
struct Axis {
    log: bool,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(bars: &Bars) -> Self {
        let values = || {
            let all = bars.groups.iter().flat_map(|group| &group.values);
            all.filter_map(|value| match value {
                Value::Figure(figure) if *figure > 0.0 => Some(*figure),
                _ => None,
            })
        };
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        match bars.log {
            true => Self {
                log: true,
                low: 10_f64.powf(values().fold(most, f64::min).log10().floor()),
                high: most * 1.3,
            },
            false => Self {
                log: false,
                low: 0.0,
                high: most * 1.02,
            },
        }
    }

    fn end(&self) -> i32 {
        self.x(self.high)
    }

    fn x(&self, value: f64) -> i32 {
        let share = match self.log {
            true => (value / self.low).log10() / (self.high / self.low).log10(),
            false => (value - self.low) / (self.high - self.low),
        };
        let width = f64::from(WIDTH as i32 - LEFT - RIGHT);
        LEFT + (share.clamp(0.0, 1.0) * width).round() as i32
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        if self.log {
            let mut value = self.low;
            while value <= self.high && ticks.len() < 12 {
                ticks.push((value, plain(value)));
                value *= 10.0;
            }
            return ticks;
        }
        let raw = self.high / 5.0;
        let unit = 10_f64.powf(raw.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * unit);
        let step = steps.into_iter().find(|step| *step >= raw).unwrap_or(raw);
        (0..=5)
            .map(|n| f64::from(n) * step)
            .filter(|value| *value <= self.high)
            .map(|value| (value, plain(value)))
            .collect()
    }
}

fn plain(value: f64) -> String {
    match value < 1.0 && value > 0.0 {
        true => format!("{value:.2}"),
        false => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(values: Vec<Value>) -> Bars {
        Bars {
            title: "latency".into(),
            subtitle: "ms".into(),
            series: vec!["one".into()],
            groups: vec![Group {
                name: "weft".into(),
                ours: true,
                values,
            }],
            log: true,
        }
    }

    #[test]
    fn a_plot_names_what_it_shows() {
        let svg = bars(vec![Value::Figure(85.0)]).svg().unwrap();
        for word in ["<svg", "latency", "weft", "one", "85"] {
            assert!(svg.contains(word), "'{word}' is not in {svg}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let svg = bars(vec![Value::Missing, Value::Never]).svg().unwrap();
        assert!(svg.contains("not measured"), "{svg}");
        assert!(svg.contains("never caught up"), "{svg}");
    }

    #[test]
    fn a_larger_value_is_further_right() {
        for log in [true, false] {
            let of = Bars {
                log,
                ..bars(vec![Value::Figure(2.0), Value::Figure(200.0)])
            };
            let axis = Axis::of(&of);
            assert!(axis.x(2.0) < axis.x(20.0) && axis.x(20.0) < axis.x(200.0));
        }
    }
}
