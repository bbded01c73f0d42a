-- Sends the vectors of public suites to a server of ours: lua run.lua NAME=FOLDER…
--
-- Prints for each suite how many vectors are treated as it expects, and the others. docs/conformance.md says
-- which section of the RFC makes us right about these; what it does not name is marked as new. Fails if a
-- split of the input changes a result.

local exchange = require "spec.conformance.exchange"
local process = require "spec.support.process"
local server = require "spec.support.server"
local suites = require "spec.conformance.suites"

local function printable(bytes)
  local text = bytes:gsub("[^\32-\126]", function(byte) return ("\\x%02x"):format(byte:byte()) end)
    :gsub("\\x0d\\x0a", "\\r\\n")
  return #text > 160 and text:sub(1, 160) .. "…" or text
end

local function outcome(responses)
  local statuses = {}
  for index, response in ipairs(responses) do statuses[index] = response:sub(1, 3) end
  return #statuses == 0 and "no response" or table.concat(statuses, ", ")
end

local changed, explained = 0, process.slurp(server.root .. "/docs/conformance.md")

local function run(name, vectors, complete, port)
  local good, differences = 0, {}
  for _, vector in ipairs(vectors) do
    local bytes = complete and vector.bytes or exchange.with_host(vector.bytes)
    local responses = exchange.send(port, { bytes }, vector.stays)
    if exchange.as_expected(responses, vector.expect) then
      good = good + 1
    else
      local expect = type(vector.expect) == "string" and vector.expect or "another status"
      local known = explained:find("`" .. vector.name .. "`", 1, true)
      differences[#differences + 1] = ("  %s%s: expected: %s; got: %s\n    %s")
        :format(known and "" or "NEW: ", vector.name, expect, outcome(responses), printable(bytes))
    end
    local whole = table.concat(responses, "\n")
    for _, pieces in ipairs(exchange.splits(bytes)) do
      local other = exchange.send(port, pieces, vector.stays)
      if table.concat(other, "\n") ~= whole then
        changed = changed + 1
        differences[#differences + 1] = ("  %s: SPLIT after %d bytes: %s instead of %s\n    %s")
          :format(vector.name, #pieces[1], outcome(other), outcome(responses), printable(bytes))
      end
    end
  end
  print(("%s: %d of %d as expected"):format(name, good, #vectors))
  for _, text in ipairs(differences) do print(text) end
end

local s = server.start { file = server.root .. "/spec/conformance/app.lua" }
for _, word in ipairs(arg) do
  local name, folder = word:match("^(.-)=(.*)$")
  local ok, vectors, complete = pcall(suites[name], folder)
  if ok and #vectors > 0 then
    run(name, vectors, complete, s.port)
  else
    print(("%s: skipped: no vectors in %s (%s)"):format(name, folder, ok and "another format" or vectors))
  end
end
local log = s:log()
s:stop()
for line in log:gmatch("[^\n]*Error in[^\n]*") do print("server: " .. line) end
if changed > 0 then print(changed .. " results depend on how the input was split") end
os.exit(changed == 0 and 0 or 1)
