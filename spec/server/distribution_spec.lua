-- Which worker has which of the connections that are busy.
-- Runs alone: it needs two processors that have time.
-- Runs once: the supervisor places connections, which is Rust.

local connect = require "spec.support.client".connect
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

-- Tells which worker answers. The path says for how long the handler lasts, in seconds. Another pool
-- has one worker, and is there to be kept busy.
local SERVER = [[
  local moonbridge, mio, http = require "moonbridge", require "moonbridge_io", require "moonbridge_http"
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    pre_fork = 2, min_fork = 2, max_fork = 2,
    connect = http.generate_handler(function(request)
      mio.poll(nil, nil, tonumber(request.path) or 0)
      request:send_status("200 OK")
      local pid = tostring(mio.getpid())
      request:send_header("Content-Length", #pid)
      request:send_data(pid)
      return true
    end),
  }
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = OTHER },
    min_fork = 1, max_fork = 1,
    connect = http.generate_handler(function(request)
      request:send_status("200 OK")
      if request.path == "long" then request:flush() mio.poll(nil, nil, 30) end
      return true
    end),
  }
  moonbridge.run()
]]

-- A client that keeps its connections busy for at most 20 s. It begins with two connections of each
-- of two workers, if it can get them, and says "mixed" then; after that, every 50 ms, which workers
-- have answered since.
local CLIENT = [[
  local socket = require "socket"
  io.stdout:setvbuf("line")
  local function connect()
    local c = assert(socket.tcp())
    assert(c:connect("127.0.0.1", os.getenv "PORT"))
    c:setoption("tcp-nodelay", true)
    c:settimeout(60)
    return c
  end
  local function tell(c, path)
    assert(c:send("GET " .. path .. " HTTP/1.1\r\nHost: x\r\n\r\n"))
  end
  local function hear(c)
    local length
    repeat
      local line = assert(c:receive("*l"))
      length = line:lower():match("^content%-length:%s*(%d+)") or length
    until line == ""
    return assert(c:receive(tonumber(length)))
  end
  local function ask(c)
    tell(c, "/")
    return hear(c)
  end
  local kept, counts = { connect() }, {}
  counts[ask(kept[1])] = 1
  for _ = 1, 1000 do
    -- A worker that is busy accepts nothing.
    tell(kept[#kept], "/0.005")
    local c = connect()
    local pid = ask(c)
    hear(kept[#kept])
    counts[pid] = (counts[pid] or 0) + 1
    if counts[pid] <= 2 then kept[#kept + 1] = c else c:close() end
    if #kept == 4 then break end
  end
  print(#kept == 4 and "mixed" or "only one worker")
  local deadline = socket.gettime() + 20
  while socket.gettime() < deadline do
    local seen, names = {}, {}
    local window = socket.gettime() + 0.05
    repeat
      for _, c in ipairs(kept) do seen[ask(c)] = true end
    until socket.gettime() > window
    for pid in pairs(seen) do names[#names + 1] = pid end
    table.sort(names)
    print(table.concat(names, ","))
  end
]]

-- The processors that this process may use: at most `count` of their numbers.
local function processors(count)
  local found = {}
  local list = process.slurp("/proc/self/status"):match("Cpus_allowed_list:%s*(%S+)")
  for first, last in list:gmatch("(%d+)%-?(%d*)") do
    for number = tonumber(first), tonumber(last) or tonumber(first) do
      if #found < count then found[#found + 1] = number end
    end
  end
  return found
end

-- Returns the server and the port of the other pool.
local function start()
  local other = server.free_port()
  return server.start { script = SERVER, globals = { OTHER = other } }, other
end

describe("connections that keep one worker busy", function()
  after_each(server.cleanup)

  local function send(connection, seconds)
    connection:send(("GET /%g HTTP/1.1\r\nHost: x\r\n\r\n"):format(seconds))
  end

  -- The workers that answer two connections when both ask at once.
  local function workers(connections, seconds)
    for _, c in ipairs(connections) do send(c, seconds) end
    return connections[1]:response().body, connections[2]:response().body
  end

  -- Lets the connections ask until different workers answer.
  local function assert_parted(connections, seconds, between)
    local deadline = socket.gettime() + server.TIMEOUT
    local first, second
    repeat
      between()
      for _ = 1, 10 do first, second = workers(connections, seconds) end
    until first ~= second or socket.gettime() > deadline
    assert.not_equal(first, second)
  end

  it("are parted when another one has time", function()
    local s = start()
    local slow = s:connect()
    send(slow, 2.5)
    socket.sleep(0.1)
    local busy = { s:connect(), s:connect() }
    local first, second = workers(busy, 0.002)
    assert.equal(first, second)
    assert.equal(200, slow:response().status)
    assert_parted(busy, 0.002, function() end)
  end)

  it("are parted also if the other one has as many, which have less to do", function()
    local s = start()
    local all = {}
    local busy, lukewarm
    repeat -- until each of the workers has two of four
      for _, c in ipairs(all) do c:close() end
      for index = 1, 4 do
        -- A worker that is busy accepts nothing.
        if index > 1 then send(all[index - 1], 0.005) end
        all[index] = s:connect()
        all[index]:request("/")
        if index > 1 then all[index - 1]:response() end
      end
      local had = {}
      for _, c in ipairs(all) do
        local worker = c:request("/").body
        had[worker] = had[worker] or {}
        table.insert(had[worker], c)
      end
      local one, other = next(had)
      busy, lukewarm = other, had[next(had, one)]
    until #busy == 2 and lukewarm
    assert_parted(busy, 0.01, function() workers(lukewarm, 0.01) end)
  end)
end)

describe("busy connections", function()
  local clients = {}

  after_each(function()
    for _, client in ipairs(clients) do client:destroy() end
    clients = {}
    server.cleanup()
  end)

  it("come together in one worker if their packets come in at one processor", function()
    local numbers = processors(2)
    if #numbers < 2 then return pending("this machine has one processor") end
    local s, other = start()
    -- What keeps the worker of another pool is no reason to leave these as they are.
    local long = connect(other)
    assert.equal(200, long:request("/").status)
    long:send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    for index, number in ipairs(numbers) do
      local argv = { "taskset", "-c", tostring(number), server.own_interpreter, "-e", CLIENT }
      clients[index] = process.start(argv, { env = { PORT = s.port } })
    end
    local function last(client) return client:output():match("([^\n]*)\n$") end
    for _, client in ipairs(clients) do
      local function is_mixed() return client:output():find("mixed\n", 1, true) end
      assert.truthy(process.wait_until(is_mixed), client:log())
    end
    assert.truthy(process.wait_until(function()
      local one, two = last(clients[1]), last(clients[2])
      return one and one ~= two and one:find("^%d+$") and two:find("^%d+$")
    end), clients[1]:output() .. "\n" .. clients[2]:output())
  end)
end)
