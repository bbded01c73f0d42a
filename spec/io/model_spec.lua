-- Random sequences of operations against a model: no byte is lost, doubled or swapped, and every
-- status and count is the right one.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"

local ROUNDS = 3000

-- What a read of `data` gives, where `data` is all that was sent and nothing more will come for now.
local function expected(data, maxlen, terminator, open)
  local limit = maxlen and maxlen >= 0 and maxlen or math.huge
  local at = terminator and data:find(terminator, 1, true)
  if limit == 0 then return "", "maxlen" end
  if at and at <= limit then return data:sub(1, at), "term" end
  if #data >= limit then return data:sub(1, limit), "maxlen" end
  return data, open and "block" or "eof"
end

for kind, connect in pairs(pair.kinds) do
  it("a model of a " .. kind .. " agrees with random operations", function()
    local seed = os.time()
    math.randomseed(seed)
    local near, far = connect()
    -- What was written and not sent, and what was sent and not read.
    local written, sent = "", ""

    local function flushed(result)
      assert.equal(near, result)
      sent, written = sent .. written, ""
    end
    local function small(result)
      assert.is_truthy(result == near or result == 0)
      if #written >= 4096 then sent, written = sent .. written, "" end
    end
    local function never() error("the waiting function was called") end
    local writers = {
      function(...) small(near:write(...)) end,
      function(...) small(near:write_nb(...)) end,
      function(...) small(near:write_call(never, ...)) end,
      function(...) flushed(near:flush(...)) end,
      function(...) flushed(near:flush_call(never, ...)) end,
      function(...)
        assert.equal(0, near:flush_nb(...))
        flushed(near)
      end,
    }

    local function arguments()
      local maxlen, terminator
      local choice = math.random(6)
      if choice == 1 then maxlen = -1 end
      if choice > 2 then maxlen = math.random(0, 300) * math.random(0, 40) end
      if math.random(2) == 1 then terminator = string.char(math.random(97, 105)) end
      return maxlen, terminator
    end

    local function check(data, status, want, want_status)
      if data ~= want or status ~= want_status then
        error(("seed %d: got %d bytes and %s, expected %d and %s"):format(
          seed, #tostring(data), tostring(status), #want, want_status))
      end
      sent = sent:sub(#want + 1)
    end

    local readers = {
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        local data, got = far:read_nb(maxlen, terminator)
        check(data, got, want, status)
      end,
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        local count, got = far:drain_nb(maxlen, terminator)
        check(#want == count and want or tostring(count), got, want, status)
      end,
      -- The next ones wait, and end when the function that they wait by gives up.
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        local ok, data, got = pcall(far.read_call, far, function() error("blocked") end, maxlen, terminator)
        if status == "block" then assert.is_false(ok) else check(data, got, want, status) end
      end,
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        local thread = coroutine.create(function() return far:read_yield(maxlen, terminator) end)
        local _, data, got = coroutine.resume(thread)
        if status == "block" then
          assert.same({ far, "r", "suspended" }, { data, got, coroutine.status(thread) })
        else
          check(data, got, want, status)
        end
      end,
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        if status ~= "block" then check(want, status, far:read(maxlen, terminator)) end
      end,
      function(maxlen, terminator)
        local want, status = expected(sent, maxlen, terminator, true)
        if status ~= "block" then
          assert.same({ #want, status }, { far:drain_call(never, maxlen, terminator) })
          check(want, status, want, status)
        end
      end,
      function()
        -- Once, what a suspended read has seen does not count: it waits for more.
        local set = { [far] = true }
        local ready = moonbridge_io.poll(set, nil, 0) or moonbridge_io.poll(set, nil, 0)
        assert.equal(sent ~= "", ready)
      end,
    }

    for _ = 1, ROUNDS do
      if #sent < 60000 and math.random(2) == 1 then
        local parts = {}
        for i = 1, math.random(0, 3) do
          local letter = string.char(math.random(97, 122))
          parts[i] = letter:rep(math.random(0, 40) * math.random(1, 60)) .. math.random(9)
        end
        written = written .. table.concat(parts)
        writers[math.random(#writers)](table.unpack(parts))
      else
        readers[math.random(#readers)](arguments())
      end
    end
    near:close()
    assert.is_true(sent .. written == far:read())
    assert.same({ "", "eof" }, { far:read() })
  end)
end
