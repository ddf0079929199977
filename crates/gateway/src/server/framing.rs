//! Where one HTTP/1.1 message ends and the next begins, read beside hyper, so that a request which two servers could cut
//! differently (request smuggling) reaches neither a function nor hyper's lenient spots.
//!
//! hyper takes two equal `Content-Length` lines, `Content-Length` beside `Transfer-Encoding` and `chunked, chunked`, and
//! drops the evidence before the service sees the headers. So every byte is watched on its way in. What makes a message
//! invalid here: more than one line of `Content-Length` or `Transfer-Encoding`, both together, a `Transfer-Encoding`
//! other than `chunked`, a length that is not plain digits, an underscore for the hyphen in either name, a header line
//! that is folded or ends without CR, and a chunk size that is not 1 to 15 hexadecimal digits.
//!
//! From the first invalid byte on, the bytes are replaced by NUL, which no HTTP parser takes: hyper then answers 400 in
//! its turn, after the answers to what came before, and closes.

/// Longest line that is looked at whole; a longer one cannot be a framing header, and only its end matters.
const LINE_BYTES_MAX: usize = 256;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    head: Head,
    /// The line so far, up to [`LINE_BYTES_MAX`].
    line: Vec<u8>,
    /// The byte before the next one, in a line.
    last: u8,
    line_is_long: bool,
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
        Self { state: State::Between, head: Head::default(), line: Vec::new(), last: 0, line_is_long: false }
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
            self.keep(bytes);
            return Ok(bytes.len());
        };
        // The usual line lies whole in this read: then it is looked at where it is.
        if self.line.is_empty() && !self.line_is_long {
            let line = bytes[..end].strip_suffix(b"\r").ok_or(Spoilt)?;
            self.end_line(line)?;
            return Ok(end + 1);
        }
        self.keep(&bytes[..end]);
        if self.last != b'\r' {
            return Err(Spoilt);
        }
        let mut line = std::mem::take(&mut self.line);
        if self.line_is_long { line.clear() } else { line.truncate(line.len() - 1) }
        let was_long = std::mem::replace(&mut self.line_is_long, false);
        if was_long { self.end_long_line()? } else { self.end_line(&line)? }
        line.clear();
        self.line = line;
        Ok(end + 1)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.last = *last;
        self.line_is_long |= self.line.len() + bytes.len() > LINE_BYTES_MAX;
        if !self.line_is_long {
            self.line.extend_from_slice(bytes);
        } else if self.line.len() < LINE_BYTES_MAX {
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
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

    /// The end of a line too long to be looked at: fine for a request line or another header, not for framing.
    fn end_long_line(&mut self) -> Result<(), Spoilt> {
        match self.state {
            State::Head if !self.head.is_past_request_line => {
                self.head.is_past_request_line = true;
                Ok(())
            }
            State::Head | State::Trailer => Ok(()),
            _ => Err(Spoilt),
        }
    }
}
