-- nginx or HAProxy in front, with connections that it keeps, as in most deployments: its users see no fault
-- of ours.

local process = require "spec.support.process"
local client = require "spec.support.client"
local server = require "spec.support.server"
local socket = require "socket"

local SCRIPT = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 2, max_fork = 2,
    connect = http.generate_handler({ idle_timeout = 1 }, function(request)
      if request.path ~= "ignore" and request.method == "POST" then assert(#request.body == 1000) end
      request:send_status("200 OK")
      request:send_data("ok")
      return request.path ~= "last"
    end),
  }
  moonbridge.run()
]]

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
      }
    }
  }
]]

local HAPROXY_CONF = [[
  defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    http-reuse always
    retries 0
  frontend users
    bind 127.0.0.1:PORT
    default_backend app
  backend app
    UPSTREAM
]]

-- How each is started: its configuration, a line of that for each server, its command in a folder.
local PROXIES = {
  nginx = {
    configuration = NGINX_CONF,
    upstream = function(port) return ("server 127.0.0.1:%d max_fails=0;"):format(port) end,
    command = function(folder)
      return { "/usr/sbin/nginx", "-p", folder, "-e", folder .. "/error.log", "-c", folder .. "/conf" }
    end,
  },
  HAProxy = {
    configuration = HAPROXY_CONF,
    upstream = function(port) return ("server s%d 127.0.0.1:%d"):format(port, port) end,
    command = function(folder) return { "/usr/sbin/haproxy", "-db", "-f", folder .. "/conf" } end,
  },
}

-- The proxy of that name before servers at these ports, and its port.
local function front(name, ports)
  local proxy, port, upstream = PROXIES[name], server.free_port(), {}
  for i, other in ipairs(ports) do upstream[i] = proxy.upstream(other) end
  local folder = process.scratch("proxy")
  assert(os.execute("mkdir " .. process.quote(folder)))
  local file = assert(io.open(folder .. "/conf", "w"))
  local values = { FOLDER = folder, PORT = tostring(port), UPSTREAM = table.concat(upstream, " ") }
  file:write((proxy.configuration:gsub("%u+", values)))
  file:close()
  local running = process.start(proxy.command(folder))
  assert(process.wait_until(function() return server.listening(port) end), running:log())
  return running, port
end

describe("behind a proxy", function()
  local proxy
  after_each(function()
    if proxy then
      proxy:signal("TERM")
      proxy:wait()
      proxy:destroy()
    end
    proxy = nil
    client.cleanup()
    server.cleanup()
  end)

  -- The statuses other than 200 that users get who send in turns until `go_on()` is false.
  local function traffic(port, targets, go_on)
    local users, faults, count = {}, {}, 0
    for i = 1, 8 do users[i] = client.connect(port) end
    while go_on(count) do
      count = count + 1
      local target = targets[count % #targets + 1]
      for i = 1, 8 do
        local body = i % 2 == 0 and ("x"):rep(1000) or nil
        users[i]:send(client.format { target = target, body = body, method = body and "POST" or "GET" })
      end
      for i = 1, 8 do
        local status = users[i]:response().status
        if status ~= 200 then faults[#faults + 1] = status end
      end
      socket.sleep(0.02)
    end
    return faults
  end

  it("(nginx) servers are restarted in turn without a 408 or 502", function()
    local servers = { server.start(SCRIPT), server.start(SCRIPT) }
    local ports = { servers[1].port, servers[2].port }
    local port
    proxy, port = front("nginx", ports)
    -- One at a time: the other one serves.
    local turn, restarts, since, ending = 1, 0, 0, false
    local faults = traffic(port, { "/" }, function(count)
      local old = servers[turn]
      if not ending and count - since >= 10 then
        old:signal("TERM")
        ending = true
      elseif ending and old:status() then
        assert.equal(0, old:status())
        servers[turn] = server.start { script = SCRIPT, port = ports[turn] }
        turn, restarts, since, ending = 3 - turn, restarts + 1, count, false
      end
      return restarts < 5
    end)
    assert.same({}, faults)
  end)

  for name in pairs(PROXIES) do
    it(("(%s) unread bodies, workers that end and idle times are nobody's fault"):format(name), function()
      local port
      proxy, port = front(name, { server.start(SCRIPT).port })
      local faults = traffic(port, { "/", "/ignore", "/ignore", "/last" }, function(count)
        -- As long as a connection may be idle.
        if count == 30 then socket.sleep(1) end
        return count < 60
      end)
      assert.same({}, faults)
    end)
  end
end)
