-- "Streaming with Callbacks": the predefined callbacks.

local callback = require "moonbridge_callback"
local callbacks = require "spec.support.callbacks"
local mime = require "mime"
local process = require "spec.support.process"

local drain, fake_file, scratch = callbacks.drain, callbacks.fake_file, callbacks.scratch

after_each(process.forget)

describe("the module", function()
  it("has the same table under both names", function()
    assert.equal(require "moonbridge.callback", callback)
  end)
end)

describe("receive.concat", function()
  it("follows the document's own example", function()
    local cb, concat = callback.receive.concat()
    assert.equal(1, cb("ab"))
    assert.equal(1, cb("c"))
    assert.equal(0, select("#", cb("")))
    assert.equal("abc", concat:getresult())
    assert.equal("abc", tostring(concat))
    assert.equal("abc", concat:getresult())
  end)

  it("is empty before the first chunk", function()
    local _, concat = callback.receive.concat()
    assert.equal("", concat:getresult())
    assert.equal("", tostring(concat))
  end)

  it("takes any object with addstring", function()
    local object = { text = "" }
    function object:addstring(chunk) self.text = self.text .. chunk .. ";" end
    local cb, same = callback.receive.concat(object)
    assert.equal(object, same)
    cb("a") cb("b") cb("")
    assert.equal("a;b;", object.text)
  end)

  it("ignores an error", function()
    local cb, concat = callback.receive.concat()
    cb("a")
    cb(nil, "no more")
    assert.equal("a", concat:getresult())
  end)
end)

describe("receive.file", function()
  it("takes the results of io.open, writes and closes the file at the end", function()
    local path = scratch()
    local cb = callback.receive.file(io.open(path, "wb"))
    assert.truthy(cb("ab"))
    assert.truthy(cb("\0c"))
    assert.truthy(cb(""))
    assert.equal("ab\0c", process.slurp(path))
  end)

  it("aborts with the message of io.open", function()
    local cb = callback.receive.file(io.open("/nonexistent/file", "wb"))
    assert.same({ nil, "/nonexistent/file: No such file or directory" }, { cb("a") })
    assert.same({ nil, "unable to open file" }, { callback.receive.file(nil)("a") })
  end)

  it("closes the file when a write fails", function()
    local file = fake_file { full = 1 }
    local cb = callback.receive.file(file)
    assert.truthy(cb("a"))
    assert.same({ nil, "No space left on device" }, { cb("b") })
    assert.equal(1, file.closed)
  end)

  it("closes the file after an error, once", function()
    local file = fake_file()
    local cb = callback.receive.file(file)
    cb(nil, "reset")
    cb(nil, "reset")
    assert.equal(1, file.closed)
  end)

  it("reports that closing failed", function()
    local cb = callback.receive.file(fake_file { close_fails = true })
    cb("a")
    local ret, message = cb("")
    assert.is_nil(ret)
    assert.equal("Disk quota exceeded", message)
  end)
end)

describe("send.file", function()
  it("sends the contents, chunk by chunk, and closes the file when done", function()
    local text = ("0123456789abcdef"):rep(10000)
    local file = io.open(scratch(text), "rb")
    assert.equal(text, drain(callback.send.file(file)))
    assert.equal("closed file", io.type(file))
  end)

  it("stays at the end", function()
    local cb = callback.send.file(io.open(scratch("x")))
    assert.equal("x", cb())
    assert.equal("", cb())
    assert.equal("", cb())
  end)

  it("aborts with the message of io.open", function()
    local cb = callback.send.file(io.open("/nonexistent/file"))
    assert.same({ nil, "/nonexistent/file: No such file or directory" }, { cb() })
    assert.same({ nil, "unable to open file" }, { callback.send.file(nil)() })
  end)

  it("does not take a read error for the end, and closes the file", function()
    local file = fake_file { broken = true }
    assert.same({ nil, "Input/output error" }, { callback.send.file(file)() })
    assert.equal(1, file.closed)
    assert.same({ nil, "Is a directory" }, { drain(callback.send.file(io.open("/"))) })
  end)
end)

describe("send.string", function()
  it("sends the string", function()
    assert.equal("abc", drain(callback.send.string("abc")))
    assert.equal("", drain(callback.send.string("")))
  end)

  it("is nil for nil", function()
    assert.is_nil(callback.send.string(nil))
    assert.is_nil(callback.send.chain(callback.send.string(nil), mime.encode("base64")))
  end)

  it("throws for other types, at the caller's position", function()
    local ok, message = pcall(function() callback.send.string({}) end)
    assert.falsy(ok)
    assert.truthy(message:find("^[^ ]*predefined_spec.lua:%d+: bad argument #1 to 'string'"))
  end)
end)
