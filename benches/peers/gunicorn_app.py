"""The application for gunicorn."""
import json
import subprocess
from http.cookies import SimpleCookie
from urllib.parse import parse_qs

from multipart import parse_form_data

CONSTANTS = """
local requests = dofile "benches/support/requests.lua"
io.write(requests.PIECES, "\\n", requests.PAGE, requests.PIECE)
"""
_output = subprocess.run(["lua5.4", "-e", CONSTANTS], check=True, capture_output=True).stdout
PIECES, _pages = _output.split(b"\n", 1)
PIECES, PAGE, PIECE = int(PIECES), _pages[:1800], _pages[1800:]


def reply(start_response, body, content_type="text/plain"):
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


def refuse(start_response):
    start_response("400 Bad Request", [("Content-Type", "text/plain")])
    return [b"something is missing\n"]


def expected(environ):
    params = parse_qs(environ["QUERY_STRING"])
    cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    return (
        params["page"] == ["2"]
        and params["q"] == ["moon bridge"]
        and cookies["theme"].value == "dark"
        and environ["HTTP_ACCEPT_LANGUAGE"]
    )


def hello(environ, start_response):
    name = parse_qs(environ["QUERY_STRING"]).get("name", ["World"])[0]
    return reply(start_response, f"Hello, {name}!\n".encode())


def page(environ, start_response):
    if not expected(environ):
        return refuse(start_response)
    return reply(start_response, PAGE, "text/html")


def page_chunked(environ, start_response):
    if not expected(environ):
        return refuse(start_response)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [PAGE]


def pieces(environ, start_response):
    if not expected(environ):
        return refuse(start_response)
    start_response("200 OK", [("Content-Type", "text/html")])
    return (PIECE for _ in range(PIECES))


def body(environ):
    return environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))


def form(environ, start_response):
    fields = parse_qs(body(environ).decode())
    if not ("name" in fields and "article" in fields and "comment" in fields):
        return refuse(start_response)
    return reply(start_response, f"{fields['name'][0]} on {fields['article'][0]}\n".encode())


def multipart(environ, start_response):
    fields, _ = parse_form_data(environ)
    if not ("name" in fields and "article" in fields and "comment" in fields):
        return refuse(start_response)
    return reply(start_response, f"{fields['name']} on {fields['article']}\n".encode())


def json_order(environ, start_response):
    order = json.loads(body(environ))
    items = [{"article": item["article"], "sum": item["count"] * item["price"]} for item in order["items"]]
    answer = {"customer": order["customer"], "items": items, "total": sum(item["sum"] for item in items)}
    return reply(start_response, json.dumps(answer).encode(), "application/json")


HANDLERS = {
    "/": hello,
    "/page": page,
    "/page_chunked": page_chunked,
    "/pieces": pieces,
    "/form": form,
    "/multipart": multipart,
    "/json": json_order,
}


def application(environ, start_response):
    return HANDLERS[environ["PATH_INFO"]](environ, start_response)
