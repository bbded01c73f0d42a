-- How the compiled module is found and loaded: by lua/moonbridge/native.lua, or by the interpreter alone.
-- Needs all versions: modules for other versions of Lua than the one it runs under.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local version = server.lua_version
local other = version == "5.3" and "5.4" or "5.3"

local function module_of(lua) return ("%s/build/lua%s/moonbridge.so"):format(server.root, lua) end

local function copy(from, to)
  local file = assert(io.open(to, "wb"))
  file:write((assert(process.slurp(from))))
  file:close()
end

-- Runs a script that finds the module in a folder; exit code, output, log.
local function run(script, folder, lua_path)
  return server.run_script { script = script, env = {
    LUA_PATH = lua_path or server.root .. "/lua/?.lua", LUA_CPATH = folder .. "/?.so",
  } }
end

describe("the module", function()
  local folder
  before_each(function()
    folder = process.scratch("modules")
    lfs.mkdir(folder)
  end)
  after_each(server.cleanup)

  it("for another version of Lua is refused in one sentence that says which versions there are", function()
    copy(module_of(other), folder .. "/moonbridge.so")
    local sentence = ("moonbridge: %s/moonbridge.so was built for Lua %s, but this is Lua %s: "
      .. "Moonbridge has modules for Lua 5.1 to 5.5 and LuaJIT, and `tools/build release %s` builds this one")
      :format(folder, other, version, version)
    for _, name in ipairs { "moonbridge", "moonbridge.io", "moonbridge_http", "moonbridge.callback" } do
      local code, output = run(("print(select(2, pcall(require, '%s')))"):format(name), folder)
      assert.equal(0, code)
      assert.equal(sentence .. "\n", output)
    end
    local code, _, log = server.run_script { file = server.root .. "/bin/moonbridge", env = {
      LUA_PATH = server.root .. "/lua/?.lua", LUA_CPATH = folder .. "/?.so",
    } }
    assert.equal(3, code)
    assert.equal(sentence:gsub("^moonbridge: ", "moonbridge: the module could not be loaded: ") .. "\n", log)
  end)

  it("that is no library is refused in one sentence", function()
    copy(server.root .. "/README.md", folder .. "/moonbridge.so")
    local _, output = run("print(select(2, pcall(require, 'moonbridge')))", folder)
    assert.truthy(output:find("^moonbridge: %S+/moonbridge.so cannot be loaded: [^\n]+\n$"), output)
  end)

  it("that is missing is named, with all that was tried", function()
    local _, output = run("print(select(2, pcall(require, 'moonbridge.http')))", folder)
    assert.equal(("moonbridge: no compiled module for Lua %s was found: Moonbridge has modules for "
      .. "Lua 5.1 to 5.5 and LuaJIT, and `tools/build release %s` builds this one "
      .. "(looked for %s/moonbridge_%s_gnu.so, %s/moonbridge.so)\n")
      :format(version, version, folder, (version:gsub("%.", "")), folder), output)
  end)

  it("for this version and C library is chosen among those of a binary rock, and opens all names", function()
    local own = ("%s/moonbridge_%s_gnu.so"):format(folder, version:gsub("%.", ""))
    copy(module_of(version), own)
    copy(module_of(other), ("%s/moonbridge_%s_gnu.so"):format(folder, other:gsub("%.", "")))
    copy(server.root .. "/README.md", ("%s/moonbridge_%s_musl.so"):format(folder, version:gsub("%.", "")))
    copy(module_of(other), folder .. "/moonbridge.so")
    local code, output, log = run([[
      assert(require "moonbridge".io == require "moonbridge_io")
      assert(require "moonbridge.http" == require "moonbridge_http" and require "moonbridge.callback")
      local files = {}
      for line in io.lines "/proc/self/maps" do
        local name = line:match "%S*moonbridge%S*%.so"
        if name then files[name] = true end
      end
      for name in pairs(files) do print(name) end
    ]], folder)
    assert.same({ 0, own .. "\n", "" }, { code, output, log })
  end)

  it("is loaded by the interpreter alone where there are no other files", function()
    copy(module_of(version), folder .. "/moonbridge.so")
    local code, _, log = run([[
      assert(require "moonbridge".io == require "moonbridge.io")
      assert(require "moonbridge.http".generate_handler and require "moonbridge.callback".send_to)
    ]], folder, "/nonexistent/?.lua")
    assert.same({ 0, "" }, { code, log })
    lfs.mkdir(folder .. "/flat")
    for _, name in ipairs { "io", "http" } do
      copy(module_of(version), ("%s/flat/moonbridge_%s.so"):format(folder, name))
      local flat, _, complaint = run(("assert(require 'moonbridge_%s')"):format(name), folder .. "/flat",
        "/nonexistent/?.lua")
      assert.same({ 0, "" }, { flat, complaint })
    end
  end)
end)
