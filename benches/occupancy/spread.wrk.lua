-- Counts which worker answered how often (the body is its process id).
-- luacheck: globals setup response done
local threads = {}
local answers = {}

function setup(thread) threads[#threads + 1] = thread end

function response(_, _, body)
  answers[body] = (answers[body] or 0) + 1
  local parts = {}
  for pid, count in pairs(answers) do parts[#parts + 1] = pid .. "=" .. count end
  shares = table.concat(parts, " ") -- luacheck: globals shares
end

function done()
  for _, thread in ipairs(threads) do print("SHARES " .. thread:get("shares")) end
end
