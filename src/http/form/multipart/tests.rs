//! Tests of the multipart parser, by section of RFC 7578 and RFC 2046.

use proptest::prelude::*;

use super::*;
use crate::http::wire::testing::pieces;

type FoundParts = Vec<(Part, Vec<u8>)>;

const CONTENT_TYPE: &[u8] = b"multipart/form-data; boundary=b";

fn parse_pieces(
    mut parser: MultipartParser,
    pieces: &[&[u8]],
) -> Result<FoundParts, MultipartError> {
    let mut found: FoundParts = Vec::new();
    let (mut open, mut ended) = (false, false);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, event) = parser.push(rest)?;
            rest = &rest[used..];
            assert!(!ended || event == MultipartEvent::More);
            match event {
                MultipartEvent::Begin(part) => {
                    assert!(!std::mem::replace(&mut open, true));
                    found.push((part.clone(), Vec::new()));
                }
                MultipartEvent::Data(data) => {
                    assert!(open && !data.is_empty());
                    found.last_mut().unwrap().1.extend_from_slice(data);
                }
                MultipartEvent::PartEnd => assert!(std::mem::replace(&mut open, false)),
                MultipartEvent::End => ended = true,
                MultipartEvent::More => break assert!(rest.is_empty()),
            }
        }
    }
    parser.finish()?;
    assert!(ended && !open);
    Ok(found)
}

fn parser() -> MultipartParser {
    MultipartParser::new(CONTENT_TYPE, MultipartLimits::new(100)).unwrap()
}

/// The outcome for the body as a whole, which must be that for single bytes.
fn parse(body: &str) -> Result<FoundParts, MultipartError> {
    let whole = parse_pieces(parser(), &[body.as_bytes()]);
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(parse_pieces(parser(), &bytes), whole, "{body:?}");
    whole
}

fn field(name: &str, value: &str) -> (Part, Vec<u8>) {
    (Part { field_name: name.into(), ..Part::default() }, value.into())
}

/// A body whose only part has these header lines.
fn with_head(lines: &str) -> Result<Option<Part>, MultipartError> {
    let found = parse(&format!("--b\r\n{lines}\r\nx\r\n--b--"))?;
    Ok(found.into_iter().next().map(|(part, _)| part))
}

fn part(name: &str, file_name: Option<&str>, content_type: Option<&str>) -> Option<Part> {
    Some(Part {
        field_name: name.into(),
        file_name: file_name.map(Into::into),
        content_type: content_type.map(Into::into),
    })
}

const A: &str = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";

#[test]
fn parts_have_names_and_data() {
    let body = format!("{A}1\r\n{A}2\r\n\r\n--\r\n--b--\r\n");
    assert_eq!(parse(&body), Ok(vec![field("a", "1"), field("a", "2\r\n\r\n--")]));
}

/// RFC 2046 5.1.1: the CRLF before a boundary belongs to the delimiter, also that which ends the
/// headers of a part without data.
#[test]
fn data_may_be_empty() {
    assert_eq!(parse(&format!("{A}\r\n--b--\r\n")), Ok(vec![field("a", "")]));
    assert_eq!(parse(&format!("{A}--b--\r\n")), Ok(vec![field("a", "")]));
    assert_eq!(parse("--b--"), Ok(vec![]));
}

#[test]
fn preamble_epilogue_padding_and_a_missing_last_line_end_are_allowed() {
    let padded = A.replacen("--b\r\n", "--b \t \r\n", 1);
    for start in ["", "\r\n", "preamble\r\n", "--c\r\n--\r\r\n"] {
        for end in ["", "\r\n", " \t\r\nepilogue", "\r\n--b\r\n", "x"] {
            let body = format!("{start}{padded}1\r\n--b--{end}");
            assert_eq!(parse(&body), Ok(vec![field("a", "1")]), "{body:?}");
        }
    }
}

#[test]
fn a_boundary_in_the_preamble_is_refused_where_no_line_begins() {
    for start in ["\n", "\r", " ", "x", "-", "x\n", "x\r\n\n", "\r\n\r", "\n\n", "x\r\n-"] {
        let outcome = parse(&format!("{start}{A}1\r\n{A}2\r\n--b--"));
        assert_eq!(outcome, Err(MultipartError::Delimiter), "{start:?}");
    }
    for start in ["\n\r\n", "\r\r\n", "x\n--\r\n", "x\r--c\n\r\n", "--\r\n"] {
        let outcome = parse(&format!("{start}{A}1\r\n--b--"));
        assert_eq!(outcome, Ok(vec![field("a", "1")]), "{start:?}");
    }
}

#[test]
fn data_may_look_like_a_delimiter() {
    for data in ["x\r\n-", "\r\n--", "\n--b--", "\r\r\n-", "--", "\r\n--\r\n--a", "-b\r\n-"] {
        assert_eq!(
            parse(&format!("{A}{data}x\r\n--b--")),
            Ok(vec![field("a", &format!("{data}x"))])
        );
    }
}

#[test]
fn boundaries_are_quoted_or_not_among_other_parameters() {
    for (parameters, boundary) in [
        ("boundary=b", "b"),
        (" charset=utf-8; Boundary=\"a b?\" ; x=y", "a b?"),
        ("boundary=----WebKitFormBoundary7MA4/+=_,.:'()", "----WebKitFormBoundary7MA4/+=_,.:'()"),
    ] {
        let content_type = format!("Multipart/Form-Data;{parameters}");
        let parser =
            MultipartParser::new(content_type.as_bytes(), MultipartLimits::new(100)).unwrap();
        let body = format!("{A}1\r\n--b--").replace("--b", &format!("--{boundary}"));
        assert_eq!(parse_pieces(parser, &[body.as_bytes()]), Ok(vec![field("a", "1")]));
    }
}

#[test]
fn boundaries_have_1_to_70_characters() {
    let long = |count| format!("; boundary={}", "b".repeat(count));
    for parameters in
        ["", "; boundary", "; boundary=", "; boundary=\"\"", "; boundary=\"b ", &long(71)]
            .into_iter()
            .chain(["; boundary=\"b \"", "; boundary=\"\r\"", "; boundary=b; boundary=b"])
    {
        let content_type = format!("multipart/form-data{parameters}");
        let error = MultipartParser::new(content_type.as_bytes(), MultipartLimits::new(100)).err();
        assert_eq!(error, Some(MultipartError::Boundary), "{parameters}");
    }
    let content_type = format!("multipart/form-data{}", long(70));
    assert!(MultipartParser::new(content_type.as_bytes(), MultipartLimits::new(100)).is_ok());
}

/// RFC 7578 4.2 and 4.4
#[test]
fn headers_name_field_file_and_type() {
    let file =
        "content-disposition:form-data ; FILENAME=f.txt; name=a\r\nContent-type: a/b; c \r\n";
    assert_eq!(with_head(file), Ok(part("a", Some("f.txt"), Some("a/b; c"))));
    let empty = "Content-Disposition: form-data; name=\"\"; filename=\"\"\r\n";
    assert_eq!(with_head(empty), Ok(part("", Some(""), None)));
}

/// RFC 7578 4.2: filename* must not be used; user agents write `%22` for a quote.
#[test]
fn file_names_are_decoded_like_user_agents_write_them() {
    let head = |value: &str| {
        let lines = format!("Content-Disposition: form-data; name=a; filename={value}\r\n");
        with_head(&lines).map(|part| String::from_utf8(part.unwrap().file_name.unwrap()).unwrap())
    };
    assert_eq!(head("\"x\"; filename*=UTF-8''y"), Ok("x".into()));
    assert_eq!(head("\"a%22b; c%0D%0A%41\u{e4}\""), Ok("a\"b; c\r\n%41\u{e4}".into()));
    assert_eq!(head("\"end\\\""), Ok("end\\".into()));
    assert_eq!(head("\"C:\\dir\\name\""), Ok("C:\\dir\\name".into()));
}

#[test]
fn nameless_parts_are_dropped() {
    for lines in [
        "",
        "Content-Type: a/b\r\n",
        "Content-Disposition: form-data\r\n",
        "Content-Disposition: form-data; filename=f\r\n",
        "Content-Disposition: attachment; name=a\r\n",
    ] {
        assert_eq!(
            parse(&format!("--b\r\n{lines}\r\nx\r\n{A}1\r\n--b--")),
            Ok(vec![field("a", "1")])
        );
    }
}

/// RFC 2045 2: header lines may be folded. RFC 7578 4.8: other fields are ignored.
#[test]
fn headers_may_be_folded_and_unknown() {
    let lines = "X-Y: z\r\nContent-Disposition: form-data;\r\n\tname=\"a\"\r\n b: c\r\n";
    assert_eq!(with_head(lines), Err(MultipartError::Header));
    let lines = "X-Y:\r\n z\r\nContent-Disposition: form-data;\r\n\tname=\"a\"\r\n";
    assert_eq!(with_head(lines), Ok(part("a", None, None)));
}

#[test]
fn malformed_headers_are_refused() {
    for lines in [
        "X\r\n",
        "X : y\r\n",
        ": y\r\n",
        " X: y\r\n",
        "X: y\n",
        "X: \0\r\n",
        "X: y\rz\r\n",
        "Content-Disposition: form-data; name\r\n",
        "Content-Disposition: form-data; name=\"a\r\n",
        "Content-Disposition: form-data; name=a; name=a\r\n",
        "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=a\r\n",
    ] {
        assert_eq!(with_head(lines), Err(MultipartError::Header), "{lines:?}");
    }
}

/// RFC 2045 6.2: some names of encodings mean that there is none. RFC 7578 4.7 deprecates the others.
#[test]
fn encoded_parts_are_refused() {
    let with = |encoding: &str| {
        let lines = "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding:";
        with_head(&format!("{lines}{encoding}\r\n"))
    };
    for plain in [" binary", "8bit", " 7Bit\t", " BINARY"] {
        assert_eq!(with(plain), Ok(part("a", None, None)), "{plain:?}");
    }
    for encoding in [" base64", " quoted-printable", "", " binary, base64", " x-binary"] {
        assert_eq!(with(encoding), Err(MultipartError::TransferEncoding), "{encoding:?}");
    }
}

#[test]
fn malformed_delimiters_are_refused() {
    for body in ["--bx\r\n", "--b\n", "--b \n", "--b\rx", "--b-\r\n", "--b x\r\n"] {
        assert_eq!(parse(body), Err(MultipartError::Delimiter), "{body:?}");
    }
}

#[test]
fn bodies_without_closing_delimiter_are_refused() {
    for body in ["", "x", "--b", "--b\r\n", A, &format!("{A}1\r\n--b-"), &format!("{A}1\n--b--")] {
        assert_eq!(parse(body), Err(MultipartError::Truncated), "{body:?}");
    }
}

#[test]
fn parts_and_their_headers_are_limited() {
    let limits = MultipartLimits { parts: 2, header_size: 60, header_count: 2 };
    let parse = |body: String| {
        let parser = MultipartParser::new(CONTENT_TYPE, limits).unwrap();
        parse_pieces(parser, &[body.as_bytes()]).err()
    };
    assert_eq!(parse(format!("{A}1\r\n{A}2\r\n--b--")), None);
    assert_eq!(
        parse(format!("{A}1\r\n--b\r\n\r\n\r\n{A}1\r\n--b--")),
        Some(MultipartError::TooManyParts)
    );
    assert_eq!(
        parse(format!("--b\r\nX: {}\r\n\r\n", "y".repeat(60))),
        Some(MultipartError::HeaderTooBig)
    );
    assert_eq!(parse(format!("--b\r\n{}", "y".repeat(61))), Some(MultipartError::HeaderTooBig));
    assert_eq!(parse(format!("{}\r\n--b--", "x".repeat(58))), None);
    assert_eq!(parse("x".repeat(61)), Some(MultipartError::Delimiter));
    assert_eq!(parse("--b\r\nX: y\r\nX: y\r\n\r\n\r\n--b--".into()), None);
    assert_eq!(parse("--b\r\nX: y\r\nX: y\r\nX: y\r\n".into()), Some(MultipartError::HeaderTooBig));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_parts(
        values in proptest::collection::vec("[\r\n\\-bx]{0,24}", 0..4),
        cuts in proptest::collection::vec(0usize..400, 0..8),
    ) {
        prop_assume!(!values.iter().any(|value| format!("\r\n{value}").contains("\r\n--b")));
        let mut body: String = values.iter().map(|value| format!("{A}{value}\r\n")).collect();
        body += "--b--\r\n";
        let expected: FoundParts = values.iter().map(|value| field("a", value)).collect();
        prop_assert_eq!(parse_pieces(parser(), &pieces(body.as_bytes(), &cuts)), Ok(expected));
    }

    #[test]
    fn any_split_gives_the_same_outcome(
        body in "(--b|\r\n|--|X: y|[b\r\n \\-])*",
        tail in "([\r\n\\-]|--b|x){0,9}",
        cuts in proptest::collection::vec(0usize..100, 0..8),
    ) {
        let body = format!("{body}\r\n{A}{tail}");
        let whole = parse_pieces(parser(), &[body.as_bytes()]);
        prop_assert_eq!(parse_pieces(parser(), &pieces(body.as_bytes(), &cuts)), whole);
    }
}
