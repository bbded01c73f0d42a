--- Processes as specs see them: start one, watch it and all that come from it, end them by pid.
--
-- Built on the shell, on /proc and on LuaSocket's clock, so that it depends on nothing under test.
--
-- A started process leads a session of its own and carries a mark in its environment. Whatever it
-- starts is found by one of the two, also after its parent died or after it made itself a daemon.
-- If this run is killed, spec/support/watchdog kills all that it has started.

local lfs = require "lfs"
local shared = require "spec.support.shared"
local socket = require "socket"

local process = {}

--- Seconds that any single wait of a spec may take (environment variable TEST_TIMEOUT, default 10).
process.TIMEOUT = tonumber(os.getenv("TEST_TIMEOUT")) or 10

local MARK, RUN = "MOONBRIDGE_SPEC_MARK", "MOONBRIDGE_SPEC_RUN"
local Process = {}
Process.__index = Process

--- Quotes `text` for the shell.
function process.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

--- The content of a file, or nil.
function process.slurp(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

--- Writes a file, in place of one that is there: readers find either the old or the new content.
function process.write(path, text)
  local file = assert(io.open(path .. ".new", "wb"))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(path .. ".new", path))
end

--- Calls `probe` until it returns a true value, which is returned, or until the time is over (nil).
-- @param probe function without arguments
-- @param timeout seconds, default process.TIMEOUT
function process.wait_until(probe, timeout)
  local deadline = socket.gettime() + (timeout or process.TIMEOUT)
  local pause = 0.002
  while true do
    local result = probe()
    if result then return result end
    if socket.gettime() >= deadline then return nil end
    socket.sleep(pause)
    pause = math.min(pause * 1.5, 0.05)
  end
end

--- Runs a shell command to its end.
-- @return exit code (128 + n for signal n), then what it wrote to stdout and stderr together
function process.run(command)
  local mark = ("export %s=%s; "):format(RUN, shared.run.folder)
  local pipe = assert(io.popen(mark .. "{ " .. command .. "\n} 2>&1 </dev/null; printf '\\n%d' $?"))
  local text = pipe:read("a")
  pipe:close()
  local output, code = text:match("^(.*)\n(%d+)$")
  return tonumber(code), output
end

-- One line of /proc/PID/stat as {pid, command, state, parent, session}, or nil.
local function stat(pid)
  local line = process.slurp("/proc/" .. pid .. "/stat")
  if not line then return nil end
  local command, state, parent, session = line:match("%((.*)%) (%a) (%d+) %d+ (%d+)")
  if not command then return nil end
  return {
    pid = pid, command = command, state = state,
    parent = tonumber(parent), session = tonumber(session),
  }
end

-- Processes that this run has nothing to do with, by number: to look at all of a busy machine takes long.
-- The kernel uses a number again only after it has got to the greatest one.
local strangers, newest = {}, 0
local sessions = {} -- those of this run

local function forget_strangers()
  local last = tonumber(process.slurp("/proc/loadavg"):match("(%d+)%s*$"))
  if last < newest then strangers = {} end
  newest = last
end

-- Whether a process is none of this run's, now and later. One that is just beginning cannot be told.
local function is_stranger(entry, environ)
  if entry.session == 0 then return true end -- the kernel's
  return environ ~= nil and environ ~= "" and not sessions[entry.session]
    and not environ:find(RUN .. "=" .. shared.run.folder .. "\0", 1, true)
end

--- All processes of the machine for which `belongs(entry)` is true.
local function search(belongs)
  local found = {}
  forget_strangers()
  for name in lfs.dir("/proc") do
    local pid = tonumber(name)
    local entry = pid and not strangers[pid] and stat(pid)
    if entry and belongs(entry) then found[#found + 1] = entry end
  end
  table.sort(found, function(a, b) return a.pid < b.pid end)
  return found
end

--- Sends a signal (name or number, default TERM) to a pid; true if there was such a process.
function process.kill(pid, signal)
  assert(math.type(pid) == "integer" and pid > 1, "a pid is expected")
  return (process.run(("kill -%s %d"):format(signal or "TERM", pid))) == 0
end

--- Whether the process exists and is no zombie.
function process.alive(pid)
  local entry = stat(pid)
  return entry ~= nil and entry.state ~= "Z"
end

--- Waits until a process sleeps. A worker whose client has the answer is idle then, and has parked the
-- connection.
function process.wait_asleep(pid)
  assert(process.wait_until(function()
    local entry = stat(pid)
    return entry and entry.state == "S"
  end), "the process does not go to sleep")
end

local frozen = {} -- pids

--- Freezes a process, as SIGSTOP, a cgroup's freezer or an unreachable disk do, and waits until it stands.
function process.freeze(pid)
  assert(process.kill(pid, "STOP"), "there is no such process")
  frozen[pid] = true
  assert(process.wait_until(function()
    local entry = stat(pid)
    return not entry or entry.state == "T"
  end), "the process cannot be frozen")
end

--- Lets a frozen process go on, or all that are frozen (server.cleanup does so).
function process.thaw(pid)
  for each in pairs(pid and { [pid] = true } or frozen) do
    process.kill(each, "CONT")
    frozen[each] = nil
  end
end

-- The folder of this run, which the watchdog removes. The watchdog starts before there is a descriptor that
-- it could inherit and keep open, and in a session that no Ctrl-C reaches.
if not shared.run.folder then
  local folder = os.tmpname()
  os.remove(folder)
  assert(lfs.mkdir(folder))
  os.execute(("setsid %s/spec/support/watchdog %s %s </dev/null >/dev/null 2>&1 &"):format(
    process.quote(lfs.currentdir()), process.slurp("/proc/self/stat"):match("^%d+"), process.quote(folder)))
  shared.run.folder = folder
end

--- A path in a fresh folder of this process; everything there goes away with process.forget.
function process.scratch(name)
  shared.run.scratched = (shared.run.scratched or 0) + 1
  local folder = shared.run.folder .. "/" .. shared.run.scratched
  assert(lfs.mkdir(folder))
  return folder .. "/" .. name
end

--- Removes all scratch files.
function process.forget()
  os.execute("rm -rf " .. process.quote(shared.run.folder) .. "/*")
end

--- Starts a program in a session of its own, without standard input, its output in files.
--
-- All signals have their default dispositions in it, whatever the runner inherited.
-- @param argv   list: program and arguments
-- @param options table or nil: `env` (name → value, false unsets), `cwd`
-- @return Process with the fields `pid` and `mark`
function process.start(argv, options)
  options = options or {}
  local folder = process.scratch("x"):match("^(.*)/")
  local self = setmetatable({
    folder = folder,
    mark = ("%s=%s"):format(MARK, folder),
    argv = argv,
  }, Process)
  local words = { "cd", process.quote(options.cwd or lfs.currentdir()) }
  words[#words + 1] = "&& exec setsid env --default-signal"
  local settings = { process.quote(self.mark), process.quote(RUN .. "=" .. shared.run.folder) }
  for name, value in pairs(options.env or {}) do
    if value == false then
      words[#words + 1] = "-u " .. process.quote(name)
    else
      settings[#settings + 1] = process.quote(name .. "=" .. tostring(value))
    end
  end
  table.move(settings, 1, #settings, #words + 1, words)
  -- The innermost shell writes its pid and then becomes the program, so the pid is the program's.
  words[#words + 1] = "sh -c"
  words[#words + 1] = process.quote(
    'folder=$1; shift; echo $$ >>"$folder/../sessions"; echo $$ >"$folder/pid"; '
    .. 'exec "$@" </dev/null >"$folder/stdout" 2>"$folder/stderr"')
  words[#words + 1] = "sh " .. process.quote(folder)
  for _, word in ipairs(argv) do words[#words + 1] = process.quote(word) end
  local program = table.concat(words, " ")
  -- The outer shell outlives the program to note its exit code.
  os.execute(("{ ( %s ); echo $? >%s/status; } </dev/null >/dev/null 2>&1 &"):format(program, folder))
  self.pid = assert(process.wait_until(function()
    return tonumber(process.slurp(folder .. "/pid"))
  end), "the program could not be started: " .. argv[1])
  sessions[self.pid] = true
  return self
end

--- What the program wrote to its standard error so far.
function Process:log()
  return process.slurp(self.folder .. "/stderr") or ""
end

--- What the program wrote to its standard output so far.
function Process:output()
  return process.slurp(self.folder .. "/stdout") or ""
end

--- Waits until the program has written this text to its standard output; throws an error if it does not.
function Process:expect_output(text)
  assert(process.wait_until(function() return self:output():find(text, 1, true) end), self:log())
end

--- Waits until a Lua pattern matches the log; returns the match, or nil when the time is over.
-- @param count how often it must match, default once
function Process:wait_log(pattern, timeout, count)
  return process.wait_until(function()
    local matches = 0
    for match in self:log():gmatch(pattern) do
      matches = matches + 1
      if matches >= (count or 1) then return match end
    end
  end, timeout)
end

--- The exit code if the program has ended (128 + n for signal n), else nil.
function Process:status()
  return tonumber(process.slurp(self.folder .. "/status"))
end

--- Waits for the end. Returns the exit code, or nil and a message when the time is over.
function Process:wait(timeout)
  local code = process.wait_until(function() return self:status() end, timeout)
  if code then return code end
  return nil, ("still running after %g s"):format(timeout or process.TIMEOUT)
end

--- Sends a signal to the program itself.
function Process:signal(signal)
  return process.kill(self.pid, signal)
end

--- All that came from this program and still exists, zombies included, the program excepted.
-- @return list of {pid, parent, session, command, state}
function Process:descendants()
  local own = self.mark .. "\0"
  return search(function(entry)
    -- What has ended and waits for init to notice is nobody's fault here.
    if entry.pid == self.pid or entry.state == "Z" and entry.parent == 1 then return false end
    if entry.session == self.pid then return true end
    local environ = process.slurp("/proc/" .. entry.pid .. "/environ")
    if is_stranger(entry, environ) then strangers[entry.pid] = true end
    return environ ~= nil and environ:find(own, 1, true) ~= nil
  end)
end

-- The kernel's list, where it keeps one: to look at all processes of a busy machine takes long.
local function children_of(pid)
  local list = process.slurp(("/proc/%d/task/%d/children"):format(pid, pid))
  if not list then return search(function(entry) return entry.parent == pid end) end
  local entries = {}
  for child in list:gmatch("%d+") do entries[#entries + 1] = stat(math.tointeger(tonumber(child))) end
  return entries
end

--- The pids of the program's direct children that are alive, in ascending order.
function Process:children()
  local pids = {}
  for _, entry in ipairs(children_of(self.pid)) do
    if entry.state ~= "Z" then pids[#pids + 1] = entry.pid end
  end
  table.sort(pids)
  return pids
end

--- Seconds of processor time that the program and all that came from it have used, ended ones excepted.
function Process:cpu()
  local pids, ticks = { self.pid }, 0
  for _, entry in ipairs(self:descendants()) do pids[#pids + 1] = entry.pid end
  for _, pid in ipairs(pids) do
    local line = process.slurp("/proc/" .. pid .. "/stat") or ""
    local user, system = line:match("%) %a" .. (" %-?%d+"):rep(10) .. " (%d+) (%d+)")
    ticks = ticks + (user or 0) + (system or 0)
  end
  return ticks / 100 -- USER_HZ, the unit of /proc, is 100 on Linux
end

--- Kills the program and all that came from it. Returns a list of what was left of the descendants.
function Process:destroy()
  local left = {}
  for _ = 1, 20 do
    local rest = self:descendants()
    if not self:status() then rest[#rest + 1] = { pid = self.pid, command = "", state = "R", own = true } end
    if #rest == 0 then break end
    for _, entry in ipairs(rest) do
      if not entry.own and not left[entry.pid] then
        left[entry.pid] = true
        left[#left + 1] = ("%d %s (%s)"):format(entry.pid, entry.command, entry.state)
      end
      if entry.state ~= "Z" then process.kill(entry.pid, "KILL") end
    end
    socket.sleep(0.01)
  end
  return left
end

return process
