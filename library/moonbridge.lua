---@meta moonbridge

-- Annotations (LuaCATS) for editors: what the functions of moonbridge take and return.
-- The manual is docs/reference/server.md.

---A listener: `proto` says which fields count.
---@class (exact) moonbridge.listener
---@field proto "tcp"|"local"|"interval"|"main"|"inherit"
---@field host string? tcp: name or address of the interface ("::", all)
---@field port integer|string|nil tcp: number or service name (required)
---@field deferred boolean? tcp, inherit: accept connections whose client has spoken (true for HTTP handlers)
---@field path string? local: path of the socket (required, at most 107 bytes)
---@field name string? interval, main: what the handler gets; inherit: the socket's name
---@field delay number|string|nil interval: seconds between runs (required)
---@field strict boolean? interval: the run time of the handler does not delay the next run

---A pool: listeners (1 to 100) as positional entries, options by name. Times are in seconds.
---@class (exact) moonbridge.pool
---@field [integer] moonbridge.listener
---@field pre_fork integer|string|nil idle workers wanted (1)
---@field min_fork integer|string|nil workers kept at least (max(pre_fork, 2))
---@field max_fork integer|string|nil workers at most (max(min_fork, 16))
---@field fork_delay number|string|false|nil between forks that make the pool grow (0.25)
---@field fork_error_delay number|string|false|nil before a fork after a failed prepare or fork (2)
---@field exit_delay number|string|false|nil between ends of superfluous workers (60)
---@field idle_timeout number|string|false|nil an idle worker ends after this (none)
---@field memory_limit integer|string|false|nil bytes the Lua state of a worker may hold (none)
---@field prepare (fun())? called once in each new worker
---@field connect fun(socket: moonbridge_io.handle): any gets a connection or a job; true: the worker goes on
---@field finish (fun())? called when a worker ends in order

---Options of `run`; flags are off by default.
---@class (exact) moonbridge.options
---@field background boolean? detach from the terminal
---@field logfile string? append the log to this file instead of standard error
---@field pidfile string? hold the process id in this file, locked
---@field syslog boolean? send the log to the system log, too
---@field logident string? name in the system log ("moonbridge"); switches it on
---@field logfacility string|integer|nil "DAEMON", "USER" or 0 to 7; switches it on
---@field waiting_input_limit integer|false|nil bytes of input that waiting connections hold (64 MiB)
---@field stats boolean? log ends of workers, what they used, and worker counts
---@field debug boolean? log every control message, and the statistics
---@field shutdown_timeout number|string|false|nil seconds until a shutdown kills what is left (60)

---What a pool is doing. Counts are since the start.
---@class (exact) moonbridge.status
---@field idle integer workers waiting for work
---@field busy integer workers that are working
---@field total integer all workers, also those that start or end
---@field parked integer connections kept between two runs of the handler
---@field sending integer connections whose handler has returned and whose client has not taken all output yet
---@field accepted integer connections
---@field handled integer runs of the handler that returned
---@field errors integer runs of the handler that threw, and connections that could not be accepted
---@field respawns integer workers forked in the place of ended ones
---@field shed integer parked connections closed for want of descriptors or memory
---@field reclaimed integer parked connections taken from slow or ended workers, or to spread or sort them
---@field lost integer connections parked before that broke off with their worker, or for want of a descriptor

---@class moonbridge
---@field _VERSION string
---@field io moonbridge_io
---@field http moonbridge_http
local moonbridge = {}

---Registers a pool of workers and opens its ports. Raises an error if that is not possible.
---Also a global function where that name is free.
---@param pool moonbridge.pool
function moonbridge.listen(pool) end

---Serves the registered pools; returns when the server was shut down, in the supervisor alone.
---Raises an error if it cannot start.
---@param options moonbridge.options?
---@return integer exit_code 0, or 4 if the supervisor could not go on
function moonbridge.run(options) end

---Without arguments: the seconds left of the timer that kills this process, 0.0 if there is none.
---With a number: sets the timer, or stops it if the number is 0, and returns what was left.
---With a function: calls it with the further arguments and returns its results; kills this process
---if it takes longer, or if the time of a timer set before is over. Also a global function.
---@overload fun(): number
---@overload fun(seconds: number|string|false): number
---@overload fun(seconds: number|string|false, f: function, ...: any): ...
---@param seconds number|string|false
---@param f function
---@param ... any
---@return any ...
function moonbridge.timeout(seconds, f, ...) end

---What the pools are doing, in the order of their numbers.
---@return moonbridge.status[]
function moonbridge.status() end

---What the program `moonbridge` does with the words of its command line.
---@param ... string
---@return integer exit_code
function moonbridge.launch(...) end

return moonbridge
