"""Clients of one server with TLS, each with a connection that it keeps.

    tls_clients.py PORT CA VERSION COUNT    asks once over each connection and prints what came of that; again
                                            on each SIGUSR1; on SIGTERM prints how the connections have ended

VERSION is 1.2 or 1.3. Lines are "answered N failed N by PID PID ...", then "notified N cut N": connections that ended
with close_notify, and those that ended otherwise. A client whose request has failed asks no more.
"""
import signal
import socket
import ssl
import sys

port, authority, version, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
context = ssl.create_default_context(cafile=authority)
context.minimum_version = context.maximum_version = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}[version]


def connect():
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def ask(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(4096)
        if not piece:
            raise OSError("it has ended")
        text += piece
    head, body = text.split(b"\r\n\r\n", 1)
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(4096)
    return body.decode().split()[0]


def ask_all():
    answered, failed, pids = 0, 0, set()
    for index, connection in enumerate(connections):
        if connection is None:
            continue
        try:
            pids.add(ask(connection))
            answered += 1
        except OSError as error:
            print("a client:", error, file=sys.stderr)
            connections[index] = None
            failed += 1
    print("answered", answered, "failed", failed, "by", *sorted(pids), flush=True)


def how_it_ends(connection):
    try:
        return "notified" if connection.recv(1) == b"" else "cut"
    except OSError:
        return "cut"


connections = [connect() for _ in range(count)]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
ask_all()
while signal.sigwait({signal.SIGUSR1, signal.SIGTERM}) == signal.SIGUSR1:
    ask_all()
ends = [how_it_ends(connection) for connection in connections if connection]
print("notified", ends.count("notified"), "cut", ends.count("cut"), flush=True)
