-- wrk sends requests of the case that its first argument names, each for another product.
-- luacheck: globals init request
dofile("benches/support/report.wrk.lua")
local requests = dofile("benches/app/requests.lua")
local bytes

function init(args) bytes = requests[args[1]].bytes end
function request() return bytes(requests.any()) end
