rockspec_format = "3.0"
package = "moonbridge"
version = "1.0.0-1"

-- The archive that `make rock` packs beside this file; `luarocks make` uses the folder it runs in.
source = {
  url = "file://moonbridge-1.0.0-1.tar.gz",
  dir = "moonbridge-1.0.0-1",
}

description = {
  summary = "A pre-forking network server for Lua applications",
  detailed = [[
    Turns a stock Lua interpreter into a pre-forking network server: an HTTP/1.1 module, an I/O library
    and a supervisor of worker processes, written in Rust. Building needs cargo and a C linker.
  ]],
  license = "MIT",
}

supported_platforms = { "linux" }

dependencies = { "lua >= 5.1, < 5.6" }

build = {
  type = "command",
  build_command = "tools/rock-build '$(LUA)'",
  install_command = "cp -R lua/. '$(LUADIR)' && cp build/rock/moonbridge.so '$(LIBDIR)'",
  install = { bin = { moonbridge = "bin/moonbridge" } },
  -- The manual, and the annotations for editors: `luarocks show --rock-dir moonbridge` tells where they are.
  copy_directories = { "docs", "library" },
}
