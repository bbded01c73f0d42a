"""Clients of several kinds at once, who count what goes wrong for them.

    crowd.py PORT KIND=COUNT ...      prints "READY" when the idle ones have been answered; on SIGTERM the
                                      figures, a line of "NAME VALUE" for each

    kept     ask for / over a connection each, again and again, also after it has announced its end
    new      ask for / over a new connection each time
    posts    as `kept`, but send a body of 1,000 bytes to /upload
    readers  ask for the MiB at /download, which they take slowly, again and again
    uploads  send a MiB to /upload slowly, again and again
    idle     are answered once, and ask again over the same connection at the end
    probe    one that asks for /worker over new connections, to see when another process answers

Those that take or send slowly leave a pause after each 16 or 64 KiB. A request fails if its answer is not
there, not complete or no success. A client whose request fails goes on over a new connection. Lines
"probed SECONDS PID" tell each change of the process that answers, "reason COUNT TEXT" why requests failed.
"""
import asyncio
import collections
import resource
import signal
import socket
import sys
import time

MIB = 1 << 20
TIMEOUT = 30
figures = collections.Counter()
reasons = collections.Counter()
probed = []
stopping = asyncio.Event()


class Failure(Exception):
    pass


class Connection:
    """A connection of one client. `room` bytes wait here for a client that takes them slowly."""

    def __init__(self, port, room=None):
        self.port, self.room, self.reader, self.writer = port, room, None, None

    async def open(self):
        if self.writer is not None:
            return
        own = socket.socket()
        own.setblocking(False)
        if self.room:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.room)
        connecting = asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self.port))
        try:
            await asyncio.wait_for(connecting, TIMEOUT)
        except BaseException:
            own.close()
            raise
        self.reader, self.writer = await asyncio.open_connection(sock=own, limit=self.room or 65536)

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def piece(self, size):
        data = await asyncio.wait_for(self.reader.read(size), TIMEOUT)
        if not data:
            raise Failure("closed within a response")
        return data

    async def answer(self, pause=0):
        """The body of an answer with Content-Length or chunks."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        except asyncio.IncompleteReadError as error:
            where = "within a head" if error.partial else "without an answer"
            raise Failure("closed " + where) from None
        lines = head.decode("latin-1").lower().split("\r\n")
        if not lines[0].startswith("http/1.1 2"):
            raise Failure(lines[0])
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        if "content-length" in fields:
            body, length = bytearray(), int(fields["content-length"])
            while len(body) < length:
                body += await self.piece(min(65536, length - len(body)))
                if pause:
                    await asyncio.sleep(pause)
        elif "chunked" in fields.get("transfer-encoding", ""):
            body = bytearray()
            while True:
                size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), TIMEOUT), 16)
                body += (await asyncio.wait_for(self.reader.readexactly(size + 2), TIMEOUT))[:-2]
                if size == 0:
                    break
        else:
            raise Failure("an answer without an end")
        if fields.get("connection") == "close":
            self.close()
        return bytes(body)

    async def ask(self, target="/", body=None, close=False, pause=0):
        await self.open()
        head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\nHost: localhost\r\n"
        if close:
            head += "Connection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
        data = head.encode() + b"\r\n" + (b"" if body is None else bytes(body))
        if pause and body:
            for start in range(0, len(data), 65536):
                self.writer.write(data[start:start + 65536])
                await asyncio.wait_for(self.writer.drain(), TIMEOUT)
                await asyncio.sleep(pause)
        else:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), TIMEOUT)
        begun = time.monotonic()
        answer = await self.answer(0 if body else pause)
        if not pause:
            figures["slowest_ms"] = max(figures["slowest_ms"], round(1000 * (time.monotonic() - begun)))
        return answer


async def attempt(kind, connection, **request):
    """One request, counted; its answer, or None if it has failed."""
    try:
        answer = await connection.ask(**request)
        figures["requests"] += 1
        figures[kind] += 1
        return answer
    except (Failure, OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        figures["failed"] += 1
        figures[kind + "_failed"] += 1
        reasons[f"{kind}: {error or type(error).__name__}"] += 1
        connection.close()
        await asyncio.sleep(0.01)
        return None


async def again(kind, port, room=None, **request):
    connection = Connection(port, room)
    while not stopping.is_set():
        await attempt(kind, connection, **request)
        await asyncio.sleep(0.002)
    connection.close()


async def probe(port):
    last = None
    while not stopping.is_set():
        connection = Connection(port)
        pid = await attempt("probe", connection, target="/worker", close=True)
        if pid is not None and pid != last:
            last = pid
            probed.append((time.time(), int(pid)))
        await asyncio.sleep(0.002)


async def main():
    port, *words = sys.argv[1:]
    port = int(port)
    counts = {kind: int(count) for kind, count in (word.split("=") for word in words)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    small, large = b"x" * 1000, b"x" * MIB
    kinds = {
        "kept": lambda: again("kept", port),
        "new": lambda: again("new", port, close=True),
        "posts": lambda: again("posts", port, target="/upload", body=small),
        "readers": lambda: again("readers", port, room=16384, target="/download", pause=0.1),
        "uploads": lambda: again("uploads", port, target="/upload", body=large, pause=0.1),
        "probe": lambda: probe(port),
    }
    idle = [Connection(port) for _ in range(counts.pop("idle", 0))]
    for connection in idle:
        await connection.ask()
    tasks = [asyncio.create_task(kinds[kind]()) for kind, count in counts.items() for _ in range(count)]
    await asyncio.sleep(0.2)
    print("READY", flush=True)
    await stopping.wait()
    await asyncio.gather(*tasks)
    for connection in idle:
        lost = connection.writer is None
        if not lost:
            try:
                await connection.ask()
            except (Failure, OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                reasons[f"idle: {error or type(error).__name__}"] += 1
                lost = True
        figures["idle_lost" if lost else "idle_answered"] += 1
    for name in ("requests", "failed", "idle_lost", "idle_answered", "slowest_ms", *sorted(counts)):
        print(name, figures[name])
    for kind in sorted(counts):
        print(kind + "_failed", figures[kind + "_failed"])
    for reason, count in reasons.most_common(10):
        print("reason", count, reason)
    for when, pid in probed:
        print("probed", f"{when:.4f}", pid)
    print("DONE", flush=True)


asyncio.run(main())
