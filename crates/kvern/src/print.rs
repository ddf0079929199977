//! Printing: data on stdout, everything else on stderr. The only file that may write to either.
//!
//! What jobs say is in most of it, so whatever is not the raw bytes of a job goes through [`plain`].

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use crate::exit::{Code, Stop};
use crate::plain::{plain, plain_but_styles, plain_json, take_plain};

/// Writes data for programs or pipes.
///
/// A reader that has gone is the reader's right: the rest is not written, and nothing is said. Anything else ends the
/// program, because whoever has only a part of the data must hear of it. Servers print no data.
pub(crate) fn data(bytes: &[u8]) {
    write(bytes);
}

/// Writes a piece of what has no end. Without its reader there is nothing left to do.
fn piece(bytes: &[u8]) {
    if !write(bytes) {
        std::process::exit(0);
    }
}

/// False if the reader has gone.
fn write(bytes: &[u8]) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    is_taken(written)
}

/// What the command line is told before any verb: the help that it asks for, or what is wrong with it.
pub(crate) fn command_line(told: &clap::Error) -> ExitCode {
    let written = told.print().and_then(|()| std::io::stdout().flush());
    if told.use_stderr() {
        return Code::Usage.into();
    }
    is_taken(written);
    ExitCode::SUCCESS
}

/// False if the reader has gone.
fn is_taken(written: std::io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    if error.kind() == ErrorKind::BrokenPipe {
        return false;
    }
    let stop = Stop::failed(format!("the output could not be written: {error}"))
        .hint("what was printed is not whole: make room where it goes");
    say(&stop.to_string());
    std::process::exit(stop.code as i32);
}

/// Writes a piece of a log: as it is for programs and pipes, harmless for a person. The beginning of a character that is
/// not whole yet stays in `pending`.
pub(crate) fn log(piece: &[u8], pending: &mut Vec<u8>) {
    if std::io::stdout().is_terminal() {
        pending.extend_from_slice(piece);
        self::piece(take_plain(pending).as_bytes());
    } else {
        self::piece(piece);
    }
}

/// Writes a line of data.
pub(crate) fn line(text: &str) {
    data(format!("{}\n", plain(text)).as_bytes());
}

/// Writes a line of a log behind words of our own.
pub(crate) fn line_of(whose: &str, text: &str) {
    piece(format!("{} {}\n", paint(&plain(whose), Colour::Dim), plain(text)).as_bytes());
}

/// Tells the person something.
pub(crate) fn say(text: &str) {
    let text = if in_colour() { plain_but_styles(text) } else { plain(text) };
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A JSON document, indented.
pub(crate) fn json(value: &serde_json::Value) {
    data(format!("{}\n", plain_json(&serde_json::to_string_pretty(value).unwrap_or_default())).as_bytes());
}

/// A JSON document on a line of its own, where documents come one after the other.
pub(crate) fn json_line(value: &serde_json::Value) {
    piece(format!("{}\n", plain_json(&value.to_string())).as_bytes());
}

/// Rows under headings, in columns as wide as they must be.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    // Before they are measured.
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = headings.iter().map(|h| h.to_uppercase()).collect();
    for row in std::iter::once(&heading).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

/// Whether a person looks at stderr and wants colour (<https://no-color.org>).
pub(crate) fn in_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The text in this ANSI colour, if colour is wanted.
pub(crate) fn paint(text: &str, colour: Colour) -> String {
    if in_colour() { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
}

/// ANSI colours by meaning.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Colour {
    /// Went well.
    Good = 32,
    /// Went wrong.
    Bad = 31,
    /// Beside the point.
    Dim = 2,
    /// To be clicked or typed.
    Accent = 36,
}
