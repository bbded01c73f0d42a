-- wrk sends the request of the case that its first argument names.
-- luacheck: globals wrk
dofile("benches/support/report.wrk.lua")
local requests = dofile("benches/lapis/requests.lua")

function wrk.init(args)
  local bytes = requests[args[1]].request
  wrk.request = function() return bytes end
end
