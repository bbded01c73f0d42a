-- Reference, "Socket object": read, read_nb, drain, drain_nb.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"

for kind, connect in pairs(pair.kinds) do
  describe("reading from a " .. kind, function()
    local near, far

    before_each(function() near, far = connect() end)

    local function send(...)
      near:flush(...)
      pair.await(far)
    end

    describe("read: 'Reads up to maxlen bytes or until an optional termination character'", function()
      it("returns the termination character as part of the result, and 'term'", function()
        send("one\ntwo\n")
        assert.same({ n = 2, "one\n", "term" }, pair.results(far:read(nil, "\n")))
        assert.same({ n = 2, "two\n", "term" }, pair.results(far:read(100, "\n")))
      end)

      it("returns 'maxlen' if no termination character was read", function()
        send("abcdef\n")
        assert.same({ n = 2, "abc", "maxlen" }, pair.results(far:read(3)))
        assert.same({ n = 2, "def", "maxlen" }, pair.results(far:read(3, "\n")))
        assert.same({ n = 2, "\n", "term" }, pair.results(far:read(1, "\n")))
      end)

      it("returns 'eof' if an EOF comes before all data could be read", function()
        send("rest")
        near:close()
        assert.same({ n = 2, "rest", "eof" }, pair.results(far:read(10, "\n")))
        assert.same({ n = 2, "", "eof" }, pair.results(far:read(10)))
        assert.same({ n = 2, "", "eof" }, pair.results(far:read()))
      end)

      it("takes no processor time while it waits", function()
        local child = assert(moonbridge_io.exec("sleep", "0.6"))
        local before = os.clock()
        assert.same({ n = 2, "", "eof" }, pair.results(child.stdout:read()))
        assert.is_true(os.clock() - before < 0.1)
      end)

      it("has no limit for nil and for negative lengths", function()
        send(("x"):rep(30000))
        near:close()
        assert.equal(30000, #(far:read(-1)))
        near, far = connect()
        send(("x"):rep(30000))
        near:close()
        assert.equal(30000, #(far:read(nil)))
      end)

      it("of 0 bytes gives an empty string and 'maxlen', even at EOF", function()
        assert.same({ n = 2, "", "maxlen" }, pair.results(far:read(0)))
        send("x")
        assert.same({ n = 2, "", "maxlen" }, pair.results(far:read(0, "\n")))
        near:close()
        assert.equal("x", (far:read()))
        assert.same({ n = 2, "", "maxlen" }, pair.results(far:read(0)))
      end)

      it("keeps binary data as it is, zero bytes too", function()
        local bytes = {}
        for byte = 0, 255 do bytes[#bytes + 1] = string.char(byte) end
        local all = table.concat(bytes)
        send(all)
        assert.equal(all, (far:read(256)))
        send("a\0b\0")
        assert.same({ n = 2, "a\0", "term" }, pair.results(far:read(nil, "\0")))
        assert.same({ n = 2, "b\0", "term" }, pair.results(far:read(nil, "\0")))
      end)

      it("takes an empty terminator as none and coerces numbers and strings as Lua does", function()
        send("ab7cd")
        assert.same({ n = 2, "ab", "maxlen" }, pair.results(far:read("2", "")))
        assert.same({ n = 2, "7", "term" }, pair.results(far:read(2.0, 7)))
      end)

      it("waits for what is not there yet", function()
        local child = assert(moonbridge_io.exec("sh", "-c", "printf ab; sleep 0.05; printf 'c\\nd'"))
        assert.same({ n = 2, "abc\n", "term" }, pair.results(child.stdout:read(nil, "\n")))
        assert.same({ n = 2, "d", "eof" }, pair.results(child.stdout:read(9)))
        assert.equal(0, child:wait())
      end)
    end)

    describe("read_nb: 'Same as socket:read(maxlen, terminator), but does not block'", function()
      it("returns 'block' and what could be read", function()
        assert.same({ n = 2, "", "block" }, pair.results(far:read_nb(5)))
        send("abc")
        assert.same({ n = 2, "abc", "block" }, pair.results(far:read_nb(5)))
        assert.same({ n = 2, "", "block" }, pair.results(far:read_nb()))
      end)

      it("returns 'term', 'maxlen' and 'eof' as read does", function()
        send("a\nbcd")
        assert.same({ n = 2, "a\n", "term" }, pair.results(far:read_nb(nil, "\n")))
        assert.same({ n = 2, "bc", "maxlen" }, pair.results(far:read_nb(2, "\n")))
        near:close()
        pair.await(far)
        assert.same({ n = 2, "d", "eof" }, pair.results(far:read_nb(nil, "\n")))
        assert.same({ n = 2, "", "eof" }, pair.results(far:read_nb(1)))
      end)

      it("reads all that is there, also more than one buffer", function()
        local sent = 0
        for _ = 1, 8 do
          sent = sent + 10000
          near:flush(("y"):rep(10000))
        end
        local got = 0
        while got < sent do
          pair.await(far)
          local data, status = far:read_nb()
          assert.equal("block", status)
          got = got + #data
        end
        assert.equal(sent, got)
      end)
    end)

    describe("drain: 'discards the input and returns the number of discarded bytes'", function()
      it("returns the status code as second value", function()
        send("one\ntwothree")
        assert.same({ n = 2, 4, "term" }, pair.results(far:drain(nil, "\n")))
        assert.same({ n = 2, 3, "maxlen" }, pair.results(far:drain(3)))
        near:close()
        assert.same({ n = 2, 5, "eof" }, pair.results(far:drain()))
        assert.same({ n = 2, 0, "eof" }, pair.results(far:drain()))
        assert.same({ n = 2, 0, "maxlen" }, pair.results(far:drain(0)))
      end)

      it("drain_nb may also return 'block'", function()
        assert.same({ n = 2, 0, "block" }, pair.results(far:drain_nb(3)))
        send("ab")
        assert.same({ n = 2, 2, "block" }, pair.results(far:drain_nb(3)))
      end)
    end)

    it("finds terminators across the borders of buffers", function()
      local lines, pieces = {}, {}
      for i = 1, 3000 do lines[i] = ("x"):rep(i % 61) .. i .. "\n" end
      local all = table.concat(lines)
      local position = 1
      while position <= #all do
        local size = position % 977 + 1
        pieces[#pieces + 1] = all:sub(position, position + size - 1)
        position = position + size
      end
      local next_line = 1
      for _, piece in ipairs(pieces) do
        near:flush(piece)
        local data, status = ""
        repeat
          local part
          part, status = far:read_nb(nil, "\n")
          data = data .. part
          if status == "term" then
            assert.equal(lines[next_line]:sub(-#data), data)
            next_line, data = next_line + 1, ""
          end
        until status == "block"
      end
      near:close()
      assert.equal(3001, next_line)
    end)
  end)
end
