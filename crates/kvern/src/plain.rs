//! Text of jobs made safe for a terminal: what would move its cursor, set its title or turn its direction is written out.

/// The text with its control characters as `\u{1b}`; line ends and tabs stay.
pub(crate) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match is_control(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
        out
    })
}

/// [`plain`], but for the styles of our own (SGR, ECMA-48 section 8.3.117), which change looks and nothing else.
pub(crate) fn plain_but_styles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, from) = rest.split_at(at);
        out.push_str(&plain(before));
        let inside = from[2..].find(|c: char| !c.is_ascii_digit() && c != ';').map(|end| end + 2);
        let end = match inside {
            Some(end) if from[end..].starts_with('m') => end + 1,
            // No style: the escape alone goes, and with it the meaning of the rest.
            _ => 1,
        };
        let (style, after) = from.split_at(end);
        out.push_str(&if end == 1 { plain(style) } else { style.to_owned() });
        rest = after;
    }
    out + &plain(rest)
}

/// A JSON document with what JSON leaves in its texts escaped as JSON does it, so that its value is the same.
pub(crate) fn plain_json(document: &str) -> String {
    document.chars().fold(String::with_capacity(document.len()), |mut out, c| {
        match is_control(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
        out
    })
}

/// Takes what can be shown of bytes that come in pieces; the beginning of a character waits for its end.
pub(crate) fn take_plain(bytes: &mut Vec<u8>) -> String {
    let end = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    plain(&String::from_utf8_lossy(&bytes.drain(..end).collect::<Vec<u8>>()))
}

/// C0 but line end and tab, DEL, C1, and the marks that turn or hide text (Unicode 16, section 23.2; Trojan Source).
fn is_control(c: char) -> bool {
    let turns_text =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns_text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for (text, shown) in [
            ("a\tb\nc é 中 ✔", "a\tb\nc é 中 ✔"),
            ("\x1b]0;pwn\x07 \u{202e}", "\\u{1b}]0;pwn\\u{7} \\u{202e}"),
            ("over\rwritten\x08", "over\\rwritten\\u{8}"),
            ("\u{9b}31m\u{7f}\u{2066}\u{200f}", "\\u{9b}31m\\u{7f}\\u{2066}\\u{200f}"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn only_styles_pass_where_we_paint() {
        assert_eq!(plain_but_styles("\x1b[1;32m✔\x1b[0m"), "\x1b[1;32m✔\x1b[0m");
        for text in ["\x1b[2J", "\x1b[", "\x1b[31", "\x1b]0;pwn\x07", "a\x1b[?25l", "\x1b\x1b[6n", "\u{9b}2J"] {
            let shown = plain_but_styles(text);
            assert!(!shown.contains('\x1b') && !shown.chars().any(char::is_control), "{shown:?}");
        }
    }

    #[test]
    fn a_document_keeps_its_value() {
        let value = serde_json::json!({ "message": "\x1b[2J \u{202e} \u{9b}\u{7f}\n" });
        let shown = plain_json(&serde_json::to_string_pretty(&value).expect("a document"));
        assert!(!shown.chars().any(is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }

    #[test]
    fn a_character_in_two_pieces_is_one() {
        let mut bytes = "a\u{202e}".as_bytes()[..2].to_vec();
        assert_eq!(take_plain(&mut bytes), "a");
        bytes.extend(&"\u{202e}".as_bytes()[1..]);
        assert_eq!((take_plain(&mut bytes).as_str(), bytes.len()), ("\\u{202e}", 0));
        assert_eq!(take_plain(&mut b"\xff\xc3(".to_vec()), "\u{fffd}\u{fffd}(");
    }
}
