# WebSocket peers for specs, by the library `websockets`, and a server that says exactly what it is told.
# Usage: websocket_peer.py echo PORT | raw PORT | client URL
import asyncio
import base64
import hashlib
import os
import sys

import websockets

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def echo(port):
    async def serve(ws):
        async for message in ws:
            if message == "close":
                await ws.close(4002, "enough")
            elif message == "long":
                await ws.send(["part"] * 1000)
            else:
                await ws.send(message)

    # Without it, versions from 14 on refuse clients that offer none. Those before get two lists.
    def choose(first, second):
        offered = first if isinstance(first, list) else second
        return next((name for name in ["b", "a"] if name in offered), None)

    async with websockets.serve(serve, "127.0.0.1", port, subprotocols=["b", "a"], select_subprotocol=choose,
                                max_size=None):
        print("listening", flush=True, file=sys.stderr)
        await asyncio.Future()


# After the handshake it sends what the path says in hexadecimal, closes its side if the path ends with "/end",
# and prints what comes in the same way. Paths that begin with "/=" have the whole answer instead.
async def raw(port):
    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if path.startswith("/="):
            writer.write(bytes.fromhex(path[2:]))
            writer.close()
            return
        accept = base64.b64encode(hashlib.sha1((fields["Sec-WebSocket-Key"] + GUID).encode()).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        writer.write(bytes.fromhex(path[1:].removesuffix("/end")))
        await writer.drain()
        if path.endswith("/end"):
            writer.close()
            return
        received = await reader.read(-1)
        # Unmasks the frames, which are short.
        text = ""
        while received:
            length, key = received[1] & 127, received[2:6]
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(received[6:6 + length]))
            text += f" {received[0]:02x}:{payload.hex()}"
            received = received[6 + length:]
        print("received" + text, flush=True, file=sys.stderr)
        writer.close()

    await asyncio.start_server(serve, "127.0.0.1", port)
    print("listening", flush=True, file=sys.stderr)
    await asyncio.Future()


async def client(url):
    async def ended(ws):
        try:
            await ws.recv()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    for compression in ["deflate", None]:
        async with websockets.connect(url, subprotocols=["chat"], compression=compression, max_size=None) as ws:
            assert ws.subprotocol == "chat"
            extensions = getattr(ws, "protocol", ws).extensions  # from version 14 on, its protocol has them
            assert bool(extensions) == bool(compression), extensions
            # Lengths around the borders of the encoding, texts and binary data, compressible or not.
            for size in [0, 1, 125, 126, 127, 128, 65535, 65536, 131072, 1000000]:
                for message in ["x" * size, os.urandom(size), "\u00e4\u20ac\U0001f319" * (size // 9)]:
                    await ws.send(message)
                    assert await ws.recv() == message, size
            # Fragments, also empty ones, with pings in between.
            async def parts():
                for part in ["", "a", "", "\u20ac", "b" * 70000, ""]:
                    await (await ws.ping(b"between"))
                    yield part
            await ws.send(parts())
            assert await ws.recv() == "a\u20ac" + "b" * 70000
            # Many messages before the first answer is read.
            for number in range(1000):
                await ws.send(str(number))
            for number in range(1000):
                assert await ws.recv() == str(number)
            await ws.pong(b"unsolicited")
            pongs = [await ws.ping(os.urandom(size)) for size in [0, 1, 125]]
            for pong in pongs:
                await pong
    for order, code in [("bye", 4001), ("fail", 1011), ("x" * 1048577, 1009)]:
        async with websockets.connect(url, max_size=None) as ws:
            await ws.send(order)
            if order == "bye":
                assert await ws.recv() == "last"
            assert await ended(ws) == code, order
    try:
        await websockets.connect(url, origin="http://evil.example")
        raise AssertionError("accepted a foreign origin")
    except websockets.InvalidHandshake as refused:
        assert getattr(refused, "response", refused).status_code == 403
    print("all well")


mode, argument = sys.argv[1:]
asyncio.run({"echo": echo, "raw": raw, "client": client}[mode](argument))
