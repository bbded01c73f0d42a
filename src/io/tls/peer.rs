//! The peer of a session: who it is expected to be, and what it has shown (pure).

use std::fmt;

use sha2::{Digest, Sha256};

use super::verifier::hexadecimal;
use super::x509::Certificate;

/// Who the peer is, and what this side asks of it.
#[derive(Default)]
pub struct TlsPeer {
    /// The name of a server; empty if the peer is a client.
    pub name: String,
    /// It has to speak version 1.3.
    pub only_tls13: bool,
}

impl TlsPeer {
    /// Whether it is a client.
    pub fn is_client(&self) -> bool {
        self.name.is_empty()
    }
}

impl fmt::Display for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_client() {
            true => f.write_str("the client"),
            false => write!(f, "the server {}", self.name),
        }
    }
}

/// A certificate that a peer has shown.
pub struct PeerCertificate<'a> {
    /// As it was shown.
    pub der: &'a [u8],
    /// Whom it is for, as text.
    pub subject: Option<String>,
    /// SHA-256 of it, in pairs of hexadecimal digits and colons.
    pub fingerprint: String,
}

impl PeerCertificate<'_> {
    /// Reads it.
    pub fn of(der: &[u8]) -> PeerCertificate<'_> {
        let subject = Certificate::parse(der).map(|certificate| certificate.subject);
        PeerCertificate { der, subject, fingerprint: hexadecimal(&Sha256::digest(der)) }
    }
}
