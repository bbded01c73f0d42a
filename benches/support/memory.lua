--- Memory of programs with all their processes.

local process_memory = require "spec.support.memory"

local memory = { pss = process_memory.pss }

--- Bytes of a program and all that came from it.
function memory.of(started)
  local sum = memory.pss(started.pid)
  for _, entry in ipairs(started:descendants()) do sum = sum + memory.pss(entry.pid) end
  return sum
end

return memory
