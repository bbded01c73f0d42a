--- How much memory a process has, what is in it, and what a core file would show of that.

local process = require "spec.support.process"

local memory = {}

--- Bytes of a process: its proportional set size, which counts what n processes share by an n-th in each.
--- 0 if it has ended.
function memory.pss(pid)
  local text = process.slurp(("/proc/%d/smaps_rollup"):format(pid)) or ""
  return (tonumber(text:match("\nPss:%s*(%d+) kB")) or 0) * 1024
end

-- The writable mappings of a process: { from, to, whether a core file has them }.
local function mappings(pid)
  local list, current = {}, nil
  for line in io.lines(("/proc/%d/smaps"):format(pid)) do
    local from, to, access = line:match("^(%x+)%-(%x+) (%S+)")
    if from then
      current = access:find("^rw") and { from = tonumber(from, 16), to = tonumber(to, 16) }
      list[#list + 1] = current or nil
    elseif current and line:find("^VmFlags:") then
      current.dumped = not line:find(" dd", 1, true)
    end
  end
  return list
end

--- Looks for texts in the memory of another process.
-- @param texts name → text
-- @return name → "dumped" if a core file would show it, "kept" if the process has it and none would
function memory.find(pid, texts)
  local found = {}
  local file = assert(io.open(("/proc/%d/mem"):format(pid), "rb"))
  for _, mapping in ipairs(mappings(pid)) do
    file:seek("set", mapping.from)
    local bytes = file:read(mapping.to - mapping.from) or ""
    for name, text in pairs(texts) do
      if found[name] ~= "dumped" and bytes:find(text, 1, true) then
        found[name] = mapping.dumped and "dumped" or "kept"
      end
    end
  end
  file:close()
  return found
end

return memory
