-- A reverse proxy: passes requests to another HTTP server and its responses back, streaming both.
--
--   lua5.4 examples/reverse_proxy.lua http://127.0.0.1:8000        or unix:/run/app.sock:
--   then: curl http://127.0.0.1:8080/
--
-- TIMEOUT is how many seconds to wait for the other server, by default 60.
--
-- TLS on both sides: with CERTIFICATE and KEY (files in PEM) the proxy listens for https. The other server
-- may have an https URL; if a private authority has signed its certificate, UPSTREAM_CA names a file with
-- that of the authority (SSL_CERT_FILE replaces the system's list of authorities).
--
-- Trailers and upgrades end here: http.request does not tell of them.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local upstream = (arg[1] or ""):gsub("/$", "")
if not upstream:find("^https?://[^/]") and not upstream:find("^unix:/") then
  io.stderr:write("usage: reverse_proxy.lua URL, e.g. http://127.0.0.1:8000 or unix:/run/app.sock:\n")
  os.exit(2)
end
local timeout = tonumber(os.getenv("TIMEOUT")) or 60
local certificate, key = os.getenv("CERTIFICATE"), os.getenv("KEY")
local tls = upstream:find("^https:") and { ca = os.getenv("UPSTREAM_CA") } or nil

-- Fields of a single connection (RFC 9110 7.6.1), and fields that the client and server set themselves.
-- Forwarded is left out: it says the same as the X-Forwarded fields, and anybody may have written it.
local HOP_BY_HOP = { "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "forwarded",
  "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect", "host" }

-- A set of the names of fields not to pass on; `connection` is the value of Connection, which names some.
local function dropped(connection)
  local names = {}
  for _, name in ipairs(HOP_BY_HOP) do names[name] = true end
  for name in connection:gmatch("[^%s,]+") do names[name:lower()] = true end
  return names
end

-- All values of a field and an additional one, as one line.
local function append(values, own)
  local all = {}
  for _, value in ipairs(values or {}) do
    if value ~= "" then all[#all + 1] = value end
  end
  all[#all + 1] = own
  return table.concat(all, ", ")
end

-- The entry of this proxy for Via (RFC 9110 7.6.3), after those of others.
local function via(values, version)
  return append(values, version:match("[%d.]+$") .. " moonbridge")
end

-- `forwards`: what Max-Forwards is for the next server, if the method obeys it.
local function request_headers(request, forwards)
  local headers, without = {}, dropped(request.headers_csv_string["Connection"])
  for name, values in pairs(request.headers) do
    if not without[name] then headers[name] = values end
  end
  headers["x-forwarded-for"] = append(headers["x-forwarded-for"], request.socket.remote_ip)
  headers["x-forwarded-proto"] = request.scheme
  headers["x-forwarded-host"] = request.host ~= "" and request.host or nil
  headers["via"] = via(headers["via"], request.version)
  headers["max-forwards"] = forwards or headers["max-forwards"]
  return headers
end

-- The request body as a send callback: receive_body runs in a coroutine that yields each chunk.
local function body_of(request)
  local headers = request.headers
  if not headers["Content-Length"][1] and not headers["Transfer-Encoding"][1] then return nil end
  return coroutine.wrap(function()
    -- For a malformed body, the server sends an error response and raises an error here.
    local count, message = request:receive_body(function(chunk)
      if chunk and chunk ~= "" then coroutine.yield(chunk) end
      return 1
    end)
    request.complete = count ~= nil
    if not count then return nil, message end
    return ""
  end)
end

-- 204 and 205 have no content, whatever the other server sends.
local EMPTY = { [204] = true, [205] = true }

-- Sends a status and the fields that come with it, but for those `without`.
local function pass_on(request, status, fields, line, without)
  request:send_status(("%d %s"):format(status, line:match("^%S+ %d+ (.*)") or ""))
  request:send_header("Via", via({ fields["Via"] }, line:match("^%S+")))
  without["via"] = true
  for name, values in pairs(fields) do
    for value in (without[name] and "" or values):gmatch("[^\n]+") do request:send_header(name, value) end
  end
end

-- Interim responses (RFC 9110 15.2), such as 103. Expect is not passed on, so nobody waits for a 100.
local function send_interim(request, status, fields, line)
  if status == 100 then return end
  local without = dropped(fields["Connection"] or "")
  without["content-length"] = true
  pass_on(request, status, fields, line, without)
  request:finish_headers()
end

local function send_head(request, status, fields, line)
  local without = dropped(fields["Connection"] or "")
  -- A client may stop sending once it has a whole response: finish it only when the request is sent.
  local is_early = status < 300 and not request.complete
  without["content-length"] = without["content-length"] or EMPTY[status] or is_early
  pass_on(request, status, fields, line, without)
  -- After a refusal we stop sending, so our client still has to send the rest of the body.
  if status >= 300 and not request.complete then request:close_after_finish() end
  request:finish_headers()
end

local function answer(request, status, text)
  request:send_status(status)
  request:send_header("Content-Type", "text/plain")
  request:send_data(text, "\n")
  return true
end

-- OPTIONS and TRACE may ask this server itself (RFC 9110 7.6.2): returns true once they are answered,
-- otherwise false and what is left of Max-Forwards for the next one.
local function answer_own(request)
  local method, limits = request.method, request.headers["Max-Forwards"]
  if method ~= "OPTIONS" and method ~= "TRACE" then return nil end
  if limits[1] and (limits[2] or not limits[1]:find("^%d%d?%d?%d?%d?%d?$")) then
    return answer(request, "400 Bad Request", "Max-Forwards is not a number")
  end
  local left = tonumber(limits[1])
  if method == "OPTIONS" and (left == 0 or not request.path) then -- `OPTIONS *` asks for no resource
    request:send_status("204 No Content")
    return true
  end
  if left == 0 then
    request:send_status("405 Method Not Allowed")
    request:send_header("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    return true
  end
  return false, left and tostring(left - 1)
end

local function handle(request)
  local is_answered, forwards = answer_own(request)
  if is_answered then return true end
  local status
  local body = body_of(request)
  request.complete = body == nil
  local done, message = http.request {
    url = upstream .. "/" .. request.path .. request.query,
    method = request.method,
    headers = request_headers(request, forwards),
    body = body,
    redirect = false,
    timeout = timeout,
    tls = tls,
    interim = function(...) send_interim(request, ...) end,
    head = function(code, ...)
      status = code
      send_head(request, code, ...)
    end,
    receive = function(chunk)
      if chunk and chunk ~= "" and not EMPTY[status] then
        request:send_data(chunk)
        request:flush()
      end
      return 1
    end,
  }
  if done or request.faulty then return true end -- faulty: our client has broken off
  -- A response that has begun cannot be completed: the error resets the connection.
  if status then error("upstream failed: " .. message) end
  return answer(request, message == "timeout" and "504 Gateway Timeout" or "502 Bad Gateway", message)
end

moonbridge.listen {
  {
    proto = certificate and "tls" or "tcp", host = "127.0.0.1", port = os.getenv("PORT") or 8080,
    certificate = certificate, key = key,
  },
  connect = http.generate_handler({ request_body_size_limit = false }, handle),
}

moonbridge.run()
