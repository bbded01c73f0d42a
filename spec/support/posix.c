/* What specs need of POSIX that Lua does not have. Built by spec/support/posix.lua. */

#include <lauxlib.h>
#include <lua.h>
#include <sys/wait.h>
#include <unistd.h>

/* fork() -> 0 in the child, the child's pid in the parent */
static int posix_fork(lua_State *L) {
  lua_pushinteger(L, fork());
  return 1;
}

static int posix_getpid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* sleep(seconds) */
static int posix_sleep(lua_State *L) {
  usleep((useconds_t)(luaL_checknumber(L, 1) * 1e6));
  return 0;
}

/* wait(pid) -> exit code, or the negative number of the signal */
static int posix_wait(lua_State *L) {
  int status = 0;
  if (waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0) < 0) return luaL_error(L, "waitpid failed");
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  return 1;
}

int luaopen_posix(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "fork", posix_fork }, { "getpid", posix_getpid }, { "sleep", posix_sleep }, { "wait", posix_wait },
    { NULL, NULL },
  };
  luaL_newlib(L, functions);
  return 1;
}
