-- Serves benches/lapis/app.lua: with SERVER=moonbridge as `lapis server` does; with SERVER=cqueues likewise,
-- but with a shared port, so that there can be several processes.

if os.getenv "SERVER" == "moonbridge" then
  require "lapis.cmd.moonbridge.actions".server({}, { environment = "bench" })
else
  local server = require "lapis.cmd.cqueues".create_server("app", "bench")
  server.server_opts.reuseport = true
  server:start()
end
