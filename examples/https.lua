-- HTTPS on port 8443, with a certificate for localhost that the script makes by itself (by openssl), in the
-- current folder:
--
--   lua5.4 examples/https.lua        then open https://localhost:8443/
--   curl --cacert https.pem https://localhost:8443/
--
-- Browsers warn, since nobody has signed the certificate; curl, which is given it, does not. PORT is another
-- port for https, HTTP_PORT another one for http (8080).

local http = require "moonbridge_http"
local moonbridge = require "moonbridge"

-- Makes a certificate, unless there is one already, and gives the names of its file and of that of its key.
local function certificate(folder)
  local pem, key = folder .. "/https.pem", folder .. "/https.key"
  local file = io.open(pem) and io.open(key)
  if not file then
    local made = os.execute(("umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
      .. "-nodes -days 365 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
      .. "-keyout '%s' -out '%s' 2>/dev/null"):format(key, pem))
    if made ~= true and made ~= 0 then
      io.stderr:write("https.lua cannot make ", pem, ": it needs openssl, and a folder to write in\n")
      os.exit(2)
    end
  end
  return pem, key
end

local pem, key = certificate(os.getenv "HTTPS_FOLDER" or ".")
local port = os.getenv "PORT" or 8443

moonbridge.listen {
  { proto = "tls", host = "127.0.0.1", port = port, certificate = pem, key = key },
  connect = http.generate_handler(function(request)
    local tls = request.socket.tls
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain; charset=UTF-8")
    request:send_data("Hello over ", request.scheme, ", TLS ", tls.version, " with ", tls.cipher, "\n")
    return true
  end),
}

-- Requests by http are redirected to https.
moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = os.getenv "HTTP_PORT" or 8080 },
  connect = http.generate_handler(function(request)
    local path = (request.path or "") .. (request.query or "")
    request:redirect(("https://localhost:%s/%s"):format(port, path), 301)
    return true
  end),
}

moonbridge.run()
