// WebSocket peers for specs, by the library `ws` of Node.js.
// Usage: websocket_peer.js echo PORT | client URL
const assert = require("assert")
const WebSocket = require("ws")
const [mode, argument] = process.argv.slice(2)

function echo(port) {
  const server = new WebSocket.Server({ port, host: "127.0.0.1", perMessageDeflate: true })
  server.on("connection", socket => {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  server.on("listening", () => console.error("listening"))
}

function ask(socket, data) {
  return new Promise(resolve => {
    socket.once("message", (answer, isBinary) => resolve(isBinary ? answer : answer.toString()))
    socket.send(data)
  })
}

async function client(url) {
  for (const perMessageDeflate of [{ threshold: 0 }, { serverMaxWindowBits: 10, threshold: 0 }, false]) {
    const socket = new WebSocket(url, "chat", { perMessageDeflate })
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject))
    assert.equal(Boolean(socket.extensions), Boolean(perMessageDeflate))
    for (const size of [0, 1, 125, 126, 65535, 65536, 1000000]) {
      const text = "\u00e4b".repeat(size).slice(0, size / 2)
      assert.equal(await ask(socket, text), text)
      const bytes = Buffer.from(Array.from({ length: size % 100000 }, (_, i) => (i * i) % 251))
      assert.deepEqual(await ask(socket, bytes), bytes)
    }
    const pong = new Promise(resolve => socket.once("pong", resolve))
    socket.ping("are you there?")
    assert.equal((await pong).toString(), "are you there?")
    const closed = new Promise(resolve => socket.once("close", (code, reason) => resolve([code, reason.toString()])))
    socket.send("bye")
    assert.deepEqual(await closed, [4001, "bye"])
  }
  console.log("all well")
}

if (mode === "echo") echo(Number(argument))
else client(argument).catch(error => { console.error(error); process.exit(1) })
