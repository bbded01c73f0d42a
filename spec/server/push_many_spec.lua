-- Held responses as they are deployed: thousands, of several pools, behind nginx and HAProxy, to curl; while
-- workers are killed and the server is reloaded.
-- Any version: nothing of it depends on Lua's.

local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local proxies = require "spec.support.proxies"
local push = require "spec.support.push"
local server = require "spec.support.server"
local streams = require "spec.support.streams"
local websocket = require "spec.support.websocket"

local HANDLER = [[
  if request.headers_flags.Upgrade.websocket then return echo(request) end
  request:send_status("200 OK")
  request:send_header("Content-Type", "text/event-stream")
  return request:hold {
    topics = { "news", "pool" .. number }, last_id = request.headers_value["Last-Event-ID"],
  }
]]

local BEFORE = [[
  moonbridge.topic("news", { history = 100 })
  local echo = http.websocket {
    open = function(ws) ws:subscribe "news" end,
    message = function(ws, text) ws:send(text) end,
  }
]]

local function publish(s, topic, number)
  push.publish(s, topic, ("data:%%20%s%%0A%%0A"):format(number), tostring(number))
end

local function kill_workers(s)
  local pids = {}
  for _ = 1, 50 do
    local ok, text = pcall(push.get, s, "/pid")
    if ok then pids[text:match "%d+$"] = true end
  end
  for pid in pairs(pids) do process.kill(math.tointeger(tonumber(pid)), "KILL") end
  assert(process.wait_until(function()
    local ok, text = pcall(push.get, s, "/pid")
    return ok and not pids[text:match "%d+$"]
  end))
end

describe("held responses", function()
  after_each(function()
    streams.cleanup()
    proxies.stop()
    server.cleanup()
  end)

  it("hear each message once and in order, 2,000 of two pools, whatever becomes of workers and generations",
    function()
      local path = process.scratch "other"
      local s = push.start {
        workers = 3, handler = HANDLER, before = BEFORE, after = ([[
          moonbridge.listen {
            { proto = "local", path = %q },
            pre_fork = 1, min_fork = 1, max_fork = 2, connect = connect(2),
          }
        ]]):format(path),
      }
      local crowds = {
        streams.open(s.port, 1000, "/"),
        streams.open(function() return assert(moonbridge_io.localconnect(s.path)) end, 500, "/"),
        streams.open(function() return assert(moonbridge_io.localconnect(path)) end, 500, "/"),
      }
      push.wait_held(s, 2000)
      local expected = {}
      for round = 1, 3 do
        for number = 10 * round, 10 * round + 5 do
          publish(s, "news", number)
          expected[#expected + 1] = number
        end
        if round == 1 then kill_workers(s) end
        if round == 2 then assert.equal("true", push.get(s, "/reload")) end
      end
      publish(s, "pool1", "one")
      publish(s, "pool2", "two")
      local text = table.concat(expected, " ")
      for index, crowd in ipairs(crowds) do
        local last = index == 3 and "two" or "one"
        crowd:wait(function(lines) return lines[#lines] == last end)
        for _, heard in ipairs(crowd:heard()) do assert.equal(text .. " " .. last, heard) end
      end
      for _, crowd in ipairs(crowds) do crowd:close() end
      push.wait_held(s, 0)
      assert.equal(0, s:stop())
    end)

  it("show each message to curl -N when it comes", function()
    local s = push.start { handler = HANDLER, before = BEFORE }
    local curl = process.start { "curl", "-sN", s.url .. "/" }
    push.wait_held(s, 1)
    for number = 1, 3 do
      publish(s, "news", number)
      local all = ""
      for index = 1, number do all = all .. ("data: %d\n\n"):format(index) end
      local has_come = process.wait_until(function() return curl:output() == all end)
      assert.truthy(has_come, curl:output())
    end
    curl:signal "TERM"
    push.wait_held(s, 0)
    curl:destroy()
  end)

  for _, name in ipairs(proxies.NAMES) do
    it("hear each message when it comes behind " .. name, function()
      local s = push.start { handler = HANDLER, before = BEFORE }
      local values = name == "nginx" and { location = "proxy_buffering off;" } or nil
      local port = proxies.start(name, { s.port }, values)
      local crowd = streams.open(port, 200, "/")
      push.wait_held(s, 200)
      for number = 1, 5 do
        publish(s, "news", number)
        crowd:wait(function(lines) return #lines == number end)
      end
      for _, heard in ipairs(crowd:heard()) do assert.equal("1 2 3 4 5", heard) end
      -- Who comes back gets what was missed.
      local back = streams.open(port, 1, "/", "Last-Event-ID: 3\r\n")
      back:wait(function(lines) return #lines == 2 end)
      assert.same({ "4 5" }, back:heard())
      -- The proxy passes on that clients have gone; HAProxy when it has something for them.
      back:close()
      crowd:close()
      assert.truthy(process.wait_until(function()
        publish(s, "news", "more")
        return push.status(s).held == 0
      end))
    end)

    it("are WebSockets as well behind " .. name, function()
      local s = push.start { handler = HANDLER, before = BEFORE }
      local values = name == "nginx" and { location = [[
        proxy_set_header Host x; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
      ]] } or nil
      local port = proxies.start(name, { s.port }, values)
      local through = setmetatable({ port = port }, { __index = s })
      local sockets = {}
      for index = 1, 20 do sockets[index] = websocket.connect(through) end
      push.wait_held(s, 20)
      for round = 1, 3 do
        for index, ws in ipairs(sockets) do assert.equal("t" .. index, ws:ask("t" .. index)) end
        -- What is published while a worker has a connection comes after.
        push.publish(s, "news", round)
        for _, ws in ipairs(sockets) do assert.equal(tostring(round), ws:text()) end
      end
      for _, ws in ipairs(sockets) do ws:close() end
      push.wait_held(s, 0)
    end)
  end
end)

describe("a slow handshake", function()
  after_each(server.cleanup)

  it("of many clients keeps nobody waiting, and ends", function()
    local s = push.start { workers = 1, handler = HANDLER, before = BEFORE }
    local request, slow = websocket.request("/"), {}
    for index = 1, 50 do
      slow[index] = s:connect()
      slow[index]:send(request:sub(1, 30))
    end
    for at = 31, #request do
      for _, c in ipairs(slow) do c:send(request:sub(at, at)) end
      if at % 20 == 0 then
        local ws = websocket.connect(s)
        assert.equal("quick", ws:ask "quick")
        ws:close()
      end
    end
    for _, c in ipairs(slow) do assert.truthy(c:read_until("\r\n\r\n"):find "^HTTP/1.1 101 ") end
  end)
end)
