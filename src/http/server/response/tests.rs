//! Tests of the response's state machine and bytes.

use super::stage::{FINISHED, HEADERS_SENT, STATUS_SENT};
use super::*;
use crate::http::wire::header_lines::{StaticHeaders, push_chunk_size};

fn response(version: Version, head_request: bool) -> Response {
    let mut response = Response::default();
    response.begin(version, head_request, false);
    response
}

fn http11() -> Response {
    response(Version::Http11, false)
}

fn start(response: &mut Response, status: &str) -> Result<(), Misuse> {
    response.status(status.as_bytes(), &StaticHeaders::default()).map(|_| ())
}

/// Sends a piece as the connection does, with everything joined up to 8 bytes.
fn send(response: &mut Response, wire: &mut Vec<u8>, piece: &str) -> Result<(), Misuse> {
    response.finish_headers(None)?;
    if response.data(piece.as_bytes(), 8)? == PieceTaken::Large {
        wire.extend(response.parts(piece.as_bytes()).concat());
        response.sent();
    }
    Ok(())
}

fn end(mut response: Response, mut wire: Vec<u8>) -> String {
    response.finish(None).unwrap();
    wire.extend_from_slice(response.out());
    String::from_utf8(wire).unwrap()
}

#[test]
fn a_response_without_content_length_is_chunked_and_small_pieces_are_joined() {
    let (mut response, mut wire) = (http11(), Vec::new());
    start(&mut response, "200 OK").unwrap();
    for piece in ["ab", "", "cd", "0123456789", "e"] {
        send(&mut response, &mut wire, piece).unwrap();
    }
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "E\r\nabcd0123456789\r\n1\r\ne\r\n0\r\n\r\n";
    assert_eq!(end(response, wire), [head, body].concat());
}

#[test]
fn content_length_is_honoured_and_checked() {
    let (mut response, mut wire) = (http11(), Vec::new());
    start(&mut response, "200 OK").unwrap();
    response.header(b"content-length", b"4").unwrap();
    response.header(b"Content-Length", b"4").unwrap();
    assert!(response.header(b"Content-Length", b"5").is_err());
    send(&mut response, &mut wire, "ab").unwrap();
    assert_eq!(response.finish(None), Err("Content length not used"));
    assert_eq!(send(&mut response, &mut wire, "cde"), Err("Content length exceeded"));
    send(&mut response, &mut wire, "cd").unwrap();
    assert_eq!(end(response, wire), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd");
}

#[test]
fn odd_content_lengths_are_refused() {
    let mut response = http11();
    start(&mut response, "200 OK").unwrap();
    for value in ["", "+1", "1.0", "-1", "0x1", "1 "] {
        assert!(response.header(b"Content-Length", value.as_bytes()).is_err(), "{value:?}");
    }
}

#[test]
fn http_1_0_gets_no_chunks_but_the_end_of_the_connection() {
    let (mut response, mut wire) = (response(Version::Http10, false), Vec::new());
    start(&mut response, "103 Early Hints").unwrap();
    start(&mut response, "200 OK").unwrap();
    send(&mut response, &mut wire, "ab").unwrap();
    assert_eq!(end(response, wire), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab");
}

#[test]
fn head_is_answered_with_the_header_of_get_and_no_body() {
    let (mut response, mut wire) = (response(Version::Http11, true), Vec::new());
    start(&mut response, "200 OK").unwrap();
    response.header(b"Content-Length", b"1000").unwrap();
    send(&mut response, &mut wire, "ignored").unwrap();
    assert_eq!(end(response, wire), "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
}

#[test]
fn some_statuses_have_no_body() {
    for (status, line) in [
        ("204 No Content", ""),
        ("304 Not Modified", ""),
        ("101 Switching", ""),
        ("205 Reset Content", "Content-Length: 0\r\n"),
    ] {
        let (mut response, mut wire) = (http11(), Vec::new());
        start(&mut response, status).unwrap();
        send(&mut response, &mut wire, "").unwrap();
        assert_eq!(send(&mut response, &mut wire, "a"), Err(body::BODYLESS));
        assert_eq!(end(response, wire), format!("HTTP/1.1 {status}\r\n{line}\r\n"));
    }
}

#[test]
fn informational_responses_end_with_finish_headers_or_a_further_status() {
    let mut response = http11();
    start(&mut response, "103 Early Hints").unwrap();
    response.header(b"Link", b"</a>").unwrap();
    assert!(response.header(b"Content-Length", b"0").is_err());
    assert!(response.header(b"Connection", b"close").is_err());
    response.finish_headers(None).unwrap();
    assert!(!response.stage().has_status());
    start(&mut response, "102 Processing").unwrap();
    start(&mut response, "204 No Content").unwrap();
    assert_eq!(
        end(response, Vec::new()),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 204 No Content\r\n\r\n"
    );
}

#[test]
fn early_headers_are_sent_with_the_final_status() {
    let mut response = http11();
    response.early_header(b"Set-Cookie", b"a=1").unwrap();
    start(&mut response, "103 Early Hints").unwrap();
    response.early_header(b"Set-Cookie", b"b=2").unwrap();
    assert!(response.early_header(b"Set-Cookie", b"c\r\nd").is_err());
    start(&mut response, "204 No Content").unwrap();
    response.early_header(b"Set-Cookie", b"e=3").unwrap();
    response.finish_headers(None).unwrap();
    assert_eq!(response.early_header(b"A", b"b"), Err(HEADERS_SENT));
    assert_eq!(
        end(response, Vec::new()),
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nSet-Cookie: e=3\r\n\r\n"
    );
    // Those of a response that was replaced are not sent with the next one.
    let mut response = http11();
    response.early_header(b"Set-Cookie", b"a=1").unwrap();
    response.replace(500, |out, _| out.extend_from_slice(b"replaced"));
    response.begin(Version::Http11, false, false);
    start(&mut response, "204 No Content").unwrap();
    assert_eq!(end(response, Vec::new()), "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn the_wrong_order_of_calls_is_an_error() {
    let mut response = http11();
    assert_eq!(response.header(b"A", b"b"), Err(NO_STATUS));
    assert_eq!(response.finish_headers(None), Err(NO_STATUS));
    assert_eq!(response.finish(None), Err(NO_STATUS));
    start(&mut response, "200 OK").unwrap();
    assert_eq!(start(&mut response, "200 OK"), Err(STATUS_SENT));
    response.finish_headers(None).unwrap();
    response.finish_headers(None).unwrap();
    assert_eq!(response.header(b"A", b"b"), Err(HEADERS_SENT));
    assert_eq!(response.close_after_finish(), Err(HEADERS_SENT));
    response.finish(None).unwrap();
    response.finish(None).unwrap();
    assert_eq!(response.data(b"a", 1), Err(FINISHED));
    assert_eq!(start(&mut response, "200 OK"), Err(FINISHED));
}

#[test]
fn line_ends_and_nul_never_get_into_a_head() {
    for bad in ["a\rb", "a\nb", "a\0b", "a\r\nb: c"] {
        let mut response = http11();
        assert!(start(&mut response, &format!("200 {bad}")).is_err());
        start(&mut response, "200 OK").unwrap();
        assert!(response.header(b"Name", bad.as_bytes()).is_err());
        assert!(response.header(bad.as_bytes(), b"value").is_err());
        assert!(StaticHeaders::default().add(b"Name", bad.as_bytes()).is_err());
        assert_eq!(response.buffer.bytes, b"HTTP/1.1 200 OK\r\n");
    }
    for name in ["", "a b", "a:", "a "] {
        let mut response = http11();
        start(&mut response, "200 OK").unwrap();
        assert!(response.header(name.as_bytes(), b"value").is_err(), "{name:?}");
    }
}

#[test]
fn a_status_is_three_digits_and_a_phrase() {
    for status in ["", "20", "2000 OK", "abc", "200OK", "099 Low", "\u{bd}00"] {
        assert!(start(&mut http11(), status).is_err(), "{status:?}");
    }
    let mut response = http11();
    start(&mut response, "204").unwrap();
    assert_eq!(end(response, Vec::new()), "HTTP/1.1 204 \r\n\r\n");
}

#[test]
fn connection_close_is_obeyed_and_sent_once() {
    let mut response = http11();
    response.close_after_finish().unwrap();
    start(&mut response, "204 No Content").unwrap();
    response.header(b"Connection", b"foo, Close").unwrap();
    response.header(b"Connection", b"close").unwrap();
    assert!(response.closes());
    let expected = "HTTP/1.1 204 No Content\r\nConnection: foo, Close\r\n\r\n";
    assert_eq!(end(response, Vec::new()), expected);
}

#[test]
fn a_head_that_has_not_left_may_change_before_joined_pieces() {
    let mut response = http11();
    start(&mut response, "200 OK").unwrap();
    response.finish_headers(None).unwrap();
    assert_eq!(response.data(b"abc", 8), Ok(PieceTaken::Joined));
    response.close_anyway();
    response.send_continue();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let expected = format!("HTTP/1.1 100 Continue\r\n\r\n{head}3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(end(response, Vec::new()), expected);
}

#[test]
fn what_is_ready_may_leave_before_joined_pieces_do() {
    let mut response = http11();
    start(&mut response, "200 OK").unwrap();
    response.finish_headers(None).unwrap();
    assert_eq!(response.data(b"abc", 8), Ok(PieceTaken::Joined));
    let mut wire = response.out().to_vec();
    response.out_sent();
    assert!(wire.ends_with(b"\r\n\r\n") && response.has_left());
    assert_eq!(response.data(b"de", 8), Ok(PieceTaken::Joined));
    wire.extend(b"...");
    assert!(end(response, wire).ends_with("\r\n\r\n...5\r\nabcde\r\n0\r\n\r\n"));
}

#[test]
fn lent_output_that_has_left_is_not_sent_again() {
    for (has_left, rest) in [(false, "5\r\nabcde\r\n0\r\n\r\n"), (true, "2\r\nde\r\n0\r\n\r\n")] {
        let mut response = http11();
        start(&mut response, "200 OK").unwrap();
        response.finish_headers(None).unwrap();
        assert_eq!(response.data(b"abc", 8), Ok(PieceTaken::Joined));
        let mut deferred = response.defer();
        assert!(response.is_deferred() && response.has_left());
        let mut wire = Vec::new();
        if has_left {
            deferred.complete();
            wire = deferred.bytes;
            response.restore(None);
            assert!(wire.ends_with(b"\r\n\r\n3\r\nabc\r\n"));
            wire.clear();
        } else {
            response.restore(Some(deferred));
        }
        assert_eq!(response.has_left(), has_left);
        assert_eq!(response.data(b"de", 8), Ok(PieceTaken::Joined));
        assert!(end(response, wire).ends_with(rest));
    }
}

#[test]
fn static_headers_stand_in_every_final_response() {
    let mut fixed = StaticHeaders::default();
    fixed.add(b"Server", b"x").unwrap();
    assert!(fixed.add(b"Content-Length", b"0").is_err());
    let mut response = http11();
    response.status(b"204 No Content", &fixed).unwrap();
    assert_eq!(end(response, Vec::new()), "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n");
}

#[test]
fn date_is_sent_unless_the_application_did() {
    let mut response = http11();
    start(&mut response, "204 No Content").unwrap();
    response.finish(Some(b"now")).unwrap();
    assert_eq!(response.out(), b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n");
    let mut response = http11();
    start(&mut response, "204 No Content").unwrap();
    response.header(b"date", b"then").unwrap();
    response.finish(Some(b"now")).unwrap();
    assert_eq!(response.out(), b"HTTP/1.1 204 No Content\r\ndate: then\r\n\r\n");
}

#[test]
fn chunk_sizes_are_hexadecimal() {
    for size in [1usize, 15, 16, 255, 256, 4096, 65_535, 1 << 20] {
        let mut out = Vec::new();
        push_chunk_size(&mut out, size);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{size:X}\r\n"));
    }
}
