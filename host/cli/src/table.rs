//! Text in columns.

use crate::output::visible;
use dovetail_service::paths::one_line;
use unicode_width::UnicodeWidthStr as _;

/// Rows below their titles, one line each. A column is as wide as its widest cell. A line end in a cell is written as
/// `\n`. A column whose title begins with a space is aligned to the right.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| visible(&one_line(cell)).into_owned()).collect()).collect();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(i, title)| {
            rows.iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
                .max(title.trim().width())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, cell) in cells.enumerate().take(titles.len()) {
            let pad = " ".repeat(widths[i].saturating_sub(cell.width()));
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

/// Indents each line of `text` by `by` spaces.
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
        // Wide, combining and narrow characters: the second column begins under the same column of a terminal.
        let names = ["日本.jpg", "e\u{301}te\u{301}.jpg", "Grün.jpg", "😀.jpg"];
        let rows: Vec<Vec<String>> = names.iter().map(|name| vec![(*name).into(), "1".into()]).collect();
        let shown = "name      n\n日本.jpg  1\ne\u{301}te\u{301}.jpg   1\nGrün.jpg  1\n😀.jpg    1\n";
        assert_eq!(table(&["name", "n"], &rows), shown);
        assert_eq!(indented("a\n\nb", 2), "  a\n\n  b\n");
    }
}
