//! The request and the response that begin a connection (RFC 6455 4).

use sha1::{Digest, Sha1};

use super::extension::{self, Compression};
use crate::http::wire::base64::base64;
use crate::http::wire::list;

/// The version of the protocol (RFC 6455 4.1).
pub const VERSION: &str = "13";

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of Sec-WebSocket-Accept for a key (RFC 6455 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    base64(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The value of Sec-WebSocket-Key for random bytes (RFC 6455 4.1).
pub fn key(random: [u8; 16]) -> String {
    base64(&random)
}

/// Whether a text is a token (RFC 9110 5.6.2), as names of subprotocols are.
pub fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

/// What a request says of its upgrade. Fields that are lists are joined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upgrade<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Whether its version is HTTP/1.1 or later.
    pub is_current: bool,
    /// Whether it has a body.
    pub has_body: bool,
    /// Upgrade.
    pub upgrade: &'a [u8],
    /// Connection.
    pub connection: &'a [u8],
    /// Sec-WebSocket-Version; empty if there is none.
    pub version: &'a [u8],
    /// Sec-WebSocket-Key; empty if there is none, or several.
    pub key: &'a [u8],
    /// Sec-WebSocket-Protocol.
    pub protocols: &'a [u8],
    /// Sec-WebSocket-Extensions.
    pub extensions: &'a [u8],
    /// Origin.
    pub origin: Option<&'a [u8]>,
    /// The host that the request was sent to.
    pub host: &'a [u8],
}

/// Which pages of which origins may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Those of the same host.
    #[default]
    SameHost,
    /// All.
    Any,
    /// These.
    Listed(Vec<Vec<u8>>),
}

/// What a server agrees to.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The subprotocols that it knows, those that it prefers first.
    pub protocols: Vec<Vec<u8>>,
    /// Who may connect.
    pub origins: Origins,
    /// Whether messages may be compressed.
    pub compresses: bool,
}

/// An accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// The subprotocol, if one is agreed on.
    pub protocol: Option<Vec<u8>>,
    /// The value of Sec-WebSocket-Extensions, and what it means.
    pub compression: Option<(String, Compression)>,
}

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRefusal {
    /// The status.
    pub status: &'static str,
    /// What is wrong.
    pub reason: &'static str,
}

const fn refusal(status: &'static str, reason: &'static str) -> UpgradeRefusal {
    UpgradeRefusal { status, reason }
}

const NO_UPGRADE: UpgradeRefusal = refusal(
    "426 Upgrade Required",
    "This resource is a WebSocket: the request has to upgrade to it.",
);
const OTHER_VERSION: UpgradeRefusal =
    refusal("426 Upgrade Required", "This server speaks version 13 of the WebSocket protocol.");
const METHOD: UpgradeRefusal = refusal("400 Bad Request", "WebSocket requests are GET requests.");
const BODY: UpgradeRefusal = refusal("400 Bad Request", "WebSocket requests have no body.");
const HTTP_VERSION: UpgradeRefusal =
    refusal("400 Bad Request", "WebSocket requests need HTTP/1.1.");
const KEY: UpgradeRefusal =
    refusal("400 Bad Request", "Sec-WebSocket-Key is missing, or not 16 bytes in base64.");
const ORIGIN: UpgradeRefusal =
    refusal("403 Forbidden", "Pages of this origin must not connect to this WebSocket.");

/// Accepts or refuses a request (RFC 6455 4.2.1).
///
/// # Errors
/// The refusal.
pub fn judge(request: &Upgrade<'_>, terms: &Terms) -> Result<Acceptance, UpgradeRefusal> {
    let has = |field, token: &[u8]| list::elements(field).any(|it| it.eq_ignore_ascii_case(token));
    if !has(request.upgrade, b"websocket") || !has(request.connection, b"upgrade") {
        return Err(NO_UPGRADE);
    }
    if request.method != b"GET" {
        return Err(METHOD);
    }
    if request.has_body {
        return Err(BODY);
    }
    if !request.is_current {
        return Err(HTTP_VERSION);
    }
    if request.version != VERSION.as_bytes() {
        return Err(OTHER_VERSION);
    }
    if !is_key(request.key) {
        return Err(KEY);
    }
    if request.origin.is_some_and(|origin| !allows(&terms.origins, origin, request.host)) {
        return Err(ORIGIN);
    }
    let offered =
        |ours: &&Vec<u8>| list::elements(request.protocols).any(|it| it == ours.as_slice());
    Ok(Acceptance {
        accept: accept_key(request.key),
        protocol: terms.protocols.iter().find(offered).cloned(),
        compression: match terms.compresses {
            true => extension::accept(std::iter::once(request.extensions)),
            false => None,
        },
    })
}

/// Whether a text is base64 of 16 bytes: 22 digits, of which the last stands for two bits, and `==`.
fn is_key(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let Some(digits) = text.strip_suffix(b"==") else { return false };
    digits.len() == 22 && digits.iter().all(is_digit)
}

/// Whether pages of the origin may connect (RFC 6455 10.2, RFC 6454 7).
fn allows(origins: &Origins, origin: &[u8], host: &[u8]) -> bool {
    match origins {
        Origins::Any => true,
        Origins::Listed(listed) => listed.iter().any(|it| it.eq_ignore_ascii_case(origin)),
        Origins::SameHost => {
            let parts = [(&b"http://"[..], &b":80"[..]), (b"https://", b":443")];
            parts.into_iter().any(|(scheme, port)| {
                let Some((begin, authority)) = origin.split_at_checked(scheme.len()) else {
                    return false;
                };
                let plain =
                    |text: &'_ [u8]| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
                begin.eq_ignore_ascii_case(scheme) && plain(authority) == plain(host)
            })
        }
    }
}

/// What a client has agreed on with a server: the subprotocol and the compression.
pub type Agreement = (Option<Vec<u8>>, Option<Compression>);

/// What a response to a client's request says. Fields that are lists are joined; those that are not there are
/// empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// Upgrade.
    pub upgrade: &'a [u8],
    /// Connection.
    pub connection: &'a [u8],
    /// Sec-WebSocket-Accept.
    pub accept: &'a [u8],
    /// Sec-WebSocket-Protocol.
    pub protocol: &'a [u8],
    /// Sec-WebSocket-Extensions.
    pub extensions: &'a [u8],
}

/// Checks a response with status 101 (RFC 6455 4.1) to a request with that key, which has offered these
/// subprotocols, and compression or not.
///
/// # Errors
/// What is wrong with it.
pub fn check_answer(
    answer: &Answer<'_>,
    key: &str,
    protocols: &[Vec<u8>],
    compresses: bool,
) -> Result<Agreement, &'static str> {
    let has = |field, token: &[u8]| list::elements(field).any(|it| it.eq_ignore_ascii_case(token));
    if !has(answer.upgrade, b"websocket") || !has(answer.connection, b"upgrade") {
        return Err("the server does not upgrade to a WebSocket");
    }
    if list::trim(answer.accept) != accept_key(key.as_bytes()).as_bytes() {
        return Err("the server has not answered the key of the WebSocket");
    }
    let protocol = match answer.protocol {
        b"" => None,
        chosen if protocols.iter().any(|it| it == chosen) => Some(chosen.to_vec()),
        _ => return Err("the server uses a subprotocol that was not offered"),
    };
    let compression = extension::agreed(std::iter::once(answer.extensions))?;
    if compression.is_some() && !compresses {
        return Err("the server uses an extension that was not offered");
    }
    Ok((protocol, compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 1.2.
    const EXAMPLE: Upgrade<'_> = Upgrade {
        method: b"GET",
        is_current: true,
        has_body: false,
        upgrade: b"websocket",
        connection: b"keep-alive, Upgrade",
        version: b"13",
        key: b"dGhlIHNhbXBsZSBub25jZQ==",
        protocols: b"chat, superchat",
        extensions: b"permessage-deflate",
        origin: Some(b"http://example.com"),
        host: b"example.com",
    };

    fn refused(request: Upgrade<'_>) -> UpgradeRefusal {
        judge(&request, &Terms::default()).unwrap_err()
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let accepted = judge(&EXAMPLE, &Terms::default()).unwrap();
        assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((accepted.protocol, accepted.compression), (None, None));
        assert_eq!(key(*b"the sample nonce").as_bytes(), EXAMPLE.key);
    }

    #[test]
    fn the_server_chooses_among_the_offered_protocols() {
        let protocols =
            ["other", "superchat", "chat"].map(|name| name.as_bytes().to_vec()).to_vec();
        let terms = Terms { protocols, compresses: true, ..Terms::default() };
        let accepted = judge(&EXAMPLE, &terms).unwrap();
        assert_eq!(accepted.protocol.as_deref(), Some(&b"superchat"[..]));
        assert!(accepted.compression.is_some());
    }

    #[test]
    fn what_is_no_proper_upgrade_is_refused() {
        assert_eq!(refused(Upgrade { upgrade: b"", ..EXAMPLE }), NO_UPGRADE);
        assert_eq!(refused(Upgrade { upgrade: b"h2c", ..EXAMPLE }), NO_UPGRADE);
        assert_eq!(refused(Upgrade { connection: b"close", ..EXAMPLE }), NO_UPGRADE);
        assert_eq!(refused(Upgrade { version: b"8", ..EXAMPLE }), OTHER_VERSION);
        assert_eq!(refused(Upgrade { version: b"", ..EXAMPLE }), OTHER_VERSION);
        assert_eq!(refused(Upgrade { method: b"POST", ..EXAMPLE }), METHOD);
        assert_eq!(refused(Upgrade { has_body: true, ..EXAMPLE }), BODY);
        assert_eq!(refused(Upgrade { is_current: false, ..EXAMPLE }), HTTP_VERSION);
        for key in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"****IHNhbXBsZSBub25jZQ==",
        ] {
            assert_eq!(refused(Upgrade { key, ..EXAMPLE }), KEY);
        }
    }

    #[test]
    fn pages_of_other_hosts_are_refused() {
        let from = |origin: &'static str, host: &'static str| Upgrade {
            origin: Some(origin.as_bytes()),
            host: host.as_bytes(),
            ..EXAMPLE
        };
        for (origin, host) in [
            ("http://a:8080", "a:8080"),
            ("http://A", "a:80"),
            ("https://a", "a"),
            ("https://a:443", "a"),
            ("https://a", "a:443"),
            ("http://[::1]:81", "[::1]:81"),
        ] {
            assert!(judge(&from(origin, host), &Terms::default()).is_ok(), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://b", "a"),
            ("http://a:81", "a"),
            ("http://a", "a:443"),
            ("null", "null"),
            ("", ""),
            ("http://a.evil", "a"),
            ("ftp://a", "a"),
        ] {
            assert_eq!(refused(from(origin, host)), ORIGIN, "{origin} {host}");
        }
        assert!(judge(&Upgrade { origin: None, ..EXAMPLE }, &Terms::default()).is_ok());
        let listed = Origins::Listed(vec![b"https://friend.example".to_vec()]);
        let terms = Terms { origins: listed, ..Terms::default() };
        assert!(judge(&from("https://friend.example", "a"), &terms).is_ok());
        assert_eq!(judge(&EXAMPLE, &terms), Err(ORIGIN));
        let terms = Terms { origins: Origins::Any, ..Terms::default() };
        assert!(judge(&from("null", "a"), &terms).is_ok());
    }

    #[test]
    fn an_answer_is_checked() {
        let key = std::str::from_utf8(EXAMPLE.key).unwrap();
        let good = Answer {
            upgrade: b"WebSocket",
            connection: b"Upgrade",
            accept: b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            ..Answer::default()
        };
        let chat = [b"chat".to_vec()];
        assert_eq!(check_answer(&good, key, &chat, false), Ok((None, None)));
        let chosen = Answer { protocol: b"chat", ..good };
        assert_eq!(check_answer(&chosen, key, &chat, false), Ok((Some(b"chat".to_vec()), None)));
        assert!(check_answer(&chosen, key, &[], false).is_err());
        assert!(check_answer(&Answer { upgrade: b"", ..good }, key, &chat, false).is_err());
        assert!(check_answer(&Answer { accept: b"x", ..good }, key, &chat, false).is_err());
        let packed = Answer { extensions: b"permessage-deflate", ..good };
        assert!(check_answer(&packed, key, &chat, false).is_err());
        assert!(check_answer(&packed, key, &chat, true).unwrap().1.is_some());
    }
}
