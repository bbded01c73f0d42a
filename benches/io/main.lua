-- Speed and memory of handles beside C and LuaSocket. Called by `run` with the path of the C program.

local moonbridge_io = require "moonbridge_io"
local socket = require "socket"

local loop = assert(arg[1], "the path of the C loop")

local function report(format, ...) print(format:format(...)) end

-- Two ends of a local socket.
local function connected_pair()
  local path = os.tmpname()
  os.remove(path)
  local listener = assert(moonbridge_io.locallisten(path))
  local near = assert(moonbridge_io.localconnect(path))
  local far = assert(listener:accept())
  listener:close()
  os.remove(path)
  return near, far
end

-- The memory of this process, in bytes.
local function resident()
  for line in io.lines("/proc/self/status") do
    local size = line:match("VmRSS:%s+(%d+)")
    if size then return tonumber(size) * 1024 end
  end
end

-- The best of several runs: other work on the machine only ever adds time.
local function best(runs, f)
  local least = math.huge
  for _ = 1, runs do least = math.min(least, f()) end
  return least
end

local function transfer()
  local BLOCKS, SIZE = 16384, 65536
  local block = ("x"):rep(SIZE)
  local near, far = connected_pair()
  local highest = 0
  local function ours()
    local start = moonbridge_io.timeref()
    for i = 1, BLOCKS do
      near:flush(block)
      far:read(SIZE)
      if i % 4096 == 0 then highest = math.max(highest, resident()) end
    end
    return moonbridge_io.timeref(start)
  end
  local function in_c()
    local pipe = assert(io.popen(loop .. " " .. BLOCKS))
    local seconds = tonumber(pipe:read("a"))
    pipe:close()
    if not seconds then error("the C loop failed") end
    return seconds
  end
  ours()
  local before = resident()
  highest = before
  local mine, theirs = math.huge, math.huge
  for _ = 1, 5 do
    mine, theirs = math.min(mine, ours()), math.min(theirs, in_c())
  end
  report("1 GiB in 64 KiB writes and reads   %6.3f s, C %6.3f s: %.2f x (goal: at most 1.3 x)",
    mine, theirs, mine / theirs)
  report("memory during 5 GiB                %6.0f KiB more than before", (highest - before) / 1024)
end

-- Sends lines from the near end; the CPU seconds that `read_batch` takes to read them at the far end.
local function read_lines(near, read_batch)
  local COUNT, BATCH = 1000000, 3000
  local batch = (("x"):rep(19) .. "\n"):rep(BATCH)
  return best(5, function()
    local seconds = 0
    for _ = 1, COUNT // BATCH do
      near:flush(batch)
      local start = os.clock()
      read_batch(BATCH)
      seconds = seconds + os.clock() - start
    end
    return seconds
  end)
end

local function lines()
  local near, far = connected_pair()
  -- LuaSocket gets the same descriptor, in a client object of its own.
  local server = assert(socket.bind("127.0.0.1", 0))
  local host, port = server:getsockname()
  local client = assert(socket.connect(host, port))
  client:setfd(far:getfd())
  local read, receive = far.read, client.receive
  local function compare(title, ours, theirs)
    local mine, others = read_lines(near, ours), read_lines(near, theirs)
    report("%-34s %6.3f s, LuaSocket %6.3f s: %.1f x as fast (goal: 3 x)",
      title, mine, others, others / mine)
  end
  compare("10^6 lines of 20 bytes, methods",
    function(count) for _ = 1, count do far:read(nil, "\n") end end,
    function(count) for _ = 1, count do client:receive("*l") end end)
  compare("10^6 lines of 20 bytes, functions",
    function(count) for _ = 1, count do read(far, nil, "\n") end end,
    function(count) for _ = 1, count do receive(client, "*l") end end)
  client:setfd(-1)
end

local function handles()
  -- More than what the heap holds in reserve by now.
  local COUNT = 10000
  local kept = {}
  local function more(count)
    local path = os.tmpname()
    os.remove(path)
    local listener = assert(moonbridge_io.locallisten(path))
    for _ = 1, count do
      local near = moonbridge_io.localconnect(path)
      -- The accepted end is closed at once, so that half as many descriptors are needed.
      listener:accept():close()
      kept[#kept + 1] = near
    end
    os.remove(path)
  end
  more(500)
  collectgarbage()
  local before = resident()
  local ok = pcall(more, COUNT)
  collectgarbage()
  if not ok then COUNT = #kept - 500 end
  report("a handle without data              %6.0f bytes (goal: below 1024)", (resident() - before) / COUNT)
end

handles()
transfer()
lines()
