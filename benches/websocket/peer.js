// Node's ws, in as many processes as ours has workers.
const cluster = require("cluster")
const WebSocket = require("ws")
if (cluster.isPrimary) {
  cluster.fork()
  cluster.fork()
  process.on("SIGTERM", () => process.exit(0))
} else {
  const server = new WebSocket.Server({ port: Number(process.env.PORT), host: "127.0.0.1", perMessageDeflate: false })
  server.on("connection", socket => {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
}
