//! What messages say about a handshake or session that has failed: what is wrong, and what to do about it.
//! The codes are for programs (reference, "TLS").

use std::net::IpAddr;
use std::time::SystemTime;

use httpdate::fmt_http_date;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::peer::TlsPeer;
use super::pem::Source;
use crate::sys::os::error_text::CodedError;

/// The failure of a session with this peer.
pub fn describe(error: &Error, peer: &TlsPeer) -> CodedError {
    match error {
        Error::InvalidCertificate(error) => certificate(error, peer),
        Error::NoCertificatesPresented => {
            coded("no_certificate", format!("{peer} has shown no certificate"))
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => coded(
            "no_tls",
            format!(
                "{peer} does not speak TLS: check the port, or whether STARTTLS has to come first"
            ),
        ),
        Error::AlertReceived(alert) => alert_received(*alert, peer),
        Error::PeerIncompatible(reason) => incompatible(reason, peer),
        Error::NoApplicationProtocol => no_protocol(peer),
        Error::DecryptError => coded(
            "corrupt",
            format!("TLS data from {peer} is corrupt: it was changed on the way, or the peer is faulty"),
        ),
        Error::InvalidMessage(reason) => broken(&format!("{reason:?}"), peer),
        Error::PeerMisbehaved(reason) => broken(&format!("{reason:?}"), peer),
        Error::InappropriateMessage { got_type, .. } => {
            broken(&format!("Unexpected{got_type:?}"), peer)
        }
        Error::InappropriateHandshakeMessage { got_type, .. } => {
            broken(&format!("Unexpected{got_type:?}"), peer)
        }
        Error::InconsistentKeys(_) => coded(
            "wrong_key",
            "the key does not belong to the certificate: pass the one that the certificate was made for"
                .to_owned(),
        ),
        Error::Other(other) => match other.0.downcast_ref::<CodedError>() {
            Some(coded) => coded.clone(),
            None => protocol(error, peer),
        },
        error => protocol(error, peer),
    }
}

fn coded(code: &'static str, text: String) -> CodedError {
    CodedError { code, text }
}

fn protocol(error: &Error, peer: &TlsPeer) -> CodedError {
    coded("protocol", format!("{peer} has broken the TLS protocol: {error}"))
}

/// How the peer has broken the protocol, by the library's name for that.
fn broken(name: &str, peer: &TlsPeer) -> CodedError {
    coded("protocol", format!("{peer} has broken the TLS protocol: {}", words(name)))
}

/// Why a certificate of this side, or its key, is of no use.
pub fn of_own(error: &Error, certificate: &Source, key: &Source) -> String {
    match error {
        Error::General(_) => format!(
            "option key: {} has a key of a kind that is not supported: use ECDSA with P-256 or P-384, RSA with 2048 \
             to 4096 bits, or Ed25519",
            key.place()
        ),
        error => {
            format!("{}: {}", certificate.place(), describe(error, &TlsPeer::default()).text)
        }
    }
}

fn certificate(error: &CertificateError, peer: &TlsPeer) -> CodedError {
    let date = |time: &UnixTime| {
        let since = std::time::Duration::from_secs(time.as_secs());
        SystemTime::UNIX_EPOCH.checked_add(since).map_or_else(String::new, fmt_http_date)
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => coded(
            "expired",
            format!(
                "the certificate of {peer} has expired on {}: its owner has to renew it",
                date(not_after)
            ),
        ),
        CertificateError::Expired => coded(
            "expired",
            format!("the certificate of {peer} has expired: its owner has to renew it"),
        ),
        CertificateError::NotValidYetContext { not_before, .. } => coded(
            "not_yet_valid",
            format!(
                "the certificate of {peer} is not valid before {}: check this machine's clock",
                date(not_before)
            ),
        ),
        CertificateError::UnknownIssuer => coded(
            "unknown_authority",
            format!(
                "the certificate of {peer} was not issued by a trusted authority: if it is a private one, \
                 pass its certificate in option {}; or {peer} does not send the intermediate certificates",
                option(peer)
            ),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => coded(
            "wrong_name",
            format!(
                "the certificate of {peer} is not valid for {}, only for {}: check the host, or pass the name \
                 in option server_name",
                expected.to_str(),
                names(presented)
            ),
        ),
        CertificateError::Revoked => {
            coded("revoked", format!("the certificate of {peer} was revoked: do not trust it"))
        }
        CertificateError::BadSignature => coded(
            "bad_signature",
            format!("the certificate of {peer} has a wrong signature: it is forged or damaged"),
        ),
        CertificateError::BadEncoding => {
            coded("bad_certificate", format!("the certificate of {peer} is damaged"))
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => coded(
            "weak_certificate",
            format!(
                "the certificate of {peer} uses a key or signature that is too weak or not supported: its \
                 owner needs another one, with ECDSA P-256 or with RSA of 2048 bits and SHA-256"
            ),
        ),
        CertificateError::InvalidPurposeContext { .. } => coded(
            "wrong_purpose",
            format!(
                "the certificate of {peer} is not meant for this end of a connection: its owner needs one with the \
                 extended key usage {}",
                if peer.is_client() { "clientAuth" } else { "serverAuth" }
            ),
        ),
        CertificateError::Other(other) => match other.0.downcast_ref::<CodedError>() {
            Some(coded) => coded.clone(),
            None => refused(&other.0.to_string(), peer),
        },
        other => refused(&format!("{other:?}"), peer),
    }
}

/// The certificate is refused, for a reason by the library's name.
fn refused(reason: &str, peer: &TlsPeer) -> CodedError {
    match (reason, peer.is_client()) {
        // That of an authority, as OpenSSL makes them by default, is believed only if it is itself trusted.
        ("CaUsedAsEndEntity", false) => coded(
            "unknown_authority",
            format!(
                "the certificate of {peer} is one of an authority (CA:TRUE), mostly signed by itself: to trust it, pass \
                 it in option ca"
            ),
        ),
        ("CaUsedAsEndEntity", true) => coded(
            "bad_certificate",
            format!(
                "the certificate of {peer} is one of an authority (CA:TRUE): the client needs one of its own, signed \
                 by one in option client_ca"
            ),
        ),
        _ => coded(
            "bad_certificate",
            format!("the certificate of {peer} is refused: {}", words(reason)),
        ),
    }
}

/// The option that names who may have signed the certificates of this peer.
fn option(peer: &TlsPeer) -> &'static str {
    if peer.is_client() { "client_ca" } else { "ca" }
}

/// The names in a certificate, a few of them.
fn names(presented: &[String]) -> String {
    let name = |name: &String| {
        // As `DnsName("a.example")`, or an address.
        let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
        let inner = inner.unwrap_or(name).trim_matches('"');
        // Addresses in their usual form.
        inner.parse().map_or_else(|_| inner.to_owned(), |address: IpAddr| address.to_string())
    };
    let mut names: Vec<String> = presented.iter().take(4).map(name).collect();
    match presented.len() {
        0 => return "no name at all".to_owned(),
        1..=4 => {}
        more => names.push(format!("{} more", more - 4)),
    }
    names.join(", ")
}

/// The peer has refused the connection.
fn alert_received(alert: AlertDescription, peer: &TlsPeer) -> CodedError {
    let hint = match alert {
        AlertDescription::CloseNotify => return end(true, peer),
        AlertDescription::ProtocolVersion => return no_version(peer),
        AlertDescription::NoApplicationProtocol => return no_protocol(peer),
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it asks for a certificate: pass options certificate and key"
        }
        AlertDescription::UnknownCA => {
            "it does not trust the authority that has signed the certificate of this side, or the intermediate \
             certificates are missing there"
        }
        AlertDescription::CertificateExpired => {
            "the certificate of this side has expired, or one of the two clocks is wrong"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "it does not accept the certificate of this side",
        AlertDescription::HandshakeFailure if peer.is_client() => {
            "there is no cipher or key that both sides support"
        }
        AlertDescription::HandshakeFailure => {
            "there is no cipher or key that both sides support, or it asks for a certificate (options \
             certificate and key)"
        }
        AlertDescription::InsufficientSecurity => "it asks for stronger ciphers or keys",
        AlertDescription::UnrecognisedName => "it does not know the name it was asked for",
        _ => "see there for the reason",
    };
    let name = spaced(&format!("{alert:?}"));
    coded("alert", format!("{peer} has ended TLS with the alert \"{name}\": {hint}"))
}

/// No version of TLS is common.
fn no_version(peer: &TlsPeer) -> CodedError {
    let text = match (peer.only_tls13, peer.is_client()) {
        (true, false) => format!(
            "{peer} does not support TLS 1.3, which option min_version asks for: leave that option out, or have \
             the server support 1.3"
        ),
        (true, true) => {
            format!(
                "{peer} does not support TLS 1.3, which option min_version of the listener asks for"
            )
        }
        (false, _) => {
            format!("{peer} supports neither TLS 1.3 nor 1.2: it is too old for this side")
        }
    };
    coded("incompatible", text)
}

/// No protocol over TLS is common (RFC 7301, 3.2).
fn no_protocol(peer: &TlsPeer) -> CodedError {
    coded(
        "alpn",
        format!(
            "{peer} and this side have no protocol in common: it supports none of those in option alpn"
        ),
    )
}

fn incompatible(reason: &PeerIncompatible, peer: &TlsPeer) -> CodedError {
    let lack = match reason {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => return no_version(peer),
        PeerIncompatible::NoCipherSuitesInCommon => {
            "no cipher that goes with the key of the certificate is common".to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon => {
            "no way to exchange keys is common; this side has X25519, P-256 and P-384".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the peer does not know signatures of the certificate's kind of key".to_owned()
        }
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "it names no signatures that it knows; clients of TLS 1.1 and older do not".to_owned()
        }
        other => spaced(&format!("{other:?}")),
    };
    coded("incompatible", format!("{peer} and this side have too little in common for TLS: {lack}"))
}

/// `HandshakeFailure` as `handshake failure`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    let mut last_is_upper = true;
    for character in name.chars() {
        if character.is_ascii_uppercase() && !last_is_upper {
            text.push(' ');
        }
        last_is_upper = character.is_ascii_uppercase();
        text.push(character.to_ascii_lowercase());
    }
    text
}

/// A name of the library as words, without what is in it.
fn words(name: &str) -> String {
    spaced(name.split(|it: char| !it.is_ascii_alphanumeric()).next().unwrap_or_default())
}

/// The descriptor ended before TLS did.
pub fn end(handshaking: bool, peer: &TlsPeer) -> CodedError {
    match handshaking {
        true => coded(
            "handshake_ended",
            format!("{peer} has closed the connection during the TLS handshake"),
        ),
        false => coded(
            "truncated",
            format!(
                "{peer} has closed the connection without the end of TLS: something may be missing"
            ),
        ),
    }
}

/// The peer sends messages without end.
pub fn oversized(peer: &TlsPeer) -> CodedError {
    coded("protocol", format!("{peer} sends a TLS message that is too long"))
}

/// Nothing can be sealed.
pub fn unsealed(peer: &TlsPeer) -> CodedError {
    coded("protocol", format!("TLS with {peer} is over: nothing can be sent any more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_alerts_are_words() {
        for (name, words) in [
            ("HandshakeFailure", "handshake failure"),
            ("UnknownCA", "unknown ca"),
            ("NoKxGroupsInCommon", "no kx groups in common"),
        ] {
            assert_eq!(spaced(name), words);
        }
    }

    #[test]
    fn messages_name_a_few_of_the_names() {
        let presented =
            |count| (0..count).map(|n| format!("DnsName(\"{n}.example\")")).collect::<Vec<_>>();
        assert_eq!(names(&presented(0)), "no name at all");
        assert_eq!(names(&presented(2)), "0.example, 1.example");
        assert!(names(&presented(9)).ends_with("3.example, 5 more"));
        assert_eq!(names(&["IpAddress(0::1)".to_owned()]), "::1");
    }
}
