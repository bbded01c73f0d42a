--- Servers with a status listener, and what that says.

local client = require "spec.support.client"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"

local status_listener = {}

--- Starts a script by the launcher whose status listener is at port STATUS: `status_port` of the server.
-- @param options those of `server.start`
function status_listener.start(options)
  local globals = tables.with({ STATUS = server.free_port() }, options.globals)
  local s = server.start(tables.with({ launcher = true }, options, { globals = globals }))
  s.status_port = globals.STATUS
  return s
end

--- The response of the status listener; for the options see client.request.
function status_listener.ask(s, options)
  if type(options) == "string" then options = { target = options } end
  local connection = client.connect(s.status_port, "127.0.0.1")
  local response = connection:request(options)
  connection:close()
  return response
end

--- The value of the sample with that name and labels, as written, in a text of metrics; nil if there is none.
function status_listener.sample(text, name)
  for line in text:gmatch("[^\n]+") do
    if line:sub(1, #name + 1) == name .. " " then return tonumber(line:sub(#name + 2)) end
  end
end

--- Waits until a sample has that value; an error if it never has.
function status_listener.wait_sample(s, name, expected)
  local value
  local reached = process.wait_until(function()
    value = status_listener.sample(status_listener.ask(s, "/metrics").body, name)
    return value == expected
  end)
  assert(reached, ("%s is %s instead of %s"):format(name, value, expected))
end

return status_listener
