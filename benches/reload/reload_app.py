"""gunicorn's side of make bench-reload."""
import os

DOWNLOAD = b"x" * 1048576


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/download":
        body = DOWNLOAD
    elif path == "/upload":
        body = b"%d\n" % len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    elif path == "/worker":
        body = b"%d\n" % os.getpid()
    else:
        body = b"Hello, World!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
