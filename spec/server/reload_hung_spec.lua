-- An old generation that does not react when it is to hand over.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
local moonbridge = require "moonbridge"
local http = require "moonbridge.http"
local file = assert(io.open(VERSION))
local version = file:read("*a")
file:close()
moonbridge.listen{
  { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 2,
  prepare = function()
    if version == "three" then
      assert(io.open(VERSION .. ".prepares", "w")):close()
      while not io.open(VERSION .. ".go") do os.execute("sleep 0.05") end
    end
  end,
  connect = http.generate_handler(function(request)
    request:send_status("200 OK")
    request:send_data(version)
    return true
  end),
}
moonbridge.run{ hangup = "reload", reload_timeout = 3 }
]]

describe("a reload", function()
  after_each(server.cleanup)

  it("completes without an old generation that does not react", function()
    local version = process.scratch("version")
    local write = process.write
    write(version, "one")
    local s = server.start { script = APP, globals = { VERSION = version } }
    local function serves(text)
      return process.wait_until(function() return s:request("/").body == text end)
    end
    write(version, "two")
    s:signal("HUP")
    assert.truthy(serves("two"), s:log())
    -- It serves before the first process says so.
    local old = tonumber(s:wait_log("the new generation serves %(PID (%d+)%)"))
    write(version, "three")
    s:signal("HUP")
    assert.truthy(process.wait_until(function() return process.slurp(version .. ".prepares") end))
    process.freeze(old)
    write(version .. ".go", "")
    local complete = "Reload complete.-Reload complete"
    assert.truthy(process.wait_until(function() return s:log():find(complete) end), s:log())
    local told = ("The old generation (PID %d) does not hand over in time"):format(old)
    assert.truthy(s:log():find(told, 1, true), s:log())
    -- Its workers have left the ports to the new ones.
    assert.truthy(process.wait_until(function() return not process.alive(old) end))
    for _ = 1, 20 do assert.equal("three", s:request("/").body) end
    write(version, "four")
    s:signal("HUP")
    assert.truthy(serves("four"), s:log())
    assert.equal(0, s:stop())
  end)

  it("does not repeat that handlers run as root", function()
    local version = process.scratch("version")
    process.write(version, "one")
    local s = server.start { script = APP, globals = { VERSION = version } }
    local _, before = s:log():gsub("run as root", "")
    for i = 1, 2 do
      s:signal("HUP")
      assert.truthy(process.wait_until(function()
        return select(2, s:log():gsub("Reload complete", "")) == i
      end), s:log())
    end
    assert.equal(before, select(2, s:log():gsub("run as root", "")))
  end)
end)
