//! Text in columns.

use crate::output::visible;
use dovetail_service::paths::one_line;

/// Rows below their titles, a line each, each column as wide as its widest cell. A line end in a cell is written as `\n`. A column whose title begins with a space is aligned
/// to the right.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| visible(&one_line(cell)).into_owned()).collect()).collect();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(i, title)| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(title.trim().chars().count())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, cell) in cells.enumerate().take(titles.len()) {
            let pad = " ".repeat(widths[i].saturating_sub(cell.chars().count()));
            line.push_str(if i > 0 { "  " } else { "" });
            if titles[i].starts_with(' ') {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut titles.iter().map(|title| title.trim()));
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Each line of `text` further to the right.
pub(crate) fn indented(text: &str, by: usize) -> String {
    let pad = " ".repeat(by);
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{pad}{line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".into(), "1".into(), String::new()], vec!["long".into(), "100".into(), "x".into()]];
        assert_eq!(table(&["name", " n", "rest"], &rows), "name    n  rest\na       1\nlong  100  x\n");
        let rows = vec![vec!["a\nb\tc".into(), "1".into()], vec!["\u{1b}".into(), "2".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name     n\na\\nb\\tc  1\n\\u{1b}   2\n");
        assert_eq!(indented("a\n\nb", 2), "  a\n\n  b\n");
    }
}
