//! The answer to an error of the application: 500. In development it shows what is wrong.

use super::connection::HttpConnection;
use crate::http::wire::list::elements;
use crate::http::wire::refusal::{ErrorResponse, Refusal};
use crate::server::development::page::POLICY;
use crate::server::worker::context;

const STATUS: &str = "500 Internal Server Error";

/// Answers an error with this text. Nothing of a response has left.
pub fn answer(c: &mut HttpConnection, text: &[u8]) {
    let Some((media_type, page)) = page(c, text) else {
        return c.refuse(&Refusal::internal_error());
    };
    let fields = format!(
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: {POLICY}\r\n"
    );
    let response = ErrorResponse { status: STATUS, fields: &fields, media_type };
    c.output.replace(&c.options, 500, |out, lines, now, head| {
        response.write(out, lines, now, &[&page], head);
    });
}

/// In development, if the application has failed to start, no request is served: answers this one with the reason.
pub fn precludes(c: &mut HttpConnection) -> bool {
    let failure = c.options.development.as_ref().and_then(|it| it.failure());
    if let Some(report) = &failure {
        answer(c, report.as_bytes());
    }
    failure.is_some()
}

/// What is shown of an error, in development and to clients on this machine.
fn page(c: &mut HttpConnection, text: &[u8]) -> Option<(&'static str, String)> {
    let development = c.options.development.clone()?;
    if !is_client_near(c) || was_forwarded(c) {
        return None;
    }
    let task = String::from_utf8_lossy(&c.request.describe().unwrap_or_default()).into_owned();
    let text = match text {
        [] => "The error is no string: the log shows it".into(),
        text => String::from_utf8_lossy(text),
    };
    let report = [&text, context::traceback().as_deref().unwrap_or_default()].concat();
    Some(development.page(&task, &report, accepts_html(c)))
}

/// Whether the client is on this machine, as far as its address tells.
fn is_client_near(c: &HttpConnection) -> bool {
    c.stream.look().is_some_and(|stream| match stream.endpoints().peer() {
        Some(peer) => peer.ip().to_canonical().is_loopback(),
        None => !stream.is_tcp(),
    })
}

/// Whether a proxy says that it has the request from another client, which may be anywhere.
fn was_forwarded(c: &mut HttpConnection) -> bool {
    [&b"Forwarded"[..], b"X-Forwarded-For"].into_iter().any(|name| values(c, name).next().is_some())
}

/// Whether the client has asked for HTML in so many words: a program that takes anything can read text.
fn accepts_html(c: &mut HttpConnection) -> bool {
    const HTML: &[u8] = b"text/html";
    let is_html = |range: &[u8]| {
        range.get(..HTML.len()).is_some_and(|range| range.eq_ignore_ascii_case(HTML))
    };
    values(c, b"Accept").flat_map(elements).any(is_html)
}

/// The values of a header.
fn values<'a>(c: &'a mut HttpConnection, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let request = &mut c.request;
    request.names.values(&request.head.fields, &request.bytes, name)
}
