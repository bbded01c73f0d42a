--- Servers with a port for TLS, which tell their clients what they know of the connection.

local server = require "spec.support.server"

local tls_listener = {}

--- The fields of a listener for a certificate, and others, as Lua text.
-- @param made what spec.support.certificates has made
function tls_listener.fields(made, more)
  return ('proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q, %s'):format(
    made.certificate, made.key, more or "")
end

--- A server whose handler answers with scheme, version, ALPN, server name, "resumed" or "full", the client
-- certificate's subject and the worker's pid; `options` of listen and `run_options` are Lua text.
function tls_listener.start(made, more, options, run_options)
  return server.start(([[
    local moonbridge, http = require "moonbridge", require "moonbridge_http"
    local moonbridge_io = require "moonbridge_io"
    moonbridge.listen {
      { %s },
      max_fork = 4, %s
      connect = http.generate_handler(function(request)
        local tls = request.socket.tls
        local peer = tls.peer_certificate
        request:send_status("200 OK")
        request:send_data(table.concat({
          request.scheme, tls.version, tls.alpn or "-", tls.server_name or "-",
          tls.resumed and "resumed" or "full", peer and peer.subject or "-", tostring(moonbridge_io.getpid()),
        }, " "))
        return true
      end),
    }
    moonbridge.run { %s }
  ]]):format(tls_listener.fields(made, more), options or "", run_options or ""))
end

return tls_listener
