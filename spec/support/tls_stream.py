"""A client of an event stream over TLS 1.2.

    tls_stream.py PORT CA TARGET [VERSION [slow]]    asks for it (by HTTP VERSION, 1.1) and prints what comes, as it comes;
                                                     then "\nnotified" if it ends with close_notify, else "\ncut"

One that is slow takes nothing after the first piece before SIGUSR1. On SIGTERM, it says that it sends no more
(close_notify), and leaves the connection open.
"""
import signal
import socket
import ssl
import sys

port, authority, target = sys.argv[1:4]
version = sys.argv[4] if len(sys.argv) > 4 else "1.1"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
context = ssl.create_default_context(cafile=authority)
context.maximum_version = ssl.TLSVersion.TLSv1_2
plain = socket.socket()
plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
plain.settimeout(60)
plain.connect(("127.0.0.1", int(port)))
stream = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
stream.sendall(f"GET {target} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())


def leave(*_):
    try:
        stream.unwrap()
    except OSError:
        pass
    sys.stdout.write("\nleft")
    sys.stdout.flush()
    signal.pause()


signal.signal(signal.SIGTERM, leave)
is_slow = sys.argv[5:] == ["slow"]
try:
    while True:
        piece = stream.recv(65536)
        if not piece:
            break
        sys.stdout.write(piece.decode())
        sys.stdout.flush()
        if is_slow:
            signal.sigwait({signal.SIGUSR1})
            is_slow = False
    sys.stdout.write("\nnotified")
except OSError:
    sys.stdout.write("\ncut")
