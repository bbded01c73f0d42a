-- Reference, "Socket object": write, write_nb, flush, flush_nb.

local pair = require "spec.support.pair"

-- More than all buffers between two ends take.
local HUGE = ("0123456789abcdef"):rep(1024 * 1024)

local function received(handle)
  return (handle:read_nb())
end

for kind, connect in pairs(pair.kinds) do
  describe("writing to a " .. kind, function()
    local near, far

    before_each(function() near, far = connect() end)

    it("write and flush: 'On success, the socket userdata object is returned'", function()
      assert.same({ n = 1, near }, pair.results(near:write("a", "b")))
      assert.same({ n = 1, near }, pair.results(near:flush("c")))
      assert.same({ n = 1, near }, pair.results(near:flush()))
      assert.equal("abc", (far:read(3)))
    end)

    it("'Takes a variable number of strings', and numbers", function()
      near:flush("n=", 12, " ", 1.5, "", "\0", "!")
      assert.equal("n=12 1.5\0!", (far:read(10)))
      assert.equal(near, near:flush())
    end)

    it("write: 'The operation is buffered'; nothing is sent until 4096 bytes are there", function()
      near:write(("x"):rep(4000))
      near:write(("x"):rep(95))
      assert.equal("", received(far))
      near:write("y")
      assert.equal(("x"):rep(4095) .. "y", (far:read(4096)))
    end)

    it("write_nb: 'If all data (but a small buffered portion) could be sent out, zero'", function()
      assert.same({ n = 1, 0 }, pair.results(near:write_nb("abc")))
      assert.equal("", received(far))
      assert.same({ n = 1, 0 }, pair.results(near:write_nb(("z"):rep(5000))))
      assert.equal(5003, #(far:read(5003)))
    end)

    it("write_nb: 'an integer is returned that indicates the number of bytes in the buffer'", function()
      local left = near:write_nb(HUGE, "tail")
      assert.equal("integer", math.type(left))
      assert.is_true(left > 0 and left < #HUGE)
      local total = #HUGE + 4
      local got = #received(far)
      assert.equal(total - left, got)
      assert.equal(left + 1, near:write_nb("!") + #received(far))
    end)

    it("flush_nb: 'Zero is returned if all data could be flushed out'", function()
      near:write("ab")
      assert.same({ n = 1, 0 }, pair.results(near:flush_nb("c")))
      assert.equal("abc", (far:read(3)))
      assert.same({ n = 1, 0 }, pair.results(near:flush_nb()))
    end)

    it("flush_nb: 'The total number of bytes that could not be passed yet'", function()
      local left = near:flush_nb(HUGE)
      assert.is_true(left > 0)
      local pieces = {}
      while true do
        pieces[#pieces + 1] = received(far)
        if left == 0 then break end
        left = near:flush_nb()
      end
      near:close()
      pieces[#pieces + 1] = far:read()
      assert.is_true(table.concat(pieces) == HUGE)
    end)

    it("a wrong argument type throws and queues nothing", function()
      for _, name in ipairs { "write", "flush", "write_nb", "flush_nb" } do
        for _, wrong in ipairs { {}, true, print } do
          local ok, message = pcall(function() near[name](near, "queued", wrong) end)
          assert.is_false(ok)
          assert.matches("^spec/io/write_spec.lua:%d+: bad argument #2 to '" .. name .. "'", message)
        end
        assert.has_error(function() near[name](near, "queued", nil) end)
      end
      near:flush("clean")
      near:close()
      assert.equal("clean", (far:read()))
    end)
  end)
end

describe("a small response", function()
  it("leaves in one segment, header and body", function()
    local near, far = pair.tcp()
    near:write("HTTP/1.1 200 OK\r\n")
    near:write("\r\n")
    near:flush("body")
    pair.await(far)
    assert.equal("HTTP/1.1 200 OK\r\n\r\nbody", (far:read_nb()))
  end)
end)
