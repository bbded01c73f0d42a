-- What luacheck holds the project's Lua to.
std = "lua53+lua54"
max_line_length = 110
exclude_files = { "build", "target", "fuzz" }

-- Specs use the globals of busted.
files["spec"] = { std = "+busted" }
files["spec/**/*.lua"] = { std = "+busted" }

-- Programs for the launcher find these globals; `require "moonbridge"` defines the first two.
local application = { "listen", "timeout", "moonbridge_io", "_MOONBRIDGE_VERSION" }
files["examples"] = { read_globals = application }
files["benches"] = { read_globals = application }
files["bin/moonbridge"] = { globals = application }

-- A rockspec is a list of assignments to globals.
files["*.rockspec"] = { std = "+rockspec" }

-- Annotations: functions without bodies.
files["library"] = { ignore = { "212", "241" } }
files["library/launcher.lua"] = { globals = { "_MOONBRIDGE_VERSION", "moonbridge_io", "listen", "timeout" } }
