//! Streams over real socket pairs: local sockets and TCP on the loopback interface.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::io::Awaits;

fn local() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Stream::accepted(OwnedFd::from(ours), None), theirs)
}

fn tcp() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).set_linger(Some(Duration::ZERO)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, peer) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (Stream::accepted(OwnedFd::from(ours), Some(peer.into())), theirs)
}

fn boxed<T: Read + 'static>((ours, theirs): (Stream, T)) -> (Stream, Box<dyn Read>) {
    (ours, Box::new(theirs))
}

fn memory(stream: &Stream) -> usize {
    stream.duplex.input.memory() + stream.duplex.output.memory()
}

/// Reads until input or EOF is there.
fn fill(stream: &mut Stream) -> Fill {
    loop {
        match stream.duplex.fill().unwrap() {
            Fill::Block => assert!(
                stream.duplex.wait(Direction::Read, Some(Duration::from_secs(5))).unwrap(),
                "nothing came"
            ),
            fill => return fill,
        }
    }
}

#[test]
fn fill_appends_what_came_and_consume_drops_it() {
    let (mut ours, mut theirs) = tcp();
    assert_eq!(ours.duplex.fill().unwrap(), Fill::Block);
    theirs.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(fill(&mut ours), Fill::Data(16));
    ours.duplex.consume(4);
    assert_eq!(ours.duplex.input(), b"/ HTTP/1.1\r\n");
    theirs.write_all(b"\r\n").unwrap();
    assert_eq!(fill(&mut ours), Fill::Data(2));
    assert_eq!(ours.duplex.input(), b"/ HTTP/1.1\r\n\r\n");
}

#[test]
fn fill_reports_the_end_of_input_again_and_again() {
    let (mut ours, theirs) = local();
    drop(theirs);
    assert_eq!(fill(&mut ours), Fill::Eof);
    assert_eq!(ours.duplex.fill().unwrap(), Fill::Eof);
    assert!(ours.duplex.is_eof() && ours.is_open());
}

#[test]
fn put_sends_nothing_before_a_flush() {
    let (mut ours, mut theirs) = local();
    ours.duplex.put(b"abc");
    ours.duplex.put(b"def");
    assert_eq!(ours.duplex.pending(), 6);
    theirs.set_nonblocking(true).unwrap();
    let mut buffer = [0; 16];
    assert!(theirs.read(&mut buffer).is_err());
    assert_eq!(ours.duplex.flush_nb().unwrap(), 0);
    assert_eq!(theirs.read(&mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"abcdef");
}

#[test]
fn send_nb_sends_the_queue_before_the_parts() {
    let (mut ours, mut theirs) = tcp();
    ours.duplex.put(b"one ");
    let parts: Vec<&[u8]> = vec![b"two ", b"", b"three"];
    assert_eq!(ours.duplex.send_nb(&parts).unwrap(), 0);
    let mut buffer = [0; 13];
    theirs.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"one two three");
}

#[test]
fn what_does_not_go_out_is_queued_and_counted() {
    let (mut ours, mut theirs) = local();
    let big: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut left = ours.duplex.send_nb(&[&big, b"tail"]).unwrap();
    assert!(left > 0 && left == ours.duplex.pending());
    let mut received = Vec::new();
    let mut buffer = vec![0; 100_000];
    while left > 0 {
        let n = theirs.read(&mut buffer).unwrap();
        received.extend_from_slice(&buffer[..n]);
        left = ours.duplex.flush_nb().unwrap();
    }
    drop(ours);
    theirs.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), big.len() + 4);
    assert!(received.starts_with(&big) && received.ends_with(b"tail"));
}

#[test]
fn send_all_waits_for_a_slow_reader() {
    let (mut ours, mut theirs) = local();
    let big = vec![7u8; 3_000_000];
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).map(|n| (n, all.last().copied()))
    });
    ours.duplex.put(b"head");
    ours.duplex.send_all(&[&big, b"!"]).unwrap();
    ours.close().unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), (3_000_005, Some(b'!')));
}

#[test]
fn close_ends_with_fin_even_with_unread_input() {
    let (mut ours, mut theirs) = tcp();
    theirs.write_all(&vec![0; 100_000]).unwrap();
    ours.duplex.wait(Direction::Read, None).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    ours.duplex.put(b"answer");
    ours.close().unwrap();
    assert!(!ours.is_open());
    let mut received = Vec::new();
    theirs.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"answer");
}

#[test]
fn drop_and_reset_end_with_rst_and_lose_unsent_data() {
    for explicit in [false, true] {
        let (mut ours, mut theirs) = tcp();
        ours.duplex.put(b"lost");
        if explicit {
            ours.reset().unwrap();
        }
        drop(ours);
        let error = theirs.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn finish_sends_eof_and_reads_go_on() {
    let (mut ours, mut theirs) = tcp();
    ours.duplex.put(b"question");
    ours.finish().unwrap();
    let mut all = String::new();
    theirs.read_to_string(&mut all).unwrap();
    assert_eq!(all, "question");
    theirs.write_all(b"answer").unwrap();
    assert_eq!(fill(&mut ours), Fill::Data(6));
    ours.close().unwrap();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn finish_nb_sends_eof_behind_all_that_is_queued() {
    for (mut ours, mut theirs) in [boxed(tcp()), boxed(local())] {
        let size = 16 * 1024 * 1024;
        ours.duplex.put(&vec![7; size]);
        assert!(ours.finish_nb().unwrap() > 0);
        assert!(ours.is_finished());
        let (mut piece, mut received) = (vec![0; 1024 * 1024], 0);
        while ours.finish_nb().unwrap() > 0 {
            received += theirs.read(&mut piece).unwrap();
        }
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).unwrap();
        assert_eq!(received + rest.len(), size);
        ours.close().unwrap();
    }
}

#[test]
fn finish_without_close_ends_in_rst() {
    let (mut ours, mut theirs) = tcp();
    ours.finish().unwrap();
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    drop(ours);
    let outcome = loop {
        match theirs.write_all(b"x") {
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => break error,
        }
    };
    assert!(matches!(outcome.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
}

#[test]
fn finish_of_a_local_socket_closes_it_and_emulates_eof() {
    let (mut ours, mut theirs) = local();
    theirs.write_all(b"unread").unwrap();
    ours.duplex.put(b"bye");
    ours.finish().unwrap();
    assert_eq!(ours.duplex.raw_fd(), None);
    assert!(ours.is_open() && ours.has_input());
    assert_eq!(ours.duplex.fill().unwrap(), Fill::Eof);
    let mut all = String::new();
    theirs.read_to_string(&mut all).unwrap();
    assert_eq!(all, "bye");
    ours.close().unwrap();
}

#[test]
fn errors_stick_in_their_direction() {
    let (mut ours, theirs) = tcp();
    socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
    drop(theirs);
    ours.duplex.wait(Direction::Read, None).unwrap();
    assert_eq!(ours.duplex.fill().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ours.duplex.fill().unwrap_err().to_string(), "Previous read error");
    assert_eq!(ours.duplex.send_nb(&[b"x"]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(ours.duplex.send_nb(&[b"x"]).unwrap_err().to_string(), "Previous write error");
    assert_eq!(ours.close().unwrap_err().to_string(), "Previous write error");
    assert!(!ours.is_open());
}

#[test]
fn a_stream_costs_little_until_data_flows_and_gives_memory_back() {
    assert!(size_of::<Stream>() < 512);
    let (mut ours, mut theirs) = tcp();
    assert_eq!(memory(&ours), 0);
    theirs.write_all(b"x").unwrap();
    fill(&mut ours);
    assert!(memory(&ours) > 0);
    ours.duplex.consume(1);
    theirs.write_all(b"y").unwrap();
    fill(&mut ours);
    ours.duplex.consume(1);
    assert_eq!(ours.duplex.fill().unwrap(), Fill::Block);
    assert_eq!(memory(&ours), 0);
}

#[test]
fn addresses_stay_known_after_close_once_asked_for() {
    let (mut ours, theirs) = tcp();
    ours.endpoints();
    let (local, peer) = (theirs.peer_addr().unwrap(), theirs.local_addr().unwrap());
    ours.close().unwrap();
    assert_eq!(ours.endpoints().local(), Some(local));
    assert_eq!(ours.endpoints().peer(), Some(peer));
}

#[test]
fn a_suspended_read_goes_on_when_what_it_awaits_is_there() {
    let (mut ours, mut theirs) = local();
    theirs.write_all(b"GET /").unwrap();
    fill(&mut ours);
    ours.duplex.input.hold(Awaits::EmptyLine(100));
    assert!(!ours.duplex.receive_awaited());
    for (piece, there) in [(" HTTP/1.0\r", false), ("\n", false), ("\r\nx", true)] {
        theirs.write_all(piece.as_bytes()).unwrap();
        assert_eq!(ours.duplex.receive_awaited(), there, "{piece:?}");
    }
    ours.duplex.input.hold(Awaits::Bytes(100));
    drop(theirs);
    assert!(ours.duplex.receive_awaited());
}

#[test]
fn output_that_a_failed_write_leaves_is_counted() {
    let (mut ours, theirs) = local();
    let bytes = vec![b'x'; 4 * 1024 * 1024];
    let left = ours.duplex.send_nb(&[&bytes]).unwrap();
    assert!(left > 0 && ours.duplex.output.dropped() == 0);
    drop(theirs);
    assert!(ours.duplex.flush_nb().is_err());
    assert_eq!((ours.duplex.pending(), ours.duplex.output.dropped()), (0, left as u64));
    assert_eq!(ours.duplex.output.transmitted(), (bytes.len() - left) as u64);
}

fn sendable<T: Read + Send + 'static>(
    (ours, theirs): (Stream, T),
) -> (Stream, Box<dyn Read + Send>) {
    (ours, Box::new(theirs))
}

/// A file with these bytes, at its beginning.
fn file(bytes: &[u8]) -> OwnedFd {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::from(
        nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap(),
    );
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

#[test]
fn a_file_goes_behind_what_was_queued_and_before_what_comes() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = Stream::over(Transport::owned(writer.into(), DescriptorKind::Plain), None);
    let mut peers: Vec<(Stream, Box<dyn Read + Send>)> = vec![(pipe, Box::new(reader))];
    for nonblocking in [false, true] {
        let (one, other) = (local(), tcp());
        for (ours, theirs) in [sendable(one), sendable(other)] {
            let socket = socket2::SockRef::from(&ours.duplex.fd().unwrap()).try_clone().unwrap();
            socket.set_nonblocking(nonblocking).unwrap();
            peers.push((ours, theirs));
        }
    }
    for (mut ours, mut theirs) in peers {
        ours.duplex.put(b"head");
        ours.duplex.put_file(FileTail::new(file(&content), content.len() as u64)).unwrap();
        assert!(ours.duplex.put_file(FileTail::new(file(b"x"), 1)).is_err());
        assert_eq!((ours.duplex.pending(), ours.duplex.written()), (3_000_004, 3_000_004));
        let left = ours.duplex.send_nb(&[b"behind"]).unwrap();
        assert_eq!(left, ours.duplex.pending());
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            received
        });
        ours.duplex.flush().unwrap();
        assert_eq!((ours.duplex.pending(), ours.duplex.written()), (0, 3_000_010));
        ours.close().unwrap();
        assert!(reader.join().unwrap() == [b"head", &content[..], b"behind"].concat());
    }
}

#[test]
fn a_file_that_is_too_short_fails_the_write() {
    let (mut ours, _theirs) = tcp();
    ours.duplex.put_file(FileTail::new(file(b"short"), 100)).unwrap();
    assert_eq!(ours.duplex.flush().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(ours.duplex.pending(), 0);
    assert!(ours.duplex.flush().is_err());
}
