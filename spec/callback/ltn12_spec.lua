-- Conversions between callbacks and the sources and sinks of ltn12.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local ltn12 = require "ltn12"
local process = require "spec.support.process"

local chunks, recorder = callbacks.chunks, callbacks.recorder
local drain, scratch = callbacks.drain, callbacks.scratch

after_each(process.forget)

describe("conversions for ltn12", function()
  it("from_source: a source becomes a send callback", function()
    assert.equal("abc", drain(callback.from_source(ltn12.source.string("abc"))))
    assert.equal("", drain(callback.from_source(ltn12.source.empty())))
    assert.same({ nil, "bad" }, { drain(callback.from_source(ltn12.source.error("bad"))) })
    assert.equal("ab", drain(callback.from_source(ltn12.source.table { "a", "", "b" })))
    assert.is_nil(callback.from_source(nil))
  end)

  it("from_source: a fancy source replaces itself; a source may be a callable table", function()
    local function fancy() return "a", ltn12.source.string("b") end
    assert.equal("ab", drain(callback.from_source(fancy)))
    local object = setmetatable({ "x", "y" }, { __call = function(self) return table.remove(self, 1) end })
    assert.equal("xy", drain(callback.from_source(object)))
  end)

  it("to_source: a send callback becomes a source", function()
    local function pumped(send_cb)
      local sink, out = ltn12.sink.table()
      local ok, message = ltn12.pump.all(callback.to_source(send_cb), sink)
      return ok and table.concat(out), message
    end
    assert.equal("abc", (pumped(chunks("ab", "c"))))
    assert.equal("", (pumped(nil)))
    assert.equal("ab", (pumped(function() return "a", chunks("b") end)))
    assert.same({ nil, "bad" }, { pumped(function() return nil, "bad" end) })
    assert.same({ nil, "callback aborted" }, { pumped(function() return nil end) })
  end)

  it("from_sink: a sink becomes a receive callback", function()
    local sink, out = ltn12.sink.table()
    local cb = callback.from_sink(sink)
    cb("a") cb("b")
    assert.equal(1, cb(""))
    assert.same({ "a", "b" }, out)
    local path = scratch()
    cb = callback.from_sink(ltn12.sink.file(io.open(path, "wb")))
    cb("text") cb("")
    assert.equal("text", process.slurp(path))
    assert.same({ nil, "bad" }, { callback.from_sink(ltn12.sink.error("bad"))("a") })
    local seen
    callback.from_sink(function(_, err) seen = err return 1 end)(nil, "reset")
    assert.equal("reset", seen)
  end)

  it("from_sink: a fancy sink replaces itself", function()
    local sink, out = ltn12.sink.table()
    local cb = callback.from_sink(function() return 1, sink end)
    cb("a") cb("b")
    assert.same({ "b" }, out)
  end)

  it("to_sink: a receive callback becomes a sink", function()
    local cb, calls = recorder()
    assert.equal(1, (ltn12.pump.all(ltn12.source.table { "a", "", "b" }, callback.to_sink(cb))))
    assert.same({ { "a" }, { "b" }, { "" } }, calls)
    cb, calls = recorder()
    ltn12.pump.all(ltn12.source.error("bad"), callback.to_sink(cb))
    assert.same({ { nil, "bad" } }, calls)
    local aborting = callback.to_sink(function() return nil end)
    assert.same({ nil, "callback aborted" }, { ltn12.pump.all(ltn12.source.string("a"), aborting) })
    local concat_cb, concat = callback.receive.concat()
    assert.equal(1, (ltn12.pump.all(ltn12.source.string("abc"), callback.to_sink(concat_cb))))
    assert.equal("abc", concat:getresult())
  end)

  it("round trip", function()
    assert.equal("abc", drain(callback.from_source(callback.to_source(chunks("a", "bc")))))
    local cb, calls = recorder()
    local same = callback.from_sink(callback.to_sink(cb))
    same("a") same("")
    assert.same({ { "a" }, { "" } }, calls)
  end)
end)
