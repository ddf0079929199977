//! What is wrong with a manifest: where, what, and what to write instead; all of it at once.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// Where something stands in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// Mistakes that are shown; past these a reader starts again from the top anyway, and a picture passed as a manifest
/// does not fill the screen for minutes.
const SHOWN_MAX: usize = 100;

/// One mistake in a manifest. The shape is stable: `kvern check -o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead, where we can tell.
    pub hint: Option<String>,
    #[serde(skip)]
    span: Span,
}

/// Every mistake in one manifest, in the order of its lines; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    path: PathBuf,
    text: String,
    list: Vec<Mistake>,
    total: usize,
}

/// Collects mistakes while a manifest is read and checked.
#[derive(Debug)]
pub(crate) struct Report<'t> {
    text: &'t str,
    found: Vec<Mistake>,
    /// How many of them, the first ones, are TOML's own.
    syntax: usize,
}

// === impl Mistakes ===

impl Mistakes {
    /// The mistakes, in the order of their lines. Of very many only the first hundred are here.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// The path of the manifest, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All mistakes for people: each with its source line and a caret, then their number. `color` adds ANSI codes.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut page = String::new();
        for mistake in &self.list {
            page.push_str(&self.render_one(mistake, &renderer));
            page.push_str("\n\n");
        }
        page.push_str(&self.summary());
        page
    }

    /// `3 mistakes in kvern.toml`.
    fn summary(&self) -> String {
        let noun = if self.total == 1 { "mistake" } else { "mistakes" };
        let mut line = format!("{} {noun} in {}", self.total, self.path.display());
        if self.list.len() < self.total {
            line.push_str(&format!(", the first {} shown", self.list.len()));
        }
        line
    }

    fn render_one(&self, mistake: &Mistake, renderer: &Renderer) -> String {
        // Only the line in question goes to the renderer: it would split the whole text again for each mistake, and
        // a table over many lines needs no caret under each of them.
        let line = line_around(&self.text, mistake.span.start);
        let start = mistake.span.start - line.start;
        let end = mistake.span.end.clamp(mistake.span.start, line.end) - line.start;
        let snippet = Snippet::source(&self.text[line])
            .line_start(mistake.line)
            .path(self.path.display().to_string())
            .annotation(AnnotationKind::Primary.span(start..end));
        let mut group = Level::ERROR.primary_title(mistake.message.as_str()).element(snippet);
        if let Some(hint) = &mistake.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}

// === impl Mistake ===

impl Mistake {
    /// Adds what to write instead.
    pub(crate) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }
}

// === impl Report ===

impl<'t> Report<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new(), syntax: 0 }
    }

    /// Notes that a part of the text is not TOML; these come before all others.
    pub(crate) fn add_syntax(&mut self, span: &Span, message: impl Into<String>) -> &mut Mistake {
        self.syntax += 1;
        self.add(span, message)
    }

    /// Notes a mistake; the caller may add a hint to it.
    pub(crate) fn add(&mut self, span: &Span, message: impl Into<String>) -> &mut Mistake {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end.max(start));
        // Line and column come in `finish`, for those that are shown: each takes a walk through the text.
        self.found.push(Mistake { line: 0, column: 0, message: message.into(), hint: None, span: start..end });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Notes that something is missing, unless it may stand in a part that is not TOML.
    pub(crate) fn missing(&mut self, span: &Span, message: impl Into<String>, hint: &str) {
        if self.syntax == 0 {
            self.add(span, message).hint(hint);
        }
    }

    /// What stands at `span`, in one short line.
    pub(crate) fn excerpt(&self, span: &Span) -> String {
        shorten(self.text.get(span.clone()).unwrap_or_default())
    }

    /// The line of `span`, from 1.
    pub(crate) fn line(&self, span: &Span) -> usize {
        self.text[..span.start.min(self.text.len())].matches('\n').count() + 1
    }

    /// `Ok` without mistakes; otherwise all of them, in order.
    pub(crate) fn finish(self, path: &Path) -> Result<(), Mistakes> {
        if self.found.is_empty() {
            return Ok(());
        }
        let mut list = self.found;
        // What is not TOML is nothing else either: one mistake for one place.
        let others = list.split_off(self.syntax);
        let broken: HashSet<usize> = list.iter().map(|mistake| mistake.span.start).collect();
        list.extend(others.into_iter().filter(|mistake| !broken.contains(&mistake.span.start)));
        list.sort_by_key(|mistake| mistake.span.start);
        let total = list.len();
        list.truncate(SHOWN_MAX);
        for mistake in &mut list {
            let line = line_around(self.text, mistake.span.start);
            mistake.line = self.text[..line.start].matches('\n').count() + 1;
            mistake.column = self.text[line.start..mistake.span.start].chars().count() + 1;
        }
        Err(Mistakes { path: path.to_owned(), text: self.text.to_owned(), list, total })
    }
}

// === helpers ===

/// The line that holds the byte at `at`, without its line end unless `at` stands right there.
fn line_around(text: &str, at: usize) -> Span {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let end = if text[..end].ends_with('\r') && end > at { end - 1 } else { end };
    start..end
}

/// Text from a manifest on one line of a message: escaped and at most 60 characters long.
pub(crate) fn shorten(text: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let line: String =
        text.chars().take(LENGTH_MAX + 1).map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() > LENGTH_MAX { line.chars().take(LENGTH_MAX - 1).chain(['…']).collect() } else { line }
}
