//! Where one HTTP/1.1 message ends and the next begins, read beside hyper, so that a request which two servers could cut
//! differently (request smuggling) reaches neither a function nor hyper's lenient spots.
//!
//! hyper takes two equal `Content-Length` lines, `Content-Length` beside `Transfer-Encoding` and `chunked, chunked`, and
//! drops the evidence before the service sees the headers. So every byte is watched on its way in. What makes a message
//! invalid here: more than one line of `Content-Length` or `Transfer-Encoding`, both together, a `Transfer-Encoding`
//! other than `chunked`, a length that is not plain digits, an underscore for the hyphen in either name, a header line
//! that is folded or ends without CR, a chunk size that is not 1 to 15 hexadecimal digits, and the preface of HTTP/2.
//!
//! From the first invalid byte on, the bytes are replaced by NUL, which no HTTP parser takes: hyper then answers 400 in
//! its turn, after the answers to what came before, and closes.

/// Longest line that is kept while it comes in pieces. hyper gives up on a head long before.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The first line of a client that speaks HTTP/2 at once (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The first byte of a message.
    Between,
    /// The head of a message.
    Head,
    /// A body of which so many bytes are to come.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// A chunk of which so many bytes are to come, and the CRLF behind it.
    Chunk(u64),
    /// The lines behind the last chunk.
    Trailer,
    /// Nothing: the connection is spoilt.
    Spoilt,
}

/// What the head said about the body so far.
#[derive(Debug, Default)]
struct Head {
    is_past_request_line: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// The message must not be read on.
struct Spoilt;

// === impl Framing ===

impl Framing {
    pub(super) fn new() -> Self {
        Self { state: State::Between, head: Head::default(), line: Vec::new() }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Looks at the bytes that just came in, and spoils them from the first invalid one on.
    pub(super) fn watch(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(Spoilt) => self.state = State::Spoilt,
            }
            if self.state == State::Spoilt {
                bytes[at..].fill(0);
                return;
            }
        }
    }

    /// Takes some bytes (at least one) and says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Spoilt> {
        match self.state {
            // Empty lines before a request line are allowed (RFC 9112, section 2.2).
            State::Between if matches!(bytes[0], b'\r' | b'\n') => Ok(1),
            State::Between => {
                self.head = Head::default();
                self.state = State::Head;
                Ok(0)
            }
            State::Body(left) => {
                let taken = left.min(bytes.len() as u64);
                self.state = if taken == left { State::Between } else { State::Body(left - taken) };
                Ok(taken as usize)
            }
            State::Chunk(left) => {
                let taken = left.min(bytes.len() as u64);
                self.state = if taken == left { State::ChunkSize } else { State::Chunk(left - taken) };
                Ok(taken as usize)
            }
            State::Head | State::ChunkSize | State::Trailer => self.take_line(bytes),
            State::Spoilt => Err(Spoilt),
        }
    }

    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, Spoilt> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            return if self.line.len() > LINE_BYTES_MAX { Err(Spoilt) } else { Ok(bytes.len()) };
        };
        // The usual line lies whole in this read: then it is looked at where it is.
        if self.line.is_empty() {
            self.end_line(bytes[..end].strip_suffix(b"\r").ok_or(Spoilt)?)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            self.end_line(line.strip_suffix(b"\r").ok_or(Spoilt)?)?;
        }
        Ok(end + 1)
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), Spoilt> {
        match self.state {
            State::Head if line.is_empty() => {
                self.state = match (self.head.is_chunked, self.head.length) {
                    (true, _) => State::ChunkSize,
                    (false, None | Some(0)) => State::Between,
                    (false, Some(length)) => State::Body(length),
                };
                Ok(())
            }
            // Another version of HTTP follows, which hyper would close on without a word.
            State::Head if line == HTTP2_PREFACE => Err(Spoilt),
            State::Head if !self.head.is_past_request_line => {
                self.head.is_past_request_line = true;
                Ok(())
            }
            State::Head => self.head.take(line),
            State::ChunkSize => {
                let size = chunk_size(line)?;
                // The CRLF behind a chunk counts as its end.
                self.state = if size == 0 { State::Trailer } else { State::Chunk(size + 2) };
                Ok(())
            }
            State::Trailer => {
                if line.is_empty() {
                    self.state = State::Between;
                }
                Ok(())
            }
            _ => Err(Spoilt),
        }
    }
}

// === impl Head ===

impl Head {
    /// Takes a header line.
    fn take(&mut self, line: &[u8]) -> Result<(), Spoilt> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Spoilt)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if matches!(line[0], b' ' | b'\t') {
            return Err(Spoilt);
        }
        if is_named(name, b"content-length") {
            self.take_length(name, value.trim_ascii())
        } else if is_named(name, b"transfer-encoding") {
            self.take_encoding(name, value.trim_ascii())
        } else {
            Ok(())
        }
    }

    fn take_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), Spoilt> {
        let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if name[7] != b'-' || self.length.is_some() || self.is_chunked || !is_number {
            return Err(Spoilt);
        }
        let length = value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
        self.length = Some(length);
        Ok(())
    }

    fn take_encoding(&mut self, name: &[u8], value: &[u8]) -> Result<(), Spoilt> {
        if name[8] != b'-' || self.length.is_some() || self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Spoilt);
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// Whether a header has this name, in any case and with an underscore for a hyphen: some servers read both alike.
fn is_named(name: &[u8], wanted: &[u8]) -> bool {
    let alike = |(byte, wanted): (&u8, &u8)| byte.eq_ignore_ascii_case(wanted) || (*wanted == b'-' && *byte == b'_');
    name.len() == wanted.len() && name.iter().zip(wanted).all(alike)
}

fn chunk_size(line: &[u8]) -> Result<u64, Spoilt> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 {
        return Err(Spoilt);
    }
    digits.iter().try_fold(0u64, |size, byte| {
        let digit = char::from(*byte).to_digit(16).ok_or(Spoilt)?;
        Ok(size << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after these bytes, in pieces of every size, which must all agree.
    fn after(bytes: &[u8]) -> State {
        let mut states = (1..=bytes.len()).map(|piece| {
            let mut framing = Framing::new();
            for piece in bytes.chunks(piece) {
                framing.watch(&mut piece.to_vec());
            }
            framing.state()
        });
        let first = states.next().expect("there are bytes");
        assert!(states.all(|state| state == first), "{:?}", String::from_utf8_lossy(bytes));
        first
    }

    fn after_head(headers: &str) -> State {
        after(format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn messages_end_where_they_say() {
        assert_eq!(after_head(""), State::Between);
        assert_eq!(after_head("Content-Length: 5\r\n"), State::Body(5));
        assert_eq!(after_head("content-length:0\r\n"), State::Between);
        assert_eq!(after_head("Transfer-Encoding: Chunked\r\n"), State::ChunkSize);
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n";
        assert_eq!(after(chunked), State::ChunkSize);
        assert_eq!(after(&[&chunked[..], b"A\r\n0123"].concat()), State::Chunk(8));
        assert_eq!(after(&[&chunked[..], b"0\r\nTrailer: x\r\n"].concat()), State::Trailer);
        assert_eq!(after(&[&chunked[..], b"0\r\n\r\n"].concat()), State::Between);
        assert_eq!(after(&[&chunked[..], b"0\r\n\r\nGET / HT"].concat()), State::Head);
    }

    #[test]
    fn what_two_servers_could_cut_differently_is_spoilt() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 1234567890123456789\r\n",
            "Content_Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer_Encoding: chunked\r\n",
            "X: a\r\n Transfer-Encoding: chunked\r\n",
            "X: a\n",
            "no colon\r\n",
        ] {
            assert_eq!(after_head(headers), State::Spoilt, "{headers:?}");
        }
        for chunks in ["\r\n", "g\r\n", "0x1\r\n", " 1\r\n", "1\n", "1234567890123456\r\n", "-1\r\n"] {
            let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert_eq!(after(request.as_bytes()), State::Spoilt, "{chunks:?}");
        }
    }

    #[test]
    fn spoilt_bytes_reach_no_parser() {
        let mut bytes =
            b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nContent-Length: x\r\n\r\nGET /c HTTP/1.1\r\n\r\n".to_vec();
        Framing::new().watch(&mut bytes);
        let whole = bytes.iter().position(|byte| *byte == 0).expect("the rest is spoilt");
        assert_eq!(&bytes[..whole], b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n");
        assert!(bytes[whole..].iter().all(|byte| *byte == 0));
    }
}
