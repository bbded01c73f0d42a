-- http.acme_challenge: answers an authority that verifies control of a host (http-01, RFC 8555 8.3).

local error, type, open = error, type, io.open
local find, match = string.find, string.match

local PREFIX = "^%.well%-known/acme%-challenge/(.*)$"
-- The alphabet of tokens (RFC 8555 8.3): neither a dot nor a slash, so that no other file is meant.
local TOKEN = "^[%w_-]+$"

--- http.acme_challenge(folder): a function for requests.
-- @param folder where certbot (--webroot) or lego (--http.webroot) puts its answers
-- @return function(request): true if it was a challenge, which is answered; else false, and nothing is done
return function(folder)
  if type(folder) ~= "string" then
    error(("bad argument #1 to 'acme_challenge' (string expected, got %s)"):format(type(folder)), 2)
  end
  return function(request)
    local token = match(request.path or "", PREFIX)
    if not token then return false end
    local file = find(token, TOKEN) and open(folder .. "/.well-known/acme-challenge/" .. token, "rb")
    local answer = file and file:read(4096)
    if file then file:close() end
    request:send_status(answer and "200 OK" or "404 Not Found")
    request:send_header("Content-Type", "text/plain")
    request:send_data(answer or "No such challenge\n")
    return true
  end
end
