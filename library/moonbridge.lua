---@meta moonbridge

-- Annotations (LuaCATS) for editors: the parameters and results of moonbridge's functions.
-- The manual is docs/reference/server.md.

---A listener: `proto` determines which fields apply.
---@class (exact) moonbridge.listener
---@field proto "tcp"|"tls"|"local"|"interval"|"main"|"inherit"|"status"
---@field host string? tcp, status: name or address of the interface ("::", all)
---@field port integer|string|nil tcp, status: number or service name (required; status: or path)
---@field deferred boolean? tcp, inherit: defer connections until the client sends (true for HTTP handlers)
---@field proxy_protocol boolean? tcp, local, inherit: connections begin with a PROXY header
---@field trusted string[]? with proxy_protocol: networks, addresses or "unix"; only their headers count
---@field path string? local, status: the path, or "@" and an abstract name (required, at most 107 bytes)
---@field mode string|integer|nil local: permissions of the socket file, as octal digits ("0660") or a number
---@field owner string|integer|nil local: owner of the socket file
---@field group string|integer|nil local: group of the socket file
---@field backlog integer|string|nil tcp, local: how many connections may wait to be accepted (1024)
---@field name string? interval, main: the name that the handler gets; inherit: the socket's name
---@field delay number|string|nil interval: seconds between runs (required)
---@field strict boolean? interval: schedule the runs at fixed times
---@field certificate string|string[]|nil tls: PEM files, or their texts (required)
---@field key string|string[]|nil tls: the keys of the certificates (required)
---@field ocsp string|string[]|nil tls: OCSP responses about the certificates, in DER
---@field names table<string, moonbridge.certificate_files>? tls: certificates by name
---@field client_ca string? tls: authorities of the certificates that clients must have
---@field alpn string|string[]|nil tls: protocols to choose from
---@field min_version "1.2"|"1.3"|nil tls
---@field stuck_limit number|string|false|nil status: a pool is stuck after so many seconds (30)

---@class (exact) moonbridge.certificate_files
---@field certificate string|string[]
---@field key string|string[]
---@field ocsp string|string[]|nil

---A pool: listeners (1 to 100) as positional entries, options by name. Times are in seconds.
---@class (exact) moonbridge.pool
---@field [integer] moonbridge.listener
---@field pre_fork integer|string|nil number of idle workers to keep (1)
---@field min_fork integer|string|nil minimum number of workers (max(pre_fork, 2))
---@field max_fork integer|string|nil maximum number of workers (max(min_fork, 16))
---@field fork_delay number|string|false|nil between forks that enlarge the pool (0.25)
---@field fork_error_delay number|string|false|nil to wait after a failed prepare or fork (2)
---@field exit_delay number|string|false|nil between terminations of surplus workers (60)
---@field idle_time number|string|false|nil another name for idle_timeout
---@field idle_timeout number|string|false|nil idle time after which a worker ends (none)
---@field memory_limit integer|string|false|nil memory limit of a worker's Lua state, in bytes (none)
---@field max_requests integer|string|false|nil runs of connect after which a worker is replaced (none)
---@field max_requests_jitter integer|string|false|nil up to so many more runs, by chance (0)
---@field max_memory integer|string|false|nil resident bytes above which a worker is replaced (none)
---@field user string|integer|nil user that the workers run as
---@field group string|integer|nil group that the workers run as (the user's)
---@field prepare (fun())? called once in each new worker
---@field connect (fun(socket: moonbridge_io.handle): any)? gets a connection; true keeps the worker (needed)
---@field finish (fun())? called when a worker ends gracefully

---Options of `topic`.
---@class (exact) moonbridge.topic_options
---@field history integer? how many messages are kept (0)

---Options of `publish`.
---@class (exact) moonbridge.publish_options
---@field id string|number|nil by which clients say what they have

---Options of `run`; flags are off by default.
---@class (exact) moonbridge.options
---@field background boolean? run in the background
---A line for each HTTP request, to this file, "stdout" or "stderr"; or a function that is called for each.
---@field access_log (string|fun(request: moonbridge.logged_request))?
---@field access_log_format string? "json" (the default), "combined", or a text with fields, e.g. "{status}"
---@field logfile string? append the log to this file instead of standard error
---@field pidfile string? write the process id to this file, and lock it
---@field syslog boolean? also send the log to the system log
---@field logident string? name in the system log ("moonbridge"); implies syslog
---@field logfacility string|integer|nil "DAEMON", "USER" or 0 to 7; implies syslog
---@field user string|integer|nil user that supervisor and workers run as once everything is open
---@field group string|integer|nil their group (the user's)
---@field hold_limit integer|string|false|nil how many connections may be held (as descriptors allow)
---@field waiting_input_limit integer|false|nil bytes of input that waiting connections may hold (64 MiB)
---@field stats boolean? log normal worker exits with their resource usage, and worker counts
---@field debug boolean? log every control message; implies stats
---@field slow_request number|string|false|nil log requests that take longer than so many seconds (none)
---@field drain_delay number|string|false|nil seconds to serve on after SIGTERM while /ready says no (0)
---@field shutdown_timeout number|string|false|nil seconds until a shutdown kills the remaining workers (60)
---@field hangup "reload"|"end"|nil what SIGHUP does ("end")
---@field reload_timeout number|string|false|nil seconds until a reload is given up (60)

---@class (exact) moonbridge.listener_status
---@field proto "tcp"|"tls"|"local"|"interval"|"main"|"inherit"|"status"
---@field host string? tcp: as given
---@field port integer? the TCP port that it has
---@field path string? local: as given
---@field name string? interval, main, inherit: as given

---The state of a pool. Counts are since the start.
---@class (exact) moonbridge.status
---@field idle integer workers waiting for work
---@field busy integer workers that are working
---@field total integer all workers, including those that are starting or ending
---@field parked integer connections between two runs of the handler
---@field sending integer connections whose client has not received all queued output yet
---@field accepted integer connections accepted
---@field handled integer runs of the handler that returned
---@field errors integer runs of the handler that threw, and connections that could not be accepted
---@field respawns integer workers forked to replace others
---@field shed integer parked connections closed for lack of descriptors or memory
---@field reclaimed integer parked connections moved to another worker
---@field listeners moonbridge.listener_status[] the pool's listeners, in their order
---@field lost integer connections lost because their worker died, or for lack of a descriptor
---@field proxy_errors integer connections closed because they had no valid PROXY header

---Held connections. All but `held` count since the start.
---@class (exact) moonbridge.push_status
---@field held integer connections that are held now
---@field published integer messages
---@field delivered integer messages, one for each client
---@field dropped integer messages dropped because a client was too slow
---@field slow integer clients reset because they were too slow
---@field refused integer connections that could not be held

---A list with the state of each pool.
---What is known of a request when its response is over; nil: unknown, or there was none.
---@class moonbridge.logged_request
---@field time string when the handler was called, or the request was refused (RFC 3339)
---@field client_ip string?
---@field client_port integer?
---@field method string?
---@field target string?
---@field protocol string?
---@field status integer? nil if the worker died
---@field bytes_in integer
---@field bytes_out integer
---@field queue_seconds number
---@field handler_seconds number?
---@field sent_seconds number?
---@field pool integer
---@field pid integer
---@field request_id string?
---@field traceparent string?
---@field referer string?
---@field user_agent string?
---@field end "complete"|"failed"|"aborted"|"died"
---@field fields table<string, string|number|boolean> what the handler has added with `log_field`

---@class moonbridge.statuses: { [integer]: moonbridge.status }
---@field status_listeners moonbridge.listener_status[] the status listeners, in their order
---@field push moonbridge.push_status held connections

---@class moonbridge
---@field _VERSION string
---@field io moonbridge_io
---@field http moonbridge_http
local moonbridge = {}

---Registers a pool of workers and opens its ports. Raises an error if that fails.
---Also a global function, unless that name is taken.
---@param pool moonbridge.pool
function moonbridge.listen(pool) end

---Serves the registered pools. Returns only in the supervisor, after the server has shut down.
---Raises an error if the server cannot start.
---@param options moonbridge.options?
---@return integer exit_code 0, or 4 if the supervisor could not continue
function moonbridge.run(options) end

---Keeps the last messages of a topic for clients that come back. Before `run`.
---@param name string 1 to 255 bytes
---@param options moonbridge.topic_options?
function moonbridge.topic(name, options) end

---Sends a message to all held connections that hear the topic. Does not wait for anybody.
---@param topic string 1 to 255 bytes
---@param message string|number
---@param options moonbridge.publish_options?
---@return true? accepted nil if more is published than can be passed on, or without a server
---@return string? message
function moonbridge.publish(topic, message, options) end

---How many held connections hear a topic.
---@param topic string
---@return integer? count nil without a server, or if the answer takes too long
---@return string? message
function moonbridge.subscribers(topic) end

---Runs the script anew in new processes, which take over ports and connections. Blocks until they serve.
---Only in a worker.
---@return true? reloaded nil if the server goes on as it was
---@return string? message
function moonbridge.reload() end

---Without arguments: returns the seconds left on the timer that kills this process, 0.0 if there is none.
---With a number: sets the timer, or stops it if the number is 0, and returns the seconds that were left.
---With a function: calls it with the other arguments and returns its results. Kills this process if the call
---takes longer, or if an outer timer expires. Also a global function.
---@overload fun(): number
---@overload fun(seconds: number|string|false): number
---@overload fun(seconds: number|string|false, f: function, ...: any): ...
---@param seconds number|string|false
---@param f function
---@param ... any
---@return any ...
function moonbridge.timeout(seconds, f, ...) end

---The state of the pools, in the order of their numbers.
---@return moonbridge.statuses
function moonbridge.status() end

---The text of all metrics.
---@param format "openmetrics"|"text"|nil OpenMetrics 1.0 (default), or Prometheus's older text format
---@return string
function moonbridge.metrics(format) end

---Values of a metric's labels, by name; all that were declared.
---@alias moonbridge.labels table<string, string|number|boolean>

---@class moonbridge.counter
local counter = {}

---Adds an amount that is not negative (1).
---@overload fun(self: moonbridge.counter, labels: moonbridge.labels)
---@param amount number?
---@param labels moonbridge.labels?
function counter:add(amount, labels) end

---@class moonbridge.gauge
local gauge = {}

---Adds an amount (1).
---@overload fun(self: moonbridge.gauge, labels: moonbridge.labels)
---@param amount number?
---@param labels moonbridge.labels?
function gauge:add(amount, labels) end

---Sets the value.
---@param value number
---@param labels moonbridge.labels?
function gauge:set(value, labels) end

---@class moonbridge.histogram
local histogram = {}

---Counts a value, which is not negative unless the metric has a negative bucket.
---@param value number
---@param labels moonbridge.labels?
function histogram:observe(value, labels) end

---Declares a metric that only grows. Before `run`. Raises an error that names the metric.
---@param name string with or without "_total"
---@param help string?
---@param labels string[]? the names of its labels
---@return moonbridge.counter
function moonbridge.counter(name, help, labels) end

---Declares a metric with a value. Before `run`.
---@param name string
---@param help string?
---@param labels string[]?
---@return moonbridge.gauge
function moonbridge.gauge(name, help, labels) end

---Declares a metric that counts values by size. Before `run`.
---@param name string
---@param help string?
---@param labels string[]?
---@param buckets number[]? upper bounds in ascending order (log-linear, 100 µs to 75 s)
---@return moonbridge.histogram
function moonbridge.histogram(name, help, labels, buckets) end

---Runs the program `moonbridge` with the given command-line arguments.
---@param ... string
---@return integer exit_code
function moonbridge.launch(...) end

return moonbridge
