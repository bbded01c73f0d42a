--- Starts server scripts for specs, and makes sure that none outlives its spec.
--
--     local server = require "spec.support.server"
--     after_each(server.cleanup)
--
--     local s = server.start [[
--       local moonbridge = require "moonbridge"
--       moonbridge.listen{ {proto="tcp", host="127.0.0.1", port=PORT}, connect=function(socket) … end }
--       moonbridge.run()
--     ]]
--     local c = s:connect()
--     s:signal("TERM"); assert.equal(0, s:wait())
--
-- The script finds the free port chosen for it in the global PORT (and in the environment variable
-- PORT), further values of `globals` likewise.

local lfs = require "lfs"
local socket = require "socket"
local client = require "spec.support.client"
local process = require "spec.support.process"
local shared = require "spec.support.shared"
local tables = require "spec.support.tables"

local server = { TIMEOUT = process.TIMEOUT }

--- The interpreter that runs the servers: that of the specs, or what LUA says. Under Lua 5.5, it says both.
server.interpreter = os.getenv("LUA") or "lua" .. _VERSION:match("%d+%.%d+")

--- The interpreter that runs the specs, and has the libraries for that.
server.own_interpreter = _VERSION == "Lua 5.5" and server.interpreter or "lua" .. _VERSION:match("%d+%.%d+")

--- The version of the servers' interpreter, "5.1" to "5.5", or "jit" for LuaJIT.
server.lua_version = _VERSION:match("%d+%.%d+")
if os.getenv("LUA") then
  local code
  code, server.lua_version =
    process.run(server.interpreter .. [[ -e 'io.write(jit and "jit" or _VERSION:match("%d+%.%d+"))']])
  assert(code == 0, server.lua_version)
end

local root = lfs.currentdir()
--- The project's folder, absolute.
server.root = root

local running = {} -- servers that cleanup must see to

local Server = {}
-- What a server does not answer itself, its process does: log, output, signal, wait, descendants, …
Server.__index = function(self, key)
  return Server[key] or self.process[key]
end

-- Libraries in Lua that Debian has no package of for Lua 5.5: those for 5.4.
local LIBRARIES = server.lua_version == "5.5" and "/usr/share/lua/5.4/?.lua;" or ""

--- Where the interpreter of a started script finds the modules under test.
local function environment(extra)
  local version = server.lua_version:gsub("%.", "_") -- LuaJIT has no variables of its own
  local env = {
    LUA_PATH = root .. "/lua/?.lua;" .. LIBRARIES .. ";",
    LUA_CPATH = root .. "/build/lua" .. server.lua_version .. "/?.so;;",
    ["LUA_PATH_" .. version] = false,
    ["LUA_CPATH_" .. version] = false,
    LUA_INIT = false,
    ["LUA_INIT_" .. version] = false,
    -- What a service manager or an outer run of the specs may have set is not for this server.
    NOTIFY_SOCKET = false, LISTEN_FDS = false, LISTEN_PID = false, LISTEN_FDNAMES = false,
    WATCHDOG_USEC = false, WATCHDOG_PID = false,
  }
  for name, value in pairs(extra or {}) do env[name] = value end
  return env
end

--- A TCP port that nobody listens on, on the given address (default 127.0.0.1), and that no other run gets.
function server.free_port(host)
  return shared.port(function(port)
    local probe = socket.bind(host or "127.0.0.1", port)
    if probe then probe:close() end
    return probe ~= nil
  end)
end

--- Whether some process listens on the TCP port (looked up in /proc, so no connection is made).
function server.listening(port)
  local wanted = (":%04X"):format(port)
  local function listed(path)
    local file, found = io.open(path), false
    if not file then return false end
    file:read() -- the head
    for line in file:lines() do
      local address, _, state = line:match("^%s*%d+: (%S+) (%S+) (%S+)")
      found = state == "0A" and address:sub(-5) == wanted
      -- Listeners come before the connections, which may be many.
      if found or state ~= "0A" then break end
    end
    file:close()
    return found
  end
  return listed "/proc/net/tcp" or listed "/proc/net/tcp6"
end

-- The text that goes before a script, on its first line so that line numbers stay true.
local function prelude(port, globals)
  local parts = { ("PORT = %d "):format(port) }
  for name, value in pairs(globals or {}) do
    parts[#parts + 1] = ("%s = %q "):format(name, value)
  end
  return table.concat(parts)
end

local function write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

-- What runs: the interpreter's arguments for the given options.
local function command_line(options, port)
  local argv = { table.unpack(options.command or { server.interpreter }) }
  local script = options.file
  if not script then
    script = process.scratch("app.lua")
    write_file(script, prelude(port, options.globals) .. options.script)
  end
  if options.launcher then
    argv[#argv + 1] = root .. "/bin/moonbridge"
    if type(options.launcher) == "table" then
      for _, word in ipairs(options.launcher) do argv[#argv + 1] = word end
    end
    argv[#argv + 1] = "--"
  end
  argv[#argv + 1] = script
  for _, word in ipairs(options.args or {}) do argv[#argv + 1] = word end
  return argv
end

local readiness = {
  -- Somebody listens on the port: `listen` was called, or a plain listener was made.
  listening = function(self) return server.listening(self.port) end,
  -- The port is open and the first worker was forked: signal handlers are in place.
  -- To look for the port takes longer, as the system's table may be large.
  serving = function(self) return #self.process:children() > 0 and server.listening(self.port) end,
}

--- Starts a server script and waits until it is ready.
--
-- @param options the script's text, or a table:
--   `script` (text) or `file` (path); `launcher` (true, or a list of options for bin/moonbridge);
--   `command` (list: what runs the script, default the interpreter of the specs);
--   `args` (list, the script's arguments); `env` (name → value, false unsets); `globals` (name → value);
--   `port` (default a free one); `host` (default 127.0.0.1: where the helpers connect to); `cwd`;
--   `ready`: "serving" (default: the port is open and a worker runs), "listening" (the port is open),
--   a Lua pattern for the log as `{log = pattern}`, a function `(server) → boolean`, or false: do not wait;
--   `timeout` (seconds to become ready); `faults` (what spec.support.faults has prepared);
--   `patience` (seconds that its descendants may outlive it, default process.TIMEOUT)
-- @return Server: the methods of `process` and those below; fields `port`, `host`, `url`, `pid`
function server.start(options)
  if type(options) == "string" then options = { script = options } end
  local port = options.port or server.free_port()
  local env = environment(options.env)
  env.PORT = env.PORT or port
  local self = setmetatable({
    port = port,
    host = options.host or "127.0.0.1",
    process = process.start(command_line(options, port), { env = env, cwd = options.cwd }),
    faults = options.faults,
    patience = options.patience,
  }, Server)
  self.pid = self.process.pid
  self.url = ("http://%s:%d"):format(self.host, port)
  running[#running + 1] = self
  self:wait_ready(options.ready, options.timeout)
  return self
end

--- Starts one pool by the launcher, with a listener at the server's port.
--
-- @param pool text: what follows that listener in `listen{…}`
-- @param options those of `server.start`; `before` (text): what the script does before it listens
function server.start_pool(pool, options)
  local all = tables.with({ launcher = true }, options)
  all.script = ('%s listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, %s }'):format(
    all.before or "", pool)
  return server.start(all)
end

--- Runs a script under the interpreter of the specs to its end (a program that is no server).
-- @return exit code or nil, standard output, standard error
function server.run_script(options)
  if type(options) == "string" then options = { script = options } end
  options.ready = false
  local self = server.start(options)
  local code = self:wait(options.timeout)
  return code, self:output(), self:log()
end

function Server:wait_ready(ready, timeout)
  if ready == false then return end
  local probe = readiness[ready or "serving"] or ready
  if type(ready) == "table" then
    probe = function() return self:log():find(ready.log) end
  end
  local done = process.wait_until(function()
    return probe(self) or self:status()
  end, timeout)
  if not done or self:status() then
    local state = self:status() and "ended with code " .. self:status() or "did not become ready"
    error(("the server %s; its log:\n%s"):format(state, self:log()), 3)
  end
end

--- The pids of the workers: the server's direct children.
function Server:workers()
  return self.process:children()
end

--- Ends the server by a signal (default TERM) and returns its exit code; an error if it does not end.
function Server:stop(signal)
  self:signal(signal or "TERM")
  local code, message = self:wait()
  if not code then error(("the server is %s; its log:\n%s"):format(message, self:log()), 2) end
  return code
end

--- A raw connection to the server (see spec.support.client), at another port if `options.port` says so.
function Server:connect(options)
  return client.connect(options and options.port or self.port, self.host, options)
end

--- Sends raw bytes on a new connection and returns all that comes back until the server closes.
-- @return bytes, how it ended: "closed", "reset" or "timeout"
function Server:raw(bytes, timeout)
  local connection = self:connect()
  connection:send(bytes)
  local reply, ending = connection:read_all(timeout)
  connection:close()
  return reply, ending
end

--- One request on a connection of its own; see client.request for the options.
-- @return response {status, reason, headers, body, …}
function Server:request(options)
  if type(options) == "string" then options = { target = options } end
  local connection = self:connect()
  local response = connection:request(options)
  connection:close()
  return response
end

--- Runs curl with the given arguments (a shell string); `URL` in it stands for the server's base URL.
-- @return exit code, output
function Server:curl(arguments)
  local url = self.url
  return process.run("curl --silent --show-error --max-time " .. server.TIMEOUT .. " "
    .. arguments:gsub("URL", function() return url end))
end

--- Ends the server and reports what was wrong about its end, as a list of texts.
function Server:finish_off()
  local faults = {}
  if self.faults then
    self.faults:clear()
    for _, entry in ipairs(self:descendants()) do
      if entry.state == "T" then process.thaw(entry.pid) end
    end
  end
  if not self:status() then
    self:signal("TERM")
    if not self:wait() then
      faults[#faults + 1] = "the server did not end on SIGTERM; its log:\n" .. self:log()
    end
  end
  -- Workers of a killed supervisor, and what they started, may need a moment to notice.
  process.wait_until(function() return #self.process:descendants() == 0 end, self.patience)
  for _, left in ipairs(self.process:destroy()) do
    faults[#faults + 1] = "a process was left behind: " .. left
  end
  return faults
end

--- Ends all servers of the spec; an error if one did not end or if a process was left behind.
--
-- To be called by `after_each` (or `teardown`, for servers that a group of specs shares).
function server.cleanup()
  local faults = {}
  process.thaw()
  client.cleanup()
  for index = #running, 1, -1 do
    local self = table.remove(running, index)
    for _, fault in ipairs(self:finish_off()) do faults[#faults + 1] = fault end
  end
  process.forget()
  if #faults > 0 then error(table.concat(faults, "\n"), 2) end
end

-- A run that is broken off must not leave servers behind either.
server.guard = setmetatable({}, {
  __gc = function()
    for _, self in ipairs(running) do self.process:destroy() end
    process.forget()
  end,
})

return server
