//! Whether a response of an authority is one about this certificate (pure). Source: RFC 6960, 4.2.1. What it says, and
//! whether the authority has signed it, is for clients to judge.

use super::der::{ENUMERATED, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element, expect};
use super::x509::Certificate;

/// The longest response: with it the certificates must fit into one message of a handshake, of which clients accept
/// 64 KiB. Authorities need a few hundred bytes.
pub const MOST: usize = 32 << 10;

/// `id-pkix-ocsp-basic`, the only type that there is.
const BASIC: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// The number of a single response's certificate comes after the hash function and the hashes of its issuer.
const BEFORE_SERIAL: usize = 3;

/// Checks what is sent along with the `certificate`.
///
/// # Errors
/// What is wrong with it.
pub fn check(response: &[u8], certificate: &[u8]) -> Result<(), &'static str> {
    if response.len() > MOST {
        return Err("is too long for a response of an authority (OCSP)");
    }
    let (status, bytes) = read_status(response)
        .ok_or("has no response of an authority (OCSP) in DER, e.g. from openssl ocsp -respout")?;
    if status != [0] {
        return Err("has a response in which the authority (OCSP) declines to answer");
    }
    let certificate = Certificate::parse(certificate).ok_or("comes with a damaged certificate")?;
    let is_named = names(bytes, &certificate.serial);
    match is_named.ok_or("has a damaged response of an authority (OCSP)")? {
        true => Ok(()),
        false => Err("has a response of the authority (OCSP) about another certificate"),
    }
}

/// The status, and what follows it.
fn read_status(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let (fields, rest) = expect(response, SEQUENCE)?;
    rest.is_empty().then_some(())?;
    expect(fields, ENUMERATED)
}

/// Whether one of the single responses is about the certificate with this number.
fn names(bytes: &[u8], serial: &[u8]) -> Option<bool> {
    let (typed, _) = expect(expect(bytes, 0xa0)?.0, SEQUENCE)?;
    let (kind, typed) = expect(typed, OBJECT_IDENTIFIER)?;
    (kind == BASIC).then_some(())?;
    let (basic, _) = expect(expect(typed, OCTET_STRING)?.0, SEQUENCE)?;
    let (mut data, signature) = expect(basic, SEQUENCE)?;
    // The algorithm of the signature, and the signature.
    element(element(signature)?.2)?;
    if data.first() == Some(&0xa0) {
        // The version.
        data = element(data)?.2;
    }
    // Who has answered, and when.
    for _ in 0..2 {
        data = element(data)?.2;
    }
    let (mut responses, _) = expect(data, SEQUENCE)?;
    let mut is_named = false;
    while !responses.is_empty() {
        let (single, rest) = expect(responses, SEQUENCE)?;
        responses = rest;
        let (mut id, _) = expect(single, SEQUENCE)?;
        for _ in 0..BEFORE_SERIAL {
            id = element(id)?.2;
        }
        is_named |= element(id)?.1 == serial;
    }
    Some(is_named)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len() as u16;
        [&[tag, 0x82][..], &length.to_be_bytes(), content].concat()
    }

    fn certificate() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("record/certificate.pem")).unwrap()
    }

    /// What an authority says about the certificate with this number.
    fn response(serial: &[u8]) -> Vec<u8> {
        let nothing = tagged(SEQUENCE, &[]);
        let hash = tagged(OCTET_STRING, &[7; 20]);
        let serial = tagged(super::super::der::INTEGER, serial);
        let id = tagged(SEQUENCE, &[&nothing[..], &hash, &hash, &serial].concat());
        let single = tagged(SEQUENCE, &[&id[..], &[0x80, 0]].concat());
        let (who, time) = (tagged(0xa2, &hash), tagged(0x18, b"20260101000000Z"));
        let data = tagged(SEQUENCE, &[&who[..], &time, &tagged(SEQUENCE, &single)].concat());
        let basic = tagged(SEQUENCE, &[&data[..], &nothing, &tagged(3, &[0; 65])].concat());
        let kind = tagged(OBJECT_IDENTIFIER, &BASIC);
        let typed = tagged(SEQUENCE, &[&kind[..], &tagged(OCTET_STRING, &basic)].concat());
        tagged(SEQUENCE, &[&[ENUMERATED, 1, 0][..], &tagged(0xa0, &typed)].concat())
    }

    #[test]
    fn a_response_about_the_certificate_is_good() {
        let certificate = certificate();
        let serial = Certificate::parse(&certificate).unwrap().serial;
        let good = response(&serial);
        assert_eq!(check(&good, &certificate), Ok(()));
        for length in 0..good.len() {
            assert!(check(&good[..length], &certificate).is_err(), "{length}");
        }
        assert!(check(&[&good[..], b"x"].concat(), &certificate).is_err());
    }

    #[test]
    fn others_are_told_apart() {
        let certificate = certificate();
        let mut long = response(&[1]);
        long.resize(MOST + 1, 0);
        for (bytes, expected) in [
            (response(&[1]), "about another certificate"),
            (tagged(SEQUENCE, &[ENUMERATED, 1, 6]), "declines to answer"),
            (tagged(SEQUENCE, &[ENUMERATED, 1, 0]), "damaged"),
            (certificate.to_vec(), "in DER"),
            (b"-----BEGIN OCSP RESPONSE-----".to_vec(), "in DER"),
            (long, "too long"),
        ] {
            let reason = check(&bytes, &certificate).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
