-- Reference, "I/O library": tcpconnect, tcplisten, localconnect, locallisten; the listener object;
-- "Socket object": address fields.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

local LOOPBACK6 = ("\0"):rep(15) .. "\1"

local function misuse(f, ...)
  local arguments = table.pack(...)
  local ok, message = pcall(function() f(table.unpack(arguments, 1, arguments.n)) end)
  assert.is_false(ok)
  assert.matches("^spec/io/connect_spec.lua:%d+: ", message)
  return message
end

-- A port that nobody listens on.
local function free_port()
  local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
  local port = listener.local_tcpport
  listener:close()
  return port
end

describe("TCP", function()
  it("'use \"127.0.0.1\" as hostname if IPv4 shall be used': addresses are 4 raw bytes", function()
    local near, far = pair.tcp("127.0.0.1")
    for _, handle in ipairs { near, far } do
      assert.equal("\127\0\0\1", handle.local_ip4)
      assert.equal("\127\0\0\1", handle.remote_ip4)
      assert.is_nil(handle.local_ip6)
      assert.is_nil(handle.remote_ip6)
      assert.equal("127.0.0.1", handle.local_ip)
      assert.equal("127.0.0.1", handle.remote_ip)
      assert.equal("integer", math.type(handle.local_tcpport))
    end
    assert.equal(near.local_tcpport, far.remote_tcpport)
    assert.equal(near.remote_tcpport, far.local_tcpport)
  end)

  it("'use \"::1\" as hostname if IPv6 shall be used': addresses are 16 raw bytes", function()
    local near, far = pair.tcp("::1")
    assert.equal(LOOPBACK6, near.remote_ip6)
    assert.equal(LOOPBACK6, far.local_ip6)
    assert.equal("::1", far.remote_ip)
    assert.is_nil(far.remote_ip4)
  end)

  it("'To listen on all available interfaces, use \"::\"', which serves IPv4 as well", function()
    local listener = assert(moonbridge_io.tcplisten("::", 0))
    for _, host in ipairs { "127.0.0.1", "::1", "localhost" } do
      local client = assert(moonbridge_io.tcpconnect(host, listener.local_tcpport))
      local socket = assert(listener:accept())
      assert.equal(client.local_ip, socket.remote_ip)
      assert.equal(client.local_ip4, socket.remote_ip4)
    end
  end)

  it("fields of addresses stay readable after close", function()
    local near, far = pair.tcp()
    local port = near.local_tcpport
    near:close()
    far:reset()
    assert.equal(port, near.local_tcpport)
    assert.equal(port, far.remote_tcpport)
    assert.equal("127.0.0.1", far.local_ip)
  end)

  it("tcpconnect: 'nil plus an error message in case of error'", function()
    assert.same(
      { n = 3, nil, "Connection refused", 111 },
      pair.results(moonbridge_io.tcpconnect("127.0.0.1", free_port()))
    )
    local results = pair.results(moonbridge_io.tcpconnect("no-such-host.invalid", 80))
    assert.is_nil(results[1])
    assert.matches("^Could not resolve host: ", results[2])
  end)

  it("tcpconnect tries all addresses of a name", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local client = assert(moonbridge_io.tcpconnect("localhost", listener.local_tcpport))
    assert.equal("127.0.0.1", client.remote_ip)
  end)

  it("tcpconnect_nb: 'immediately returns a socket object'", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local client = assert(moonbridge_io.tcpconnect_nb("127.0.0.1", listener.local_tcpport))
    assert.is_true(moonbridge_io.poll(nil, { [client] = true }, process.TIMEOUT))
    assert.equal(client, client:flush("hi"))
    local socket = assert(listener:accept())
    assert.equal("hi", (socket:read(2)))
  end)

  it("tcpconnect_nb: 'connection errors may also be reported on first read or write'", function()
    local port = free_port()
    local client = assert(moonbridge_io.tcpconnect_nb("127.0.0.1", port))
    moonbridge_io.poll({ [client] = true }, nil, process.TIMEOUT)
    assert.same({ nil, "Connection refused", 111 }, { client:read(1) })
    assert.same({ nil, "Previous read error" }, { client:read(1) })
    client = assert(moonbridge_io.tcpconnect_nb("127.0.0.1", port))
    moonbridge_io.poll(nil, { [client] = true }, process.TIMEOUT)
    assert.same({ nil, "Connection refused", 111 }, { client:flush("x") })
    assert.same({ nil, "Connection refused", 111 }, { client:read(1) })
    assert.same({ nil, "Previous write error" }, { client:close() })
  end)

  it("tcpconnect_nb reports what is wrong with the host at once", function()
    local results = pair.results(moonbridge_io.tcpconnect_nb("no-such-host.invalid", 80))
    assert.is_nil(results[1])
    assert.is_string(results[2])
  end)

  it("ports may be numbers, numeric strings or service names", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", "0"))
    local port = listener.local_tcpport
    assert(moonbridge_io.tcpconnect("127.0.0.1", port)):close()
    assert(moonbridge_io.tcpconnect("127.0.0.1", tostring(port))):close()
    assert(moonbridge_io.tcpconnect("127.0.0.1", port + 0.0)):close()
    local results = pair.results(moonbridge_io.tcpconnect("127.0.0.1", "gopher"))
    assert.same({ nil, "Connection refused" }, { results[1], results[2] })
    results = pair.results(moonbridge_io.tcpconnect("127.0.0.1", "no-such-service"))
    assert.is_nil(results[1])
  end)

  it("tcplisten: an address in use is nil and a message", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    assert.same(
      { n = 3, nil, "Address already in use", 98 },
      pair.results(moonbridge_io.tcplisten("127.0.0.1", listener.local_tcpport))
    )
  end)

  it("wrong types and ports out of range throw", function()
    for _, name in ipairs { "tcpconnect", "tcpconnect_nb", "tcplisten" } do
      local f = moonbridge_io[name]
      misuse(f)
      misuse(f, "127.0.0.1")
      misuse(f, nil, 80)
      misuse(f, {}, 80)
      misuse(f, "127.0.0.1", 65536)
      misuse(f, "127.0.0.1", -1)
      misuse(f, "127.0.0.1", 80.5)
      misuse(f, "127.0.0.1", {})
    end
  end)
end)

describe("local sockets", function()
  local path

  before_each(function() path = process.scratch("socket") end)

  it("connect to what listens", function()
    local listener = assert(moonbridge_io.locallisten(path))
    local client = assert(moonbridge_io.localconnect(path))
    local socket = assert(listener:accept())
    client:flush("hello")
    assert.equal("hello", (socket:read(5)))
    assert.is_nil(socket.remote_ip)
    assert.is_nil(socket.local_tcpport)
    assert.is_true(listener:close())
  end)

  it("locallisten: 'If the file does already exist and is a socket, then it is deleted'", function()
    assert(moonbridge_io.locallisten(path)):close()
    local listener = assert(moonbridge_io.locallisten(path))
    assert(moonbridge_io.localconnect(path))
    assert(listener:accept())
  end)

  it("locallisten leaves a file alone that is no socket", function()
    local file = assert(io.open(path, "w"))
    file:write("precious")
    file:close()
    assert.same({ n = 3, nil, "Address already in use", 98 }, pair.results(moonbridge_io.locallisten(path)))
    assert.equal("precious", process.slurp(path))
  end)

  it("close: 'the socket will not be unlinked in the file system'", function()
    local listener = assert(moonbridge_io.locallisten(path))
    assert.same({ n = 1, true }, pair.results(listener:close()))
    assert.equal(0, (process.run("test -S " .. process.quote(path))))
  end)

  it("localconnect: 'nil plus an error message in case of error'", function()
    local missing = { n = 3, nil, "No such file or directory", 2 }
    assert.same(missing, pair.results(moonbridge_io.localconnect(path)))
    assert.same(missing, pair.results(moonbridge_io.localconnect_nb(path)))
    assert(moonbridge_io.locallisten(path)):close()
    assert.same({ n = 3, nil, "Connection refused", 111 }, pair.results(moonbridge_io.localconnect(path)))
  end)

  it("localconnect_nb: 'does not block and immediately returns a socket object'", function()
    local listener = assert(moonbridge_io.locallisten(path))
    local client = assert(moonbridge_io.localconnect_nb(path))
    client:flush("x")
    assert.equal("x", (assert(listener:accept()):read(1)))
    listener:close()
    client = assert(moonbridge_io.localconnect_nb(path))
    assert.same({ nil, "Connection refused", 111 }, { client:flush("x") })
  end)

  it("paths over 107 bytes throw", function()
    for _, name in ipairs { "localconnect", "localconnect_nb", "locallisten" } do
      misuse(moonbridge_io[name], ("x"):rep(108))
      misuse(moonbridge_io[name])
      misuse(moonbridge_io[name], "")
      misuse(moonbridge_io[name], {})
      misuse(moonbridge_io[name], "a\0b")
    end
  end)
end)

describe("a listener", function()
  it("accept_nb: 'returns false (plus a notice as second return value)'", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    assert.same({ n = 2, false, "No incoming connection pending" }, pair.results(listener:accept_nb()))
    local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
    assert.is_true(moonbridge_io.poll({ [listener] = true }, nil, process.TIMEOUT))
    local results = pair.results(listener:accept_nb())
    assert.equal(1, results.n)
    assert.equal(client.local_tcpport, results[1].remote_tcpport)
  end)

  it("accept: 'blocks until a new incoming connection is available'", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local program = "local io = require 'moonbridge_io'; io.poll(nil, nil, 0.05); "
      .. "local s = io.tcpconnect('127.0.0.1', " .. listener.local_tcpport .. "); s:flush('late'); s:close()"
    local child = assert(moonbridge_io.exec(arg[-1], "-e", program))
    assert.equal("late", (assert(listener:accept()):read()))
    child:wait()
  end)

  it("throws when it is used after close", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    listener:close()
    misuse(listener.accept, listener)
    misuse(listener.accept_nb, listener)
    misuse(listener.close, listener)
  end)

  it("keeps the user's fields", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    listener.name = "front"
    listener:close()
    assert.equal("front", listener.name)
  end)
end)
