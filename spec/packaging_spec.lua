-- What people meet first: the README's lines, the example, the make targets, the rock, and what is said
-- when something is missing.
-- Not under Lua 5.5: there is no LuaRocks for it.
-- Takes long: the module is compiled for the rock.
-- Needs all versions: modules for other versions of Lua than the one it runs under.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local shared = require "spec.support.shared"
local socket = require "socket"

local quote = process.quote

-- Runs a command in the project's folder; exit code and output.
local function run(command)
  return process.run("cd " .. quote(server.root) .. " && " .. command)
end

-- The text of a program that serves port 8080, serving `PORT` instead.
local function on_free_port(text)
  local replaced
  text, replaced = text:gsub("8080", "PORT")
  assert(replaced > 0)
  return text
end

local function assert_hello(s)
  assert.equal("Hello, World!\n", s:request("/").body)
  assert.equal("Hello, Moon!\n", s:request("/?name=Moon").body)
end

describe("the first program", function()
  after_each(server.cleanup)

  it("is in the README, and runs as it stands there", function()
    local block = process.slurp(server.root .. "/README.md"):match("```lua\n(.-)```")
    if not (process.slurp("/proc/net/if_inet6") or ""):find(("0"):rep(31) .. "1", 1, true) then
      block = block:gsub('[^\n]*host = "::1"[^\n]*\n', "")
    end
    assert_hello(server.start(on_free_port(block)))
  end)

  it("is examples/helloworld.lua", function()
    assert_hello(server.start(on_free_port(process.slurp(server.root .. "/examples/helloworld.lua"))))
  end)
end)

describe("make", function()
  setup(function() shared.take "port 8080" end)
  teardown(function() shared.give_back "port 8080" end)
  after_each(server.cleanup)

  it("lists its targets when called without one", function()
    local code, output = run "make"
    assert.equal(0, code)
    for target in ("build run test bench rock lint fmt fuzz dev clean"):gmatch("%a+") do
      assert.truthy(("\n" .. output):find("\n" .. target .. " ", 1, true), target)
    end
  end)

  -- A cargo that does nothing but tell its version: a folder for PATH.
  local function cargo(version)
    local bin = process.scratch("bin")
    lfs.mkdir(bin)
    run(("printf '#!/bin/sh\\n[ $1 = --version ] && echo cargo %s\\n' >%s/cargo"):format(version, quote(bin)))
    run(("chmod +x %s/cargo"):format(quote(bin)))
    return quote(bin)
  end

  it("run and example take the next free port if theirs is in use, and say so", function()
    for name, port in pairs { helloworld = 8080, events = 8080, echo = 7007 } do
      local occupant = socket.bind("127.0.0.1", port) -- fails where somebody else has it, which is as good
      local code, output = run("PATH=" .. cargo "1.88.0" .. ":$PATH tools/run " .. name)
      if occupant then occupant:close() end
      assert.equal(1, code, output)
      assert.truthy(output:find(("port %d is in use: trying %d\n"):format(port, port + 1), 1, true), output)
      assert.truthy(output:find("\nmoonbridge: cargo could not build the module, [^\n]+\n$"), output)
    end
  end)

  it("run says in one sentence that a port that was asked for is in use", function()
    local occupant = assert(socket.bind("127.0.0.1", 0))
    local _, port = occupant:getsockname()
    local code, output = run("PORT=" .. port .. " tools/run")
    occupant:close()
    assert.same({ 1, "moonbridge: port " .. port .. " is in use: choose another one with PORT\n" },
      { code, output })
    code, output = run "PORT=http tools/run"
    assert.same({ 1, "moonbridge: PORT is 'http', expected a number from 1 to 65535\n" }, { code, output })
  end)

  it("example names the examples that there are when there is no such one", function()
    local code, output = run "tools/run nothing"
    assert.equal(1, code)
    assert.truthy(output:find("^moonbridge: there is no example 'nothing': choose one of [^\n]*echo"), output)
  end)

  it("build says in one sentence that cargo is too old, before anything else", function()
    local bin = cargo "1.63.0"
    for _, command in ipairs { "tools/build release 5.4", "tools/install build" } do
      local code, output = run(("PATH=%s:$PATH %s"):format(bin, command))
      assert.equal(1, code)
      assert.truthy(output:find("^moonbridge: cargo 1.63.0 is too old: install Rust 1.88 [^\n]+\n$"), output)
    end
  end)

  it("build says in one sentence that the system is not Linux", function()
    local code, output = run "bash -c 'OSTYPE=darwin23; . tools/common.sh; need_toolchain'"
    assert.equal(1, code)
    assert.truthy(output:find("^moonbridge: Moonbridge runs on Linux only, and this is darwin23: [^\n]+\n$"))
  end)

  it("run says in one sentence that the interpreter is missing or of a wrong version", function()
    local code, output = run "LUA=lua9 tools/run"
    assert.same({ 1, "moonbridge: the interpreter 'lua9' was not found: "
      .. "set LUA to lua5.1, lua5.2, lua5.3, lua5.4, lua5.5 or luajit\n" },
      { code, output })
    local old = process.scratch("lua5.0")
    run(("printf '#!/bin/sh\\necho 5.0\\n' >%s && chmod +x %s"):format(quote(old), quote(old)))
    code, output = run("LUA=" .. quote(old) .. " tools/run")
    assert.same({ 1, "moonbridge: " .. old .. " is Lua 5.0, but Moonbridge needs Lua 5.1 to 5.5 "
      .. "or LuaJIT\n" }, { code, output })
  end)

  it("build says in one sentence that the first build of a clone fails, or that there is no cc", function()
    local build = "CARGO_TARGET_DIR=%s PATH=%s tools/build dev 5.4"
    local code, output = run(build:format(quote(process.scratch("target")), cargo "1.88.0" .. ":$PATH"))
    assert.equal(1, code)
    assert.truthy(output:find("^moonbridge: cargo could not build the module, [^\n]+\n$"), output)
    local bin = cargo "1.88.0"
    run(("ln -s $(command -v bash) $(command -v sh) $(command -v dirname) %s/"):format(bin))
    code, output = run(build:format(quote(process.scratch("target")), bin))
    assert.equal(1, code)
    assert.truthy(output:find("^moonbridge: cc was not found, [^\n]+\n$"), output)
  end)

  it("install says in one sentence that apt-get cannot install what is missing", function()
    local bin = cargo "1.88.0"
    local code, output = run(([[
      ln -s $(command -v bash) $(command -v dirname) $(command -v env) $(command -v grep) %s/
      printf '#!/bin/sh\necho 0' >%s/id
      printf '#!/bin/sh\necho W: old lists >&2\necho E: no network >&2\nexit 100\n' >%s/apt-get
      chmod +x %s/id %s/apt-get
      PATH=%s tools/install build
    ]]):gsub("%%s", bin))
    assert.same({ 1, "== installing gcc libc6-dev\nmoonbridge: apt-get could not install gcc libc6-dev: "
      .. "check the network, or install them yourself (it said: no network)\n" }, { code, output })
  end)

  it("build says in one sentence that cargo is missing, and what to install", function()
    local bin = process.scratch("bin")
    lfs.mkdir(bin)
    run(("ln -s $(command -v dirname) %s/dirname"):format(quote(bin)))
    local code, output = run(("HOME=/nonexistent PATH=%s /bin/bash tools/build release 5.4")
      :format(quote(bin)))
    assert.equal(1, code)
    assert.truthy(output:find("^moonbridge: cargo was not found: install a Rust toolchain [^\n]+\n$"), output)
  end)

  it("build refuses other versions of Lua", function()
    local code, output = run "tools/build release 5.0"
    assert.same({ 1, "moonbridge: Lua 5.0 is not supported: Moonbridge is built for Lua 5.1 to 5.5 "
      .. "and LuaJIT (jit)\n" }, { code, output })
  end)
end)

describe("the documentation", function()
  it("names no file that is not there", function()
    for _, page in ipairs { "README.md", "CONTRIBUTING.md", "SECURITY.md", "benches/README.md" } do
      local text = process.slurp(server.root .. "/" .. page)
      local folder = server.root .. "/" .. (page:match("^.*/") or "")
      for name in text:gmatch("`(%l+/[%w_/.]+)`") do
        local made = name:find("^build/") -- by those who follow the page
        assert.truthy(made or lfs.attributes(server.root .. "/" .. name), page .. " names " .. name)
      end
      for link in text:gmatch("%]%(([^)#]+)") do
        local there = link:find("^%a+:") or lfs.attributes(folder .. link)
        assert.truthy(there, page .. " links to " .. link)
      end
    end
  end)
end)

describe("the module built for one version of Lua", function()
  after_each(server.cleanup)

  it("is refused in one sentence where the dynamic loader would take it: 5.4 in 5.5", function()
    assert.equal(0, (run "tools/lua55/build"))
    local code, output = run("LUA_PATH=/nonexistent/?.lua LUA_CPATH=build/lua5.4/?.so "
      .. "build/lua5.5/lua -e 'require [[moonbridge.io]]'")
    assert.equal(1, code)
    assert.truthy(output:find("this module was built for Lua 5.4, and the interpreter is another "
      .. "version: Moonbridge has modules for Lua 5.1 to 5.5 and LuaJIT", 1, true), output)
  end)
end)

describe("the rock", function()
  local version = server.lua_version
  -- The optimiser has no say in packaging, and would take minutes. What was compiled before is used again.
  local target = os.getenv("CARGO_TARGET_DIR") or "target"
  if target:sub(1, 1) ~= "/" then target = server.root .. "/" .. target end
  local luarocks = "PROFILE=dev CARGO_TARGET_DIR=" .. quote(target) .. " luarocks --lua-version " .. version

  -- Everything from the tree, nothing from the project's folder.
  local function from_tree(tree)
    return {
      LUA_PATH = ("%s/share/lua/%s/?.lua;;"):format(tree, version),
      LUA_CPATH = ("%s/lib/lua/%s/?.so;;"):format(tree, version),
    }
  end

  local HELLO = [[
    local http = require "moonbridge_http"
    assert(http == require "moonbridge.http" and require "moonbridge_io" == require "moonbridge.io")
    local listen = listen or require "moonbridge".listen
    listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = http.generate_handler(function(request)
        request:send_status("200 OK")
        request:send_data("Hello, ", request.get_params.name or "World", "!\n")
        return true
      end)
    }
  ]]

  local function assert_installed(tree)
    assert_hello(server.start {
      script = HELLO .. "require 'moonbridge'.run()", env = from_tree(tree), cwd = "/",
    })
    assert_hello(server.start {
      script = HELLO, command = { tree .. "/bin/moonbridge" }, cwd = "/",
      env = { LUA_PATH = false, LUA_CPATH = false },
    })
  end

  after_each(server.cleanup)

  -- Packs the rock; it and the sources in it lie in a folder of this spec: the path.
  local function pack()
    local folder = process.scratch(""):sub(1, -2)
    shared.take "rock"
    local code, output = run("tools/rock && cp moonbridge-1.0.0-1.src.rock " .. quote(folder))
    shared.give_back "rock"
    assert.equal(0, code, output)
    return folder
  end

  -- Runs luarocks in a folder, installing into an empty tree there, and serves from that tree.
  local function assert_installs(folder, command)
    local tree = folder .. "/tree"
    local code, output = process.run(("cd %s && %s --tree %s %s"):format(
      quote(folder), luarocks, quote(tree), command))
    assert.equal(0, code, output)
    assert_installed(tree)
  end

  -- Each builds all of the module: one way for each version of Lua.
  if version == "5.3" then
    it("is built and installed into a tree by luarocks make", function()
      local folder = pack()
      local unpack = "cd %s && unzip -q *.rock && tar xzf *.tar.gz"
      local code, output = process.run(unpack:format(quote(folder)))
      assert.equal(0, code, output)
      assert_installs(folder .. "/moonbridge-1.0.0-1", "make")
    end)
  else
    it("is packed by make rock and installed from there into an empty tree", function()
      assert_installs(pack(), "install moonbridge-1.0.0-1.src.rock")
    end)
  end
end)
