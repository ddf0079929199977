//! A look at the server that does not wait for a task: the contract asks for counts and room where nobody can wait. A
//! connection of its own, for a moment.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{codec, decode, encode};
use crate::hello::{self, VERSION, Welcome};
use crate::words::{Answer, Look, Question, Word};

/// The longest that a thread is held up.
const WITHIN: Duration = Duration::from_millis(500);

/// Looks.
///
/// # Errors
/// The socket's; [`io::ErrorKind::InvalidData`] if the other side is none of ours.
pub(crate) fn look(path: &Path) -> io::Result<Look> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(WITHIN))?;
    socket.set_write_timeout(Some(WITHIN))?;
    let mut said = BytesMut::from(&hello::ours()[..]);
    codec().encode(encode(&(0, Question::Look)).map_err(io::Error::other)?, &mut said)?;
    socket.write_all(&said)?;
    let mut theirs = [0; hello::BYTES];
    socket.read_exact(&mut theirs)?;
    if hello::version(&theirs) != Some(VERSION) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut heard = BytesMut::new();
    let _: Welcome = next(&mut socket, &mut heard)?;
    match next(&mut socket, &mut heard)? {
        Word::Answer(_, Answer::Look(look)) => Ok(look),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn next<T: serde::de::DeserializeOwned>(socket: &mut UnixStream, heard: &mut BytesMut) -> io::Result<T> {
    let mut codec = codec();
    loop {
        if let Some(frame) = codec.decode(heard)? {
            return decode(&frame).ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        let mut piece = [0; 4096];
        let read = socket.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        heard.extend_from_slice(&piece[..read]);
    }
}
