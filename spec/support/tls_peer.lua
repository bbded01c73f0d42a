--- Servers of other makers for specs of the TLS client.

local process = require "spec.support.process"
local server = require "spec.support.server"

local tls_peer = {}

local running = {}

local function start(argv, port)
  local peer = process.start(argv)
  running[#running + 1] = peer
  peer.port = port
  assert(process.wait_until(function() return server.listening(port) end), "no server: " .. peer:log())
  return peer
end

--- A server of Python's ssl module; see tls_server.py.
-- @param mode what it does
-- @param made certificate, as certificates.make returns it; or nil
-- @param options further ones
function tls_peer.python(mode, made, options)
  local port = server.free_port()
  local argv = { "python3", "-u", server.root .. "/spec/support/tls_server.py", tostring(port), mode }
  if made then
    argv[#argv + 1] = "certificate=" .. made.certificate
    argv[#argv + 1] = "key=" .. made.key
  end
  for name, value in pairs(options or {}) do argv[#argv + 1] = name .. "=" .. value end
  return start(argv, port)
end

--- OpenSSL's s_server, which answers with a page that tells of the session.
function tls_peer.openssl(made, ...)
  local port = server.free_port()
  return start({ "openssl", "s_server", "-accept", "127.0.0.1:" .. port, "-cert", made.certificate,
    "-key", made.key, "-www", ... }, port)
end

--- GnuTLS's server, which returns what it gets.
function tls_peer.gnutls(made, ...)
  local port = server.free_port()
  return start({ "gnutls-serv", "--quiet", "--echo", "--port", tostring(port),
    "--x509certfile", made.certificate, "--x509keyfile", made.key, ... }, port)
end

--- Ends all of them; for after_each.
function tls_peer.cleanup()
  for _, peer in ipairs(running) do peer:destroy() end
  running = {}
end

return tls_peer
