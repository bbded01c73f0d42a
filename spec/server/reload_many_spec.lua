-- A reload takes many idle connections over: several in one message, and as many as descriptors allow.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
local moonbridge = require "moonbridge"
local http = require "moonbridge.http"
local born = tostring(os.time()) .. tostring({})
moonbridge.listen{
  { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 2,
  connect = http.generate_handler(function(request)
    request:send_status("200 OK")
    request:send_data(request.path == "reload" and tostring(moonbridge.reload()) or born)
    return true
  end),
}
moonbridge.run{ stats = true }
]]

describe("a reload with many idle connections", function()
  after_each(server.cleanup)

  local function idle(s, count)
    local connections = {}
    for i = 1, count do
      connections[i] = s:connect()
      assert.equal(200, connections[i]:request("/").status)
    end
    return connections
  end

  it("takes them over, several at once, and says so", function()
    local s = server.start { script = APP }
    local connections = idle(s, 600)
    local before = connections[1]:request("/").body
    assert.equal("true", s:request("/reload").body)
    for _, connection in ipairs(connections) do
      assert.not_equal(before, connection:request("/").body)
    end
    local count = s:log():match("Took over (%d+) connections in %d+ ms")
    -- One or the other may be in a handler, and come later.
    assert.truthy(tonumber(count) > 500, s:log())
  end)

  it("closes those that have waited longest if the new code has fewer descriptors", function()
    local mark = process.scratch("files")
    local s = server.start {
      globals = { MARK = mark },
      script = [[
        local mark = io.open(MARK)
        files = {}
        for i = 1, mark and 60 or 0 do files[i] = io.tmpfile() end
      ]] .. APP:gsub("max_fork = 2", "max_fork = 1"), -- one worker, so that they come in order
      command = { "sh", "-c", 'ulimit -n 400; exec "$@"', "sh", server.interpreter },
    }
    local connections = idle(s, 330)
    io.open(mark, "w"):close()
    assert.equal("true", s:request("/reload").body)
    local first
    for i = #connections, 1, -1 do
      if not pcall(connections[i].request, connections[i], "/") then
        first = i
        break
      end
    end
    assert.truthy(first and first < 100, first)
  end)
end)
