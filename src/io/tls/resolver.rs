//! Which certificate a listener shows: by the name that the client asks for, and the signatures that it knows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    /// The name that the last client has asked for. The library tells it nobody but the resolver.
    static ASKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The name that the client has asked for whose hello was just processed.
pub fn take_asked_name() -> Option<String> {
    ASKED.take()
}

/// The certificates, by the names that clients ask for.
#[derive(Debug)]
pub struct Resolver {
    /// For clients that ask for no name, or for one that is not known.
    pub default: Vec<Arc<CertifiedKey>>,
    /// By name, in lower case; `*.` stands for one label.
    pub names: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        ASKED.set(asked.clone());
        let named = asked.and_then(|name| {
            let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
            self.names.get(&name).or_else(|| self.names.get(&wildcard()?))
        });
        // The first one that suits the client: those with ECDSA come first where both are given in this order.
        let suits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let keys = named.unwrap_or(&self.default);
        keys.iter().find(suits).or_else(|| keys.first()).cloned()
    }
}
