-- Workers that are replaced after a response, without a client noticing.

local process = require "spec.support.process"
local proxies = require "spec.support.proxies"
local server = require "spec.support.server"

local function script(options, result)
  return ([[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    moonbridge.listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = http.generate_handler(function(request)
        if request.path == "big" then BIG = ("x"):rep(64 * 1024 * 1024) end
        local body = request.body
        request:send_status("200 OK")
        request:send_data(io.open("/proc/self/stat"):read("n"), " ", #body)
        %s
      end),
      %s
    }
    moonbridge.run()
  ]]):format(result or "return true", options)
end

-- The process that answers, over a connection that must be kept.
local function answerer(connection, target)
  local response = connection:request(target or "/")
  assert.equal(200, response.status)
  assert.is_nil(response.headers.connection)
  return response.body:match("^%d+")
end

describe("max_requests", function()
  after_each(server.cleanup)

  it("replaces a worker after so many requests; its connections are kept", function()
    local s = server.start(script("max_requests = 3, min_fork = 1, max_fork = 1"))
    local first, second = s:connect(), s:connect()
    local pids = {}
    for index = 1, 9 do pids[index] = answerer(index % 2 == 0 and second or first) end
    for index = 1, 9, 3 do
      assert.equal(pids[index], pids[index + 1])
      assert.equal(pids[index], pids[index + 2])
      assert.not_equal(pids[index], pids[index + 3])
    end
    assert.falsy(s:log():find("exit", 1, true), s:log())
  end)

  it("replaces a worker also while it is still finishing", function()
    local go_on = process.scratch("go_on")
    local s = server.start(script(([[
      max_requests = 1, min_fork = 1, max_fork = 2, fork_delay = 1000,
      finish = function()
        while not io.open(%q) do require("moonbridge_io").poll(nil, nil, 0.01) end
      end,
    ]]):format(go_on)))
    local connection = s:connect()
    assert.not_equal(answerer(connection), answerer(connection))
    process.write(go_on, "")
    assert.truthy(process.wait_until(function() return answerer(connection) end))
  end)

  it("is a different number in each worker with max_requests_jitter", function()
    local s = server.start(script("max_requests = 2, max_requests_jitter = 8, min_fork = 1, max_fork = 1"))
    local connection, counts, last = s:connect(), {}, nil
    local served = {}
    for _ = 1, 80 do
      local pid = answerer(connection)
      served[pid] = (served[pid] or 0) + 1
      last = pid
    end
    served[last] = nil
    for _, count in pairs(served) do
      assert(count >= 2 and count <= 10, count)
      counts[count] = true
    end
    assert.truthy(next(counts, next(counts)))
  end)
end)

describe("max_memory", function()
  after_each(server.cleanup)

  it("replaces a worker whose process has more, and tells that", function()
    local s = server.start(script("max_memory = 50e6, min_fork = 1, max_fork = 1"))
    local connection = s:connect()
    local first = answerer(connection)
    assert.equal(first, answerer(connection))
    assert.equal(first, answerer(connection, "/big"))
    -- It looks now and then.
    assert.truthy(process.wait_until(function() return answerer(connection) ~= first end))
    assert.truthy(s:log():find("] The worker ends: it uses %d+ bytes of memory, and max_memory is 50000000"))
  end)
end)

describe("a handler that returns nothing", function()
  after_each(server.cleanup)

  it("is told once what that means", function()
    local s = server.start(script("min_fork = 2", ""))
    for _ = 1, 5 do assert.equal("close", s:request("/").headers.connection) end
    assert.truthy(s:wait_log('"connect" has returned nothing'))
    local _, count = s:log():gsub('"connect" has returned nothing', "")
    assert.equal(1, count)
  end)

  it("is not told of where a handler ends its worker by a result, or the server", function()
    local s = server.start(script("min_fork = 2", "return false"))
    for _ = 1, 3 do assert.equal(200, s:request("/").status) end
    assert.equal(0, s:stop())
    assert.falsy(s:log():find("has returned nothing", 1, true))
  end)
end)

describe("behind nginx, over kept connections", function()
  after_each(function()
    proxies.stop()
    server.cleanup()
  end)

  for name, case in pairs {
    ["max_requests"] = { "max_requests = 4, min_fork = 2, max_fork = 4" },
    ["results that are not true"] = { "min_fork = 2, max_fork = 4",
      "N = (N or 0) + 1 if N % 3 > 0 then return true end" },
    ["results that are not true, after flushed responses"] = { "min_fork = 2, max_fork = 4",
      "N = (N or 0) + 1 request:flush() if N % 3 > 0 then return true end" },
  } do
    it("no POST fails because of " .. name, function()
      local s = server.start(script(case[1], case[2]))
      local front = proxies.start("nginx", { s.port })
      local _, output = process.run(("seq 120 | xargs -P 4 -n 15 sh -c 'for i in \"$@\"; do "
        .. "curl -s -o /dev/null -w \"%%{http_code} \" --data-binary xyz http://127.0.0.1:%d/; done' sh")
        :format(front))
      assert.equal(("200 "):rep(120), output)
    end)
  end
end)
