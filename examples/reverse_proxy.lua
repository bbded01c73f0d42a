-- A reverse proxy: lua5.4 examples/reverse_proxy.lua http://127.0.0.1:8000 (or unix:/run/app.sock:)
local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local upstream = assert(arg[1], "usage: reverse_proxy.lua URL"):gsub("/$", "")
-- What concerns one connection only is not passed on (RFC 9110 7.6.1).
local own = { connection = true, ["keep-alive"] = true, te = true, trailer = true, upgrade = true,
  ["transfer-encoding"] = true, ["proxy-connection"] = true, expect = true, host = true }
-- The request body as send callback: receive_body runs in a coroutine that stops at each chunk.
local function body_of(request)
  local headers = request.headers
  if not headers["content-length"][1] and not headers["transfer-encoding"][1] then return nil end
  return coroutine.wrap(function()
    request:receive_body(function(chunk, err) coroutine.yield(chunk, err) return 1 end)
    return ""
  end)
end
local function handle(request)
  local headers, begun = { ["X-Forwarded-For"] = request.socket.remote_ip }, false
  for name, values in pairs(request.headers) do
    if not own[name:lower()] then headers[name] = values end
  end
  local done, message = http.request {
    url = upstream .. "/" .. request.path .. request.query, method = request.method,
    headers = headers, body = body_of(request), redirect = false,
    head = function(_, fields, line)
      request:send_status(line:match("%d%d%d.*"))
      for name, value in pairs(fields) do
        for part in (own[name] and "" or value):gmatch("[^\n]+") do request:send_header(name, part) end
      end
      begun = true
    end,
    receive = function(chunk) if chunk and chunk ~= "" then request:send_data(chunk) end return 1 end,
  }
  if begun and not done then error("upstream failed: " .. message) end -- resets the connection
  if not done then request:send_status("502 Bad Gateway") request:send_data(message, "\n") end
  return true
end
moonbridge.listen { { proto = "tcp", host = "127.0.0.1", port = os.getenv("PORT") or 8080 },
  connect = http.generate_handler({ request_body_size_limit = false }, handle) }
moonbridge.run()
