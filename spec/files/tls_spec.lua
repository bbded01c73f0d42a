-- Files over TLS: the same as without, but that the keys of a connection are in its worker.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local server = require "spec.support.server"
local status = require "spec.support.status"

local SIZE = 8 * 1024 * 1024

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local mio = require "moonbridge_io"
  local static = http.static(FOLDER)
  moonbridge.listen{
    { proto = "tls", host = "127.0.0.1", port = PORT, certificate = CERTIFICATE, key = KEY },
    min_fork = 1, max_fork = 1,
    connect = http.generate_handler(function(request)
      if request.path == "send" then
        return request:send_file(FOLDER .. "/big.bin", { attachment = "ü.bin" })
      end
      if request.path == "status" then request:send_status("200 OK") ]] .. status.ANSWER .. [[ return true end
      if request.path == "pid" then request:send("200 OK", "text/plain", mio.getpid()) return true end
      -- The worker ends in order.
      if request.path == "end" then request:send("200 OK", "text/plain", mio.getpid()) return false end
      return static(request)
    end),
  }
  moonbridge.run { hangup = "reload" }
]]

local folder, content, authority

local function start()
  folder = process.scratch "folder"
  process.run(("mkdir -p %s && head -c %d /dev/urandom > %s/big.bin && printf 0123456789 > %s/ten.txt")
    :format(folder, SIZE, folder, folder))
  content = process.slurp(folder .. "/big.bin")
  local made
  made, authority = certificates.signed()
  return server.start {
    script = SERVER,
    globals = { FOLDER = folder, CERTIFICATE = made.certificate, KEY = made.key },
  }
end

-- What curl writes for a target, and its exit code.
local function curl(s, target, options)
  local code, output = process.run(("curl -sS --max-time 60 --cacert %s %s https://localhost:%d%s")
    :format(authority.certificate, options or "", s.port, target))
  return output, code
end

local function slow_curl(s, rate, output)
  return process.start { "curl", "-sS", "--limit-rate", rate, "--max-time", "60",
    "--cacert", authority.certificate, "-o", output, ("https://localhost:%d/big.bin"):format(s.port) }
end

describe("a file over TLS", function()
  after_each(server.cleanup)

  it("is whole, in parts, or unchanged, as without", function()
    local s = start()
    assert.equal("0123456789", (curl(s, "/ten.txt")))
    assert.truthy(curl(s, "/big.bin") == content)
    assert.truthy(curl(s, "/send") == content)
    assert.truthy(curl(s, "/send", "-I"):find("Content-Disposition: attachment; filename=", 1, true))
    assert.truthy(curl(s, "/big.bin", "-r 1000-7000000") == content:sub(1001, 7000001))
    assert.truthy(curl(s, "/big.bin", "-r -300000") == content:sub(-300000))
    local parts = curl(s, "/big.bin", "-r 0-9,100000-100009")
    assert.truthy(parts:find(content:sub(1, 10), 1, true))
    assert.truthy(parts:find(content:sub(100001, 100010), 1, true))
    local tag = curl(s, "/big.bin", "-I"):match "ETag: (%S+)"
    local condition = ("-o /dev/null -w '%%{http_code}' -H 'If-None-Match: %s'"):format(tag)
    assert.equal("304", (curl(s, "/big.bin", condition)))
    local file = process.scratch "download"
    process.write(file, content:sub(1, 5000001))
    curl(s, "/big.bin", "-C - -o " .. file)
    assert.truthy(process.slurp(file) == content)
    -- Over one connection, one after the other.
    local both = curl(s, "/big.bin", ("-w '' https://localhost:%d/ten.txt"):format(s.port))
    assert.truthy(both == "0123456789" .. content or both == content .. "0123456789")
  end)

  it("occupies no worker while its client takes it slowly", function()
    local s = start()
    local slow = {}
    for index = 1, 5 do slow[index] = slow_curl(s, "100k", "/dev/null") end
    for _ = 1, 10 do assert.equal("0123456789", (curl(s, "/ten.txt"))) end
    for _, client in ipairs(slow) do
      assert.is_nil(client:status())
      client:destroy()
    end
  end)

  it("goes on when its worker ends in order, and when the server reloads", function()
    local s = start()
    local file = process.scratch "whole"
    local client = slow_curl(s, "1M", file)
    assert(process.wait_until(function() return #(process.slurp(file) or "") > 100000 end))
    local first = curl(s, "/end")
    assert(process.wait_until(function() return curl(s, "/pid") ~= first end))
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload complete"), s:log())
    assert.is_nil(client:status())
    assert.equal(0, client:wait(30))
    assert.is_true(process.slurp(file) == content)
  end)

  it("ends with a worker that is killed, and never as if it were whole", function()
    local s = start()
    local file = process.scratch "part"
    local client = slow_curl(s, "1M", file)
    assert(process.wait_until(function() return #(process.slurp(file) or "") > 100000 end))
    process.kill(tonumber((curl(s, "/pid"))), "KILL")
    assert.not_equal(0, client:wait())
    local got = process.slurp(file)
    assert.truthy(#got < SIZE and got == content:sub(1, #got))
    assert(process.wait_until(function() return curl(s, "/ten.txt") == "0123456789" end))
  end)
end)
