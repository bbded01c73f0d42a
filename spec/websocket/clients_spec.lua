-- Clients of other implementations, Python's `websockets` and Node's `ws`, which have the
-- cases of the Autobahn test suite: lengths, fragments, pings, UTF-8, close codes, limits and compression.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
  local moonbridge, http = require "moonbridge", require "moonbridge.http"
  local echo = http.websocket {
    protocols = { "chat" }, compress = true,
    message = function(ws, text, kind)
      if text == "fail" then error("on purpose") end
      if text == "bye" then
        ws:send("last")
        return ws:close(4001, "bye")
      end
      ws:send(text, kind)
    end,
  }
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT }, pre_fork = 2, min_fork = 2, max_fork = 2,
    connect = http.generate_handler(echo),
  }
  moonbridge.run()
]]

describe("a WebSocket server", function()
  after_each(server.cleanup)

  for name, command in pairs {
    ["Python's websockets"] = "/usr/bin/python3 spec/support/websocket_peer.py client %s",
    ["Node's ws"] = "env NODE_PATH=/usr/share/nodejs node spec/support/websocket_peer.js client %s",
  } do
    it("gets on with " .. name, function()
      local s = server.start { script = APP }
      local url = ("ws://127.0.0.1:%d/"):format(s.port)
      command = ("cd %s && timeout 60 %s 2>&1"):format(server.root, command:format(url))
      local code, output = process.run(command)
      assert.equal(0, code, output)
      assert.equal("all well\n", output)
    end)
  end
end)
