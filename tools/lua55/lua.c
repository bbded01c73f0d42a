/* A small stand-alone interpreter: lua [-e CHUNK] [SCRIPT [ARGUMENTS]]; the crate has Lua's library alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

struct arguments { int count; char **values; };

static int with_traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

/* Calls the chunk that lua_load has left, or throws what it has left instead. */
static void run(lua_State *L, int loaded, int arguments) {
  if (loaded != LUA_OK) lua_error(L);
  lua_insert(L, -1 - arguments);
  lua_call(L, arguments, 0);
}

static int protected_main(lua_State *L) {
  struct arguments *command = lua_touserdata(L, 1);
  int script = 1;
  luaL_openlibs(L);
  for (; script < command->count && strcmp(command->values[script], "-e") == 0; script += 2) {
    if (script + 1 == command->count) return luaL_error(L, "-e needs a chunk");
    const char *chunk = command->values[script + 1];
    run(L, luaL_loadbuffer(L, chunk, strlen(chunk), "=(command line)"), 0);
  }
  if (script >= command->count) return 0;
  if (command->values[script][0] == '-') return luaL_error(L, "unknown option '%s'", command->values[script]);
  lua_newtable(L);
  for (int i = 0; i < command->count; i++) {
    lua_pushstring(L, command->values[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
  luaL_checkstack(L, command->count, "too many arguments");
  for (int i = script + 1; i < command->count; i++) lua_pushstring(L, command->values[i]);
  run(L, luaL_loadfile(L, command->values[script]), command->count - script - 1);
  return 0;
}

int main(int count, char **values) {
  struct arguments command = { count, values };
  lua_State *L = luaL_newstate();
  int failed;
  if (L == NULL) return EXIT_FAILURE;
  lua_pushcfunction(L, with_traceback);
  lua_pushcfunction(L, protected_main);
  lua_pushlightuserdata(L, &command);
  failed = lua_pcall(L, 1, 0, 1) != LUA_OK;
  if (failed) fprintf(stderr, "%s: %s\n", values[0], lua_tostring(L, -1));
  lua_close(L);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
