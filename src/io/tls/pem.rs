//! Certificates and keys from files, or from texts in their place.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::sys::os::error_text;
use crate::sys::os::secret_heap::secretly;

/// Where a certificate or key is found.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(String),
    /// The text itself.
    Text(String),
}

impl std::fmt::Debug for Source {
    // A key is not for the log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place())
    }
}

/// The state of a file, to notice that it has changed; `None` for a text.
pub type Stamp = Option<(SystemTime, u64)>;

impl Source {
    /// What an option says: the text if it looks like one, else the path of a file.
    pub fn of(option: &str) -> Source {
        match option.contains("-----BEGIN ") {
            true => Source::Text(option.to_owned()),
            false => Source::File(option.to_owned()),
        }
    }

    /// How the file is now.
    pub fn stamp(&self) -> Stamp {
        let Source::File(path) = self else { return None };
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// For messages: where something is missing or wrong.
    pub fn place(&self) -> String {
        match self {
            Source::File(path) => format!("file \"{path}\""),
            Source::Text(_) => "the given text".to_owned(),
        }
    }

    /// What the option says: a path, or the text.
    pub fn text(&self) -> &[u8] {
        match self {
            Source::File(text) | Source::Text(text) => text.as_bytes(),
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Source::Text(text) => Ok(text.clone().into_bytes()),
            Source::File(path) => fs::read(Path::new(path)).map_err(|error| {
                format!("cannot read {}: {}", self.place(), error_text::reason(&error))
            }),
        }
    }

    /// All certificates, at least one.
    ///
    /// # Errors
    /// What is wrong, for `option`.
    pub fn certificates(&self, option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = self.read().map_err(|error| format!("option {option}: {error}"))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(format!(
                "option {option}: {} has no certificate; it must be in PEM, between \"-----BEGIN \
                 CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"",
                self.place()
            )),
            Err(_) => Err(format!("option {option}: {} is no valid PEM", self.place())),
        }
    }

    /// The private key.
    ///
    /// # Errors
    /// What is wrong, for `option`.
    pub fn key(&self, option: &str) -> Result<PrivateKeyDer<'static>, String> {
        let text = secretly(|| self.read()).map_err(|error| format!("option {option}: {error}"))?;
        secretly(|| PrivateKeyDer::from_pem_slice(&text)).map_err(|_| {
            let is_encrypted = memchr::memmem::find(&text, b"ENCRYPTED").is_some();
            let reason = match is_encrypted {
                true => "has a key with a passphrase; remove it, e.g. with openssl pkey",
                false => "has no private key; it must be in PEM (PKCS #8, or of RSA or EC)",
            };
            format!("option {option}: {} {reason}", self.place())
        })
    }
}
