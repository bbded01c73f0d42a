//! The answer to an error of the application: 500. In development it shows what is wrong.

use super::options::Options;
use super::request::Request;
use super::response_output::ResponseOutput;
use crate::http::wire::list::elements;
use crate::http::wire::refusal::{ErrorResponse, Refusal};
use crate::io::stream::Stream;
use crate::proxy::proxied::Peer;
use crate::server::development::page::POLICY;
use crate::server::worker::context;

const STATUS: &str = "500 Internal Server Error";

/// Answers an error with this text. Nothing of a response has left.
#[cold]
pub fn answer(
    text: &[u8],
    options: &Options,
    (request, output): (&mut Request, &mut ResponseOutput),
    stream: Option<&Stream>,
) {
    let Some((media_type, page)) = stream.and_then(|stream| page(text, options, request, stream))
    else {
        return output.refuse(options, &Refusal::internal_error());
    };
    let fields = format!(
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: {POLICY}\r\n"
    );
    let response = ErrorResponse { status: STATUS, fields: &fields, media_type };
    output.replace(options, 500, |out, lines, now, head| {
        response.write(out, lines, now, &[&page], head);
    });
}

/// What is shown of an error, in development and to clients on this machine.
fn page(
    text: &[u8],
    options: &Options,
    request: &mut Request,
    stream: &Stream,
) -> Option<(&'static str, String)> {
    let development = options.development.clone()?;
    if !is_client_near(stream) || was_forwarded(request) {
        return None;
    }
    let task = String::from_utf8_lossy(&request.describe().unwrap_or_default()).into_owned();
    let text = match text {
        [] => "The error is no string: the log shows it".into(),
        text => String::from_utf8_lossy(text),
    };
    let report = [&text, context::traceback().as_deref().unwrap_or_default()].concat();
    Some(development.page(&task, &report, accepts_html(request)))
}

/// Whether the client is on this machine, as far as its address tells.
fn is_client_near(stream: &Stream) -> bool {
    if stream.handler.proxied.header().is_some() {
        // The peer is a proxy: it names the client, or does not know it.
        return match stream.handler.proxied.client() {
            Some(Peer::Internet(client, _)) => client.to_canonical().is_loopback(),
            Some(Peer::Local) => true,
            None => false,
        };
    }
    match stream.endpoints().peer() {
        Some(peer) => peer.ip().to_canonical().is_loopback(),
        None => !stream.duplex.is_tcp(),
    }
}

/// Whether a proxy says that it has the request from another client, which may be anywhere.
fn was_forwarded(request: &mut Request) -> bool {
    [&b"Forwarded"[..], b"X-Forwarded-For"]
        .into_iter()
        .any(|name| values(request, name).next().is_some())
}

/// Whether the client explicitly accepts HTML: a program that accepts anything can read text.
fn accepts_html(request: &mut Request) -> bool {
    const HTML: &[u8] = b"text/html";
    let is_html = |range: &[u8]| {
        range.get(..HTML.len()).is_some_and(|range| range.eq_ignore_ascii_case(HTML))
    };
    values(request, b"Accept").flat_map(elements).any(is_html)
}

/// The values of a header.
fn values<'a>(request: &'a mut Request, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    request.names.values(&request.head.fields, &request.bytes, name)
}
