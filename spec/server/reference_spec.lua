-- docs/reference/server.md: its examples run, and it names what there is.

local process = require "spec.support.process"
local server = require "spec.support.server"

local text = assert(process.slurp("docs/reference/server.md"))

describe("docs/reference/server.md", function()
  after_each(server.cleanup)

  local count = 0
  for program in text:gmatch("```lua\n(.-)\n```") do
    count = count + 1
    it("has an example that serves: " .. count, function()
      local s = server.start((program:gsub("7007", "PORT")))
      local c = s:connect()
      c:send("hello\n")
      local answer = c:read_until("\n")
      -- Two protocols of lines, and HTTP, in which this is no request.
      assert.truthy(answer == "Hello!\n" or answer == "You said: hello\n"
        or answer == "HTTP/1.1 400 Bad Request\r\n", answer)
      c:close()
      assert.equal(0, s:stop())
    end)
  end

  it("has examples", function() assert.equal(3, count) end)

  it("names every function, option and figure", function()
    local names = { "pre_fork", "min_fork", "max_fork", "fork_delay", "fork_error_delay", "exit_delay",
      "deferred", "idle_timeout", "memory_limit",
      "prepare", "connect", "finish", "background", "logfile", "pidfile",
      "syslog", "logident", "logfacility", "stats", "debug", "waiting_input_limit", "hold_limit",
      "drain_delay", "slow_request", "stuck_limit",
      "idle", "busy", "total", "parked", "accepted",
      "handled", "errors", "respawns", "shed", "sending", "reclaimed", "lost",
      "proxy_errors", "proxy_protocol", "trusted", "park" }
    for name, value in pairs(require "moonbridge") do
      if type(value) == "function" then names[#names + 1] = name end
    end
    for _, name in ipairs(names) do assert.truthy(text:find(name, 1, true), name) end
    local _, usage = server.run_script { file = server.root .. "/bin/moonbridge", args = { "-h" } }
    for option in usage:gmatch("%-%-%a+") do assert.truthy(text:find("`" .. option, 1, true), option) end
  end)

  it("links to headings that exist", function()
    local headings = {}
    for heading in text:gmatch("\n##+ ([^\n]+)") do
      headings[heading:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")] = true
    end
    for link in text:gmatch("%]%(#([^)]+)%)") do assert.truthy(headings[link], link) end
  end)
end)
