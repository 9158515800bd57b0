//! Plots as SVG, and their numbers as CSV.

use std::{error::Error, fmt::Write as _, fs, ops::Range, path::Path};

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
};

/// What a plot shows. `x` is drawn with a logarithmic scale.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    /// What was measured, and how; one line each.
    pub(crate) notes: &'a [String],
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) series: &'a [Series],
}

/// Points that are joined by a line.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (820, 520);
const MARGIN: u32 = 18;
const NOTE_HEIGHT: i32 = 18;
const COLORS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(214, 97, 20), RGBColor(120, 120, 120)];

impl Plot<'_> {
    /// Writes `stem`.svg, with a logarithmic scale in both directions, and `stem`.csv.
    pub(crate) fn write_logarithmic(&self, stem: &Path) -> Result<(), Box<dyn Error>> {
        let Range { start, end } = self.range(|(_, y)| y);
        self.draw(&stem.with_extension("svg"), (start / 1.5..end * 1.5).log_scale())?;
        self.write_csv(&stem.with_extension("csv"))
    }

    /// The same with a linear scale from 0 upwards.
    pub(crate) fn write_linear(&self, stem: &Path) -> Result<(), Box<dyn Error>> {
        let highest = self.range(|(_, y)| y).end;
        self.draw(&stem.with_extension("svg"), 0.0..highest * 1.4)?;
        self.write_csv(&stem.with_extension("csv"))
    }

    fn draw<Y>(&self, path: &Path, y_range: impl AsRangedCoord<CoordDescType = Y, Value = f64>) -> Result<(), Box<dyn Error>>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let notes_height = NOTE_HEIGHT * i32::try_from(self.notes.len())?;
        let (upper, lower) = root.split_vertically(i32::try_from(SIZE.1)? - notes_height - NOTE_HEIGHT);
        for (line, note) in (0i32..).zip(self.notes) {
            lower.draw(&Text::new(note.as_str(), (i32::try_from(MARGIN)?, line * NOTE_HEIGHT), ("sans-serif", 13)))?;
        }
        let Range { start, end } = self.range(|(x, _)| x);
        let mut chart = ChartBuilder::on(&upper)
            .caption(self.title, ("sans-serif", 18))
            .margin(MARGIN)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((start / 1.2..end * 1.2).log_scale().base(2.0), y_range)?;
        let whole = |value: &f64| format!("{value:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x).x_label_formatter(&whole).y_desc(self.y).y_label_formatter(&whole);
        mesh.light_line_style(RGBColor(238, 238, 238)).draw()?;
        for (series, color) in self.series.iter().zip(COLORS) {
            let points = series.points.iter().copied();
            let line = chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)).point_size(3))?;
            line.label(&series.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        root.present()?;
        Ok(())
    }

    fn write_csv(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut text = format!("series,{},{}\n", self.x, self.y);
        for Series { name, points } in self.series {
            for (x, y) in points {
                writeln!(text, "{name},{x},{y:.1}")?;
            }
        }
        Ok(fs::write(path, text)?)
    }

    /// The least and the greatest coordinate of all points.
    fn range(&self, of: impl Fn((f64, f64)) -> f64) -> Range<f64> {
        let all = self.series.iter().flat_map(|series| &series.points).map(|point| of(*point));
        let (start, end) = all.fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        start..end
    }
}
