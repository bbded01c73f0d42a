-- nginx or HAProxy in front, with connections that it keeps, as in most deployments: its users see no fault
-- of ours.
-- Any version: nothing of it depends on Lua's.

local client = require "spec.support.client"
local proxies = require "spec.support.proxies"
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
      request:send_data("o")
      if request.path == "begun" then
        request:flush()
        moonbridge.io.poll(nil, nil, 0.02)
      end
      request:send_data("k")
      return request.path ~= "last" and (request.path ~= "begun" or request.method == "GET")
    end),
  }
  moonbridge.run()
]]

describe("behind a proxy", function()
  after_each(function()
    proxies.stop()
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
    local port = proxies.start("nginx", ports)
    -- One at a time: the other one serves.
    local turn, restarts, since, ending = 1, 0, 0, false
    local faults = traffic(port, { "/", "/begun" }, function(count)
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

  for _, name in ipairs(proxies.NAMES) do
    it(("(%s) unread bodies, workers that end and idle times are nobody's fault"):format(name), function()
      local port = proxies.start(name, { server.start(SCRIPT).port })
      local faults = traffic(port, { "/", "/ignore", "/ignore", "/last" }, function(count)
        -- As long as a connection may be idle.
        if count == 30 then socket.sleep(1) end
        return count < 60
      end)
      assert.same({}, faults)
    end)
  end
end)
