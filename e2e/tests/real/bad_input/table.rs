//! Reads `docs/bad-input.md`, and compares what a case got with what its row says.
//!
//! A row's third cell is a list of lines, with `<br>` between them: a label of a few words, then the exact text in a code
//! span. A link stands for the lines of the code block under that heading. Placeholders match what varies.

use std::path::{Path, PathBuf};

/// Whether a character can be part of what varies.
type Fits = fn(char) -> bool;

/// What stands in a text for what varies, and of which characters that is made.
const PLACEHOLDERS: [(&str, Fits); 8] = [
    ("{id}", |c| c.is_ascii_hexdigit() || c == '-'),
    ("{port}", |c| c.is_ascii_digit()),
    ("{pid}", |c| c.is_ascii_digit()),
    ("{number}", |c| c.is_ascii_digit() || c == '.'),
    ("{time}", |c| c.is_ascii_digit() || c == ':'),
    ("{path}", |c| !c.is_whitespace() && c != '`'),
    ("{user}", |c| !c.is_whitespace() && c != ')'),
    ("…", |_| true),
];

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) told: Vec<Line>,
    pub(crate) test: String,
}

/// A label (empty for the first line and for what a terminal shows) and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) text: String,
}

/// What the table says that somebody is told.
pub(crate) struct Told {
    case: String,
    lines: Vec<Line>,
}

/// A line without a label.
pub(crate) fn line(text: impl Into<String>) -> Line {
    labelled("", text)
}

/// A line with a label.
pub(crate) fn labelled(label: &str, text: impl Into<String>) -> Line {
    Line { label: label.to_owned(), text: text.into() }
}

/// What the row of this case says.
#[track_caller]
pub(crate) fn told(case: &str) -> Told {
    let row = rows().into_iter().find(|row| row.case == case);
    let row = row.unwrap_or_else(|| panic!("docs/bad-input.md has no row for {case:?}"));
    Told { case: row.case, lines: row.told }
}

/// The text of the page.
pub(crate) fn page() -> String {
    std::fs::read_to_string(root().join("docs/bad-input.md")).expect("docs/bad-input.md")
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All rows, in their order.
pub(crate) fn rows() -> Vec<Row> {
    let page = page();
    let table = page.lines().skip_while(|line| !line.starts_with("| case |")).skip(2);
    table.take_while(|line| line.starts_with('|')).map(|line| row(line, &page)).collect()
}

/// The placeholders that the page has to explain.
pub(crate) fn placeholders() -> impl Iterator<Item = &'static str> {
    PLACEHOLDERS.iter().map(|(placeholder, _)| *placeholder)
}

// === impl Told ===

impl Told {
    /// Holds if exactly this was said.
    #[track_caller]
    pub(crate) fn is(&self, said: &[Line]) {
        let agrees =
            |(written, said): (&Line, &Line)| written.label == said.label && matches(&written.text, &said.text);
        let same = self.lines.len() == said.len() && self.lines.iter().zip(said).all(agrees);
        assert!(same, "docs/bad-input.md says of {:?}:\n{}\nbut it was:\n{}", self.case, cell(&self.lines), cell(said));
    }

    /// Holds if these lines were said, in this order, with others before, between and after them.
    #[track_caller]
    pub(crate) fn is_among(&self, said: &str) {
        let mut heard = said.lines();
        for written in &self.lines {
            let found = heard.any(|line| matches(&written.text, line.trim_end()));
            assert!(
                found,
                "docs/bad-input.md says of {:?}: {:?}\nbut in its place it was:\n{said}",
                self.case, written.text
            );
        }
    }
}

// === helpers ===

fn row(line: &str, page: &str) -> Row {
    let cells = cells(line);
    let [case, does, told, data, test] = cells.as_slice() else { panic!("five cells: {line}") };
    for cell in &cells {
        assert!(!cell.is_empty(), "an empty cell: {line}");
    }
    assert!(does.len() < 400 && data.len() < 400, "a cell is for a few words: {line}");
    Row { case: case.clone(), told: lines(told, page), test: test.trim_matches('`').to_owned() }
}

/// The cells of a row; `\|` stands for a bar.
fn cells(line: &str) -> Vec<String> {
    let bars = line.replace("\\|", "\u{0}");
    let inner = bars.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

fn lines(cell: &str, page: &str) -> Vec<Line> {
    cell.split("<br>").flat_map(|part| part_of(part.trim(), page)).collect()
}

fn part_of(part: &str, page: &str) -> Vec<Line> {
    if let Some((_, anchor)) = part.split_once("](#") {
        return block(anchor.trim_end_matches(')'), page);
    }
    let label = part.split('`').next().unwrap_or_default();
    let span = &part[label.len()..];
    let fence = span.len() - span.trim_start_matches('`').len();
    let text = span.get(fence..span.len() - fence).unwrap_or_else(|| panic!("no code span: {part}"));
    vec![labelled(label.trim(), unpadded(text))]
}

/// One blank at both ends of a code span belongs to the span and not to its text (CommonMark 6.1).
fn unpadded(text: &str) -> &str {
    text.strip_prefix(' ')
        .and_then(|inner| inner.strip_suffix(' '))
        .filter(|inner| !inner.trim().is_empty())
        .unwrap_or(text)
}

/// The lines of the first code block under a heading.
fn block(anchor: &str, page: &str) -> Vec<Line> {
    let is_heading = |line: &&str| {
        line.starts_with('#') && line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor
    };
    let mut below =
        page.lines().skip_while(|line| !is_heading(line)).skip_while(|line| !line.starts_with("```")).skip(1);
    let inside: Vec<Line> =
        below.by_ref().take_while(|line| !line.starts_with("```")).filter(|l| !l.is_empty()).map(line).collect();
    assert!(!inside.is_empty(), "no code block under #{anchor}");
    inside
}

/// Lines as a cell of the table, to be pasted there.
fn cell(lines: &[Line]) -> String {
    let span = |text: &str| match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    };
    let parts = lines.iter().map(|line| format!("{} {}", line.label, span(&line.text)).trim().to_owned());
    parts.collect::<Vec<_>>().join("<br>").replace('|', "\\|")
}

/// Whether `text` is `template` with something in place of each placeholder.
fn matches(template: &str, text: &str) -> bool {
    let first = PLACEHOLDERS
        .iter()
        .filter_map(|(name, fits)| Some((template.find(name)?, name.len(), fits)))
        .min_by_key(|f| f.0);
    let Some((at, len, fits)) = first else { return template == text };
    let Some(rest) = text.strip_prefix(&template[..at]) else { return false };
    let ends = rest.char_indices().take_while(|(_, c)| fits(*c)).map(|(start, c)| start + c.len_utf8());
    ends.into_iter().any(|end| matches(&template[at + len..], &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_match_what_varies() {
        assert!(matches("job {id} is queued", "job 0189-ab is queued"));
        assert!(matches("{path}: …", "/a/b.log: it is"));
        assert!(!matches("port {port} is taken", "port eighty is taken"));
        assert!(!matches("job {id}", "job "));
        assert!(!matches("a … z", "a b c"));
    }

    #[test]
    fn a_cell_reads_back() {
        let lines = [line("404 no"), labelled("hint", "did you mean `a`?"), line("  | ^^"), labelled("detail", "a\\b")];
        assert_eq!(super::lines(&cells(&format!("| {} |", cell(&lines)))[0], ""), lines);
    }

    #[test]
    fn a_link_stands_for_a_block() {
        let page = "# Top\n\n## Several mistakes\n\nThey are:\n\n```text\none\n\n  two\n```\n\n```text\nthree\n```\n";
        assert_eq!(lines("`exit 2`<br>[these](#several-mistakes)", page), [line("exit 2"), line("one"), line("  two")]);
    }
}
