//! The one address that is contacted.
//!
//! In:    `http://localhost:11434/v1`, and whether it may lie outside the private network.
//! Out:   an [`Address`] whose host was looked up once.
//! Never: sends anything.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};

use ureq::http::Uri;

use super::error::GenerateError;

/// Where a server may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine or a private network (loopback, RFC 1918, RFC 4193, link-local).
    Private,
    /// Anywhere: the documents leave the network.
    Anywhere,
}

/// A server's base address, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    base: String,
}

impl Address {
    /// Parses `text` and looks its host up. With [`Reach::Private`] every address of the host must be private.
    pub fn parse(text: &str, reach: Reach) -> Result<Address, GenerateError> {
        let wrong = |reason: &str| GenerateError::Address { address: text.to_string(), reason: reason.to_string() };
        let uri: Uri =
            text.parse().map_err(|_| wrong("not an address; expected one such as http://localhost:11434/v1"))?;
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(wrong("must begin with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("holds a name or password; name an environment variable with --key-env instead"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query (`?`); give only the base, such as http://localhost:11434/v1"));
        }
        if reach == Reach::Private {
            let port = uri.port_u16().unwrap_or(default_port);
            check_private(text, host.trim_start_matches('[').trim_end_matches(']'), port)?;
        }
        let base = text.trim_end_matches('/').trim_end_matches("/chat/completions").trim_end_matches('/');
        Ok(Address { base: base.to_string() })
    }

    /// The base, for messages.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where chats are completed.
    pub(crate) fn completions(&self) -> String {
        format!("{}/chat/completions", self.base)
    }
}

fn check_private(text: &str, host: &str, port: u16) -> Result<(), GenerateError> {
    let found = (host, port).to_socket_addrs().map_err(|error| GenerateError::Address {
        address: text.to_string(),
        reason: format!("host {host} cannot be found: {error}"),
    })?;
    match found.map(|address| address.ip()).find(|&ip| !is_private(ip)) {
        Some(ip) => Err(GenerateError::Remote { address: text.to_string(), ip: ip.to_string() }),
        None => Ok(()),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn private_addresses_pass_and_public_ones_need_to_be_allowed() {
        for text in
            ["http://127.0.0.1:8080/v1", "http://[::1]:8080/v1/", "http://192.168.1.7/v1", "https://10.0.0.1/v1"]
        {
            assert!(Address::parse(text, Reach::Private).is_ok(), "{text}");
        }
        for text in
            ["http://8.8.8.8/v1", "https://[2001:4860:4860::8888]/v1", "http://172.32.0.1/v1", "http://0.0.0.0/v1"]
        {
            let error = Address::parse(text, Reach::Private).unwrap_err();
            assert!(error.to_string().contains("--allow-remote"), "{error}");
            assert!(Address::parse(text, Reach::Anywhere).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_base_address_is_refused() {
        for text in
            ["", "localhost:11434", "ftp://127.0.0.1/v1", "http://user:word@127.0.0.1/v1", "http://127.0.0.1/v1?key=1"]
        {
            assert!(matches!(Address::parse(text, Reach::Anywhere), Err(GenerateError::Address { .. })), "{text}");
        }
    }

    #[test]
    fn the_completions_path_may_be_given_too() {
        let address = Address::parse("http://127.0.0.1:1/v1/chat/completions", Reach::Private).unwrap();
        assert_eq!(address.completions(), "http://127.0.0.1:1/v1/chat/completions");
    }
}
