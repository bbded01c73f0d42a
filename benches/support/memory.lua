--- Memory of processes: the proportional set size, which counts what n processes share by an n-th in each.

local process = require "spec.support.process"

local memory = {}

--- Bytes of one process; 0 if it has ended.
function memory.pss(pid)
  local text = process.slurp(("/proc/%d/smaps_rollup"):format(pid)) or ""
  return (tonumber(text:match("\nPss:%s*(%d+) kB")) or 0) * 1024
end

--- Bytes of a program and all that came from it.
function memory.of(started)
  local sum = memory.pss(started.pid)
  for _, entry in ipairs(started:descendants()) do sum = sum + memory.pss(entry.pid) end
  return sum
end

return memory
