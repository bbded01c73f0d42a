--- nginx and HAProxy in front of servers, with connections to them that they keep.
--
-- They repeat nothing that a server has got, so that their clients see each fault of ours.

local process = require "spec.support.process"
local server = require "spec.support.server"

local proxies = { NAMES = { "nginx", "HAProxy" } }

local started = {}

local NGINX_CONF = [[
  daemon off; worker_processes 1; pid FOLDER/pid; error_log FOLDER/error.log;
  events { worker_connections 512; }
  http {
    access_log off;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;
    upstream app { UPSTREAM keepalive 16; }
    server {
      listen 127.0.0.1:PORT;
      location / {
        proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_request_buffering off;
        LOCATION
      }
    }
  }
  STREAM
]]

local HAPROXY_CONF = [[
  defaults
    mode MODE
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    retries 0
  frontend users
    bind 127.0.0.1:PORT
    FRONTEND
    default_backend app
  backend app
    BACKEND
    UPSTREAM
]]

-- How each is started: its configuration, what it has by default, a line of that for each server, its command
-- in a folder.
local PROXIES = {
  nginx = {
    configuration = NGINX_CONF,
    defaults = { LOCATION = "", STREAM = "", SERVER = "" },
    upstream = function(port) return ("server 127.0.0.1:%d max_fails=0;"):format(port) end,
    command = function(folder)
      return { "/usr/sbin/nginx", "-p", folder, "-e", folder .. "/error.log", "-c", folder .. "/conf" }
    end,
  },
  HAProxy = {
    configuration = HAPROXY_CONF,
    defaults = { MODE = "http", FRONTEND = "", BACKEND = "http-reuse always", SERVER = "" },
    upstream = function(port) return ("server s%d 127.0.0.1:%d SERVER\n"):format(port, port) end,
    command = function(folder) return { "/usr/sbin/haproxy", "-db", "-f", folder .. "/conf" } end,
  },
}

--- Starts a proxy before servers.
-- @param name "nginx" or "HAProxy"
-- @param ports of the servers, on 127.0.0.1
-- @param values (optional) what replaces words of its configuration, by their names in lower case
-- @return its port on 127.0.0.1
function proxies.start(name, ports, values)
  local proxy, port, upstream = PROXIES[name], server.free_port(), {}
  for i, other in ipairs(ports) do upstream[i] = proxy.upstream(other) end
  local folder = process.scratch("proxy")
  assert(os.execute("mkdir " .. process.quote(folder)))
  local all = { FOLDER = folder, PORT = tostring(port), UPSTREAM = table.concat(upstream, " ") }
  for word, value in pairs(proxy.defaults) do all[word] = value end
  for word, value in pairs(values or {}) do all[word:upper()] = value end
  all.UPSTREAM = all.UPSTREAM:gsub("SERVER", function() return all.SERVER end)
  process.write(folder .. "/conf", (proxy.configuration:gsub("%u+", all)))
  local running = process.start(proxy.command(folder))
  started[#started + 1] = running
  assert(process.wait_until(function() return server.listening(port) end), running:log())
  return port
end

--- Ends all proxies; for `after_each`, before the servers behind them end.
function proxies.stop()
  for _, running in ipairs(started) do
    running:signal("TERM")
    running:wait()
    running:destroy()
  end
  started = {}
end

return proxies
