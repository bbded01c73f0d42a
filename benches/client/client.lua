-- One measurement: lua client.lua CLIENT TASK URL AMOUNT. Prints seconds, processor seconds, and the peak of
-- resident memory in KiB. CLIENT is "ours", "luasocket" or "luasec"; CA the authority of an https server.

local client, task, url, amount = arg[1], arg[2], arg[3], math.tointeger(tonumber(arg[4]))
local gettime = require "socket".gettime

local tasks = {}

if client == "ours" then
  local http = require "moonbridge_http"

  local tls = os.getenv "CA" and { ca = os.getenv "CA" }

  function tasks.small()
    local options = tls and { url = url .. "hello", tls = tls } or url .. "hello"
    for _ = 1, amount do assert(http.request(options) == "Hello, World!\n") end
  end

  function tasks.connect()
    local options = { url = url .. "hello", keepalive = false, tls = tls }
    for _ = 1, amount do assert(http.request(options) == "Hello, World!\n") end
  end

  function tasks.download()
    local size = 0
    assert(http.request { url = url .. "download?size=" .. amount, tls = tls, receive = function(chunk)
      size = size + #chunk
      return 1
    end })
    assert(size == amount)
  end

  function tasks.upload()
    local block, left = ("0123456789abcdef"):rep(4096), amount
    local body = assert(http.request { url = url .. "upload", body = function()
      left = left - #block
      return left >= 0 and block or ""
    end })
    assert(tonumber(body) == amount)
  end
else
  local http = require(client == "luasec" and "ssl.https" or "socket.http")
  local ltn12 = require "ltn12"
  tasks.connect = function()
    for _ = 1, amount do assert(http.request(url .. "hello") == "Hello, World!\n") end
  end
  -- LuaSec checks nothing unless it is told so.
  tasks.connect = client == "luasec" and function()
    for _ = 1, amount do
      local body = {}
      local _, status = http.request { url = url .. "hello", sink = ltn12.sink.table(body),
        cafile = os.getenv "CA", verify = "peer", protocol = "any" }
      assert(status == 200 and table.concat(body) == "Hello, World!\n")
    end
  end or tasks.connect
  tasks.small = tasks.connect -- it makes a connection for each request

  function tasks.download()
    local size = 0
    assert(http.request { url = url .. "download?size=" .. amount, sink = function(chunk)
      size = size + #(chunk or "")
      return 1
    end })
    assert(size == amount)
  end

  function tasks.upload()
    local block, left, answer = ("0123456789abcdef"):rep(4096), amount, {}
    assert(http.request { url = url .. "upload", method = "POST", sink = ltn12.sink.table(answer),
      source = function()
        left = left - #block
        return left >= 0 and block or nil
      end })
    assert(tonumber(table.concat(answer)) == amount)
  end
end

local start, cpu = gettime(), os.clock()
tasks[task]()
local seconds, busy = gettime() - start, os.clock() - cpu
local peak = io.open("/proc/self/status"):read("a"):match("VmHWM:%s+(%d+)")
print(("%.6f %.6f %s"):format(seconds, busy, peak))
