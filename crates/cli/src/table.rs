//! Aligned tables for terminals.

use crate::paint::Paint;

/// What a cell means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warn,
    Dim,
}

/// One cell; one line of text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text: String = text.into();
        // Names come from files: a control character must not reach the terminal.
        let text = text.replace(char::is_control, "\u{fffd}");
        Self { text, tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        match self.tone {
            Tone::Plain => text.to_owned(),
            Tone::Good => paint.good(text),
            Tone::Bad => paint.bad(text),
            Tone::Warn => paint.warn(text),
            Tone::Dim => paint.dim(text),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Where text stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Align {
    #[default]
    Left,
    Right,
}

/// A table with a header. Columns are as wide as their widest cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    header: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

const GAP: &str = "  ";

impl Table {
    pub(crate) fn new<H: Into<String>>(header: impl IntoIterator<Item = (H, Align)>) -> Self {
        Self {
            header: header
                .into_iter()
                .map(|(text, align)| (text.into(), align))
                .collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table in at most `width` characters per line. Columns that do not fit follow below,
    /// each time after the first column; a single line that is still too long stays so.
    pub(crate) fn render(&self, width: usize, paint: Paint) -> String {
        let widths = self.widths();
        let mut out = String::new();
        let mut next = 1;
        loop {
            let first = widths.first().copied().unwrap_or_default();
            let mut columns = vec![0];
            let mut used = first;
            while let Some(more) = widths.get(next) {
                if used + GAP.len() + more > width && columns.len() > 1 {
                    break;
                }
                used += GAP.len() + more;
                columns.push(next);
                next += 1;
            }
            self.block(&columns, &widths, paint, &mut out);
            if next >= widths.len() {
                return out;
            }
            out.push('\n');
        }
    }

    fn widths(&self) -> Vec<usize> {
        let of = |column: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(Cell::width).max().unwrap_or_default();
            widest.max(title.chars().count())
        };
        let header = self.header.iter().enumerate();
        header
            .map(|(column, (title, _))| of(column, title))
            .collect()
    }

    fn block(&self, columns: &[usize], widths: &[usize], paint: Paint, out: &mut String) {
        let titles = self
            .header
            .iter()
            .map(|(title, _)| Cell::from(title.as_str()));
        let titles: Vec<Cell> = titles.collect();
        self.line(&titles, columns, widths, out, |_, text| paint.bold(text));
        for row in &self.rows {
            self.line(row, columns, widths, out, |cell, text| {
                cell.paint(paint, text)
            });
        }
    }

    fn line(
        &self,
        cells: &[Cell],
        columns: &[usize],
        widths: &[usize],
        out: &mut String,
        paint: impl Fn(&Cell, &str) -> String,
    ) {
        let none = Cell::default();
        let cell = |column: usize| cells.get(column).unwrap_or(&none);
        let mut line = String::new();
        // Nothing is written behind the last text.
        let last = columns.iter().rposition(|&column| cell(column).width() > 0);
        for (place, &column) in columns
            .iter()
            .enumerate()
            .take(last.map_or(0, |last| last + 1))
        {
            let cell = cell(column);
            let widest = widths.get(column).copied().unwrap_or_default();
            let fill = " ".repeat(widest.saturating_sub(cell.width()));
            let right = self
                .header
                .get(column)
                .is_some_and(|(_, align)| *align == Align::Right);
            if place > 0 {
                line.push_str(GAP);
            }
            if right {
                line.push_str(&fill);
            }
            line.push_str(&paint(cell, &cell.text));
            if !right && last != Some(place) {
                line.push_str(&fill);
            }
        }
        out.push_str(&line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests;
