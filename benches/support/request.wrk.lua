-- wrk sends the request of the case that its first argument names, byte by byte as it is there.
-- luacheck: globals wrk
dofile("benches/support/report.wrk.lua")
local requests = dofile("benches/support/requests.lua")

function wrk.init(args)
  local bytes = requests[args[1]].request
  wrk.request = function() return bytes end
end
