# Sourced by the scripts in this folder: messages, and the project's folder as working directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'moonbridge: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

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

# rustup installs cargo here, but only configures later shells.
if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
