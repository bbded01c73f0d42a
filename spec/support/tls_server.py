"""A TLS server of Python's ssl module for specs of the client: tls_server.py PORT MODE [key=value ...]"""

import socket
import ssl
import struct
import sys
import threading

port, mode = int(sys.argv[1]), sys.argv[2]
options = dict(argument.split("=", 1) for argument in sys.argv[3:])


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(options["certificate"], options["key"])
    if "client_ca" in options:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(options["client_ca"])
    if "alpn" in options:
        made.set_alpn_protocols(options["alpn"].split(","))
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    if "version" in options:
        made.minimum_version = made.maximum_version = versions[options["version"]]
    return made


tls = context() if "certificate" in options else None


def line(connection):
    text = b""
    while not text.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return text
        text += byte
    return text


def echo(connection):
    """Returns each line; ends in order when the client does."""
    while text := line(connection):
        connection.sendall(text)
    connection.unwrap()


def pair(connection):
    """Sends two lines in one record."""
    connection.sendall(b"one\ntwo\n")
    echo(connection)


def truncate(connection):
    connection.sendall(b"abc")
    line(connection)
    connection.shutdown(socket.SHUT_RDWR)


def half_close(connection):
    """Says that it sends no more, and answers nothing; notes what the client still sends."""
    connection.sendall(b"abc")
    try:
        connection.unwrap()
    except (ssl.SSLError, OSError):
        pass


def bulk(connection):
    """Sends as many bytes as the client's line says, and returns what comes afterwards."""
    size = int(line(connection))
    block = bytes(range(256)) * 256
    while size > 0:
        connection.sendall(block[:size])
        size -= len(block)
    count = int(line(connection))
    received = 0
    while received < count:
        received += len(connection.recv(65536))
    connection.sendall(b"%d\n" % received)
    line(connection)
    connection.unwrap()


def http(connection, number=[0]):
    """Answers requests, each with the numbers of the connection and of the request on it."""
    number[0] += 1
    own, count = number[0], 0
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            text = line(connection)
            if not text:
                return
            head += text
        count += 1
        sys.stderr.write("request %r\n" % head)
        sys.stderr.flush()
        target = head.split()[1].decode()
        if target.startswith("/to?"):
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target[4:].encode())
            continue
        body = b"%d %d %s" % (own, count, target.encode())
        if target == "/until-close":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            connection.unwrap()
            return
        if target == "/truncated":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            connection.shutdown(socket.SHUT_RDWR)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def tls_peer(handler):
    def serve(raw):
        with tls.wrap_socket(raw, server_side=True) as connection:
            handler(connection)
    return serve


def starttls(raw):
    """After the line STARTTLS and the answer OK as `echo`, `surplus` comes with the answer."""
    raw.sendall(b"hello\n")
    if line(raw) != b"STARTTLS\n":
        return
    raw.sendall(b"OK\n" + options.get("surplus", "").encode())
    with tls.wrap_socket(raw, server_side=True) as connection:
        echo(connection)


def silent(raw):
    raw.recv(1 << 16)
    raw.recv(1)


def garbage(raw):
    raw.recv(1 << 16)
    raw.sendall(bytes.fromhex(options["bytes"]) * int(options.get("times", "1")))
    if options.get("end"):
        raw.shutdown(socket.SHUT_WR)
    raw.recv(1)


def slow(raw):
    """Does the handshake byte by byte in both directions."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = tls.wrap_bio(incoming, outgoing, server_side=True)

    def push():
        for byte in outgoing.read():
            raw.sendall(bytes([byte]))

    def pull():
        incoming.write(raw.recv(1))

    while True:
        try:
            inner.do_handshake()
            break
        except ssl.SSLWantReadError:
            push()
            pull()
    push()
    while True:
        try:
            data = inner.read()
            inner.write(data)
            push()
            if data.endswith(b"\n"):
                break
        except ssl.SSLWantReadError:
            pull()
    raw.recv(1)


def damaged(raw, number=[0]):
    """Answers a line, over TLS of which one byte is changed, or which ends there; another one on each connection.

    Nothing follows what that byte is sent with: if it is a length, the client waits for more, and this side for the
    client. Only the client ends the connection: closing it with unread input would reset it.
    """
    step, cuts = int(options["step"]), "cut" in options
    at, sent = number[0] * step, 0
    number[0] += 1
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = tls.wrap_bio(incoming, outgoing, server_side=True)
    work = [inner.do_handshake, lambda: inner.write(b"x" + inner.read(100)), inner.unwrap]
    while work:
        try:
            work[0]()
            work.pop(0)
            waits = False
        except ssl.SSLWantReadError:
            waits = True
        data = bytearray(outgoing.read())
        if sent <= at < sent + len(data):
            if cuts:
                del data[at - sent:]
            else:
                data[at - sent] ^= 1 << at % 8
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(1 << 16):
                pass
            return
        raw.sendall(data)
        sent += len(data)
        if waits:
            received = raw.recv(1 << 16)
            if not received:
                return
            incoming.write(received)


def proxy(raw):
    """A proxy for CONNECT and for requests in full."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        text = line(raw)
        if not text:
            return
        head += text
    sys.stderr.write("proxied %r\n" % head)
    sys.stderr.flush()
    if "refuse" in options:
        raw.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        return
    if not head.startswith(b"CONNECT "):
        raw.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied")
        return
    target = int(head.split()[1].rsplit(b":", 1)[1])
    raw.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + options.get("surplus", "").encode())
    with socket.create_connection(("127.0.0.1", target)) as server:
        def copy(source, sink):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=copy, args=(server, raw), daemon=True)
        thread.start()
        copy(raw, server)
        thread.join()


def reset(raw):
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


modes = {
    "echo": tls_peer(echo), "pair": tls_peer(pair), "truncate": tls_peer(truncate), "half_close": tls_peer(half_close),
    "bulk": tls_peer(bulk), "http": tls_peer(http), "plain_http": http, "starttls": starttls, "silent": silent,
    "garbage": garbage, "damaged": damaged, "slow": slow, "proxy": proxy, "reset": reset,
}


def run(raw):
    with raw:
        try:
            modes[mode](raw)
        except (OSError, ValueError) as error:
            sys.stderr.write("failed: %r\n" % (error,))
            sys.stderr.flush()


listener = socket.create_server(("127.0.0.1", port))
sys.stderr.write("listening\n")
sys.stderr.flush()
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=run, args=(accepted,), daemon=True).start()
