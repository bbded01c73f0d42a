-- Our side of make bench-reload: hello world, a MiB up and down, and whose answer it is.
local http = require "moonbridge.http"
local moonbridge = require "moonbridge"

local download = ("x"):rep(1048576)
local answers = {
  [""] = function() return "Hello, World!\n" end,
  download = function() return download end,
  upload = function(request) return #request.body .. "\n" end,
  worker = function() return moonbridge.io.getpid() .. "\n" end,
}

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") },
  min_fork = 2, max_fork = 2,
  connect = http.generate_handler(function(request)
    local body = answers[request.path](request)
    request:send_status("200 OK")
    request:send_header("Content-Length", #body)
    request:send_data(body)
    return true
  end, { request_buffering = 2000000, response_buffering = 2000000, idle_timeout = 3600 }),
}

-- The log tells how long it took to take connections over.
moonbridge.run { hangup = "reload", stats = true }
