-- A file that is being sent is a descriptor and a position: any process with duplicates can go on with it,
-- whatever becomes of the worker that began.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local status = require "spec.support.status"

local SIZE = 24 * 1024 * 1024

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local mio = require "moonbridge_io"
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = WORKERS, max_fork = WORKERS,
    connect = http.generate_handler(function(request)
      if request.path == "file" then return request:send_file(FILE) end
      if request.path == "part" then return request:send_file(FILE, { content_type = "text/plain" }) end
      local till = request.get_params.till
      while till and not io.open(till) do mio.poll(nil, nil, 0.05) end
      if request.path == "last" then request:send("200 OK", "text/plain", mio.getpid()) return false end
      if request.path == "status" then request:send_status("200 OK") ]] .. status.ANSWER .. [[ return true end
      request:send("200 OK", "text/plain", mio.getpid())
      return true
    end),
  }
  moonbridge.run(load("return {" .. RUN .. "}")())
]]

local content

local function start(workers, run)
  local file = process.scratch("big")
  if content then
    local handle = assert(io.open(file, "w"))
    handle:write(content)
    handle:close()
  else
    process.run(("head -c %d /dev/urandom > %s"):format(SIZE, file))
    content = process.slurp(file)
  end
  local s = server.start {
    script = SERVER, globals = { FILE = file, WORKERS = workers, RUN = run or "" },
  }
  return s, file
end

-- Clients that have begun to take the file, and take no more for now.
local function slow(s, count, path)
  local clients = {}
  for index = 1, count do
    local c = s:connect { receive_buffer = 16384 }
    c:send(("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path or "file"))
    assert(c:read_until("\r\n\r\n"))
    clients[index] = c
  end
  return clients
end

local function is_whole(c)
  local body = c:read(SIZE)
  return body == content
end

describe("a file that is being sent", function()
  after_each(server.cleanup)

  it("goes on in another worker when its own is killed, and the connection serves on", function()
    local s = start(2)
    local clients = slow(s, 12)
    status.wait_figure(s, "sending", 12)
    for _ = 1, 3 do
      for _, pid in ipairs(s:workers()) do process.kill(pid, "KILL") end
      assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
      for index, c in ipairs(clients) do
        -- All take something in between, some from a worker that is dead by now.
        c.got = (c.got or "") .. assert(c:read(100000 * index))
      end
    end
    for _, c in ipairs(clients) do
      local rest = c:read(SIZE - #c.got)
      assert.truthy(c.got .. (rest or "") == content)
      assert.equal(200, c:request("/").status)
    end
  end)

  it("goes on while its worker runs a handler that takes long", function()
    local s = start(2)
    local clients = slow(s, 6)
    local busy, till = s:connect(), process.scratch("till")
    busy:send(("GET /busy?till=%s HTTP/1.1\r\nHost: x\r\n\r\n"):format(till))
    for _, c in ipairs(clients) do assert.truthy(is_whole(c)) end
    assert.is_true(busy:silent(0))
    process.write(till, "")
    assert.equal(200, busy:response().status)
  end)

  it("goes on in another worker when its own ends in order", function()
    local s = start(1)
    local clients = slow(s, 5)
    local pid = s:request("/").body
    assert.equal(pid, s:request("/last").body)
    assert.not_equal(pid, s:request("/").body)
    for _, c in ipairs(clients) do
      assert.truthy(is_whole(c))
      assert.equal(200, c:request("/").status)
    end
  end)

  it("goes on in the next generation when the server is reloaded", function()
    local s = start(2, 'hangup = "reload"')
    local clients = slow(s, 8)
    for count = 1, 3 do
      s:signal "HUP"
      assert.truthy(s:wait_log("Reload complete", nil, count))
      for _, c in ipairs(clients) do c.got = (c.got or "") .. assert(c:read(300000)) end
    end
    for _, c in ipairs(clients) do
      assert.truthy(c.got .. (c:read(SIZE - #c.got) or "") == content)
      assert.equal(200, c:request("/").status)
    end
  end)

  it("has a line in the access log, whichever process has sent its last byte", function()
    local log = process.scratch("access")
    local s = start(1,
      ("access_log = %q, access_log_format = '{target} {status} {bytes_out} {end}'"):format(log))
    local c = slow(s, 1)[1]
    local pid = tonumber(s:request("/").body)
    process.kill(pid, "KILL")
    assert.truthy(is_whole(c))
    process.wait_until(function() return (process.slurp(log) or ""):find "/file" end)
    local line = process.slurp(log):match "[^\n]*/file[^\n]*"
    assert.truthy(line:find "complete", line)
    local _, lines = process.slurp(log):gsub("/file", "")
    assert.equal(1, lines)
  end)

  it("is complete before the server ends", function()
    local s = start(1)
    local c = slow(s, 1)[1]
    s:signal "TERM"
    assert.truthy(is_whole(c))
    assert.equal(0, s:wait())
  end)

  it("is over when its client is gone or takes nothing for too long, and leaves no descriptor", function()
    local s = start(1)
    local before
    local function descriptors()
      local count = 0
      for _, pid in ipairs { s.pid, s:workers()[1] } do
        count = count + select(2, select(2, process.run("ls /proc/" .. pid .. "/fd")):gsub("\n", ""))
      end
      return count
    end
    assert.equal(200, s:request("/").status)
    before = descriptors()
    for _, c in ipairs(slow(s, 10)) do c:reset() end
    status.wait_figure(s, "sending", 0)
    assert.truthy(process.wait_until(function() return descriptors() <= before + 2 end))
  end)
end)
