"""Passes cleartext connections on over TLS 1.2.

    tls_bridge.py PORT CA [BUFFER]    prints the port where it listens, and passes on to that port of localhost; BUFFER: how
                                      many bytes the kernel receives for a connection before they are taken

Each side's end of the connection is told to the other.
"""
import select
import socket
import ssl
import sys
import threading

port, authority = sys.argv[1:3]
context = ssl.create_default_context(cafile=authority)
context.maximum_version = ssl.TLSVersion.TLSv1_2


def connect():
    plain = socket.socket()
    if sys.argv[3:]:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[3]))
    plain.settimeout(60)
    plain.connect(("127.0.0.1", int(port)))
    return context.wrap_socket(plain, server_hostname="localhost")


def serve(client):
    server = connect()
    try:
        while True:
            if not server.pending():
                readable, _, _ = select.select([client, server], [], [])
            else:
                readable = [server]
            if client in readable:
                data = client.recv(65536)
                if not data:
                    break
                server.sendall(data)
            if server in readable:
                data = server.recv(65536)
                if not data:
                    break
                client.sendall(data)
    except OSError:
        pass
    for end in client, server:
        end.close()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
