--- Makes system calls of a server fail, block or go elsewhere while it runs, without root.
--
--     local faults = require "spec.support.faults"
--     after_each(server.cleanup)
--
--     local s = faults.server [[ … listens on PORT … ]]            -- as server.start
--     s.faults:set { call = "sendmsg", process = "supervisor", with_descriptors = true,
--                    errno = "ENOBUFS", count = 3 }                 -- the next three such calls
--     s.faults:set { call = "accept4", process = "workers", errno = "EPERM" }  -- all from now on
--     s.faults:set { call = "write", fd = 2, block = true }         -- until it is cleared
--     s.faults:wait_hits("accept4")                                 -- until one was struck
--     s.faults:clear()
--
--     local s = faults.server {                                     -- from the very start
--       script = …, launcher = { "-b" },
--       faults = { { call = "open", path = "/dev/null", errno = "ENOENT" } },
--     }
--
-- A rule is a table:
--
--   call      the function of the C library: "sendmsg", "accept4", "epoll_ctl", "write", …
--             ("open" stands for open64 and openat, "pidfd_open" for syscall(SYS_pidfd_open), too)
--   process   "supervisor" (what was started, or its daemon child), "workers" (its forks), "any" (default)
--   skip      how many matching calls pass before the first one is struck (default 0)
--   count     how many are struck then (default: all until the rule is cleared)
--
-- What it must be about, all optional: `fd` (number; for epoll_ctl the one that is added); `path` (part of
-- the path, or of what the descriptor is open for, as /proc/self/fd shows it: "socket:", "pipe:", "/x.log");
-- `request` (number, or a name as below: prctl's option, epoll_ctl's operation, the option of a socket, the
-- family of a new one, fcntl's command, a signal, a timeout); `with_descriptors` (messages with ancillary
-- data); `size` (bytes, at least: of an allocation, a read, a write).
--
-- What happens, one of: `errno` (its name: the call fails with it); `block` (true: until the rule is cleared;
-- a number: for so many seconds; then the call is made); `signal` (its name: the process gets it, then the
-- call is made: "KILL" and "STOP" end or freeze the process at this point); `result` (the call does nothing
-- and returns the number); `shorten` (read, write, send, recv take at most so many bytes); `redirect` (open
-- and connect go to this path).
--
-- Processes are counted together: "the third call" is the third of all to which the rule applies. Programs
-- that the server executes are left alone. Calls inside the C library (stdio, its own syslog) cannot be
-- reached; `call = "syslog"` is that function as a whole.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local faults = {}
local Faults = {}
Faults.__index = Faults

-- The layout of spec/support/faults.c.
local RULES, CALLS = 32, 128
local RULE, HEADER = "=I4I4I4I4I8i8i8i8i8I8I8I8I8c32c128c128", 8
local RULE_SIZE = RULE:packsize()
local TALLY, SEEN = "=c32I8I8", ("=I4I4I4I4I8i8i8i8i8I8I8"):packsize()
local TALLIES = HEADER + RULES * RULE_SIZE
local SUPERVISOR, WORKERS = 1, 2
local PROCESSES = { supervisor = SUPERVISOR, workers = WORKERS, any = SUPERVISOR | WORKERS }
local ON_FD, ON_REQUEST, ON_DESCRIPTORS = 1, 2, 4

local REQUESTS = {
  PR_SET_PDEATHSIG = 1, PR_SET_NO_NEW_PRIVS = 38, PR_SET_CHILD_SUBREAPER = 36,
  EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3,
  AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10,
  F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_DUPFD_CLOEXEC = 1030,
}

local ACTIONS = { errno = 1, block = 2, signal = 3, result = 4, shorten = 5, redirect = 6 }

local function errno_value(name)
  for _, file in ipairs { "errno-base.h", "errno.h" } do
    local text = assert(process.slurp("/usr/include/asm-generic/" .. file), "no headers")
    local number = text:match("#define%s+" .. name .. "%s+(%d+)")
    if number then return tonumber(number) end
  end
  error("no such error: " .. name)
end

local VALUES = {
  errno = errno_value,
  block = function(value) return value == true and 0 or math.max(1, math.floor(value * 1000)) end,
  signal = function(name)
    return assert(tonumber((select(2, process.run("env kill -l " .. name)))), "no such signal: " .. name)
  end,
  result = math.tointeger,
  shorten = math.tointeger,
  redirect = function() return 0 end,
}

--- The path of the library, which is built if it is missing or older than its sources.
function faults.library()
  local source = server.root .. "/spec/support/faults"
  local library = server.root .. "/build/spec/faults.so"
  local built = lfs.attributes(library, "modification") or 0
  if built <= math.max(lfs.attributes(source .. ".c", "modification"),
    lfs.attributes(source .. "_rules.h", "modification")) then
    -- Another run may do the same at this moment: a new file and a rename.
    local code, output = process.run(([[mkdir -p build/spec && fresh=$(mktemp build/spec/faults.XXXXXX) &&
      cc -shared -fPIC -O1 -Wall -o $fresh %s.c -ldl && mv $fresh %s]]):format(
      process.quote(source), process.quote(library)))
    assert(code == 0, output)
  end
  return library
end

-- What a rule is about, as numbers: action, value, conditions, request.
local function numbers(rule)
  local action
  for name in pairs(ACTIONS) do
    if rule[name] ~= nil then
      assert(not action, "a rule has one effect")
      action = name
    end
  end
  assert(action, "a rule has an effect: errno, block, signal, result, shorten or redirect")
  local request = rule.request
  if type(request) == "string" then request = assert(REQUESTS[request], "unknown request: " .. request) end
  local conditions = (rule.fd and ON_FD or 0) | (request and ON_REQUEST or 0)
    | (rule.with_descriptors and ON_DESCRIPTORS or 0)
  return ACTIONS[action], assert(VALUES[action](rule[action])), conditions, request or 0
end

local function packed(rule, serial)
  local processes = assert(PROCESSES[rule.process or "any"], "process: supervisor, workers or any")
  local action, value, conditions, request = numbers(rule)
  return RULE:pack(0, processes, action, conditions, serial, value, rule.fd or -1, request, rule.size or 0,
    rule.skip or 0, rule.count or 0, 0, 0, rule.call, rule.path or "", rule.redirect or "")
end

--- A set of rules for one server, the given ones from its start.
function faults.new(rules)
  local self = setmetatable({
    path = process.scratch("faults"), slots = {}, serial = 0, hit = {},
  }, Faults)
  self.file = assert(io.open(self.path, "w+b"))
  self.file:setvbuf("no")
  self:write(0, ("\0"):rep(TALLIES + CALLS * TALLY:packsize()))
  for _, rule in ipairs(rules or {}) do self:set(rule) end
  return self
end

--- Starts a server as server.start does, with `options.faults` (list of rules) from its start.
-- @return Server with the field `faults`
function faults.server(options)
  if type(options) == "string" then options = { script = options } end
  local copy = {}
  for name, value in pairs(options) do copy[name] = value end
  copy.faults = faults.new(options.faults)
  copy.command = {
    "env", "LD_PRELOAD=" .. faults.library(), "MOONBRIDGE_FAULTS=" .. copy.faults.path,
    table.unpack(options.command or { server.interpreter }),
  }
  return server.start(copy)
end

function Faults:write(offset, bytes)
  self.file:seek("set", offset)
  assert(self.file:write(bytes))
end

function Faults:read(offset, size)
  self.file:seek("set", offset)
  return self.file:read(size)
end

local function offset_of(slot)
  return HEADER + (slot - 1) * RULE_SIZE
end

--- Puts a rule into force. Returns it; `clear` takes it.
function Faults:set(rule)
  local slot = 1
  while self.slots[slot] do slot = slot + 1 end
  assert(slot <= RULES, "too many rules")
  self.serial = self.serial + 1
  self:tally(rule.call)
  local bytes = packed(rule, self.serial)
  self:write(offset_of(slot), bytes)
  self:write(offset_of(slot), ("=I4"):pack(1))
  self.slots[slot] = rule
  return rule
end

--- Takes a rule, or all, out of force. What it has blocked goes on.
function Faults:clear(rule)
  for slot, set in pairs(self.slots) do
    if not rule or set == rule then
      self:write(offset_of(slot), ("=I4"):pack(0))
      self.hit[set.call] = (self.hit[set.call] or 0) + self:struck(slot)
      self.slots[slot] = nil
    end
  end
end

function Faults:struck(slot)
  local _, struck = ("=I8I8"):unpack(self:read(offset_of(slot) + SEEN, 16))
  return struck
end

--- How many calls of a function were struck so far.
function Faults:hits(call)
  local sum = self.hit[call] or 0
  for slot, rule in pairs(self.slots) do
    if rule.call == call then sum = sum + self:struck(slot) end
  end
  return sum
end

--- Waits until `count` (default 1) calls were struck; an error if that takes too long.
function Faults:wait_hits(call, count, timeout)
  if not process.wait_until(function() return self:hits(call) >= (count or 1) end, timeout) then
    error(("%d calls of %s were struck"):format(self:hits(call), call), 2)
  end
end

-- The tally of a function: its calls by the supervisor, by workers. An error if there is no such function;
-- nil before the server has started.
function Faults:tally(call)
  local size = TALLY:packsize()
  for index = 0, CALLS - 1 do
    local name, supervisor, workers = TALLY:unpack(self:read(TALLIES + index * size, size))
    name = name:match("^[^\0]*")
    if name == call then return supervisor, workers end
    if name == "" then
      assert(index == 0, "the harness does not know this function: " .. call)
      return nil
    end
  end
end

--- How often a function was called, struck or not, by "supervisor", "workers" or "any" (default).
function Faults:calls(call, by)
  local supervisor, workers = self:tally(call)
  local which = PROCESSES[by or "any"]
  return (which & SUPERVISOR ~= 0 and supervisor or 0) + (which & WORKERS ~= 0 and workers or 0)
end

return faults
