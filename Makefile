# Moonbridge: build, serve, test. `make help` lists the targets.

SHELL   := /bin/bash
PROFILE ?= release
VERSIONS ?= 5.3 5.4 5.5

.DEFAULT_GOAL := help
.PHONY: help tools build run example test test-browser conformance annotations lint fmt bench bench-app bench-lapis bench-% rock rock-binary image map fuzz dev clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo 'PROFILE=dev builds faster and unoptimised; SPEC=path runs only the specs there.'

tools: ## install what building and testing need and this machine lacks
	@tools/install build test

build: ## build/luaVERSION/moonbridge.so for Lua 5.3, 5.4 and 5.5, or e.g. VERSIONS='5.1 jit'
	@PROGRESS=1 tools/build $(PROFILE) $(VERSIONS)

run: ## serve examples/helloworld.lua on 127.0.0.1:8080; PORT=8081, LUA=lua5.3
	@tools/install run
	@tools/run

example: ## run an example from this clone, e.g. NAME=echo; ARGS='its arguments'
	@tools/install run
	@tools/run $(or $(NAME),helloworld) $(ARGS)

test: ## cargo tests, then the specs under Lua 5.3, 5.4 and in part 5.5, a smoke set under others; LUA=5.5 runs all under it
	@tools/install build test
	@exec setpriv --pdeathsig TERM tools/test

test-browser: ## the examples' pages in a headless Chromium
	@tools/install build test browser
	@tools/test-browser

conformance: ## vectors of public suites against our server; CONFORMANCE_SUITES=folder of checkouts
	@tools/install build test
	@tools/conformance

annotations: ## the annotations in library/ with emmylua_check, which is built if it is missing
	@tools/install build
	@tools/annotations

lint: ## rustfmt, clippy and luacheck, without changing anything
	@tools/install build lint
	@tools/lint

fmt: ## format the Rust sources
	cargo fmt

# A benchmark ends with make, and all that it has started with it.
bench: ## requests per second of real requests and hello world, beside other servers
	@tools/install build bench
	@tools/build release 5.4
	@exec setpriv --pdeathsig TERM benches/run

bench-app: ## an application over PostgreSQL beside gunicorn + Flask and lua-http
	@tools/install build bench bench-app
	@tools/build release 5.4
	@exec setpriv --pdeathsig TERM benches/app/run

bench-lapis: ## a Lapis application beside lua-http, on which Lapis can run; LAPIS_PATH says where Lapis is
	@tools/install build bench bench-lapis
	@tools/build release 5.4
	@exec setpriv --pdeathsig TERM benches/lapis/run

bench-%: ## one benchmark, e.g. bench-io, bench-accept
	@tools/install build bench
	@tools/build release 5.4
	@exec setpriv --pdeathsig TERM benches/$*/run

rock: ## pack a source rock
	@tools/install build rock
	@tools/rock

rock-binary: ## pack a rock with compiled modules for all versions of Lua, glibc and musl; takes half an hour
	@tools/install rock-binary
	@tools/rock-binary $(ARCHITECTURE)

image: ## container images with Moonbridge, on Debian and Alpine, from the binary rock
	@tools/image

map: ## what each source file is, by its first line
	@tools/map

fuzz: ## each fuzz target for 60 seconds
	@tools/install build fuzz
	@fuzz/run

dev: ## test again whenever a source changes
	@tools/dev

clean: ## remove what was built
	rm -rf build target *.rock
