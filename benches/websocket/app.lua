-- Two workers that echo WebSocket messages.
local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local echo = http.websocket {
  heartbeat = false,
  message = function(ws, text, kind) ws:send(text, kind) end,
}

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") },
  pre_fork = 2, min_fork = 2, max_fork = 2,
  connect = http.generate_handler(echo),
}

moonbridge.run()
