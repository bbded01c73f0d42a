//! Tests of the head parser, grouped by the section of RFC 9112 they hold to.

use super::head::*;
use super::refusal::Refusal;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { head: 1024, fields: 8 };

type Parsed = (String, String, Version, Vec<(String, String)>, usize);

fn text(span: Span, input: &[u8]) -> String {
    String::from_utf8_lossy(span.of(input)).into_owned()
}

fn outcome(head: &Head, input: &[u8], progress: HeadProgress) -> Option<Parsed> {
    let HeadProgress::Complete(size) = progress else { return None };
    let fields = head.fields.iter().map(|f| (text(f.name, input), text(f.value, input))).collect();
    Some((text(head.method, input), text(head.target, input), head.version, fields, size))
}

fn parse(input: &[u8]) -> Result<Option<Parsed>, Refusal> {
    let mut head = Head::default();
    let progress = head.advance(input, &LIMITS)?;
    Ok(outcome(&head, input, progress))
}

/// Feeds `input` in growing prefixes of `step` more bytes each.
fn parse_in_pieces(input: &[u8], step: usize) -> Result<Option<Parsed>, Refusal> {
    let mut head = Head::default();
    let mut size = 0;
    loop {
        size = input.len().min(size + step);
        let progress = head.advance(&input[..size], &LIMITS)?;
        if let Some(parsed) = outcome(&head, input, progress) {
            return Ok(Some(parsed));
        }
        if size == input.len() {
            return Ok(None);
        }
    }
}

fn status(input: &[u8]) -> &'static str {
    parse(input).map_or_else(|refusal| &refusal.status[..3], |_| "200")
}

mod section_2_2_message_parsing {
    use super::*;

    #[test]
    fn empty_lines_before_the_request_line_are_skipped() {
        let parsed = parse(b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert_eq!((parsed.0.as_str(), parsed.4), ("GET", 23));
    }

    #[test]
    fn a_bare_lf_is_refused() {
        for input in [
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost: a\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET /\n",
        ] {
            assert_eq!(status(input.as_bytes()), "400", "{input:?}");
        }
    }

    #[test]
    fn a_bare_cr_is_refused() {
        for input in [
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\r\n\r\n",
            "\rGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(status(input.as_bytes()), "400", "{input:?}");
        }
    }
}

mod section_3_request_line {
    use super::*;

    #[test]
    fn exactly_single_spaces_separate_the_parts() {
        for line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET / a HTTP/1.1",
            "GET /",
            "GET",
            "GET / ",
            "GET  HTTP/1.1",
        ] {
            assert_eq!(status(format!("{line}\r\n").as_bytes()), "400", "{line:?}");
        }
    }

    #[test]
    fn the_method_is_a_token() {
        for method in ["G(T", "G\0T", "GET:", "\u{e4}", "\""] {
            assert_eq!(status(format!("{method} / HTTP/1.1\r\n\r\n").as_bytes()), "400");
        }
        assert_eq!(parse(b"x-y!#~ / HTTP/1.1\r\n\r\n").unwrap().unwrap().0, "x-y!#~");
    }

    #[test]
    fn later_minor_versions_are_1_1_and_other_major_ones_505() {
        let version = |text: &str| {
            parse(format!("GET / {text}\r\n\r\n").as_bytes())
                .map(|parsed| parsed.unwrap().2)
                .map_err(|refusal| &refusal.status[..3])
        };
        assert_eq!(version("HTTP/1.0"), Ok(Version::Http10));
        assert_eq!(version("HTTP/1.1"), Ok(Version::Http11));
        assert_eq!(version("HTTP/1.9"), Ok(Version::Http11));
        for text in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.1"] {
            assert_eq!(version(text), Err("505"), "{text}");
        }
        for text in ["http/1.1", "HTTP/1", "HTTP/1.", "HTTP/11", "HTTP/1.10", "HTTP/1.x", "HTP/1.1"]
        {
            assert_eq!(version(text), Err("400"), "{text}");
        }
    }

    #[test]
    fn a_request_line_over_the_limit_is_414_also_before_its_end() {
        let long = format!("GET /{}", "a".repeat(1020));
        assert_eq!(status(long.as_bytes()), "414");
        assert_eq!(status(format!("{long} HTTP/1.1\r\n\r\n").as_bytes()), "414");
    }

    #[test]
    fn a_bad_request_line_is_refused_before_the_rest_is_there() {
        assert_eq!(status(b"nonsense\r\n"), "400");
    }
}

mod section_5_field_syntax {
    use super::*;

    #[test]
    fn blanks_around_a_value_are_not_part_of_it() {
        let parsed =
            parse(b"GET / HTTP/1.1\r\nA: \t b c \t\r\nB:\r\nC:d\r\n\r\n").unwrap().unwrap();
        let values: Vec<_> = parsed.3.iter().map(|field| field.1.as_str()).collect();
        assert_eq!(values, ["b c", "", "d"]);
    }

    #[test]
    fn blanks_before_the_colon_and_folded_lines_are_refused() {
        for line in
            ["Host : a", "Host\t: a", " Host: a", "A: b\r\n c", "A: b\r\n\tc", ": a", "Host"]
        {
            let input = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
            assert_eq!(status(input.as_bytes()), "400", "{line:?}");
        }
    }

    #[test]
    fn control_characters_are_refused_and_other_bytes_kept() {
        for byte in (0..0x20).chain([0x7f]).filter(|byte| ![b'\t', b'\n'].contains(byte)) {
            let input = [b"GET / HTTP/1.1\r\nA: b", &[byte][..], b"c\r\n\r\n"].concat();
            assert_eq!(status(&input), "400", "{byte:#x}");
        }
        assert_eq!(status(b"GET / HTTP/1.1\r\nA: \xe4\xff\t\r\n\r\n"), "200");
    }

    #[test]
    fn too_large_a_section_and_too_many_lines_are_431() {
        let large = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(1024));
        assert_eq!(status(large.as_bytes()), "431");
        let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(9));
        assert_eq!(status(many.as_bytes()), "431");
        let allowed = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(8));
        assert_eq!(status(allowed.as_bytes()), "200");
    }

    #[test]
    fn a_head_of_exactly_the_limit_is_allowed() {
        let exact = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(1024 - 23));
        assert_eq!((exact.len(), status(exact.as_bytes())), (1024, "200"));
        let over = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(1024 - 22));
        assert_eq!(status(over.as_bytes()), "431");
    }
}

/// The name and value of a valid field line, told byte by byte.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let valid = !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_text);
    let is_blank = |byte: &u8| b" \t".contains(byte);
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    valid.then_some((name, &value[start..end]))
}

proptest! {
    #[test]
    fn valid_field_lines_are_those_of_the_grammar(
        name in "[a-zA-Z0-9._-]{0,36}",
        bytes in proptest::collection::vec(
            proptest::sample::select(b": \t\t  abcdefghxyz019-_~@/\"\0\r\x1f\x7f\x80\xff".as_slice()),
            0..48,
        ),
        step in 1usize..40,
    ) {
        let line = [name.as_bytes(), &bytes].concat();
        prop_assume!(!line.is_empty());
        let input = [b"GET / HTTP/1.1\r\n", &line[..], b"\r\n\r\n"].concat();
        let mut head = Head::default();
        let found = head.advance(&input, &LIMITS).ok().map(|progress| {
            prop_assert_eq!(progress, HeadProgress::Complete(input.len()));
            Ok((head.fields[0].name.of(&input), head.fields[0].value.of(&input)))
        }).transpose()?;
        prop_assert_eq!(found, field(&line));
        prop_assert_eq!(parse_in_pieces(&input, step), parse(&input));
    }

    #[test]
    fn pieces_parse_like_the_whole(
        input in "(\r?\n)?[A-Z ]{1,5} ?/[a-c ]{0,4} HTTP/1.[0-9x](\r?\n[A-C]{1,2} ?: ?[a-z\r \t]{0,5}){0,4}\r?\n\r?\n[A-Z]{0,3}",
        step in 1usize..9,
    ) {
        prop_assert_eq!(parse_in_pieces(input.as_bytes(), step), parse(input.as_bytes()));
    }

    #[test]
    fn no_input_makes_it_panic(input: Vec<u8>, step in 1usize..9) {
        prop_assert_eq!(parse_in_pieces(&input, step), parse(&input));
    }
}
