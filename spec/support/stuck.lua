--- Standard streams of a server that nobody empties: a terminal, a pipe, a socket.
--
--     local other_end, command = stuck.stream("terminal", { 1, 2 })
--     local s = server.start { command = command(server.interpreter), … }   -- its descriptors 1 and 2
--     other_end.read()      -- from now on it is emptied
--     other_end.text()      -- what came

local process = require "spec.support.process"

local stuck = {}

-- Becomes the program given, with one end of the stream as the descriptors; another process has the other.
local PROGRAM = [[
import os, pty, socket, sys, time
kind, numbers, folder = sys.argv[1:4]
near, far = {
  "terminal": lambda: pty.openpty()[::-1],
  "pipe": lambda: os.pipe()[::-1],
  "closed": lambda: os.pipe()[::-1],
  "socket": lambda: [s.detach() for s in socket.socketpair()],
}[kind]()
server = os.getpid()
if kind != "closed" and os.fork() == 0:
  if os.fork() > 0: os._exit(0)
  os.close(near)
  out = open(folder + "/text", "wb", 0)
  os.set_blocking(far, False)
  while os.path.exists("/proc/%d" % server):
    time.sleep(0.02)
    try:
      while os.path.exists(folder + "/go"): out.write(os.read(far, 65536) or os._exit(0))
    except BlockingIOError: pass
    except OSError: break
  try: out.write(os.read(far, 1 << 20))
  except OSError: pass
  os._exit(0)
if kind != "closed": os.wait()
os.close(far)
for number in numbers.split(","): os.dup2(near, int(number))
os.close(near)
os.execvp(sys.argv[4], sys.argv[4:])
]]

--- A stream of the kind "terminal", "pipe", "closed" (a pipe without a reader) or "socket".
-- @param numbers list of descriptors, default standard error alone
-- @return the other end: functions `read` and `text`; a function that gives a command line with the stream
function stuck.stream(kind, numbers)
  local script = process.scratch("stuck.py")
  local folder = script:match("^(.*)/")
  process.write(script, PROGRAM)
  return {
    read = function() assert(io.open(folder .. "/go", "w")):close() end,
    text = function() return process.slurp(folder .. "/text") or "" end,
  }, function(...)
    return { "python3", script, kind, table.concat(numbers or { 2 }, ","), folder, ... }
  end
end

return stuck
