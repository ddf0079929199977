//! The name of a host as the `Host` header of a request has it, without its port.

use std::net::{IpAddr, Ipv6Addr};

/// The longest name that DNS knows.
const BYTES_MAX: usize = 253;

/// The text is not the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHost;

/// The name in lower case; an IPv6 address in its brackets.
///
/// # Errors
/// [`BadHost`], which says how to write it.
pub fn host_name(text: &str) -> Result<String, BadHost> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_name = text.len() <= BYTES_MAX && text.split('.').all(is_label);
    if is_name || text.parse::<IpAddr>().is_ok() { Ok(text.to_ascii_lowercase()) } else { Err(BadHost) }
}

impl std::fmt::Display for BadHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("as in `kvern.example.org`: no `http://`, no port, no `*`")
    }
}

impl std::error::Error for BadHost {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_host_header_has_before_the_port() {
        for (text, name) in [
            ("Kvern.Example.org", "kvern.example.org"),
            ("box", "box"),
            ("my_box-2.lan", "my_box-2.lan"),
            ("10.0.0.7", "10.0.0.7"),
            ("fd00::1", "[fd00::1]"),
            ("[FD00::1]", "[fd00::1]"),
        ] {
            assert_eq!(host_name(text).as_deref(), Ok(name), "{text}");
        }
        let long = "a".repeat(300);
        for text in ["", "kvern.lan:80", "http://kvern.lan", "kvern.lan/", "*", "*.lan", "a..b", "a b", "é.fr", &long]
        {
            assert_eq!(host_name(text), Err(BadHost), "{text}");
        }
    }
}
