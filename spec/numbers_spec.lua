-- Sizes, counts and times in options and arguments are read in one way: as Lua converts them.

local server = require "spec.support.server"

local READERS = [[
  local http, io_lib = require "moonbridge_http", require "moonbridge_io"
  local moonbridge = require "moonbridge"
  local function connect() end
  local listener = assert(io_lib.tcplisten("127.0.0.1", PORT))
  local socket = assert(io_lib.tcpconnect("127.0.0.1", PORT))
  local function handler(name)
    return function(value) http.generate_handler(connect, { [name] = value }) end
  end
  local function pool(name)
    return function(value)
      moonbridge.listen { { proto = "main" }, connect = connect, [name] = value }
    end
  end
  local readers = {
    size = handler "request_body_size_limit", buffering = handler "response_buffering",
    time = handler "idle_timeout", count = pool "pre_fork", delay = pool "fork_delay",
    memory = pool "memory_limit", timeout = function(value)
      moonbridge.timeout(value)
      moonbridge.timeout(0)
    end,
    interval = function(value)
      moonbridge.listen { { proto = "interval", delay = value }, connect = connect }
    end,
    park = function(value) socket:park(value) end, stall = function(value) socket:park(1, value) end,
    poll = function(value) io_lib.poll({ [listener] = true }, nil, value) end,
  }
  local function try(expected, ...)
    for _, value in ipairs { ... } do
      for name, reader in pairs(readers) do
        local ok, message = pcall(reader, value)
        if ok ~= expected then print(name, type(value), value, message) end
      end
    end
  end
]]

-- What the readers do otherwise than expected.
local function unexpected(text)
  local _, output, log = server.run_script(READERS .. text .. "\nprint 'done' os.exit(0)")
  return output .. log
end

describe("a number in an option or argument", function()
  after_each(server.cleanup)

  it("is what Lua takes for one: integers, floats, decimal and hexadecimal numerals", function()
    assert.match("^done\n", unexpected [[
      -- Waiting for these times is not what this is about.
      readers.poll = nil
      try(true, 1, 1.0, "1", " 1.0 ", "1e0", "0x1", "0X1p0", "\t1\n")
    ]])
  end)

  it("is nothing that Lua does not take for one", function()
    assert.match("^done\n", unexpected [[
      try(false, "", " ", "x", "1x", "1 2", "inf", "nan", "infinity", "0x", "1_000", "+", {}, true, connect)
    ]])
  end)

  it("is not negative and not NaN", function()
    assert.match("^done\n", unexpected [[
      readers.poll = nil -- The past is over.
      try(false, -1, -0.5, "-1", "-0x1", 0 / 0, -1 / 0, math.mininteger)
    ]])
  end)

  it("may be infinite only where that is no limit", function()
    assert.match("^done\n", unexpected [[
      for _, name in ipairs { "size", "buffering", "time", "park", "stall" } do
        assert(pcall(readers[name], 1 / 0), name)
        readers[name] = nil
      end
      try(false, 1 / 0, "1e999")
    ]])
  end)

  it("is an integer also as a float with the value of one, as a file in JSON has it", function()
    assert.match("^done\n", unexpected [[
      readers = {
        level = function(value) http.generate_handler(connect, { compress = { level = value } }) end,
        minimum = function(value) http.generate_handler(connect, { compress = { minimum = value } }) end,
        random = http.random, user = pool "user", group = pool "group",
        mode = function(value)
          local path = os.tmpname()
          os.remove(path)
          moonbridge.listen { { proto = "local", path = path, mode = value }, connect = connect }
        end,
        facility = function(value)
          -- The user is looked at last.
          local _, message = pcall(moonbridge.run, { logfacility = value, user = {} })
          assert(message:find('Option "user"'), message)
        end,
      }
      readers.minimum(2 ^ 10)
      try(true, 1, 1.0)
      try(false, -1.0, {})
    ]])
  end)
end)
