//! TLS for handles.
//!
//! | module | what it is |
//! |---|---|
//! | [`session`] | a connection's records: sealed and opened, without system calls |
//! | [`engine`] | what turns its bytes into records: `rustls`, or records of our own |
//! | [`handshake`], [`unbuffered`] | a server's end as long as the library has it; what the library wants done |
//! | [`record`] | TLS 1.3 after the handshake (pure) |
//! | [`progress`] | what changes with each of its records (pure) |
//! | [`established`], [`vault`] | such a session as a value for other processes, and the key that it travels under |
//! | [`received_records`] | records that were received and not processed |
//! | [`next_piece`] | which bytes become the next records |
//! | [`records`] | records that wait to be sent |
//! | [`peer`] | who the peer is, and what it has shown (pure) |
//! | [`failure`] | what messages say about a failed handshake or session |
//! | [`client`] | what a client asks of its peer, and the configuration that follows |
//! | [`server`], [`resolver`] | what a listener shows its clients: which certificate |
//! | [`tickets`] | the tickets that clients come back with |
//! | [`verifier`], [`client_verifier`] | who a client believes, and who a listener does |
//! | [`roots`] | the authorities that the system trusts |
//! | [`pem`] | certificates and keys in files |
//! | [`x509`], [`ocsp`] | what a certificate says, and what is a response about it (pure) |
//! | [`der`] | how both are encoded (pure) |
//! | [`absent`] | all of that in a module that was built without TLS |

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod client_verifier;
#[cfg(feature = "tls")]
mod der;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod established;
#[cfg(feature = "tls")]
mod failure;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod next_piece;
#[cfg(feature = "tls")]
mod ocsp;
#[cfg(feature = "tls")]
mod peer;
#[cfg(feature = "tls")]
mod pem;
pub mod progress;
#[cfg(feature = "tls")]
mod received_records;
#[cfg(feature = "tls")]
pub mod record;
#[cfg(feature = "tls")]
mod records;
#[cfg(feature = "tls")]
mod resolver;
#[cfg(feature = "tls")]
mod roots;
#[cfg(feature = "tls")]
mod server;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
pub mod tickets;
#[cfg(feature = "tls")]
mod unbuffered;
#[cfg(feature = "tls")]
pub mod vault;
#[cfg(feature = "tls")]
mod verifier;
#[cfg(feature = "tls")]
mod x509;

#[cfg(not(feature = "tls"))]
pub use absent::{
    CertificateFiles, ClientOptions, ServerOptions, ShownCertificate, Source, TlsServer, TlsSession,
};
#[cfg(not(feature = "tls"))]
pub use absent::{tickets, vault};
#[cfg(feature = "tls")]
pub use client::ClientOptions;
#[cfg(feature = "tls")]
pub use pem::Source;
#[cfg(feature = "tls")]
pub use server::{CertificateFiles, ServerOptions, ShownCertificate, TlsServer};
#[cfg(feature = "tls")]
pub use session::TlsSession;
