-- "Streaming with Callbacks": chains with filters.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local ltn12 = require "ltn12"
local mime = require "mime"
local process = require "spec.support.process"

local chunks, recorder = callbacks.chunks, callbacks.recorder
local drain, fake_file = callbacks.drain, callbacks.fake_file

after_each(process.forget)

describe("chains with LuaSocket's filters", function()
  local text = ("Ein Sätzchen = mit \"allem\",\nZeilen\r\nund\tBlanks \n"):rep(40) .. "\0\1\2"

  -- name → function that makes the filter; each is stateful, so it is made anew
  local filters = {
    ["base64"] = function() return mime.encode("base64") end,
    ["quoted-printable"] = function() return mime.encode("quoted-printable") end,
    ["end of line"] = function() return mime.normalize("\r\n") end,
    ["wrap"] = function() return mime.wrap("text", 20) end,
    ["stuff"] = function() return mime.stuff() end,
    ["base64, wrapped"] = function()
      return ltn12.filter.chain(mime.encode("base64"), mime.wrap("base64"))
    end,
    ["eol, base64, back"] = function()
      return ltn12.filter.chain(mime.normalize(), mime.encode("base64"), mime.decode("base64"))
    end,
    ["upper case"] = function() return function(chunk) return chunk and chunk:upper() end end,
  }

  -- What LuaSocket itself makes of it.
  local function expected(filter, pieces)
    local sink, out = ltn12.sink.table()
    ltn12.pump.all(ltn12.source.table(pieces), ltn12.sink.chain(filter, sink))
    return table.concat(out)
  end

  local function cut(size)
    local pieces = {}
    for index = 1, #text, size do pieces[#pieces + 1] = text:sub(index, index + size - 1) end
    return pieces
  end

  for name, make in pairs(filters) do
    for _, size in ipairs { 1, 2, 3, 7, 64, 100000 } do
      it(("%s in pieces of %d"):format(name, size), function()
        local pieces = cut(size)
        local wanted = expected(make(), pieces)
        assert.equal(wanted, drain(callback.send.chain(chunks(table.unpack(pieces)), make())))
        local inner, concat = callback.receive.concat()
        local cb = callback.receive.chain(make(), inner)
        for _, piece in ipairs(pieces) do assert.truthy(cb(piece)) end
        cb("")
        assert.equal(wanted, concat:getresult())
      end)
    end
  end

  it("flushes what is left at the end, also after no data", function()
    assert.equal(mime.b64("a"), drain(callback.send.chain(callback.send.string("a"), mime.encode("base64"))))
    assert.equal("", drain(callback.send.chain(callback.send.string(""), mime.encode("base64"))))
    local function trailer(chunk) return chunk or "END" end
    assert.equal("abEND", drain(callback.send.chain(chunks("a", "b"), trailer)))
    local inner, calls = recorder()
    local cb = callback.receive.chain(trailer, inner)
    cb("a") cb("")
    assert.same({ { "a" }, { "END" }, { "" } }, calls)
  end)

  it("calls a filter once for each chunk and once with nil", function()
    local seen = {}
    local function filter(chunk)
      seen[#seen + 1] = chunk or "nil"
      return chunk and "<" .. chunk .. ">" or "."
    end
    assert.equal("<a><b>.", drain(callback.send.chain(chunks("a", "b"), filter)))
    assert.same({ "a", "b", "nil" }, seen)
  end)

  it("never passes on an empty chunk before the end", function()
    local inner, calls = recorder()
    local cb = callback.receive.chain(mime.encode("base64"), inner)
    cb("a") cb("b") cb("c") cb("")
    assert.same({ { "YWJj" }, { "" } }, calls)
  end)

  it("can be nested", function()
    local send_cb = callback.send.chain(callback.send.chain(chunks("a", "bc"), mime.encode("base64")),
      mime.decode("base64"))
    assert.equal("abc", drain(send_cb))
  end)

  it("follows replaced callbacks", function()
    local function second() return "", nil end
    assert.equal("AB", drain(callback.send.chain(function()
      return "a", chunks("b", "")
    end, function(chunk) return chunk and chunk:upper() end)))
    assert.equal("A", drain(callback.send.chain(function() return "a", second end, string.upper and
      function(chunk) return chunk and chunk:upper() end)))
    local other, calls = recorder()
    local cb = callback.receive.chain(function(chunk) return chunk end, function() return 1, other end)
    cb("a") cb("b") cb("")
    assert.same({ { "b" }, { "" } }, calls)
  end)

  it("passes aborts on", function()
    local function enough() return nil, "enough" end
    assert.same({ nil, "enough" }, { callback.send.chain(enough, mime.stuff())() })
    local cb = callback.receive.chain(function(chunk) return chunk end, function() return nil, "full" end)
    assert.same({ nil, "full" }, { cb("a") })
  end)

  it("passes errors to the callback after the filter, without flushing", function()
    local inner, calls = recorder()
    local cb = callback.receive.chain(mime.encode("base64"), inner)
    cb("a")
    cb(nil, "reset by peer")
    assert.same({ { nil, "reset by peer" } }, calls)
  end)
end)

describe("filters that fail", function()
  local function refuses(chunk) return chunk and not chunk:find("!") and chunk or nil, "odd data" end

  it("abort with their message, or say what was wrong", function()
    for _, case in ipairs {
      { refuses, "odd data" },
      { function() return nil end, "filter returned nil before the end" },
      { function() return 42 end, "filter returned a number, expected a string" },
      { function() return {} end, "filter returned a table, expected a string" },
    } do
      assert.same({ nil, case[2] }, { drain(callback.send.chain(chunks("a", "!"), case[1])) })
      local inner, calls = recorder()
      local cb = callback.receive.chain(case[1], inner)
      assert.same({ nil, case[2] }, { cb("!") })
      assert.same({ nil, case[2] }, calls[#calls])
    end
  end)

  it("may fail with nil and a message at the end, as one that got too little", function()
    local function incomplete(chunk) return chunk, "unexpected end of data" end
    local cb, calls = recorder()
    local chain = callback.receive.chain(incomplete, cb)
    assert.truthy(chain("ab"))
    assert.same({ nil, "unexpected end of data" }, { chain("") })
    assert.same({ { "ab" }, { nil, "unexpected end of data" } }, calls)
    local send_cb = callback.send.chain(callback.send.string("ab"), incomplete)
    assert.equal("ab", (send_cb()))
    assert.same({ nil, "unexpected end of data" }, { send_cb() })
  end)

  it("close the files at both ends", function()
    local source, target = fake_file { "a", "!" }, fake_file()
    assert.is_nil((drain(callback.send.chain(callback.send.file(source), refuses))))
    assert.equal(1, source.closed)
    local cb = callback.receive.chain(refuses, callback.receive.file(target))
    cb("a") cb("!")
    assert.equal(1, target.closed)
  end)

  it("may throw anything, which passes through; files are closed", function()
    local thrown = { code = 7 }
    local function throws(chunk) if chunk == "!" then error(thrown) end return chunk end
    local source, target = fake_file { "a", "!" }, fake_file()
    local ok, what = pcall(drain, callback.send.chain(callback.send.file(source), throws))
    assert.same({ false, thrown }, { ok, what })
    assert.equal(thrown, what)
    assert.equal(1, source.closed)
    local cb = callback.receive.chain(throws, callback.receive.file(target))
    cb("a")
    ok, what = pcall(cb, "!")
    assert.falsy(ok)
    assert.equal(thrown, what)
    assert.equal(1, target.closed)
  end)

  it("are asked for at once where they are missing", function()
    assert.has_error(function() callback.send.chain(chunks("a")) end)
    assert.has_error(function() callback.receive.chain(nil, function() end) end)
    assert.has_error(function() callback.receive.chain(function() end) end)
  end)
end)
