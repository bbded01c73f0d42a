-- A request of make bench-files: `argument` is a header line; {} in the path counts up to 10,000.
-- luacheck: globals init request wrk
local names = 0
dofile "benches/support/report.wrk.lua"

local head

function init(arguments)
  local name, value = (arguments[1] or ""):match "^([^:]+): (.*)$"
  if name then wrk.headers[name] = value end
  head = wrk.format("GET")
end

function request()
  if not head:find("{}", 1, true) then return head end
  names = (names + 7919) % 10000
  return (head:gsub("{}", ("%05d"):format(names)))
end
