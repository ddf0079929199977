//! Where the gateway listens, as people write it.

use std::net::SocketAddr;

/// How to write one.
pub(crate) const ADDRESS_HINT: &str = "as in `\"127.0.0.1:8080\"` or `\"[::1]:8080\"`; a name is not looked up";

/// The text is not an address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress;

/// Reads `ADDRESS:PORT`, with `localhost` for 127.0.0.1 and an empty address for every one.
///
/// # Errors
/// [`BadAddress`].
pub fn listen_address(text: &str) -> Result<SocketAddr, BadAddress> {
    let spelled = match text.split_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(("", port)) if !port.starts_with(':') => format!("0.0.0.0:{port}"),
        _ => text.to_owned(),
    };
    spelled.parse().map_err(|_| BadAddress)
}

impl std::fmt::Display for BadAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not an address to listen on")
    }
}

impl std::error::Error for BadAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:80", "127.0.0.1:80"),
            (":8080", "0.0.0.0:8080"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().expect("an address")), "{text}");
        }
        for text in ["", "8080", "myhost:8080", "::1:8080", "127.0.0.1", "localhost", "localhost:http", "1.2.3.4:99999"]
        {
            assert_eq!(listen_address(text), Err(BadAddress), "{text}");
        }
    }
}
