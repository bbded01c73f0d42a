//! PROXY headers as proxies send them, and as they must not be.

use proptest::prelude::*;

use super::*;

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}

fn ends(source: &str, destination: &str) -> Addresses<'static> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Addresses::Internet { source, destination }
}

#[test]
fn lines_of_version_1() {
    for (line, addresses) in [
        ("TCP4 192.0.2.1 198.51.100.1 56324 443", ends("192.0.2.1:56324", "198.51.100.1:443")),
        ("TCP6 2001:db8::1 ::1 0 65535", ends("[2001:db8::1]:0", "[::1]:65535")),
        ("UNKNOWN", Addresses::Unknown),
        ("UNKNOWN ffff:f...f anything", Addresses::Unknown),
    ] {
        let header = format!("PROXY {line}\r\n");
        let parsed = parse(header.as_bytes()).unwrap();
        assert_eq!((parsed.version, parsed.addresses), (1, addresses), "{line}");
        assert_eq!(parsed.is_local, addresses == Addresses::Unknown);
        assert_eq!(length(&[header.as_bytes(), b"GET /\n"].concat()), Ok(Some(header.len())));
    }
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "",
        "TCP4",
        "TCP5 192.0.2.1 198.51.100.1 1 2",
        "tcp4 192.0.2.1 198.51.100.1 1 2",
        "TCP4 192.0.2.1 198.51.100.1 1",
        "TCP4 192.0.2.1 198.51.100.1 1 2 3",
        "TCP4 192.0.2.1 198.51.100.1 1 2 ",
        "TCP4  192.0.2.1 198.51.100.1 1 2",
        "TCP4 192.0.2.01 198.51.100.1 1 2",
        "TCP4 192.0.2.256 198.51.100.1 1 2",
        "TCP4 ::1 ::1 1 2",
        "TCP6 192.0.2.1 198.51.100.1 1 2",
        "TCP4 192.0.2.1 198.51.100.1 01 2",
        "TCP4 192.0.2.1 198.51.100.1 +1 2",
        "TCP4 192.0.2.1 198.51.100.1 1 65536",
        "unknown",
    ] {
        assert!(parse(format!("PROXY {line}\r\n").as_bytes()).is_err(), "{line:?}");
    }
    assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(MalformedHeader::Line));
    assert_eq!(parse(b"PROXY UNKNOWN\r\nGET"), Err(MalformedHeader::Line));
}

#[test]
fn headers_of_version_2() {
    let block = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
    let header = binary(0x21, 0x11, &[&block[..], &[2, 0, 3], b"abc", &[4, 0, 0]].concat());
    let parsed = parse(&header).unwrap();
    assert_eq!((parsed.version, parsed.is_local), (2, false));
    assert_eq!(parsed.transport, ProxiedTransport::Stream);
    assert_eq!(parsed.addresses, ends("192.0.2.1:56324", "198.51.100.1:443"));
    let tlvs: Vec<_> = parsed.tlvs().collect();
    assert_eq!(tlvs, [(2, &b"abc"[..]), (4, b"")]);
    let mut block = [0; 36];
    (block[15], block[31], block[33], block[35]) = (1, 2, 80, 81);
    let header = binary(0x21, 0x22, &block);
    let parsed = parse(&header).unwrap();
    assert_eq!(parsed.addresses, ends("[::1]:80", "[::2]:81"));
    assert_eq!(parsed.transport, ProxiedTransport::Datagram);
    let mut block = [0; 216];
    block[108..113].copy_from_slice(b"\0name");
    let header = binary(0x21, 0x31, &block);
    let (source, destination) = (&b""[..], &b"\0name"[..]);
    assert_eq!(parse(&header).unwrap().addresses, Addresses::Local { source, destination });
    assert_eq!(parse(&binary(0x21, 0, b"")).unwrap().addresses, Addresses::Unknown);
}

#[test]
fn of_local_connections_only_tlvs_count() {
    for (family, block, tlvs) in [
        (0, &b""[..], 0),
        (0, &[5, 0, 1, 7][..], 1),
        (0x11, &[1; 12][..], 0),
        (0xff, &b"anything"[..], 0),
        (0x11, &b"short"[..], 0),
    ] {
        let header = binary(0x20, family, block);
        let parsed = parse(&header).unwrap();
        assert!(parsed.is_local);
        assert_eq!((parsed.addresses, parsed.tlvs().count()), (Addresses::Unknown, tlvs));
    }
}

#[test]
fn malformed_headers_of_version_2_are_refused() {
    for (command, family, block, error) in [
        (0x22, 0x11, &[0; 12][..], MalformedHeader::Command),
        (0x21, 0x41, &[0; 12], MalformedHeader::Family),
        (0x21, 0x13, &[0; 12], MalformedHeader::Family),
        (0x21, 0x11, &[0; 11], MalformedHeader::Addresses),
        (0x21, 0x21, &[0; 35], MalformedHeader::Addresses),
        (0x21, 0x31, &[0; 215], MalformedHeader::Addresses),
        (0x21, 0x11, &[0; 14], MalformedHeader::Tlv),
        (0x21, 0x00, &[1, 0, 2, 0], MalformedHeader::Tlv),
        (0x11, 0x11, &[0; 12], MalformedHeader::Version),
        (0x21, 0x11, &[0; MAX_HEADER], MalformedHeader::TooLong),
    ] {
        assert_eq!(parse(&binary(command, family, block)), Err(error), "{command} {family}");
    }
}

#[test]
fn what_is_no_header_is_told_at_once() {
    assert_eq!(length(b""), Ok(None));
    assert_eq!(length(b"PROXY "), Ok(None));
    assert_eq!(length(b"P"), Ok(None));
    assert_eq!(length(b"\r"), Ok(None));
    assert_eq!(length(b"PO"), Err(MalformedHeader::Missing));
    assert_eq!(length(b"GET / HTTP/1.1\r\n"), Err(MalformedHeader::Missing));
    assert_eq!(length(b"\r\n\r\n\r"), Err(MalformedHeader::Missing));
    assert_eq!(length(&[WORD, &[b'x'; 200]].concat()), Err(MalformedHeader::TooLong));
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same_header(
        ip in any::<[u8; 4]>(),
        ports in any::<(u16, u16)>(),
        tlvs in proptest::collection::vec(any::<(u8, Vec<u8>)>(), 0..5),
        after in any::<Vec<u8>>(),
    ) {
        let (source, destination) = (SocketAddr::from((ip, ports.0)), SocketAddr::from((ip, ports.1)));
        let addresses = Addresses::Internet { source, destination };
        let line = format!("PROXY TCP4 {} {} {} {}\r\n", source.ip(), source.ip(), ports.0, ports.1);
        let mut block = [&ip[..], &ip, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat();
        for (kind, value) in &tlvs {
            block.push(*kind);
            block.extend((value.len() as u16).to_be_bytes());
            block.extend(value);
        }
        for header in [line.into_bytes(), binary(0x21, 0x11, &block)] {
            prop_assert_eq!(parse(&header).unwrap().addresses, addresses);
            let input = [&header[..], &after].concat();
            for end in 0..input.len() {
                let expected = (end >= header.len()).then_some(header.len());
                prop_assert_eq!(length(&input[..end]), Ok(expected));
            }
        }
        let header = binary(0x21, 0x11, &block);
        let read: Vec<_> =
            parse(&header).unwrap().tlvs().map(|(kind, value)| (kind, value.to_vec())).collect();
        prop_assert_eq!(read, tlvs);
    }

    #[test]
    fn nothing_panics(input in any::<Vec<u8>>(), command in any::<u8>(), family in any::<u8>()) {
        let _ = (length(&input), parse(&input), parse(&binary(command, family, &input)));
    }
}
