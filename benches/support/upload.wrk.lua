-- wrk sends 1 MiB with each request.
-- luacheck: globals wrk
dofile("benches/support/report.wrk.lua")
wrk.method = "POST"
wrk.body = ("x"):rep(1048576)
wrk.headers["Content-Type"] = "application/octet-stream"
