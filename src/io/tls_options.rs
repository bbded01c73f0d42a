//! What Lua says about TLS: the options of a client, and what `socket.tls` tells of a session.

use std::net::Ipv4Addr;

use mlua::{Lua, Table, Value};

use super::tls::{CertificateFiles, ClientOptions, ServerOptions, Source, TlsSession};
use crate::binding::{self, Fault, Reply, bytes};
use crate::known_options;

/// The options of a client.
const CLIENT: [&str; 8] =
    ["alpn", "ca", "certificate", "fingerprints", "insecure", "key", "min_version", "server_name"];

/// What a client asks of a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientRequest {
    /// Whom to believe, and how.
    pub options: ClientOptions,
    /// Whose certificate the server must have, if not that of the host that was connected to.
    pub server_name: Option<String>,
}

impl ClientRequest {
    /// The same for another server, without what is meant for this one only.
    #[must_use]
    pub fn elsewhere(&self) -> ClientRequest {
        ClientRequest { options: self.options.elsewhere(), server_name: None }
    }
}

/// Reads a table of options for `what`; `more` are further options, which are not read here.
///
/// # Errors
/// Misuse: an option that is not known, or of a wrong type.
pub fn client(table: &Table, what: &str, more: &[&str]) -> Reply<ClientRequest> {
    known_options::check(table, what, &[&CLIENT, more].concat(), 0)?;
    let reader = Reader { table, what };
    let mut options = ClientOptions::default();
    if let Some(ca) = reader.string("ca")? {
        options.set_ca(&ca);
    }
    match (reader.string("certificate")?, reader.string("key")?) {
        (Some(certificate), Some(key)) => options.set_identity(&certificate, &key),
        (None, None) => {}
        (Some(_), None) => return Err(reader.wrong("certificate", "to come with option 'key'")),
        (None, Some(_)) => return Err(reader.wrong("key", "to come with option 'certificate'")),
    }
    match reader.get("insecure")? {
        Value::Nil => {}
        Value::Boolean(insecure) => options.set_insecure(insecure),
        _ => return Err(reader.wrong("insecure", "to be a boolean")),
    }
    options.set_only_tls13(reader.only_tls13()?);
    options.set_alpn(reader.protocols()?);
    options.set_fingerprints(reader.fingerprints()?);
    Ok(ClientRequest { options, server_name: reader.string("server_name")? })
}

/// Reads what a listener says about TLS.
///
/// # Errors
/// Misuse: an option is missing or of a wrong type.
pub fn server(table: &Table, what: &str) -> Reply<ServerOptions> {
    let reader = Reader { table, what };
    let certificates = reader.certificates()?;
    if certificates.is_empty() {
        return Err(reader.wrong("certificate", "to name a file, or a list of files"));
    }
    let mut names = Vec::new();
    match reader.get("names")? {
        Value::Nil => {}
        Value::Table(given) => {
            for pair in given.pairs::<Value, Value>() {
                let (Value::String(name), Value::Table(table)) = pair? else {
                    return Err(reader.wrong("names", "to be a table: names to tables"));
                };
                let name = name.to_string_lossy();
                if !is_host_pattern(&name) {
                    let expected =
                        "to have names of hosts, such as \"b.example\" or \"*.b.example\"";
                    return Err(reader.wrong("names", &format!("{expected}, not \"{name}\"")));
                }
                let what = format!("name \"{name}\" of {what}");
                known_options::check(&table, &what, &["certificate", "key", "ocsp"], 0)?;
                let inner = Reader { table: &table, what: &what };
                let certificates = inner.certificates()?;
                if certificates.is_empty() {
                    return Err(inner.wrong("certificate", "to name a file, or a list of files"));
                }
                names.push((name, certificates));
            }
        }
        _ => return Err(reader.wrong("names", "to be a table: names to tables")),
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(ServerOptions {
        certificates,
        names,
        client_ca: reader.string("client_ca")?.map(|text| Source::of(&text)),
        alpn: reader.protocols()?,
        only_tls13: reader.only_tls13()?,
    })
}

/// Whether a client can ask for a host that matches: it asks for no IP address (RFC 6066, 3), and for the ASCII form of
/// an internationalised name. `*` stands for the first label.
fn is_host_pattern(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_part)
    };
    host.len() <= 253 && host.split('.').all(is_label) && host.parse::<Ipv4Addr>().is_err()
}

/// A table of options.
struct Reader<'a> {
    table: &'a Table,
    what: &'a str,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Reply<Value> {
        Ok(self.table.raw_get(name)?)
    }

    fn wrong(&self, name: &str, expected: &str) -> Fault {
        Fault::misuse(format!("Option '{name}' of {} is expected {expected}", self.what))
    }

    fn string(&self, name: &str) -> Reply<Option<String>> {
        match self.get(name)? {
            Value::Nil => Ok(None),
            Value::String(text) => Ok(Some(text.to_string_lossy())),
            _ => Err(self.wrong(name, "to be a string")),
        }
    }

    /// A string, or a list of strings; an empty list is none of them, so that nothing goes unchecked by mistake.
    fn strings(&self, name: &str) -> Reply<Vec<Vec<u8>>> {
        match self.get(name)? {
            Value::Nil => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text.as_bytes().to_vec()]),
            Value::Table(list) if list.raw_len() > 0 => {
                let wrong = || self.wrong(name, "to be a string or a list of strings");
                let texts = binding::list(&list)?.ok_or_else(wrong)?;
                let texts = texts.iter().map(|text| match text {
                    Value::String(text) => Ok(text.as_bytes().to_vec()),
                    _ => Err(wrong()),
                });
                texts.collect()
            }
            Value::Table(_) => Err(self.wrong(name, "to be a list that is not empty")),
            _ => Err(self.wrong(name, "to be a string or a list of strings")),
        }
    }

    /// Certificates with their keys: two lists, or one of each.
    fn certificates(&self) -> Reply<Vec<CertificateFiles>> {
        let sources = |name| {
            let texts = self.strings(name)?;
            Ok::<_, Fault>(
                texts.iter().map(|text| Source::of(&String::from_utf8_lossy(text))).collect(),
            )
        };
        let (certificates, keys): (Vec<Source>, Vec<Source>) =
            (sources("certificate")?, sources("key")?);
        let ocsp = self.ocsp()?;
        if keys.len() != certificates.len() {
            return Err(self.wrong("key", "to name as many files as option 'certificate'"));
        }
        if !ocsp.is_empty() && ocsp.len() != certificates.len() {
            return Err(self.wrong("ocsp", "to name as many files as option 'certificate'"));
        }
        let mut ocsp = ocsp.into_iter();
        let pairs = certificates.into_iter().zip(keys);
        Ok(pairs
            .map(|(certificate, key)| CertificateFiles {
                certificate,
                key,
                ocsp: ocsp.next().flatten(),
            })
            .collect())
    }

    /// Option `ocsp`: a file, or a list with a file or `false` for each certificate.
    fn ocsp(&self) -> Reply<Vec<Option<Source>>> {
        let expected = "to be a string, or a list of strings and false";
        let source = |text: &mlua::LuaString| Source::of(&text.to_string_lossy());
        match self.get("ocsp")? {
            Value::Nil => Ok(Vec::new()),
            Value::String(text) => Ok(vec![Some(source(&text))]),
            Value::Table(list) if list.raw_len() > 0 => {
                let wrong = || self.wrong("ocsp", expected);
                let files = binding::list(&list)?.ok_or_else(wrong)?;
                let files = files.iter().map(|file| match file {
                    Value::String(text) => Ok(Some(source(text))),
                    Value::Boolean(false) => Ok(None),
                    _ => Err(wrong()),
                });
                files.collect()
            }
            _ => Err(self.wrong("ocsp", expected)),
        }
    }

    /// Option `min_version`: whether that is 1.3.
    fn only_tls13(&self) -> Reply<bool> {
        match self.string("min_version")?.as_deref() {
            None | Some("1.2") => Ok(false),
            Some("1.3") => Ok(true),
            Some(_) => Err(self.wrong("min_version", "to be \"1.2\" or \"1.3\"")),
        }
    }

    fn protocols(&self) -> Reply<Vec<Vec<u8>>> {
        let protocols = self.strings("alpn")?;
        match protocols.iter().all(|name| (1..256).contains(&name.len())) {
            true => Ok(protocols),
            false => Err(self.wrong("alpn", "to name protocols with 1 to 255 bytes each")),
        }
    }

    fn fingerprints(&self) -> Reply<Vec<[u8; 32]>> {
        let expected = "to be SHA-256 in hexadecimal digits, or a list of such";
        let texts = self.strings("fingerprints")?;
        texts
            .iter()
            .map(|text| digest(text).ok_or_else(|| self.wrong("fingerprints", expected)))
            .collect()
    }
}

/// 64 hexadecimal digits, perhaps with colons between them.
fn digest(text: &[u8]) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .iter()
        .filter(|byte| **byte != b':')
        .map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8))
        .collect();
    let bytes: Vec<u8> = digits?.as_chunks::<2>().0.iter().map(|[a, b]| a << 4 | b).collect();
    (text.iter().filter(|byte| **byte != b':').count() == 64).then_some(())?;
    bytes.try_into().ok()
}

/// The value of `socket.tls` once the handshake is over.
///
/// # Errors
/// Out of memory.
pub fn describe(lua: &Lua, session: &TlsSession) -> Reply<Value> {
    if !session.is_established() {
        return Ok(Value::Nil);
    }
    let table = lua.create_table()?;
    table.raw_set("version", session.version())?;
    table.raw_set("cipher", session.cipher())?;
    if let Some(protocol) = session.alpn() {
        table.raw_set("alpn", bytes(lua, protocol)?)?;
    }
    table.raw_set("server_name", session.server_name())?;
    table.raw_set("resumed", session.is_resumed())?;
    if let Some(certificate) = session.peer_certificate() {
        let peer = lua.create_table()?;
        peer.raw_set("der", bytes(lua, certificate.der)?)?;
        peer.raw_set("subject", certificate.subject)?;
        peer.raw_set("fingerprint", certificate.fingerprint)?;
        table.raw_set("peer_certificate", peer)?;
    }
    Ok(Value::Table(table))
}

/// The options that a value is, if it is a table or nil.
///
/// # Errors
/// Misuse: it is something else.
pub fn table(value: Value, what: &str) -> Reply<Option<Table>> {
    match value {
        Value::Nil => Ok(None),
        Value::Table(table) => Ok(Some(table)),
        other => {
            let got = binding::kind(&other);
            Err(Fault::misuse(format!("Options of {what} are expected to be a table, got {got}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_clients_can_ask_for() {
        for name in
            ["b.example", "*.b.example", "a", "localhost", "xn--bcher-kva.example", "_a.b-c.d"]
        {
            assert!(is_host_pattern(name), "{name}");
        }
        for name in [
            "",
            "*",
            "*.",
            "a.*.b",
            "b*.example",
            "a..b",
            "a.",
            "127.0.0.1",
            "::1",
            "b\u{fc}cher.example",
        ] {
            assert!(!is_host_pattern(name), "{name}");
        }
    }

    #[test]
    fn fingerprints_are_32_bytes_with_or_without_colons() {
        let plain = "00".repeat(31) + "fF";
        let mut expected = [0; 32];
        expected[31] = 0xff;
        assert_eq!(digest(plain.as_bytes()), Some(expected));
        let colons = "00:".repeat(31) + "Ff";
        assert_eq!(digest(colons.as_bytes()), Some(expected));
        for wrong in ["", "00", &plain[1..], &(plain.clone() + "0"), &plain.replace('f', "g")] {
            assert_eq!(digest(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
