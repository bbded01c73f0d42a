--- Many clients of several kinds at once, who count what goes wrong for them: crowd.py, which says what kinds
-- there are.
--
--     local clients = crowd.start(port, { kept = 16, idle = 200 })
--     … whatever must not disturb them …
--     local figures = clients:finish()
--     assert.equal(0, figures.failed, figures.text)

local process = require "spec.support.process"
local server = require "spec.support.server"

local crowd = {}

local Crowd = {}
Crowd.__index = Crowd

--- Starts clients of a server at a port on 127.0.0.1, and waits until they are at work.
-- @param counts kind → number of clients
function crowd.start(port, counts)
  local argv = { "python3", server.root .. "/spec/support/crowd.py", port }
  for kind, count in pairs(counts) do argv[#argv + 1] = ("%s=%d"):format(kind, count) end
  local self = setmetatable({ running = process.start(argv, {}) }, Crowd)
  local ready = process.wait_until(function()
    return self.running:output():find("READY\n", 1, true) or self.running:status()
  end, 60)
  if not ready or self.running:status() then
    self:destroy()
    error("the clients did not start: " .. self.running:log(), 2)
  end
  return self
end

--- Ends the clients when each has its last answer.
-- @return the figures by their names; `probed`: a list of {time, pid}; `text`: all of it
function Crowd:finish()
  self.running:signal("TERM")
  local code, message = self.running:wait(90)
  local text, figures = self.running:output(), { probed = {} }
  if code ~= 0 then
    message = ("the clients ended with %s: %s"):format(code or message, self.running:log())
    self:destroy()
    error(message, 2)
  end
  for name, value in text:gmatch("([%w_]+) (%d+)\n") do figures[name] = math.tointeger(value) end
  for time, pid in text:gmatch("probed ([%d.]+) (%d+)\n") do
    table.insert(figures.probed, { time = tonumber(time), pid = math.tointeger(pid) })
  end
  figures.text = text
  self:destroy()
  return figures
end

--- Ends the clients at once, if they are still there.
function Crowd:destroy()
  self.running:destroy()
end

return crowd
