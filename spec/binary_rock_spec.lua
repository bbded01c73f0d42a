-- What checks and installs the binary rock. To build it takes long: `make rock-binary` tries it as well.
-- Runs once

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local quote, root = process.quote, server.root

local function run(command)
  return process.run("cd " .. quote(root) .. " && " .. command)
end

local function folder(name)
  local path = process.scratch(name)
  lfs.mkdir(path)
  return path
end

-- A rock with a module for Lua 5.4 and glibc, built on this machine.
local function pack()
  local path = folder("rock")
  local code, output = run(("mkdir %s/lib && cp -R lua bin %s && cp build/lua5.4/moonbridge.so "
    .. "%s/lib/moonbridge_54_gnu.so && cd %s && zip -qr test.rock lua bin lib")
    :format(quote(path), quote(path), quote(path), quote(path)))
  assert.equal(0, code, output)
  return path .. "/test.rock"
end

describe("rock-check", function()
  it("refuses a module that needs a newer glibc, another library, or has not all entry points", function()
    local module = folder("modules") .. "/moonbridge_54_gnu.so"
    local compile = "echo 'int nothing;' | cc -shared -x c - -o " .. quote(module)
    for command, complaint in pairs {
      ["cp build/lua5.4/moonbridge.so " .. quote(module)] =
        "needs GLIBC_[%d.]+, which is newer than GLIBC_2.17",
      [compile] = "does not export luaopen_moonbridge",
      [compile .. " -Wl,--no-as-needed -lresolv"] = "needs libresolv.so.2",
    } do
      local code, output = run(command .. " && tools/rock-check " .. quote(module))
      assert.equal(1, code, output)
      assert.truthy(output:find("^moonbridge: %S+/moonbridge_54_gnu.so " .. complaint .. "\n$"), output)
    end
  end)
end)

describe("the rock in an image", function()
  local rock
  setup(function() rock = pack() end)

  it("is unpacked by the Dockerfile's command to where Lua looks, with one module", function()
    local dockerfile = process.slurp(root .. "/Dockerfile")
    local command = assert(dockerfile:match("RUN sh /tmp/moonbridge/(unpack%-rock [^&]- gnu)"))
    local prefix = folder("prefix")
    command = command:gsub('/tmp/moonbridge/[^"]*"[^"]*".rock', quote(rock)):gsub("/usr/local", quote(prefix))
    local code, output = run("sh tools/" .. command)
    assert.same({ 0, "" }, { code, output })
    code, output = run(("LUA_PATH=%s/share/lua/5.4/?.lua LUA_CPATH=%s/lib/lua/5.4/?.so %s/bin/moonbridge -v")
      :format(quote(prefix), quote(prefix), quote(prefix)))
    assert.same({ 0, "moonbridge 1.0.0 (Lua 5.4)\n" }, { code, output })
    local modules = {}
    for name in lfs.dir(prefix .. "/lib/lua/5.4") do modules[#modules + 1] = name:match("%.so$") and name end
    assert.same({ "moonbridge_54_gnu.so" }, modules)
  end)

  it("is refused in one sentence if it has no module for the image", function()
    local unpack = "sh tools/unpack-rock %s %s 5.4 musl"
    local code, output = run(unpack:format(quote(rock), quote(folder "prefix")))
    assert.same({ 1, "moonbridge: " .. rock .. " has no module for Lua 5.4 and musl "
      .. "(moonbridge_54_musl.so)\n" }, { code, output })
    code, output = run(unpack:format("/nonexistent.rock", quote(folder "prefix")))
    assert.same({ 1, "moonbridge: there is no rock /nonexistent.rock: make rock-binary packs one\n" },
      { code, output })
  end)

  it("has a Dockerfile whose files are there, or made by make rock-binary", function()
    for line in process.slurp(root .. "/Dockerfile"):gmatch("\nCOPY ([^\n]+)") do
      for name in line:gmatch("(%S+) ") do
        assert.truthy(lfs.attributes(root .. "/" .. name) or name:find("^moonbridge%S+%.rock$"), name)
      end
    end
  end)

  it("needs docker or podman, as one sentence says", function()
    local bin = folder("bin")
    run(("ln -s $(command -v dirname) $(command -v uname) %s/"):format(quote(bin)))
    local code, output = run(("HOME=/nonexistent PATH=%s /bin/bash tools/image"):format(quote(bin)))
    assert.same({ 1, "moonbridge: neither docker nor podman was found: install one of them, "
      .. "or set BUILDER\n" }, { code, output })
  end)
end)
