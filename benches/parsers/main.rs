//! Speed of the pure HTTP parsers: `make bench-parsers`.
//!
//! Throughput is printed in MB/s (10^6 bytes a second) of one core. Bodies are pushed in slices
//! of 16 KiB, as they come from a connection; but for the first, uploads repeat a block of 1 MiB,
//! which stays in the processor's cache as a receive buffer would. The last section doubles
//! hostile inputs of 1 MiB: linear parsers take twice as long. The program fails if an upload of
//! 1 GiB takes longer than at 500 MB/s, a doubled input more than 2.5 times as long, or 1 MiB of
//! hostile input 50 ms.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use moonbridge::http::form::{multipart, urlencoded};
use moonbridge::http::wire::{chunked, cookies, escape, head, list, media_type, params};
use nix::time::ClockId;

const MIB: usize = 1 << 20;
const SLICE: usize = 16384;

/// The least throughput of a multipart upload, in bytes a second.
const MULTIPART_FLOOR: f64 = 500e6;
/// The most that a doubled input may take of the time for the single one.
const DOUBLING_CEILING: f64 = 2.5;
/// What any hostile input of 1 MiB must stay under.
const HEAD_CEILING: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    println!("throughput, MB/s");
    let uploads = throughput_of_multipart();
    throughput_of_chunked();
    throughput_of_forms();
    println!("doubled input, factor of processor time");
    let (doubling, in_time) = worst_doubling();
    let passed = uploads >= MULTIPART_FLOOR && doubling <= DOUBLING_CEILING && in_time;
    println!("{}", if passed { "ok" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints and returns the throughput of a run over `bytes` bytes.
fn report(name: &str, bytes: usize, run: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    black_box(run());
    let throughput = bytes as f64 / start.elapsed().as_secs_f64();
    println!("  {name:<44} {:>8.0}", throughput / 1e6);
    throughput
}

/// Bytes without a pattern (xorshift), the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

/// The part of 1 GiB that is repeated blocks of `block`; returns the bytes of data found.
fn multipart_upload(block: &[u8], blocks: usize) -> usize {
    let content_type = b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let head = b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n";
    let tail = b"\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n";
    let mut parser =
        multipart::MultipartParser::new(content_type, multipart::MultipartLimits::new(4096))
            .unwrap_or_else(|error| panic!("{error}"));
    let mut found = push_multipart(&mut parser, head);
    for _ in 0..blocks {
        for slice in block.chunks(SLICE) {
            found += push_multipart(&mut parser, slice);
        }
    }
    found += push_multipart(&mut parser, tail);
    parser.finish().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, block.len() * blocks);
    found
}

fn push_multipart(parser: &mut multipart::MultipartParser, mut input: &[u8]) -> usize {
    let mut found = 0;
    loop {
        let (used, event) = parser.push(input).unwrap_or_else(|error| panic!("{error}"));
        match event {
            multipart::MultipartEvent::Data(data) => found += black_box(data).len(),
            multipart::MultipartEvent::More => return found,
            _ => {}
        }
        input = &input[used..];
    }
}

/// The least throughput of uploads of 1 GiB.
fn throughput_of_multipart() -> f64 {
    let blocks = [
        ("multipart: 1 GiB of noise, from memory", noise(MIB).repeat(1024)),
        ("multipart: 1 GiB of noise", noise(MIB)),
        ("multipart: 1 GiB of zeros", vec![0; MIB]),
        ("multipart: 1 GiB of text lines", b"All work and no play makes.\r\n".repeat(36158)),
        ("multipart: 1 GiB of CR LF", b"\r\n".repeat(MIB / 2)),
        ("multipart: 1 GiB of CR LF and dashes", b"\r\n------".repeat(MIB / 8)),
        ("multipart: 1 GiB of dashes", b"-".repeat(MIB)),
        (
            "multipart: 1 GiB of almost the boundary",
            b"\r\n------WebKitFormBoundary7MA4YWxkTrZu0gX".repeat(24967),
        ),
    ];
    let upload = |(name, block): &(&str, Vec<u8>)| {
        let blocks = (1024 * MIB).div_ceil(block.len());
        report(name, blocks * block.len(), || multipart_upload(block, blocks))
    };
    blocks.iter().map(upload).fold(f64::INFINITY, f64::min)
}

/// Small fields: what a part's headers cost.
fn multipart_fields(count: usize) -> Vec<u8> {
    let field = b"--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nsome value\r\n";
    [&field.repeat(count)[..], b"--b--\r\n"].concat()
}

fn parse_multipart(body: &[u8]) -> usize {
    let limits = multipart::MultipartLimits::new(usize::MAX);
    let mut parser = multipart::MultipartParser::new(b"multipart/form-data; boundary=b", limits)
        .unwrap_or_else(|error| panic!("{error}"));
    body.chunks(SLICE).map(|slice| push_multipart(&mut parser, slice)).sum()
}

fn decode_chunked(body: &[u8]) -> usize {
    let mut decoder = chunked::ChunkedDecoder::new(chunked::ChunkedLimits::new(u64::MAX));
    let mut found = 0;
    for slice in body.chunks(SLICE) {
        let mut rest = slice;
        loop {
            let (used, event) = decoder.decode(rest).unwrap_or_else(|error| panic!("{error}"));
            match event {
                chunked::ChunkedEvent::Data(data) => found += black_box(data).len(),
                _ => break,
            }
            rest = &rest[used..];
        }
    }
    assert!(decoder.is_end());
    found
}

fn chunks(size: usize, count: usize) -> Vec<u8> {
    let chunk = [format!("{size:x}\r\n").as_bytes(), &b"x".repeat(size)[..], b"\r\n"].concat();
    [&chunk.repeat(count)[..], b"0\r\n\r\n"].concat()
}

fn throughput_of_chunked() {
    for (name, size) in [
        ("chunked: chunks of 64 KiB", 65536),
        ("chunked: chunks of 1 KiB", 1024),
        ("chunked: chunks of 1 byte", 1),
    ] {
        let body = chunks(size, 64 * MIB / (size + 5));
        report(name, body.len(), || decode_chunked(&body));
    }
}

fn parse_urlencoded(body: &[u8]) -> usize {
    let limits = urlencoded::UrlencodedLimits::new(usize::MAX);
    let mut parser = urlencoded::UrlencodedParser::new(limits);
    let mut found = 0;
    for slice in body.chunks(SLICE) {
        let mut rest = slice;
        loop {
            let (used, event) = parser.push(rest).unwrap_or_else(|error| panic!("{error}"));
            match event {
                urlencoded::UrlencodedEvent::Value(value) => found += black_box(value).len(),
                urlencoded::UrlencodedEvent::More => break,
                _ => {}
            }
            rest = &rest[used..];
        }
    }
    found
}

fn parse_query(query: &[u8]) -> usize {
    params::pairs(query).map(|pair| black_box(pair).1.len()).sum()
}

fn parse_cookies(header: &[u8]) -> usize {
    cookies::cookies(header).map(|pair| black_box(pair).1.len()).sum()
}

fn split_list(value: &[u8]) -> usize {
    list::elements(value).map(|element| black_box(element).len()).sum()
}

fn throughput_of_forms() {
    let value = |value: &[u8]| [b"a=", &value.repeat(64 * MIB / value.len())[..]].concat();
    let fields = b"name=some+value&".repeat(4 * MIB);
    for (name, body) in [
        ("urlencoded: a plain value", value(b"x")),
        ("urlencoded: a value of words", value(b"word+")),
        ("urlencoded: a value of escapes", value(b"%41")),
        ("urlencoded: small fields", fields),
    ] {
        report(name, body.len(), || parse_urlencoded(&body));
    }
    let fields = multipart_fields(MIB);
    report("multipart: small fields", fields.len(), || parse_multipart(&fields));
    let query = b"name=some+value&".repeat(4 * MIB);
    report("query: small fields", query.len(), || parse_query(&query));
    let header = b"name=some%20value; ".repeat(4 * MIB);
    report("cookies: small cookies", header.len(), || parse_cookies(&header));
    let header = b"gzip;q=0.5, ".repeat(4 * MIB);
    report("list: small elements", header.len(), || split_list(&header));
    report("encode_uri: blanks", 16 * MIB, || escape::encode_uri(&b" ".repeat(16 * MIB)).len());
    report("encode_html: quotes", 16 * MIB, || escape::encode_html(&b"\"".repeat(16 * MIB)).len());
}

/// Processor time of a run: other work on the machine does not count.
fn processor_time(run: impl FnOnce() -> usize) -> Duration {
    let now = || ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from).unwrap_or_default();
    let start = now();
    black_box(run());
    now() - start
}

/// The shortest times of runs over an input and over the doubled one, taken in turn.
fn best_times(parse: Parse, unit: &[u8]) -> (Duration, Duration) {
    let [single, double] = [MIB, 2 * MIB].map(|len| unit.repeat(len / unit.len()));
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..9 {
        best.0 = best.0.min(processor_time(|| parse(&single)));
        best.1 = best.1.min(processor_time(|| parse(&double)));
    }
    best
}

type Parse = fn(&[u8]) -> usize;

/// The whole input as a head that is not limited, in pieces of 1 KiB.
fn parse_head(input: &[u8]) -> usize {
    let limits = head::HeadLimits { head: usize::MAX, fields: usize::MAX };
    let mut head = head::Head::default();
    let mut available = 0;
    while available < input.len() {
        available = input.len().min(available + 1024);
        if head.advance(black_box(&input[..available]), &limits) != Ok(head::HeadProgress::Partial)
        {
            break;
        }
    }
    head.fields.len()
}

/// `input` as the header lines of a request.
fn parse_head_lines(input: &[u8]) -> usize {
    parse_head(&[b"GET / HTTP/1.1\r\n", input, b"\r\n\r\n"].concat())
}

fn parse_header_value(input: &[u8]) -> usize {
    parse_head_lines(&[b"a:", input].concat())
}

fn parse_target(input: &[u8]) -> usize {
    parse_head(&[b"GET /", input, b" HTTP/1.1\r\n\r\n"].concat())
}

fn split_parameters(value: &[u8]) -> usize {
    let parameters = media_type::MediaType::parse(value).parameters();
    parameters.map_while(Result::ok).map(|parameter| black_box(parameter.value()).len()).sum()
}

/// The largest factor of processor time between an input and the doubled one, and whether all inputs of
/// 1 MiB took less than the ceiling.
fn worst_doubling() -> (f64, bool) {
    let cases: [(&str, Parse, &[u8]); 22] = [
        ("head: empty lines", parse_head, b"\r\n"),
        ("head: the target", parse_target, b"a"),
        ("head: blanks in a value", parse_header_value, b" "),
        ("head: lines", parse_head_lines, b"a:b\r\n"),
        ("head: lines of blanks", parse_head_lines, b"a: \t \r\n"),
        ("query: separators", parse_query, b"&"),
        ("query: names", parse_query, b"a&"),
        ("query: percent signs", parse_query, b"%"),
        ("cookies: blanks", parse_cookies, b" "),
        ("cookies: semicolons and blanks", parse_cookies, b" ; "),
        ("cookies: pairs", parse_cookies, b"a=;"),
        ("list: blanks", split_list, b" "),
        ("list: commas and blanks", split_list, b" ,\t"),
        ("list: quotes", split_list, b"\""),
        ("list: open quoted strings", split_list, b",\"\\"),
        ("parameters: semicolons and blanks", split_parameters, b" ; "),
        ("parameters: names", split_parameters, b"; a=b"),
        ("parameters: quoted strings", split_parameters, b";a=\"\\\"%22\""),
        ("urlencoded: equals signs", parse_urlencoded, b"a=="),
        ("urlencoded: fields", parse_urlencoded, b"a&"),
        ("urlencoded: half escapes", parse_urlencoded, b"=%4"),
        ("multipart: line ends", |data| multipart_upload(data, 1), b"\r\n-"),
    ];
    let (mut worst, mut in_time) = (0.0_f64, true);
    for (name, parse, unit) in cases {
        let (single, double) = best_times(parse, unit);
        let factor = double.as_secs_f64() / single.as_secs_f64();
        println!("  {name:<44} {factor:>8.2}  ({:.2} ms a MiB)", single.as_secs_f64() * 1e3);
        worst = worst.max(factor);
        in_time &= single < HEAD_CEILING;
    }
    (worst, in_time)
}
