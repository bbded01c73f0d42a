//! What a listener of TLS shows its clients: its certificates, by the names that clients ask for. The files are read
//! before the first fork, and again when they have changed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use super::client_verifier::ClientVerifier;
use super::established::SecretsShown;
use super::failure;
use super::ocsp;
use super::pem::{Source, Stamp};
use super::resolver::Resolver;
use super::session::TlsSession;
use super::tickets::Tickets;
use super::vault;
use super::x509::Certificate;
use crate::sys::os::error_text::CodedError;
use crate::sys::os::secret_heap::secretly;

/// Interval of checks whether files have changed.
const CHECK: Duration = Duration::from_secs(1);

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the intermediate ones after it.
    pub certificate: Source,
    /// Its key.
    pub key: Source,
    /// A response of its authority about it (RFC 6960), in DER.
    pub ocsp: Option<Source>,
}

/// What a listener says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// For clients that ask for no name, or for one that is not known.
    pub certificates: Vec<CertificateFiles>,
    /// By name; `*.` stands for one label.
    pub names: Vec<(String, Vec<CertificateFiles>)>,
    /// Whose certificates clients must have.
    pub client_ca: Option<Source>,
    /// The protocols to choose from (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// Only version 1.3.
    pub only_tls13: bool,
}

impl ServerOptions {
    /// All certificates, each with the option that names it.
    fn all(&self) -> impl Iterator<Item = &CertificateFiles> {
        self.certificates.iter().chain(self.names.iter().flat_map(|(_, certificates)| certificates))
    }

    /// What makes a listener another one, as far as tickets are concerned: where its certificates are, and whose
    /// certificates it asks its clients for.
    fn identity(&self, client_ca: &[CertificateDer<'_>]) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        self.all().for_each(|files| add(files.certificate.text()));
        client_ca.iter().for_each(|certificate| add(certificate));
        hash.finalize().into()
    }

    fn stamps(&self) -> Vec<Stamp> {
        let files = self.all().flat_map(|files| {
            [Some(&files.certificate), Some(&files.key), files.ocsp.as_ref()].into_iter().flatten()
        });
        files.chain(&self.client_ca).map(Source::stamp).collect()
    }
}

/// What the operator is told of a certificate.
pub struct ShownCertificate {
    /// The name in option `names` that it is shown for.
    pub name: Option<String>,
    /// Whose it is.
    pub title: String,
    /// From when until when it is valid, in seconds since 1970.
    pub valid: Range<i64>,
    /// Whether it is for that name.
    pub covers_name: bool,
}

/// The TLS of a listener.
pub struct TlsServer {
    options: ServerOptions,
    config: RefCell<Arc<ServerConfig>>,
    /// What clients are shown.
    shown: RefCell<Shown>,
    stamps: RefCell<Vec<Stamp>>,
    checked_at: Cell<Instant>,
}

/// All certificates that clients are shown, each with its key and the response of its authority.
type Shown = Vec<Arc<CertifiedKey>>;

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(options: ServerOptions) -> io::Result<Rc<TlsServer>> {
        let wrong = |text| CodedError { code: "configuration", text };
        // Without it, connections stay in the process that has begun them.
        let _ = vault::prepare();
        let stamps = options.stamps();
        let (config, shown) = build(&options, None).map_err(wrong)?;
        Ok(Rc::new(TlsServer {
            options,
            config: RefCell::new(Arc::new(config)),
            shown: RefCell::new(shown),
            stamps: RefCell::new(stamps),
            checked_at: Cell::new(Instant::now()),
        }))
    }

    /// A session with a new client.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn session(&self) -> io::Result<TlsSession> {
        if self.checked_at.get().elapsed() >= CHECK {
            self.checked_at.set(Instant::now());
            self.reread_files();
        }
        TlsSession::server(self.config.borrow().clone(), self.options.only_tls13)
    }

    /// Reads files again that have changed. Files that cannot be used change nothing; standard error says so.
    fn reread_files(&self) {
        let stamps = self.options.stamps();
        if *self.stamps.borrow() == stamps {
            return;
        }
        let built = build(&self.options, Some(&*self.shown.borrow()));
        match built {
            Ok((config, shown)) => {
                *self.config.borrow_mut() = Arc::new(config);
                *self.shown.borrow_mut() = shown;
            }
            Err(text) => {
                let _ = writeln!(
                    io::stderr(),
                    "TLS: a file has changed, but cannot be used; the last one stays in use: {text}"
                );
            }
        }
        *self.stamps.borrow_mut() = stamps;
    }

    /// What each certificate says, with those of authorities that are sent along, for the operator.
    ///
    /// # Errors
    /// A file cannot be read any more.
    pub fn certificates(&self) -> Result<Vec<ShownCertificate>, String> {
        let read = |name: Option<&str>, files: &CertificateFiles| {
            let chain = files.certificate.certificates("certificate")?;
            let read = chain.iter().filter_map(|der| Certificate::parse(der)).enumerate();
            let shown = read.map(|(index, certificate)| ShownCertificate {
                name: name.map(str::to_owned),
                title: certificate.title(),
                valid: certificate.not_before..certificate.not_after,
                // Those of authorities, which follow, are for no name.
                covers_name: index > 0 || name.is_none_or(|name| certificate.covers(name)),
            });
            Ok(shown.collect::<Vec<_>>())
        };
        let named = self.options.names.iter().flat_map(|(name, certificates)| {
            certificates.iter().map(|files| (Some(name.as_str()), files))
        });
        let all = self.options.certificates.iter().map(|files| (None, files)).chain(named);
        let shown: Result<Vec<_>, String> = all.map(|(name, files)| read(name, files)).collect();
        Ok(shown?.into_iter().flatten().collect())
    }
}

/// The configuration, and what it shows. With what was shown `before`, a response of an authority that cannot be used
/// does not stop the rest.
fn build(options: &ServerOptions, before: Option<&Shown>) -> Result<(ServerConfig, Shown), String> {
    let provider = Arc::new(ring::default_provider());
    let mut shown = Shown::new();
    let mut load = |files: &Vec<CertificateFiles>| {
        let loaded = files.iter().map(|files| certified(files, &provider, before));
        let loaded = loaded.collect::<Result<Vec<_>, _>>()?;
        shown.extend(loaded.iter().cloned());
        Ok::<_, String>(loaded)
    };
    let mut names = HashMap::new();
    for (name, files) in &options.names {
        names.insert(name.to_ascii_lowercase(), load(files)?);
    }
    let resolver = Resolver { default: load(&options.certificates)?, names };
    let versions: &[_] = if options.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let client_ca = options.client_ca.as_ref().map(|source| source.certificates("client_ca"));
    let client_ca = client_ca.transpose()?.unwrap_or_default();
    let tickets = Tickets::new(options.identity(&client_ca))?;
    let builder = match options.client_ca {
        None => builder.with_no_client_auth(),
        Some(_) => {
            let mut roots = RootCertStore::empty();
            for certificate in client_ca {
                roots.add(certificate).map_err(|error| format!("option client_ca: {error}"))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| format!("option client_ca: {error}"))?;
            builder.with_client_cert_verifier(Arc::new(ClientVerifier(verifier)))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols.clone_from(&options.alpn);
    config.ticketer = Arc::new(tickets);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretsShown);
    Ok((config, shown))
}

fn certified(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    before: Option<&Shown>,
) -> Result<Arc<CertifiedKey>, String> {
    let chain = files.certificate.certificates("certificate")?;
    let key = files.key.key("key")?;
    let mut certified = secretly(|| CertifiedKey::from_der(chain, key, provider))
        .map_err(|error| failure::of_own(&error, &files.certificate, &files.key))?;
    if let Some(source) = &files.ocsp {
        let own = certified.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(&[][..]));
        certified.ocsp = match (staple(source, &own), before) {
            (Ok(response), _) => Some(response),
            (Err(text), None) => return Err(text),
            // A response is often renewed after its certificate.
            (Err(text), Some(before)) => {
                let _ = writeln!(
                    io::stderr(),
                    "TLS: {text}; the last one about this certificate is sent on"
                );
                let same = before.iter().find(|shown| shown.cert.first() == Some(&own));
                same.and_then(|shown| shown.ocsp.clone())
            }
        };
    }
    Ok(Arc::new(certified))
}

/// The response of an authority about this certificate.
fn staple(source: &Source, certificate: &[u8]) -> Result<Vec<u8>, String> {
    let response = source.read().map_err(|error| format!("option ocsp: {error}"))?;
    ocsp::check(&response, certificate)
        .map_err(|reason| format!("option ocsp: {} {reason}", source.place()))?;
    Ok(response)
}
