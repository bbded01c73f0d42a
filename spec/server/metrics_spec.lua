-- moonbridge.metrics(), /metrics, and the application's own metrics.

local process = require "spec.support.process"
local server = require "spec.support.server"
local status_listener = require "spec.support.status_listener"
local tables = require "spec.support.tables"

local sample, wait_sample = status_listener.sample, status_listener.wait_sample

local function start(script, globals, options)
  return status_listener.start(tables.with({ globals = globals }, options, {
    script = "local moonbridge = require 'moonbridge' "
      .. "listen{ { proto = 'status', host = '127.0.0.1', port = STATUS } } " .. script,
  }))
end

local function scrape(s, accept)
  local response = status_listener.ask(s, { target = "/metrics", headers = accept and { accept = accept } })
  assert.equal(200, response.status)
  return response.body, response.headers["content-type"]
end

local OPEN = "application/openmetrics-text; version=1.0.0"

local ECHO = [[
  local runs = moonbridge.counter("app_runs_total", "Runs of the handler.", { "path" })
  local level = moonbridge.gauge("app_level", "A level.")
  local took = moonbridge.histogram("app_seconds", "Times.", { "path" }, { 0.5, 1, 2.5 })
  local answer = moonbridge.http.generate_handler(function(request)
    runs:add(1, { path = request.path })
    level:set(#request.path)
    took:observe(tonumber(request.get_params.t) or 0, { path = request.path })
    if request.path == "throw" then error "thrown" end
    if request.path == "exit" then os.exit(7) end
    if request.path == "kill" then os.execute("kill -KILL $PPID") end
    request:send_status("200 OK")
    local special = { metrics = moonbridge.metrics, pid = moonbridge_io.getpid }
    request:send_data(special[request.path] and special[request.path]() or ("x"):rep(1000))
    return request.path ~= "end"
  end)
  listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = answer, min_fork = 2, max_fork = 2 }
]]

describe("metrics", function()
  after_each(server.cleanup)

  it("tell what the server does, and what the application counts", function()
    local s = start(ECHO)
    local connection = s:connect()
    for _ = 1, 3 do assert.equal(200, connection:request("/a?t=1").status) end
    assert.equal(200, connection:request("/b?t=2").status)
    assert.equal(400, s:request{ target = "/", host = false }.status)
    -- A run is counted after its response is sent, its size last.
    wait_sample(s, 'moonbridge_response_bytes_count{pool="1"}', 5)
    local text, kind = scrape(s, OPEN)
    assert.equal("application/openmetrics-text; version=1.0.0; charset=utf-8", kind)
    assert.equal("# EOF\n", text:sub(-6))
    for name, value in pairs {
      ['app_runs_total{path="a"}'] = 3, ['app_runs_total{path="b"}'] = 1, app_level = 1,
      ['app_seconds_bucket{path="a",le="0.5"}'] = 0, ['app_seconds_bucket{path="a",le="1.0"}'] = 3,
      ['app_seconds_count{path="a"}'] = 3, ['app_seconds_sum{path="b"}'] = 2,
      ['moonbridge_connections_accepted_total{pool="1"}'] = 2,
      ['moonbridge_requests_refused_total{pool="1",status="400"}'] = 1,
      ['moonbridge_response_bytes_count{pool="1"}'] = 5,
      ['moonbridge_handler_seconds_count{pool="1"}'] = 5,
      ['moonbridge_queue_seconds_count{pool="1"}'] = 5,
      ['moonbridge_response_bytes_bucket{pool="1",le="1000.0"}'] = 1,
      ['moonbridge_response_bytes_bucket{pool="1",le="2500.0"}'] = 5,
      ['moonbridge_errors_total{pool="1"}'] = 0,
    } do
      assert.equal(value, sample(text, name), name)
    end
    assert.truthy(sample(text, 'moonbridge_worker_memory_bytes{pool="1"}') > 100000)
    wait_sample(s, 'moonbridge_connections{pool="1",place="worker"}', 1)
    wait_sample(s, 'moonbridge_workers{pool="1",state="idle"}', 2)
    -- The same from a worker.
    local body = connection:request("/metrics").body
    assert.equal("# EOF\n", body:sub(-6))
    assert.equal(3, sample(body, 'app_runs_total{path="a"}'))
    assert.truthy(body:find("# TYPE moonbridge_handled counter\n", 1, true))
  end)

  it("measure time in the handler and in the queue", function()
    local s = start [[
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
        connect = function(socket)
          socket:write(socket:read(1))
          moonbridge_io.poll(nil, nil, 0.6)
          return socket:park(9)
        end }
    ]]
    local first, second = s:connect(), s:connect()
    first:send("x")
    assert.equal("x", first:read(1))
    second:send("y")
    assert.equal("y", second:read(1))
    -- Both wait for input; the second one has to wait for the first.
    first:send("x")
    second:send("y")
    assert(first:read(1) and second:read(1))
    wait_sample(s, 'moonbridge_handler_seconds_count{pool="1"}', 4)
    local text = scrape(s)
    assert.equal(0, sample(text, 'moonbridge_handler_seconds_bucket{pool="1",le="0.5"}'))
    assert.truthy(sample(text, 'moonbridge_handler_seconds_sum{pool="1"}') >= 2.4)
    assert.truthy(sample(text, 'moonbridge_queue_seconds_bucket{pool="1",le="0.25"}') < 4)
    assert.truthy(sample(text, 'moonbridge_queue_seconds_sum{pool="1"}') >= 0.3)
  end)

  it("count connections without the PROXY header that they must have", function()
    local s = start [[
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT, proxy_protocol = true }, connect = print }
    ]]
    for _ = 1, 3 do s:raw("GET / HTTP/1.0\r\n\r\n") end
    wait_sample(s, 'moonbridge_proxy_errors_total{pool="1"}', 3)
  end)

  it("tell why workers were replaced, and count their errors", function()
    local s = start(ECHO)
    for _, path in ipairs { "throw", "exit", "kill", "end" } do
      s:raw(("GET /%s HTTP/1.0\r\n\r\n"):format(path))
    end
    for _, reason in ipairs { "error", "exit", "signal", "ended" } do
      wait_sample(s, ('moonbridge_respawns_total{pool="1",reason="%s"}'):format(reason), 1)
    end
    local text = scrape(s)
    assert.equal(1, sample(text, 'moonbridge_errors_total{pool="1"}'))
    assert.equal(1, sample(text, 'moonbridge_requests_refused_total{pool="1",status="500"}'))
    assert.equal(0, sample(text, 'moonbridge_respawns_total{pool="1",reason="timeout"}'))
  end)

  it("lose nothing when workers are killed", function()
    local s = start(ECHO)
    for round = 1, 100 do
      process.kill(tonumber(s:request("/pid?t=0.75").body), "KILL")
      assert.equal(round, sample(scrape(s), 'app_runs_total{path="pid"}'))
    end
    local text = scrape(s)
    assert.equal(100, sample(text, 'app_seconds_count{path="pid"}'))
    assert.equal(75, sample(text, 'app_seconds_sum{path="pid"}'))
    assert.equal(100, sample(text, 'moonbridge_connections_accepted_total{pool="1"}'))
    wait_sample(s, 'moonbridge_respawns_total{pool="1",reason="signal"}', 100)
  end)

  it("survive a reload, unless they are declared in another way", function()
    local path = process.scratch("labels")
    local function declare(label) assert(io.open(path, "w")):write(label):close() end
    declare "a"
    local s = start([[
      local label = io.open(LABELS):read("a")
      local changing = moonbridge.counter("app_changing", "Changes.", { label })
      local staying = moonbridge.counter("app_staying", "Stays.", { "x" })
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          changing:add{ [label] = "v" }
          staying:add(0.5, { x = true })
          socket:write("x")
          return true
        end }
    ]], { LABELS = path }, { launcher = { "--hangup", "reload" } })
    assert.equal("x", (s:raw("")))
    declare "b"
    for round = 1, 3 do
      s:signal("HUP")
      wait_sample(s, 'moonbridge_reloads_total{outcome="done"}', round)
      assert.equal("x", (s:raw("")))
      local text = scrape(s)
      assert.equal((round + 1) / 2, sample(text, 'app_staying_total{x="true"}'))
      assert.equal(round, sample(text, 'app_changing_total{b="v"}'))
      assert.falsy(text:find('app_changing_total{a=', 1, true))
      wait_sample(s, 'moonbridge_handled_total{pool="1"}', round + 1)
    end
    os.remove(path)
    s:signal("HUP")
    wait_sample(s, 'moonbridge_reloads_total{outcome="failed"}', 1)
    assert.equal("x", (s:raw("")))
    wait_sample(s, 'app_staying_total{x="true"}', 2.5)
  end)

  it("keep label values in bounds", function()
    local s = start [[
      local runs = moonbridge.counter("app_runs", "", { "id" })
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
        connect = function(socket)
          for id = 1, 1000 do runs:add(1, { id = id }) end
          runs:add(1, { id = ("x"):rep(1000) })
          runs:add(1, { id = "a\"b\\c\nd\255" })
          socket:write("x")
          return true
        end }
    ]]
    for _ = 1, 2 do assert.equal("x", (s:raw(""))) end
    local text = scrape(s)
    assert.equal(2, sample(text, 'app_runs_total{id="500"}'))
    assert.falsy(text:find('app_runs_total{id="501"}', 1, true))
    assert.equal(1004, sample(text, 'app_runs_total{id="overflow"}'))
  end)

  it("have one series for what the application calls overflow, and what is too much", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      local counter = moonbridge.counter("app_runs", "", { "id", "kind" })
      for _, id in ipairs { "overflow", ("x"):rep(1000), "1" } do
        counter:add{ id = id, kind = "overflow" }
      end
      print(moonbridge.metrics())
    ]]
    assert.equal(0, code)
    local samples = {}
    for line in output:gmatch "app_runs_total{([^\n]+)" do samples[#samples + 1] = line end
    assert.same({ 'id="overflow",kind="overflow"} 2', 'id="1",kind="overflow"} 1' }, samples)
  end)

  it("say what is wrong", function()
    for script, message in pairs {
      ["moonbridge.counter('a b')"] = 'counter "a b": the name must consist of letters',
      ["moonbridge.counter()"] = "counter expects the name of the metric, not a nil",
      ["moonbridge.gauge('a', 1)"] = 'gauge "a": the help must be a string, not a number',
      ["moonbridge.gauge('a', '', 'b')"] = 'gauge "a": the labels must be a list of names, not a string',
      ["moonbridge.gauge('a', '', { 'b-c' })"] = 'gauge "a": label "b-c" must consist of letters',
      ["moonbridge.gauge('a', '', { b = 1 })"] =
        'gauge "a": the labels must be a list of names, without keys or gaps',
      ["moonbridge.gauge('a', '', { 'b', c = 'd' })"] = "must be a list of names, without keys or gaps",
      ["moonbridge.gauge('a', '', { 'b', nil, 'c' })"] = 'gauge "a": the labels must be a list of names',
      ["moonbridge.histogram('a', '', {}, { b = 1 })"] =
        'histogram "a": the buckets must be a list of numbers, without keys or gaps',
      ["moonbridge.counter('_total')"] = 'counter "_total": the name must have something before "_total"',
      ["moonbridge.histogram('a'):observe(-1)"] =
        'histogram "a": observe: the value must be a finite number that is not negative, not -1',
      ["moonbridge.gauge('a') moonbridge.counter('a')"] = 'counter "a": there is a gauge of that name',
      ["moonbridge.gauge('moonbridge_a')"] = 'names that begin with "moonbridge_" are the server\'s own',
      ["moonbridge.histogram('a', '', {}, { 2, 1 })"] = 'histogram "a": the buckets must be at most',
      ["moonbridge.gauge('a', '', {}, { 1 })"] = 'gauge "a" has no buckets: only histograms have',
      ["moonbridge.counter('a'):add(-1)"] =
        'counter "a": add: the value must be a finite number that is not negative, not -1',
      ["moonbridge.gauge('a'):set('x')"] = 'gauge "a": set: the value must be a finite number, not string',
      ["moonbridge.gauge('a'):set()"] = 'gauge "a": set: the value must be a finite number, not nil',
      ["moonbridge.gauge('a'):set(-1 / 0)"] = 'gauge "a": set: the value must be a finite number, not -inf',
      ["moonbridge.gauge('a').set(1)"] = 'gauge "a": set: call it with a colon',
      ["moonbridge.counter('a', '', { 'b', 'c' }):add(1, { b = 1 })"] =
        'counter "a": add: the label "c" is missing',
      ["moonbridge.counter('a', '', { 'b' }):add()"] = 'counter "a": add: the label "b" is missing',
      ["moonbridge.counter('a', '', { 'b' }):add{ b = 1, c = 2 }"] =
        'counter "a": add: unknown label "c"; declared: b',
      ["moonbridge.counter('a', '', { 'b' }):add(1, { c = 2 })"] =
        'counter "a": add: unknown label "c"; declared: b',
      ["moonbridge.counter('a'):add{ c = 2 }"] = 'counter "a": add: unknown label "c"; declared: none',
      ["moonbridge.counter('a', '', { 'b' }):add{ b = {} }"] =
        'counter "a": add: the label "b" must be a string, number or boolean, not a table',
      ["moonbridge.metrics('json')"] =
        'metrics: the format must be "openmetrics" or "text", not "json"',
    } do
      local code, _, errors = server.run_script("local moonbridge = require 'moonbridge'\n" .. script)
      assert.equal(1, code, script)
      assert.truthy(errors:find(message, 1, true), errors)
      assert.truthy(errors:find("app.lua:2:", 1, true), errors)
    end
  end)

  it("have no sum in OpenMetrics if they are histograms with negative buckets", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      moonbridge.histogram("app_change", "", {}, { -1, 1 }):observe(-2)
      print(moonbridge.metrics())
      print(moonbridge.metrics("text"))
    ]]
    assert.equal(0, code)
    local open, text = output:match "^(.-)# EOF(.*)$"
    assert.equal(1, sample(open, 'app_change_bucket{le="-1.0"}'))
    assert.falsy(open:find("app_change_[cs]"))
    assert.equal(-2, sample(text, "app_change_sum"))
  end)

  it("are declared before the server starts", function()
    local s = start [[
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          socket:write(select(2, pcall(moonbridge.counter, "late")))
          return true
        end }
    ]]
    assert.equal("counter: the server has been started already; metrics are declared before", (s:raw("")))
  end)

  it("have one series for label values that are the same in the text, which is UTF-8", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      local counter = moonbridge.counter("app_total", "", { "path" })
      for _, path in ipairs { "\255", "\254", "1", 1, "\195\164" } do counter:add(1, { path = path }) end
      print(moonbridge.metrics())
    ]]
    assert.equal(0, code)
    local samples = {}
    for labels in output:gmatch "app_total{([^\n]+)" do samples[#samples + 1] = labels end
    assert.same({ 'path="\239\191\189"} 2', 'path="1"} 2', 'path="\195\164"} 1' }, samples)
  end)

  it("work in a program that is no server", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      moonbridge.counter("a", "Help."):add(2)
      io.write(moonbridge.metrics("text"))
    ]]
    assert.equal(0, code)
    assert.truthy(output:find("# TYPE a_total counter\n# HELP a_total Help.\na_total 2\n# EOF\n$"), output)
  end)

  it("are all in the manual, whose example works", function()
    local manual = process.slurp("docs/reference/metrics.md")
    local example, status = manual:match("```lua\n(.-)```"), server.free_port()
    local s = server.start((example:gsub("8080", "PORT"):gsub("9100", status)))
    assert.equal(403, s:request("/").status)
    s.status_port = status
    local text = scrape(s, OPEN)
    assert.equal(1, sample(text, 'app_logins_total{outcome="refused"}'))
    for name, kind in text:gmatch("# TYPE (moonbridge%S+) (%a+)") do
      local shown = kind == "counter" and name .. "_total" or name
      assert.truthy(manual:find("| `" .. shown .. "` |", 1, true), shown)
    end
  end)

  it("pass promtool's check", function()
    local s = start(ECHO)
    assert.equal(200, s:request("/a").status)
    local path = process.scratch("metrics")
    assert(io.open(path, "w")):write((scrape(s))):close()
    local code, output = process.run("promtool check metrics < " .. path .. " 2>&1")
    assert.equal("", output)
    assert.equal(0, code)
  end)

  it("are scraped by a Prometheus", function()
    local s = start(ECHO)
    assert.equal(200, s:request("/a?t=2").status)
    local config, port = process.scratch("prometheus.yml"), server.free_port()
    assert(io.open(config, "w")):write(([[
      scrape_configs:
      - job_name: moonbridge
        scrape_interval: 1s
        scrape_timeout: 1s
        static_configs: [{ targets: ["127.0.0.1:%d"] }]
    ]]):format(s.status_port)):close()
    local prometheus = process.start { "prometheus", "--config.file=" .. config,
      "--storage.tsdb.path=" .. process.scratch("tsdb"), "--log.level=warn",
      ("--web.listen-address=127.0.0.1:%d"):format(port) }
    finally(function() prometheus:destroy() end)
    local function query(expression)
      local url = ("http://127.0.0.1:%d/api/v1/query"):format(port)
      local _, output = process.run(("curl -s -m 5 --data-urlencode 'query=%s' %s"):format(expression, url))
      return output:match('"value":%[[^,]*,"([^"]*)"')
    end
    for expression, value in pairs {
      ['app_runs_total{path="a"}'] = "1",
      ['app_seconds_bucket{path="a",le="2.5"}'] = "1",
      ['moonbridge_response_bytes_count{pool="1"}'] = "1",
      ['up{job="moonbridge"}'] = "1",
    } do
      local found
      assert.truthy(process.wait_until(function()
        found = query(expression)
        return found == value
      end, 60), ("%s: %s; %s"):format(expression, found, prometheus:log()))
    end
  end)
end)
