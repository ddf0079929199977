//! Percent-encoding (RFC 3986, section 2.1), undone.

/// Decodes `%41`; none if an escape is broken or what comes out is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(high)? << 4 | digit(low)?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_whole_and_give_text() {
        assert_eq!(decode("a%2Db%c3%a9+").as_deref(), Some("a-bé+"));
        for broken in ["%", "%2", "%g0", "%ff"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
