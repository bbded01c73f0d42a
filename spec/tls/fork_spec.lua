-- Processes that inherit a connection with TLS by a fork: if they sent records, their parent would use the
-- same record numbers again, so that an eavesdropper could read both.
-- Any version: nothing of it depends on Lua's.

local certificates = require "spec.support.certificates"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_peer = require "spec.support.tls_peer"

local authority, localhost
before_each(function()
  localhost, authority = certificates.signed()
end)

after_each(function()
  tls_peer.cleanup()
  server.cleanup()
end)

-- What scripts begin with: `attempt` tells on standard output what has come of a call.
local BEGINNING = [[
  local moonbridge_io = require "moonbridge_io"
  local posix = package.loadlib(POSIX, "luaopen_posix")()
  local function attempt(name, result, message, code)
    io.stdout:write(name, " ", result and "succeeds" or tostring(code), "\n")
    io.stdout:flush()
    assert(result or code ~= "forked" or message:find("forked", 1, true))
  end
]]

local function script(text, ...)
  return { script = BEGINNING .. text:format(...), globals = { POSIX = posix.path() } }
end

local REFUSED = "write forked\nread forked\nclose succeeds\n"

describe("a child of the process that a connection with TLS belongs to", function()
  for _, version in ipairs { "1.2", "1.3" } do
    it("neither uses nor ends its parent's, as a client in version " .. version, function()
      local peer = tls_peer.python("echo", localhost, { version = version })
      local code, output, log = server.run_script(script([[
        local function connect() return assert(moonbridge_io.tlsconnect("localhost", %d, { ca = %q })) end
        local handle, unread = connect(), connect()
        unread:write("unread\n"):flush()
        handle:write("one\n"):flush()
        assert(handle:read(nil, "\n") == "one\n")
        handle:write("queued ")
        local child = posix.fork()
        if child == 0 then
          attempt("write", handle:flush("from the child\n"))
          attempt("read", unread:read(nil, "\n"))
          attempt("close", handle:close())
          attempt("finish", unread:finish())
          unread:reset()
          local own = connect()
          own:write("own\n"):flush()
          assert(own:read(nil, "\n") == "own\n")
          own:close()
          os.exit(0)
        end
        assert(posix.wait(child) == 0)
        handle:write("two\n"):flush()
        assert(handle:read(nil, "\n") == "queued two\n")
        assert(unread:read(nil, "\n") == "unread\n")
        for _, each in ipairs { handle, unread } do
          assert(each:finish())
          assert(select(2, assert(each:read())) == "eof")
        end
      ]], peer.port, authority.certificate))
      assert.equal(0, code, log)
      assert.equal(REFUSED .. "finish forked\n", output)
      assert.is_nil(peer:log():find("failed"))
    end)

    it("neither uses nor ends its parent's, as a server in version " .. version, function()
      local s = server.start(script([[
        require "moonbridge".listen {
          { proto = "tls", host = "127.0.0.1", port = PORT, certificate = %q, key = %q },
          min_fork = 1, max_fork = 1,
          connect = function(socket)
            socket:write("begun ")
            local child = posix.fork()
            if child == 0 then
              attempt("write", socket:flush("from the child "))
              attempt("read", socket:read(1))
              attempt("close", socket:close())
              return true
            end
            assert(posix.wait(child) == 0)
            socket:write(socket:read(1), " served")
            return true
          end,
        }
        require "moonbridge".run()
      ]], localhost.certificate, localhost.key))
      local code, output = process.run(("printf x | timeout 30 openssl s_client -quiet -verify_return_error "
        .. "-tls%s -CAfile %s -connect localhost:%d 2>&1"):format(version:sub(1, 1) .. "_" .. version:sub(3),
        authority.certificate, s.port))
      assert.equal(0, code, output)
      assert.matches("begun x served", output, 1, true)
      assert.equal(0, s:stop())
      assert.equal(REFUSED, s:output())
    end)
  end

  it("does not use it when it is a worker", function()
    local peer = tls_peer.python("echo", localhost)
    local s = server.start(script([[
      local handle = assert(moonbridge_io.tlsconnect("localhost", %d, { ca = %q }))
      require "moonbridge".listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          attempt("write", handle:flush("from a worker\n"))
          socket:write("served")
          return true
        end,
      }
      require "moonbridge".run()
    ]], peer.port, authority.certificate))
    assert.equal("served", (s:raw("")))
    assert.equal(0, s:stop())
    assert.equal("write forked\n", s:output())
  end)
end)
