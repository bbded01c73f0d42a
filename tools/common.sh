# Sourced by the scripts in this folder: messages, and the project's folder as working directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'moonbridge: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The version of an interpreter, as tools/build knows it: 5.1 to 5.5, or jit for LuaJIT. Ends the script if there is
# no such module.
version_of() {
  local version
  have "$1" || fail "the interpreter '$1' was not found: set LUA to lua5.1, lua5.2, lua5.3, lua5.4, lua5.5 or luajit"
  version=$("$1" -e 'print(jit and "jit" or (_VERSION:gsub("Lua ", "")))') || fail "the interpreter '$1' does not run"
  case $version in
    5.[1-5] | jit) echo "$version" ;;
    *) fail "$1 is Lua $version, but Moonbridge needs Lua 5.1 to 5.5 or LuaJIT" ;;
  esac
}

# Ends the script unless this machine can build the module.
need_toolchain() {
  local wanted=1.88 minor
  case $OSTYPE in
    linux*) ;;
    *) fail "Moonbridge runs on Linux only, and this is $OSTYPE: use a Linux machine, a virtual one or a container" ;;
  esac
  have cargo || fail "cargo was not found: install a Rust toolchain ($wanted or newer), e.g. from https://rustup.rs"
  minor=$(cargo --version) || fail "cargo does not run: install a Rust toolchain ($wanted or newer) from https://rustup.rs"
  if [[ $minor =~ ^cargo\ 1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -lt "${wanted#1.}" ]; then
    fail "${minor%% (*} is too old: install Rust $wanted or newer from https://rustup.rs (Debian's own may be older)"
  fi
}

# Copies what cargo has built of the dependencies from one of its folders (target/luaVERSION/PROFILE) into another one
# that lacks it, but for what depends on the version of Lua: without, each version would compile all of them.
share_dependencies() {
  local from=$1 to=$2 part
  if [ "$from" = "$to" ] || [ ! -d "$from" ]; then return; fi
  for part in .fingerprint build deps; do
    mkdir -p "$to/$part"
    find "$from/$part" -mindepth 1 -maxdepth 1 -not -name '*moonbridge*' -not -name '*mlua*' \
      -exec cp --archive --no-clobber --target-directory="$to/$part" {} +
  done
}

# rustup installs cargo here, but only configures later shells.
if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
