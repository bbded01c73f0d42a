//! In a module that was built without TLS: there are no sessions, and a request for one fails with the reason.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::progress::RecordProgress;
use crate::sys::os::error_text::CodedError;

/// There is no key.
pub mod vault {
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};

    /// There is nothing to prepare.
    pub fn prepare() -> io::Result<()> {
        Ok(())
    }

    /// There is none.
    pub fn file() -> Option<BorrowedFd<'static>> {
        None
    }

    /// It cannot be used.
    pub fn adopt(_: OwnedFd) {}
}

/// There are none.
pub mod tickets {
    /// There is nothing to pass on.
    pub fn pass_on() {}
}

/// There is none.
#[derive(Debug)]
pub enum TlsSession {}

#[allow(missing_docs)]
impl TlsSession {
    pub fn is_established(&self) -> bool {
        match *self {}
    }

    pub fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub fn is_resumed(&self) -> bool {
        match *self {}
    }

    pub fn version(&self) -> Option<&'static str> {
        match *self {}
    }

    pub fn cipher(&self) -> Option<String> {
        match *self {}
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        match *self {}
    }

    pub fn peer_certificate(&self) -> Option<PeerCertificate<'_>> {
        match *self {}
    }

    pub fn server_name(&self) -> Option<&str> {
        match *self {}
    }

    pub fn state(&self) -> Option<Arc<[u8]>> {
        match *self {}
    }

    pub fn is_bound(&self) -> bool {
        match *self {}
    }

    pub fn progress(&self) -> RecordProgress {
        match *self {}
    }

    pub fn received(&self) -> &[u8] {
        match *self {}
    }

    pub fn opened(&self) -> &[u8] {
        match *self {}
    }

    pub fn held(&self) -> usize {
        match *self {}
    }

    pub fn is_told(&self) -> bool {
        match *self {}
    }

    pub fn set_told(&mut self) {
        match *self {}
    }

    pub fn resume(_: Arc<[u8]>, _: &RecordProgress, _: (&[u8], &[u8])) -> Option<TlsSession> {
        None
    }

    pub fn preload(&mut self, _: &[u8]) {
        match *self {}
    }

    pub fn is_plain_http(&self) -> bool {
        match *self {}
    }

    pub fn room(&mut self) -> &mut Vec<u8> {
        match *self {}
    }

    pub fn process(&mut self) {
        match *self {}
    }

    pub fn take_plaintext(&mut self, _: &mut Vec<u8>) -> io::Result<Option<usize>> {
        match *self {}
    }

    pub fn has_received(&self) -> bool {
        match *self {}
    }

    pub fn has_ended(&self) -> bool {
        match *self {}
    }

    pub fn breach(&self) -> Option<CodedError> {
        match *self {}
    }

    pub fn end(&mut self) {
        match *self {}
    }

    pub fn seal(&mut self, _: &[io::IoSlice<'_>], _: usize) -> io::Result<bool> {
        match *self {}
    }

    pub fn unsent(&self) -> &[u8] {
        match *self {}
    }

    pub fn has_unsent(&self) -> bool {
        match *self {}
    }

    pub fn sent(&mut self, _: usize) {
        match *self {}
    }

    pub fn take_sent(&mut self) -> usize {
        match *self {}
    }

    pub fn close_notify(&mut self) {
        match *self {}
    }

    pub fn release(&mut self) {
        match *self {}
    }
}

/// As where TLS is built in.
pub struct PeerCertificate<'a> {
    /// As a DER.
    pub der: &'a [u8],
    /// As text.
    pub subject: Option<String>,
    /// Of the DER.
    pub fingerprint: String,
}

/// Where a certificate or key would be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(());

impl Source {
    /// As where TLS is built in.
    pub fn of(_: &str) -> Source {
        Source(())
    }
}

/// As where TLS is built in.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: Source,
    pub key: Source,
    pub ocsp: Option<Source>,
}

/// As where TLS is built in.
#[allow(missing_docs)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    pub certificates: Vec<CertificateFiles>,
    pub names: Vec<(String, Vec<CertificateFiles>)>,
    pub client_ca: Option<Source>,
    pub alpn: Vec<Vec<u8>>,
    pub only_tls13: bool,
}

/// As where TLS is built in.
pub struct ShownCertificate {
    /// The name that it is shown for.
    pub name: Option<String>,
    /// Whose it is.
    pub title: String,
    /// From when until when.
    pub valid: std::ops::Range<i64>,
    /// Whether it is for that name.
    pub covers_name: bool,
}

/// There is none.
#[derive(Debug)]
pub enum TlsServer {}

#[allow(missing_docs)]
impl TlsServer {
    pub fn new(_: ServerOptions) -> io::Result<Rc<TlsServer>> {
        Err(absent())
    }

    pub fn session(&self) -> io::Result<TlsSession> {
        match *self {}
    }

    pub fn certificates(&self) -> Result<Vec<ShownCertificate>, String> {
        match *self {}
    }
}

fn absent() -> io::Error {
    let text = "TLS is not built into this module: build it with the cargo feature tls".to_owned();
    CodedError { code: "not_built_in", text }.into()
}

/// What a client would ask of its peer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientOptions(());

#[allow(missing_docs)]
impl ClientOptions {
    pub fn set_ca(&mut self, _: &str) {}

    pub fn set_identity(&mut self, _: &str, _: &str) {}

    pub fn set_insecure(&mut self, _: bool) {}

    pub fn set_alpn(&mut self, _: Vec<Vec<u8>>) {}

    pub fn set_only_tls13(&mut self, _: bool) {}

    pub fn set_fingerprints(&mut self, _: Vec<[u8; 32]>) {}

    #[must_use]
    pub fn for_http(&self) -> ClientOptions {
        self.clone()
    }

    #[must_use]
    pub fn elsewhere(&self) -> ClientOptions {
        self.clone()
    }

    pub fn session(&self, _: &str) -> io::Result<TlsSession> {
        Err(absent())
    }
}
