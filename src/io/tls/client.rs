//! What a client asks of its peer, and the configuration that follows. Configurations are kept, so that
//! further connections resume the sessions of earlier ones.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::failure;
use super::pem::{Source, Stamp};
use super::roots;
use super::session::TlsSession;
use super::verifier::Verifier;
use crate::sys::os::error_text::CodedError;
use crate::sys::os::secret_heap::secretly;

/// How many configurations are kept; of more, the oldest goes.
const MOST_CONFIGURATIONS: usize = 16;

/// What a client asks of its peer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// Certificates of authorities, instead of those that the system trusts; or of the peer itself.
    ca: Option<Source>,
    identity: Option<ClientIdentity>,
    /// Believe every peer.
    insecure: bool,
    /// The protocols to choose from (RFC 7301).
    alpn: Vec<Vec<u8>>,
    /// Only version 1.3.
    only_tls13: bool,
    /// SHA-256 of the only certificates that are accepted; empty: any.
    fingerprints: Vec<[u8; 32]>,
}

/// How a client identifies itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    certificate: Source,
    key: Source,
}

impl ClientOptions {
    /// Option `ca`: a file, or a text in PEM.
    pub fn set_ca(&mut self, option: &str) {
        self.ca = Some(Source::of(option));
    }

    /// Options `certificate` and `key`: files, or texts in PEM.
    pub fn set_identity(&mut self, certificate: &str, key: &str) {
        let (certificate, key) = (Source::of(certificate), Source::of(key));
        self.identity = Some(ClientIdentity { certificate, key });
    }

    /// Option `insecure`.
    pub fn set_insecure(&mut self, insecure: bool) {
        self.insecure = insecure;
    }

    /// Option `alpn`.
    pub fn set_alpn(&mut self, protocols: Vec<Vec<u8>>) {
        self.alpn = protocols;
    }

    /// Option `min_version`: whether that is 1.3.
    pub fn set_only_tls13(&mut self, only: bool) {
        self.only_tls13 = only;
    }

    /// Option `fingerprints`.
    pub fn set_fingerprints(&mut self, fingerprints: Vec<[u8; 32]>) {
        self.fingerprints = fingerprints;
    }

    /// A session with the server `name`, a host name or an address.
    ///
    /// # Errors
    /// The name or an option is invalid: a file cannot be read, a key does not belong to its certificate.
    pub fn session(&self, name: &str) -> io::Result<TlsSession> {
        let config = self.config().map_err(|text| CodedError { code: "configuration", text })?;
        let server = ServerName::try_from(name.to_owned()).map_err(|_| CodedError {
            code: "configuration",
            text: format!("\"{name}\" is no host name that a certificate could be checked for"),
        })?;
        if self.insecure && self.fingerprints.is_empty() {
            warn(name);
        }
        TlsSession::client(config, server, self.only_tls13)
    }

    /// The same for requests of HTTP, whose protocol has a name (RFC 7301, 6).
    #[must_use]
    pub fn for_http(&self) -> ClientOptions {
        let mut options = self.clone();
        if options.alpn.is_empty() {
            options.alpn.push(b"http/1.1".to_vec());
        }
        options
    }

    /// The same for another server: a client that identifies itself to one does not do so to all,
    /// and a fingerprint is that of one certificate. Where it was all that was checked, the usual checks take its place.
    #[must_use]
    pub fn elsewhere(&self) -> ClientOptions {
        let insecure = self.insecure && self.fingerprints.is_empty();
        ClientOptions { identity: None, fingerprints: Vec::new(), insecure, ..self.clone() }
    }

    fn stamps(&self) -> Vec<Stamp> {
        let identity =
            self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        self.ca.iter().chain(identity).map(Source::stamp).collect()
    }

    /// The configuration, one that is kept unless a file has changed.
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        type CachedConfiguration = (ClientOptions, Vec<Stamp>, Arc<ClientConfig>);
        thread_local! {
            static CONFIGURATIONS: RefCell<Vec<CachedConfiguration>> = const { RefCell::new(Vec::new()) };
        }
        let stamps = self.stamps();
        CONFIGURATIONS.with_borrow_mut(|cached| {
            if let Some(place) = cached.iter().position(|(options, ..)| options == self) {
                if let Some((_, known, config)) = cached.get(place)
                    && *known == stamps
                {
                    return Ok(config.clone());
                }
                cached.remove(place);
            }
            let config = Arc::new(self.build()?);
            if cached.len() == MOST_CONFIGURATIONS {
                cached.remove(0);
            }
            cached.push((self.clone(), stamps, config.clone()));
            Ok(config)
        })
    }

    fn build(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let trusted = match &self.ca {
            Some(source) => source.certificates("ca")?,
            None => Vec::new(),
        };
        let roots = match (&self.ca, self.insecure) {
            (_, true) => None,
            (None, false) => Some(roots::system()?),
            (Some(_), false) => {
                let mut roots = RootCertStore::empty();
                for certificate in &trusted {
                    roots
                        .add(certificate.clone())
                        .map_err(|error| format!("option ca: {error}"))?;
                }
                Some(Arc::new(roots))
            }
        };
        let verifier = Verifier::new(roots, trusted, self.fingerprints.clone(), provider.clone())?;
        let versions: &[_] = if self.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = identity.certificate.certificates("certificate")?;
                let key = identity.key.key("key")?;
                secretly(|| builder.with_client_auth_cert(chain, key))
                    .map_err(|e| failure::of_own(&e, &identity.certificate, &identity.key))?
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(config)
    }
}

/// Says once that somebody believes every server.
fn warn(name: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Relaxed) {
        let _ = writeln!(
            io::stderr(),
            "TLS: the certificate of {name} is not checked (insecure = true); anybody could answer in its \
             place. Further such connections are not reported"
        );
    }
}
