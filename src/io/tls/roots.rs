//! The authorities that the system trusts. They are read once, when a certificate is to be checked for the
//! first time.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls_native_certs::load_native_certs;

/// The authorities; the variables SSL_CERT_FILE and SSL_CERT_DIR name others.
///
/// # Errors
/// There are none.
pub fn system() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    ROOTS.get_or_init(load).clone()
}

fn load() -> Result<Arc<RootCertStore>, String> {
    let found = load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!(
            "this system has no certificates of trusted authorities{reason}: install the package \
             ca-certificates, or pass a file in option ca"
        ));
    }
    Ok(Arc::new(roots))
}
