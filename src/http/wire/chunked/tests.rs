//! Tests of the chunked decoder, by rule of RFC 9112 7.1.

use proptest::prelude::*;

use super::*;
use crate::http::wire::testing::pieces;

/// The body and what was not used of the input; None if more input is needed.
fn decode(
    limits: ChunkedLimits,
    pieces: &[&[u8]],
) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
    let mut decoder = ChunkedDecoder::new(limits);
    let mut body = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let mut rest = *piece;
        loop {
            let (used, event) = decoder.decode(rest)?;
            rest = &rest[used..];
            match event {
                ChunkedEvent::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                }
                ChunkedEvent::End => {
                    assert!(decoder.is_end());
                    let later: usize = pieces[index + 1..].iter().map(|p| p.len()).sum();
                    return Ok(Some((body, rest.len() + later)));
                }
                ChunkedEvent::More => break assert!(rest.is_empty()),
            }
        }
    }
    Ok(None)
}

fn whole(body: &str) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
    decode(ChunkedLimits::new(1000), &[body.as_bytes()])
}

fn complete(body: &str, left: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
    Ok(Some((body.into(), left)))
}

#[test]
fn chunks_are_joined_and_the_next_request_is_left() {
    assert_eq!(
        whole("3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\nGET"),
        complete("abc0123456789", 3)
    );
    assert_eq!(whole("000\r\n\r\n"), complete("", 0));
    assert_eq!(whole("3\r\nabc\r\n0\r\n"), Ok(None));
}

#[test]
fn extensions_and_trailer_fields_are_skipped() {
    let extensions = ";a;b=c ; d = \"e;\\\"\t\u{e4}\" ;f\t=\tg";
    assert_eq!(whole(&format!("1{extensions}\r\nx\r\n0;y\r\n\r\n")), complete("x", 0));
    assert_eq!(whole("0\r\nA: b\t\u{e4}\r\nC-d:\r\n\r\n"), complete("", 0));
}

#[test]
fn sizes_are_hexadecimal_digits_alone() {
    for size in ["", " ", " 1", "1 1", "1\t1", "+1", "-1", "0x1", "g", "1_0", "1,1", "\u{661}"] {
        assert_eq!(
            whole(&format!("{size}\r\nx\r\n0\r\n\r\n")),
            Err(ChunkedError::Size),
            "{size:?}"
        );
    }
}

/// RFC 9110 5.6.3
#[test]
fn blanks_at_the_end_of_a_size_line_are_taken() {
    for blanks in [" ", "\t", "       ", ";a ", ";a=b\t ", ";a=\"b\" ", " ;a", " \t; a = b"] {
        assert_eq!(whole(&format!("1{blanks}\r\nx\r\n0{blanks}\r\n\r\n")), complete("x", 0));
    }
    for line in ["1 \n", "1 \r \n", "1; \r\n", "1 a\r\n"] {
        assert_eq!(whole(line), Err(ChunkedError::Size), "{line:?}");
    }
}

#[test]
fn sizes_padded_to_a_column_are_no_overhead_and_longer_lines_are() {
    let limits = ChunkedLimits { overhead: 100, ..ChunkedLimits::new(1000) };
    let padded = |blanks| format!("1{}\r\nx\r\n", " ".repeat(blanks)).repeat(200);
    assert_eq!(decode(limits, &[padded(7).as_bytes()]), Ok(None));
    assert_eq!(decode(limits, &[padded(8).as_bytes()]), Err(ChunkedError::Overhead));
}

/// RFC 9110 6.5.1
#[test]
fn fields_that_belong_into_the_header_section_are_refused_in_trailers() {
    for name in ["Content-Length", "transfer-encoding", "HOST", "Authorization", "Content-Type"] {
        assert_eq!(
            whole(&format!("0\r\nA: b\r\n{name}: 1\r\n\r\n")),
            Err(ChunkedError::TrailerName)
        );
    }
    assert_eq!(whole("0\r\nX-Host: a\r\nETag: b\r\n\r\n"), complete("", 0));
}

#[test]
fn sizes_that_overflow_are_too_big() {
    for size in ["10000000000000000", "ffffffffffffffff", "1ffffffffffffffff", "3e9"] {
        assert_eq!(whole(&format!("{size}\r\n")), Err(ChunkedError::BodyTooBig), "{size}");
    }
    let halves = "8000000000000000\r\n";
    assert_eq!(decode(ChunkedLimits::new(u64::MAX), &[halves.as_bytes()]), Ok(None));
}

/// RFC 9112 2.2 and 7.1: line ends are CRLF; a bare CR is never one.
#[test]
fn only_crlf_ends_a_line() {
    for body in ["1\nx", "1\rx", "1\r\rx", "1;a\nx", "1;a\r\r\n", "1;a=\"\n\"\r\n"] {
        assert_eq!(whole(body), Err(ChunkedError::Size), "{body:?}");
    }
    for body in ["1\r\nx\n", "1\r\nx\rx", "1\r\nxx", "1\r\nx0\r\n\r\n"] {
        assert_eq!(whole(body), Err(ChunkedError::Data), "{body:?}");
    }
    for trailer in ["\n", "\rx", "A: b\n", "A: b\rx", "A: b\r\n\n", "A: b\r\n c\r\n"] {
        assert_eq!(whole(&format!("0\r\n{trailer}")), Err(ChunkedError::Trailer), "{trailer:?}");
    }
}

#[test]
fn extensions_and_trailer_fields_keep_to_their_grammar() {
    for line in ["1;", "1; ;a", "1;a b", "1;a=", "1;a=\"b", "1;a=\"b\"c", "1;a\0", "1 a"] {
        assert_eq!(whole(&format!("{line}\r\n")), Err(ChunkedError::Size), "{line:?}");
    }
    for trailer in ["A : b", ": b", "A", " A: b", "A: \0", "A: \u{7f}"] {
        assert_eq!(
            whole(&format!("0\r\n{trailer}\r\n")),
            Err(ChunkedError::Trailer),
            "{trailer:?}"
        );
    }
}

#[test]
fn the_body_is_limited_when_a_chunk_announces_it() {
    assert_eq!(whole("3e8\r\n"), Ok(None));
    assert_eq!(whole("1\r\nx\r\n3e7\r\n"), Ok(None));
    assert_eq!(whole("1\r\nx\r\n3e8\r\n"), Err(ChunkedError::BodyTooBig));
}

#[test]
fn size_lines_are_limited() {
    let zeros = |count| whole(&format!("{}1\r\n", "0".repeat(count)));
    assert_eq!(zeros(4000), Ok(None));
    assert_eq!(zeros(5000), Err(ChunkedError::Overhead));
}

#[test]
fn overhead_of_extensions_and_needless_zeros_is_limited() {
    let limits = ChunkedLimits { overhead: 100, ..ChunkedLimits::new(1000) };
    for chunk in ["1;a=bcde\r\nx\r\n", "000000001\r\nx\r\n"] {
        let chunks = |count| decode(limits, &[chunk.repeat(count).as_bytes()]);
        assert_eq!(chunks(12), Ok(None));
        assert_eq!(chunks(14), Err(ChunkedError::Overhead));
    }
}

/// Uploads may be signed chunk by chunk, with about 90 bytes for 8 KiB or more.
#[test]
fn long_streams_may_have_extensions_in_proportion() {
    let signature = "0".repeat(64);
    let data = "x".repeat(8192);
    let chunk = format!("2000;chunk-signature={signature}\r\n{data}\r\n");
    assert_eq!(decode(ChunkedLimits::new(u64::MAX), &[chunk.repeat(500).as_bytes()]), Ok(None));
}

#[test]
fn the_trailer_section_is_limited() {
    let fields = |count| whole(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(count)));
    assert_eq!(fields(64), complete("", 0));
    assert_eq!(fields(65), Err(ChunkedError::TrailerTooBig));
    let long = format!("0\r\nA: {}\r\n\r\n", "b".repeat(17000));
    assert_eq!(whole(&long), Err(ChunkedError::TrailerTooBig));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_body(
        chunks in proptest::collection::vec(("[a-z\\r\\n]{1,20}", "(;a=b|; c = \"d;\"|)"), 0..5),
        cuts in proptest::collection::vec(0usize..200, 0..8),
    ) {
        let mut coded = String::new();
        for (data, extension) in &chunks {
            coded += &format!("{:X}{extension}\r\n{data}\r\n", data.len());
        }
        coded += "0\r\nA: b\r\n\r\nnext";
        let body: String = chunks.iter().map(|(data, _)| data.as_str()).collect();
        prop_assert_eq!(decode(ChunkedLimits::new(1000), &pieces(coded.as_bytes(), &cuts)), complete(&body, 4));
    }

    #[test]
    fn any_split_gives_the_same_error(
        coded in "[0-2a;=\" \r\n:]{0,30}",
        cut in 0usize..30,
    ) {
        let (head, tail) = coded.as_bytes().split_at(cut.min(coded.len()));
        let bytes: Vec<&[u8]> = coded.as_bytes().chunks(1).collect();
        let expected = decode(ChunkedLimits::new(1000), &[coded.as_bytes()]);
        prop_assert_eq!(&decode(ChunkedLimits::new(1000), &[head, tail]), &expected);
        prop_assert_eq!(&decode(ChunkedLimits::new(1000), &bytes), &expected);
    }
}
