-- Two periodic jobs in a web server: one with a pause between its runs, one at fixed times.
--
--   lua5.4 examples/interval.lua 60        seconds between the runs; then open http://127.0.0.1:8080/

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"

local pause = tonumber(arg[1] or 60)
if not pause or pause <= 0 then
  io.stderr:write("usage: interval.lua [SECONDS]\n")
  os.exit(2)
end
local report = os.tmpname()

-- Writes a file atomically.
local function replace(path, text)
  local file = assert(io.open(path .. ".new", "w"))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(path .. ".new", path))
end

moonbridge.listen {
  -- Jobs in their own pool never delay requests.
  { proto = "interval", name = "report", delay = pause },
  { proto = "interval", name = "heartbeat", delay = pause, strict = true },
  connect = function(job)
    if job.interval == "report" then
      replace(report, os.date("The last report was written at %X.\n"))
    else
      io.stderr:write("still alive\n") -- goes to the log
    end
    return true
  end,
}

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv("PORT")) or 8080 },
  connect = http.generate_handler(function(request)
    local file = io.open(report)
    local text = file and file:read("a") or ""
    if file then file:close() end
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    request:send_data(text == "" and "There is no report yet.\n" or text)
    return true
  end),
}

moonbridge.run()
os.remove(report)
