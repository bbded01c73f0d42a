//! Which servers a client believes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::x509::Certificate;
use crate::sys::os::error_text::CodedError;

/// Checks the certificate of a server.
#[derive(Debug)]
pub struct Verifier {
    /// Checks the chain and the name; `None` if that is not wanted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are believed by themselves, not only as those of authorities.
    trusted: Vec<CertificateDer<'static>>,
    /// SHA-256 of the only certificates that are accepted; empty: any.
    fingerprints: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// One that believes what leads to one of the `roots`, or is one of the `trusted` certificates;
    /// without roots everything.
    ///
    /// # Errors
    /// There are roots, but none is usable.
    pub fn new(
        roots: Option<Arc<RootCertStore>>,
        trusted: Vec<CertificateDer<'static>>,
        fingerprints: Vec<[u8; 32]>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let chain = roots.map(|roots| {
            WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| format!("option ca: {error}"))
        });
        Ok(Verifier { chain: chain.transpose()?, trusted, fingerprints, provider })
    }

    fn check_fingerprint(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.fingerprints.is_empty() {
            return Ok(());
        }
        let found: [u8; 32] = Sha256::digest(certificate).into();
        if self.fingerprints.contains(&found) {
            return Ok(());
        }
        let text = format!(
            "the certificate of the server has the fingerprint {}, which option fingerprints does not name",
            hexadecimal(&found)
        );
        Err(refusal("wrong_fingerprint", text))
    }

    /// A certificate that is itself in option `ca`: checks its name and time. The usual check refuses
    /// it if it says that it may sign others, as those that OpenSSL makes by default.
    fn check_trusted(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let read = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
        let seconds = |time: i64| {
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(time.max(0) as u64))
        };
        let (not_before, not_after) = (seconds(read.not_before), seconds(read.not_after));
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        Ok(())
    }
}

/// As usual in texts: pairs of digits and colons.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn refusal(code: &'static str, text: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(CodedError { code, text }))).into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_fingerprint(certificate)?;
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let is_trusted = self.trusted.iter().any(|trusted| trusted == certificate);
        match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if is_trusted => {
                self.check_trusted(certificate, name, now)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
