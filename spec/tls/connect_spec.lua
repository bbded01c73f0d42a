-- tlsconnect, starttls: handles over TLS behave as others, with peers of other makers.

local certificates = require "spec.support.certificates"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"
local tls_peer = require "spec.support.tls_peer"

local authority, localhost
setup(function()
  localhost, authority = certificates.signed()
end)

after_each(tls_peer.cleanup)

local function options(more)
  return tables.with({ ca = authority.certificate }, more)
end

local function connect(peer, more)
  return assert(moonbridge_io.tlsconnect("localhost", peer.port, options(more)))
end

-- Waits for a handle as poll does, until `step` returns something.
local function poll_until(handle, write, step)
  local deadline = moonbridge_io.timeref() + process.TIMEOUT
  while true do
    local result = table.pack(step())
    if result[1] then return table.unpack(result, 1, result.n) end
    assert(moonbridge_io.timeref() < deadline, "time is up")
    assert(moonbridge_io.poll(not write and { [handle] = true } or nil, write and { [handle] = true } or nil,
      process.TIMEOUT))
  end
end

describe("a handle over TLS", function()
  for _, version in ipairs { "1.2", "1.3" } do
    it("reads and writes, and ends in order, in version " .. version, function()
      local peer = tls_peer.python("echo", localhost, { version = version, alpn = "a,b" })
      local handle = connect(peer, { alpn = { "x", "b" } })
      assert.equal(version, handle.tls.version)
      assert.equal("b", handle.tls.alpn)
      assert.equal("localhost", handle.tls.server_name)
      assert.equal("CN=localhost,O=Specs", handle.tls.peer_certificate.subject)
      assert.equal(certificates.fingerprint(localhost), handle.tls.peer_certificate.fingerprint)
      assert.matches("^TLS_", handle.tls.cipher)
      assert(handle:write("one\n", "two\n"):flush())
      assert.same({ "one\n", "term" }, { handle:read(nil, "\n") })
      assert.same({ "two\n", "term" }, { handle:read(nil, "\n") })
      assert(handle:finish())
      assert.same({ "", "eof" }, { handle:read() })
      assert(handle:close())
      assert.equal("", peer:log():match("failed.*") or "")
    end)
  end

  it("works without blocking: reads, writes and poll drive the handshake", function()
    local peer = tls_peer.python("slow", localhost)
    local handle = assert(moonbridge_io.tlsconnect_nb("localhost", peer.port, options()))
    assert.is_nil(handle.tls)
    assert.equal(0, handle:write_nb("abc\n"))
    poll_until(handle, true, function() return handle:flush_nb() == 0 end)
    assert.equal("1.3", handle.tls.version)
    local text = ""
    poll_until(handle, false, function()
      local more = assert(handle:read_nb(nil, "\n"))
      text = text .. more
      return text:sub(-1) == "\n"
    end)
    assert.equal("abc\n", text)
  end)

  it("does not turn in a loop while it waits for the handshake", function()
    local peer = tls_peer.python("silent")
    local handle = assert(moonbridge_io.tlsconnect_nb("localhost", peer.port, options()))
    poll_until(handle, true, function() return handle:flush_nb() end)
    handle:write_nb(("x"):rep(5000))
    assert.same({ false, "Timeout" }, { moonbridge_io.poll(nil, { [handle] = true }, 0.05) })
    assert.equal("r", handle:events())
  end)

  it("waits by a function of the caller's", function()
    local peer = tls_peer.python("echo", localhost)
    local handle = assert(moonbridge_io.tlsconnect_nb("localhost", peer.port, options()))
    local waits = 0
    local function wait(object, mode, io)
      waits = waits + 1
      assert.equal(handle, object)
      io.poll({ [object] = mode == "r" or nil }, { [object] = mode == "w" or nil }, process.TIMEOUT)
    end
    handle:write("line\n")
    assert.equal(handle, handle:flush_call(wait))
    assert.same({ "line\n", "term" }, { handle:read_call(wait, nil, "\n") })
    assert.is_true(waits > 0)
  end)

  it("counts decrypted input as readable", function()
    local peer = tls_peer.python("pair", localhost)
    local handle = connect(peer)
    assert.equal("one\n", (handle:read(nil, "\n")))
    assert.is_true(moonbridge_io.poll({ [handle] = true }, nil, 0))
    assert.equal("two\n", (handle:read(nil, "\n")))
    assert.same({ false, "Timeout" }, { moonbridge_io.poll({ [handle] = true }, nil, 0) })
  end)

  it("carries large data in both directions", function()
    for _, version in ipairs { "1.2", "1.3" } do
      local peer = tls_peer.python("bulk", localhost, { version = version })
      local handle = connect(peer)
      local size = 3000001
      handle:write(size, "\n"):flush()
      local data = handle:read(size)
      assert.equal(size, #data)
      local block = {}
      for byte = 0, 255 do block[#block + 1] = string.char(byte) end
      local pattern = table.concat(block):rep(256)
      assert.is_true(data:sub(1, #pattern) == pattern)
      assert.is_true(data:sub(-100) == pattern:rep(2):sub(1, size % #pattern):sub(-100))
      handle:write(size, "\n", data:sub(1, 7), data:sub(8, 20000), data:sub(20001)):flush()
      assert.equal(size .. "\n", (handle:read(nil, "\n")))
      handle:finish()
      assert.same({ "", "eof" }, { handle:read() })
    end
  end)

  it("tells a truncated stream from its end", function()
    local peer = tls_peer.python("truncate", localhost)
    local handle = connect(peer)
    assert.equal("abc", (handle:read(3)))
    handle:write("\n"):flush()
    local data, message, code = handle:read()
    assert.is_nil(data)
    assert.matches("without the end of TLS", message)
    assert.equal("truncated", code)
    assert.same({ nil, "Previous read error" }, { handle:read() })
  end)

  it("tells of a write, too, why the peer has refused the connection", function()
    local peer = tls_peer.python("echo", localhost, { client_ca = authority.certificate, version = "1.3" })
    local handle = connect(peer)
    local result, message, code
    repeat
      result, message, code = handle:flush(("x"):rep(100000))
    until not result
    assert.matches("options certificate and key", message)
    assert.equal("alert", code)
    handle:reset()
  end)

  it("may still write when the peer has ended", function()
    local peer = tls_peer.python("half_close", localhost)
    local handle = connect(peer)
    assert.same({ "abc", "eof" }, { handle:read() })
    assert(handle:write("x"):flush())
    assert(handle:close())
  end)

  it("resumes sessions", function()
    for _, version in ipairs { "1_2", "1_3" } do
      local peer = tls_peer.openssl(localhost, "-tls" .. version)
      local resumed = {}
      for attempt = 1, 2 do
        -- Under these options there are no sessions of other servers yet.
        local handle = connect(peer, { alpn = "x" .. version })
        resumed[attempt] = handle.tls.resumed
        handle:write("GET / HTTP/1.0\r\n\r\n"):flush()
        assert(handle:read())
        handle:close()
      end
      assert.same({ false, true }, resumed, version)
    end
  end)

  it("answers a change of keys", function()
    local port = server.free_port()
    local child = assert(moonbridge_io.exec("stdbuf", "-oL", "openssl", "s_server",
      "-accept", "127.0.0.1:" .. port, "-cert", localhost.certificate, "-key", localhost.key))
    assert(process.wait_until(function() return server.listening(port) end))
    local handle = connect { port = port }
    local function read_line(from)
      return from:read_call(function(waiting, _, io)
        assert(io.poll({ [waiting] = true }, nil, process.TIMEOUT), "no line")
      end, nil, "\n")
    end
    for round = 1, 3 do
      child.stdin:write("K\n"):flush()
      repeat until read_line(child.stdout):find("SSL_do_handshake", 1, true)
      child.stdin:write("round ", round, "\n"):flush()
      assert.equal("round " .. round .. "\n", read_line(handle))
      handle:write("answer\n"):flush()
      repeat until read_line(child.stdout) == "answer\n"
    end
    handle:close()
    child:kill()
    child:wait()
  end)

  it("talks to GnuTLS", function()
    local peer = tls_peer.gnutls(localhost)
    local handle = connect(peer)
    handle:write("hello\n"):flush()
    assert.equal("hello\n", (handle:read(nil, "\n")))
    handle:close()
  end)

  it("talks to OpenSSL, whose page tells of the session", function()
    local peer = tls_peer.openssl(localhost)
    local handle = connect(peer, { min_version = "1.3" })
    handle:write("GET / HTTP/1.0\r\n\r\n"):flush()
    local page = assert(handle:read())
    assert.matches("TLSv1.3", page)
    handle:close()
  end)
end)

describe("socket.tls", function()
  it("stays readable after close and reset", function()
    for _, ending in ipairs { "close", "reset" } do
      local handle = assert(moonbridge_io.tlsconnect("localhost", tls_peer.python("echo", localhost).port,
        options()))
      local before = handle.tls
      handle[ending](handle)
      assert.same(before, handle.tls)
      assert.equal("string", type(before.peer_certificate.fingerprint))
    end
  end)
end)

describe("starttls", function()
  local function hello(peer)
    local handle = assert(moonbridge_io.tcpconnect("localhost", peer.port))
    assert.equal("hello\n", (handle:read(nil, "\n")))
    handle:write("STARTTLS\n"):flush()
    assert.equal("OK\n", (handle:read(nil, "\n")))
    return handle
  end

  it("makes a connected handle speak TLS", function()
    local handle = hello(tls_peer.python("starttls", localhost))
    assert.is_nil(handle.tls)
    assert.equal(handle, handle:starttls(options { host = "localhost" }))
    assert.equal("1.3", handle.tls.version)
    handle:write("abc\n"):flush()
    assert.equal("abc\n", (handle:read(nil, "\n")))
    handle:finish()
    assert.same({ "", "eof" }, { handle:read() })
  end)

  it("can leave the handshake to reads and writes", function()
    local handle = hello(tls_peer.python("starttls", localhost))
    assert.equal(handle, handle:starttls_nb(options { host = "localhost" }))
    handle:write("abc\n"):flush()
    assert.equal("abc\n", (handle:read(nil, "\n")))
    handle:close()
  end)

  it("refuses input that somebody has put after the answer", function()
    local peer = tls_peer.python("starttls", localhost, { surplus = "injected\n" })
    local handle = hello(peer)
    handle:drain_nb(0)
    poll_until(handle, false, function() return handle:dirty() end)
    local result, message, code = handle:starttls(options { host = "localhost" })
    assert.is_nil(result)
    assert.matches("more than its answer", message)
    assert.equal("plain_input", code)
    handle:close()
  end)

  it("throws on misuse", function()
    local peer = tls_peer.python("starttls", localhost)
    local handle = hello(peer)
    for _, wrong in ipairs {
      { "'host'", function() handle:starttls() end },
      { "'host'", function() handle:starttls {} end },
      { "did you mean \"ca\"", function() handle:starttls { host = "a", caa = "b" } end },
      { "'alpn'", function() handle:starttls { host = "a", alpn = { "" } } end },
      { "'key'", function() handle:starttls { host = "a", certificate = "b" } end },
      { "'min_version'", function() handle:starttls { host = "a", min_version = "1.1" } end },
      { "'fingerprints'", function() handle:starttls { host = "a", fingerprints = "ab" } end },
      { "'insecure'", function() handle:starttls { host = "a", insecure = 1 } end },
    } do
      local ok, message = pcall(wrong[2])
      assert.is_false(ok)
      assert.matches("^spec/tls/connect_spec.lua:%d+: ", message)
      assert.matches(wrong[1], message, 1, true)
    end
    handle:starttls(options { host = "localhost" })
    assert.has_error(function() handle:starttls(options { host = "localhost" }) end)
    handle:close()
    assert.has_error(function() handle:starttls(options { host = "localhost" }) end)
  end)
end)

describe("two sides that have too little in common", function()
  local function refused(peer, more)
    local handle, message, code = moonbridge_io.tlsconnect("localhost", peer.port, options(more))
    assert.is_nil(handle)
    return code, message
  end

  it("are told the version that lacks", function()
    local peer = tls_peer.python("echo", localhost, { version = "1.2" })
    local code, message = refused(peer, { min_version = "1.3" })
    assert.equal("incompatible", code)
    assert.equal("the server localhost does not support TLS 1.3, which option min_version asks for: leave "
      .. "that option out, or have the server support 1.3", message)
    code, message = refused(tls_peer.openssl(localhost, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"))
    assert.equal("incompatible", code)
    assert.matches("supports neither TLS 1.3 nor 1.2", message, 1, true)
  end)

  it("are told that no protocol is common, in both versions", function()
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      local peer = tls_peer.openssl(localhost, "-alpn", "a", version)
      local code, message = refused(peer, { alpn = { "b", "c" } })
      assert.equal("alpn", code)
      assert.matches("no protocol in common", message)
    end
  end)
end)

describe("what a peer sends instead of a handshake", function()
  local function failure(mode, made, more)
    local peer = tls_peer.python(mode, made, more)
    local handle, message, code = moonbridge_io.tlsconnect("localhost", peer.port, options())
    assert.is_nil(handle)
    return message, code
  end

  it("is told: another protocol", function()
    local message, code = failure("garbage", nil, { bytes = "485454502f312e3120" })
    assert.matches("does not speak TLS", message)
    assert.equal("no_tls", code)
  end)

  it("is told: an end", function()
    local message, code = failure("garbage", nil, { bytes = "", ["end"] = "1" })
    assert.matches("closed the connection during the TLS handshake", message)
    assert.equal("handshake_ended", code)
  end)

  it("is told: a reset", function()
    local message, code = failure("reset")
    assert.equal("Connection reset by peer", message)
    assert.equal("number", type(code))
  end)

  for _, operation in ipairs { "read", "flush" } do
    it("is told: a reset, also if the first message meets it, by " .. operation, function()
      local peer = tls_peer.python("reset")
      local handle = assert(moonbridge_io.tlsconnect_nb("localhost", peer.port, options()))
      -- The descriptor alone: a handle would be ready as soon as it can send.
      assert.is_true(moonbridge_io.poll({ [handle:getfd()] = true }, nil, process.TIMEOUT))
      local result, message, code = handle[operation](handle)
      assert.is_nil(result)
      assert.equal("Connection reset by peer", message)
      assert.equal("number", type(code))
      handle:reset()
    end)
  end

  it("is told: an end by close_notify, also while the connection stays open", function()
    local message, code = failure("garbage", nil, { bytes = "15030300020100" })
    assert.matches("closed the connection during the TLS handshake", message)
    assert.equal("handshake_ended", code)
  end)

  it("is told: half a handshake", function()
    local _, code = failure("garbage", nil, { bytes = "160303007a020000760303", ["end"] = "1" })
    assert.equal("handshake_ended", code)
  end)

  for name, bytes in pairs {
    ["an alert"] = "15030300020228",
    ["a record of no known kind"] = "99030300020000",
    ["a record that is too long"] = "160303ffff00",
    ["application data"] = "1703030005aaaaaaaaaa",
    ["a hello that is none"] = "160303000402000000",
    ["a message without end"] = "16030300040200ffff",
  } do
    it("is an error with a code: " .. name, function()
      local message, code = failure("garbage", nil, { bytes = bytes, times = "3", ["end"] = "1" })
      assert.equal("string", type(code), message)
      assert.matches("localhost", message)
    end)
  end

  for _, version in ipairs { "1.2", "1.3" } do
    for _, how in ipairs { "changed", "cut" } do
      it(("is an error with a code wherever it is %s, in version %s"):format(how, version), function()
        local peer = tls_peer.python("damaged", localhost,
          { version = version, step = "37", cut = how == "cut" and "1" or nil })
        local failed = 0
        for index = 1, 40 do
          -- Under these options there are no sessions to resume.
          local more = { alpn = version .. how .. index }
          local handle, message, code = moonbridge_io.tlsconnect_nb("localhost", peer.port, options(more))
          if handle then
            handle:write("line\n")
            local sent, data
            sent, message, code = handle:flush()
            if sent then data, message, code = handle:read(nil, "\n") end
            handle:reset()
            assert.is_true(data == nil or data == "xline\n" and message == "term")
          end
          if message ~= "term" then
            failed = failed + 1
            assert.matches("^[%l_]+$", tostring(code), message)
          end
        end
        assert.is_true(failed >= 10, failed)
      end)
    end
  end

  it("does not fill the memory", function()
    -- A certificate message of 64 KiB that never ends, in records of one byte.
    local peer = tls_peer.python("garbage", nil, { bytes = "16030300010b", times = "600000" })
    local handle, message, code = moonbridge_io.tlsconnect("localhost", peer.port, options())
    assert.is_nil(handle)
    assert.equal("string", type(code), message)
  end)
end)
