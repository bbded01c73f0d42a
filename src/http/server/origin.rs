//! Where a request comes from: what the connection says, or what a trusted proxy says in the request's header.

use std::net::SocketAddr;

use super::options::{ForwardedFields, Options};
use super::request::Request;
use crate::http::wire::forwarded::{Origin, forwarded, x_forwarded};
use crate::http::wire::refusal::Refusal;
use crate::io::Stream;
use crate::proxy::proxied::{Peer, Proxied};

const MALFORMED: Refusal = Refusal::bad_request("Malformed Forwarded header");
const CONTRADICTION: Refusal =
    Refusal::bad_request("Forwarded and X-Forwarded headers contradict each other");

/// Who sends the requests of a connection: as its PROXY header tells, or else as the system does. None if that is
/// unknown: an unknown peer must not pass for a local socket.
fn sender(stream: &Stream) -> Option<Peer> {
    match &stream.handler.proxied {
        Proxied::No => {}
        proxied => return proxied.client(),
    }
    let address = stream.peer();
    if address.is_none() && !stream.duplex.is_local() { None } else { Some(Peer::of(address)) }
}

/// Whether a trusted proxy sends the requests of a connection.
pub fn is_believed(options: &Options, stream: &Stream) -> bool {
    let Some(trusted) = &options.trusted else { return false };
    sender(stream).is_some_and(|peer| trusted.contain(peer))
}

/// What a trusted proxy tells of a request. `is_believed`: see [`is_believed`].
///
/// # Errors
/// What it tells is malformed, or there are both kinds of fields and they contradict each other: one kind is the
/// client's, and nobody knows which.
pub fn told<'a>(
    request: &'a Request,
    options: &Options,
    is_believed: bool,
) -> Result<Origin<'a>, Refusal> {
    let Some(trusted) = options.trusted.as_ref().filter(|_| is_believed) else {
        return Ok(Origin::default());
    };
    let mut lines: [Vec<&[u8]>; 4] = Default::default();
    for field in &request.head.fields {
        let name = field.name.of(&request.bytes);
        let list = match name.len() {
            9 if name.eq_ignore_ascii_case(b"forwarded") => 0,
            15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => 1,
            16 if name.eq_ignore_ascii_case(b"x-forwarded-host") => 2,
            17 if name.eq_ignore_ascii_case(b"x-forwarded-proto") => 3,
            _ => continue,
        };
        lines[list].push(field.value.of(&request.bytes));
    }
    let [standard, addresses, hosts, schemes] = &lines;
    let others = || x_forwarded(addresses, schemes, hosts, trusted);
    match options.forwarded {
        Some(ForwardedFields::XForwarded) => return Ok(others()),
        None if standard.is_empty() => return Ok(others()),
        _ => {}
    }
    let origin = forwarded(standard, trusted).map_err(|_| MALFORMED)?;
    let has_others = lines[1..].iter().any(|lines| !lines.is_empty());
    if has_others && options.forwarded.is_none() && !origin.agrees_with(&others()) {
        return Err(CONTRADICTION);
    }
    Ok(origin)
}

/// The client's address, as a trusted proxy tells or else the connection, with port 0 if that is unknown. None for
/// a local socket.
#[inline]
pub fn client(
    request: &Request,
    options: &Options,
    is_believed: bool,
    stream: &Stream,
) -> Option<SocketAddr> {
    // Most servers have no proxies, but each request is noted with its client.
    if options.trusted.is_none() && stream.handler.proxied == Proxied::No {
        return stream.peer();
    }
    told_client(request, options, is_believed, stream)
}

#[inline(never)]
fn told_client(
    request: &Request,
    options: &Options,
    is_believed: bool,
    stream: &Stream,
) -> Option<SocketAddr> {
    let told = told(request, options, is_believed).ok().and_then(|told| told.client);
    match told.or_else(|| stream.handler.proxied.client()) {
        Some(Peer::Internet(ip, port)) => Some(SocketAddr::new(ip, port)),
        Some(Peer::Local) => None,
        None => stream.peer(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::{CONTRADICTION, MALFORMED, SocketAddr, Stream, is_believed};
    use super::{ForwardedFields, Options, Origin, Peer, Proxied, Refusal, Request};
    use crate::http::wire::head::HeadLimits;
    use crate::proxy::networks::Networks;
    use crate::proxy::proxied::Told;

    fn told<'a>(
        request: &'a Request,
        options: &Options,
        stream: &Stream,
    ) -> Result<Origin<'a>, Refusal> {
        super::told(request, options, is_believed(options, stream))
    }

    fn client(request: &Request, options: &Options, stream: &Stream) -> Option<SocketAddr> {
        super::client(request, options, is_believed(options, stream), stream)
    }

    fn request(fields: &str) -> Request {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut request = Request::default();
        request.head.advance(text.as_bytes(), &HeadLimits { head: 1000, fields: 10 }).unwrap();
        request.copy_head(text.as_bytes(), text.len());
        request
    }

    fn options(trusted: &[&str], forwarded: Option<ForwardedFields>) -> Options {
        let mut networks = Networks::default();
        trusted.iter().for_each(|text| networks.add(text).unwrap());
        Options { trusted: Some(networks), forwarded, ..Options::default() }
    }

    fn local(proxied: Proxied) -> Stream {
        let (ours, _) = UnixStream::pair().unwrap();
        let mut stream = Stream::accepted(ours.into(), None);
        stream.handler.proxied = proxied;
        stream
    }

    fn by(line: &str) -> Stream {
        local(Proxied::By(Told::read(line.as_bytes()).unwrap()))
    }

    fn address(ip: &str, port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().unwrap(), port))
    }

    fn internet(ip: &str) -> Option<Peer> {
        Some(Peer::Internet(ip.parse().unwrap(), 0))
    }

    const FIELD: &str = "X-Forwarded-For: 192.0.2.1\r\n";

    #[test]
    fn only_trusted_peers_are_believed() {
        let request = request(FIELD);
        let client = |trusted: &[&str], stream: &Stream| {
            told(&request, &options(trusted, None), stream).unwrap().client
        };
        assert_eq!(client(&["unix"], &local(Proxied::No)), internet("192.0.2.1"));
        assert_eq!(client(&["0.0.0.0/0", "::/0"], &local(Proxied::No)), None);
        let stream = local(Proxied::No);
        assert_eq!(told(&request, &Options::default(), &stream), Ok(Origin::default()));
    }

    #[test]
    fn a_proxy_header_tells_who_sends_the_request() {
        let request = request(FIELD);
        let both = options(&["unix", "10.0.0.0/8"], None);
        let stream = by("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
        assert_eq!(client(&request, &both, &stream), address("192.0.2.1", 0));
        let stream = by("PROXY TCP4 198.51.100.1 10.0.0.2 7 2\r\n");
        assert_eq!(client(&request, &both, &stream), address("198.51.100.1", 7));
        assert_eq!(client(&request, &Options::default(), &stream), address("198.51.100.1", 7));
        // The proxy does not know who it is.
        let stream = by("PROXY UNKNOWN\r\n");
        assert!(!is_believed(&both, &stream) && !is_believed(&both, &local(Proxied::Expected)));
    }

    #[test]
    fn both_kinds_of_fields_must_agree_unless_one_is_named() {
        let stream = local(Proxied::No);
        let ask = |fields: &str, forwarded| {
            let request = request(fields);
            let options = options(&["unix"], forwarded);
            told(&request, &options, &stream).map(|origin| origin.client)
        };
        let forged = "Forwarded: for=198.51.100.1\r\nX-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(ask(forged, None), Err(CONTRADICTION));
        assert_eq!(ask(forged, Some(ForwardedFields::Forwarded)), Ok(internet("198.51.100.1")));
        assert_eq!(ask(forged, Some(ForwardedFields::XForwarded)), Ok(internet("192.0.2.1")));
        assert_eq!(ask(FIELD, Some(ForwardedFields::Forwarded)), Ok(None));
        let same = "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(ask(same, None), Ok(internet("192.0.2.1")));
        let host = "Forwarded: for=192.0.2.1\r\nX-Forwarded-Host: evil\r\n";
        assert_eq!(ask(host, None), Err(CONTRADICTION));
        assert_eq!(ask("Forwarded: for=\"\r\n", None), Err(MALFORMED));
        let ignored = "Forwarded: for=\"\r\nX-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(ask(ignored, Some(ForwardedFields::XForwarded)), Ok(internet("192.0.2.1")));
    }
}
