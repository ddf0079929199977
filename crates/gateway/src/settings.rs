//! What the operator may set, as the gateway takes it: the token, the hosts and the limits.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use kvern_core::limits::{FILES_PER_SLOT, FILES_RESERVED};
use sha2::{Digest, Sha256};

/// Settings of the gateway, checked by [`Settings::check`].
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What a client must show; none lets everyone in who can reach the address.
    pub token: Option<Token>,
    /// Host names under which the gateway is reached without a token, beside the loopback names: those of a proxy on this
    /// machine. In lower case, without a port.
    pub hosts: Vec<String>,
    /// Whether an address that others can reach may be served without a token, and under any name.
    pub insecure: bool,
    /// Every bound.
    pub limits: Limits,
}

/// A secret that clients show, kept as its hash so that no log or dump can tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// Every bound of the gateway.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; the next ones are told to come again.
    pub connections: usize,
    /// Bytes of request bodies in memory at once.
    pub body_bytes: u64,
    /// Time for the first byte of a connection and for a whole request head.
    pub head: Duration,
    /// How long a connection is kept for a next request. Longer than Nginx's 60 s, so that the proxy is the one to close.
    pub idle: Duration,
    /// Time without any byte of a body that was announced.
    pub body_idle: Duration,
    /// Time for a whole body.
    pub body: Duration,
    /// Time in which a client takes none of our bytes.
    pub write: Duration,
    /// How long a call waits for a free slot.
    pub patience: Duration,
    /// Time that open requests are given when the gateway stops; `--drain` sets it.
    pub drain: Duration,
}

/// An address that others can reach, and nothing that keeps them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsafeListen(SocketAddr);

/// Most bytes of a request head, and of a connection's read buffer.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Connections beyond the bound that are answered 503 at once.
pub(crate) const SPARE_SEATS: usize = 64;
/// Most header lines of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// The pieces in which files and logs are sent.
pub(crate) const PIECE_BYTES: usize = 16 << 10;
/// Bytes that one connection may take: its buffers, an inline body and what hyper and the kernel add.
pub(crate) const CONNECTION_BYTES_MAX: usize = 128 << 10;

const _: () = {
    assert!(HEAD_BYTES_MAX + PIECE_BYTES + kvern_core::limits::INLINE_BYTES_MAX <= CONNECTION_BYTES_MAX);
};

// === impl Settings ===

impl Settings {
    /// Refuses to listen where others can reach the gateway while nothing keeps them out.
    ///
    /// # Errors
    /// [`UnsafeListen`], whose text says what to try.
    pub fn check(&self, listen: SocketAddr) -> Result<(), UnsafeListen> {
        let is_guarded = listen.ip().is_loopback() || self.token.is_some() || self.insecure;
        if is_guarded { Ok(()) } else { Err(UnsafeListen(listen)) }
    }
}

// === impl Token ===

impl Token {
    /// The token with this text.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether `shown` is this token. Hashes are compared, so the time it takes tells nothing of the secret.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(shown).into();
        // An empty secret is a mistake of whoever made it, and lets nobody in.
        hash == self.0 && !shown.is_empty()
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            body_bytes: 64 << 20,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(10),
            body: Duration::from_secs(10 * 60),
            write: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Lowers the bound on connections to what a limit on open files leaves beside so many running functions. However low
    /// that is, connections get half of it: what the others lack then makes them wait.
    #[must_use]
    pub fn fitted_to(self, open_files: u64, slots: usize) -> Self {
        let others = FILES_RESERVED.saturating_add(FILES_PER_SLOT.saturating_mul(slots as u64));
        let left = open_files.saturating_sub(others).max(open_files / 2);
        Self { connections: self.connections.min(usize::try_from(left).unwrap_or(usize::MAX)), ..self }
    }
}

// === impl UnsafeListen ===

impl fmt::Display for UnsafeListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address) = self;
        let port = address.port();
        write!(
            f,
            "will not listen on {address} without a token\n\
             Others can reach this address, and whoever reaches the server can run your functions and read their results.\n\
             Try one of these:\n  \
             (umask 077; kvern token >kvern-token); KVERN_TOKEN_FILE=kvern-token kvern serve --listen {address}   \
             (clients send what is in the file: `Authorization: Bearer ...`)\n  \
             kvern serve --listen 127.0.0.1:{port}   (only this machine)\n  \
             kvern serve --listen {address} --insecure   (if a firewall or proxy keeps others out)"
        )
    }
}

impl std::error::Error for UnsafeListen {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_only_with_a_token() {
        let everyone: SocketAddr = "0.0.0.0:8080".parse().expect("an address");
        let refused = Settings::default().check(everyone).expect_err("nothing guards it");
        assert!(refused.to_string().contains("KVERN_TOKEN"));
        let with_token = Settings { token: Some(Token::new("secret")), ..Settings::default() };
        assert_eq!(with_token.check(everyone), Ok(()));
        assert_eq!(Settings { insecure: true, ..Settings::default() }.check(everyone), Ok(()));
        assert_eq!(Settings::default().check("127.0.0.1:1".parse().expect("an address")), Ok(()));
        assert_eq!(Settings::default().check("[::1]:1".parse().expect("an address")), Ok(()));
    }

    #[test]
    fn connections_leave_open_files_for_the_rest() {
        let connections = |open_files, slots| Limits::default().fitted_to(open_files, slots).connections;
        assert_eq!(connections(1 << 20, 8), Limits::default().connections);
        assert_eq!(connections(1024, 8), 1024 - 256 - 8 * 16);
        assert_eq!(connections(256, 8), 128);
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("secret");
        assert!(token.is(b"secret") && !token.is(b"secre") && !token.is(b""));
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert!(!Token::new("").is(b""), "an empty one lets nobody in");
    }
}
