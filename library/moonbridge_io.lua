---@meta moonbridge_io

-- Annotations (LuaCATS) for editors: the parameters and results of moonbridge_io's functions.
-- The manual is docs/reference/io.md.

---@alias moonbridge_io.status
---| "term"   # the last byte is the terminator
---| "maxlen" # as many bytes as asked for
---| "eof"    # the peer has sent all it will send

---@alias moonbridge_io.status_nb
---| moonbridge_io.status
---| "block" # more would have to be waited for

---@alias moonbridge_io.waitfunc fun(handle: moonbridge_io.handle, mode: "r"|"w", io: moonbridge_io)

---An object that poll can wait for: handles, listeners, child processes (input only), descriptors.
---@alias moonbridge_io.pollable moonbridge_io.handle|moonbridge_io.listener|moonbridge_io.child|integer

---What a PROXY header has told of a connection.
---@class (exact) moonbridge_io.proxy
---@field version 1|2
---@field command "PROXY"|"LOCAL" LOCAL: the proxy has connected for itself
---@field transport "stream"|"datagram"|nil
---@field source_ip string? the client's address as text
---@field source_port integer?
---@field destination_ip string? where the client has connected to
---@field destination_port integer?
---@field source_path string? of a client that uses a local socket
---@field destination_path string?
---@field tlvs table<integer, string> additional values, by their type

---A connection, a stream of a child process, or a standard stream. Fields of your own can be
---stored in it; declare them with `---@class moonbridge_io.handle` and `---@field` in your code.
---@class moonbridge_io.handle
---@field local_ip4 string? IPv4 address of this end, 4 raw bytes
---@field local_ip6 string? IPv6 address of this end, 16 raw bytes
---@field local_ip string? address of this end as text
---@field local_tcpport integer? TCP port of this end
---@field remote_ip4 string? IPv4 address of the peer, 4 raw bytes
---@field remote_ip6 string? IPv6 address of the peer, 16 raw bytes
---@field remote_ip string? address of the peer as text
---@field remote_tcpport integer? TCP port of the peer
---@field proxy moonbridge_io.proxy? what a PROXY header has told of the connection
---@field interval string? name of the interval listener that called the "connect" handler: no connection then
---@field main string? name of the main listener, likewise
---@field tls moonbridge_io.tls? of a connection with TLS, once the handshake is over
---@field wakeup "input"|"timeout"|"shutdown"|nil why the handler was called again for a parked connection
local handle = {}

---Reads up to `maxlen` bytes, or up to and including `terminator`; waits as long as necessary.
---@param maxlen integer? bytes at most; nil or negative: no limit
---@param terminator string? a single byte; nil or "": none
---@return string? data nil after an I/O error
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:read(maxlen, terminator) end

---Reads what is available, without waiting.
---@param maxlen integer?
---@param terminator string?
---@return string? data
---@return moonbridge_io.status_nb|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:read_nb(maxlen, terminator) end

---Like `read`, but calls `waitfunc` while it is blocked.
---@param waitfunc moonbridge_io.waitfunc
---@param maxlen integer?
---@param terminator string?
---@return string? data
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:read_call(waitfunc, maxlen, terminator) end

---Like `read`, but yields while it is blocked.
---@async
---@param maxlen integer?
---@param terminator string?
---@return string? data
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:read_yield(maxlen, terminator) end

---Like `read`, but discards the input and returns the number of bytes.
---@param maxlen integer?
---@param terminator string?
---@return integer? count
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:drain(maxlen, terminator) end

---Like `read_nb`, but discards the input and returns the number of bytes.
---@param maxlen integer?
---@param terminator string?
---@return integer? count
---@return moonbridge_io.status_nb|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:drain_nb(maxlen, terminator) end

---Like `drain`, but calls `waitfunc` while it is blocked.
---@param waitfunc moonbridge_io.waitfunc
---@param maxlen integer?
---@param terminator string?
---@return integer? count
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:drain_call(waitfunc, maxlen, terminator) end

---Like `drain`, but yields while it is blocked.
---@async
---@param maxlen integer?
---@param terminator string?
---@return integer? count
---@return moonbridge_io.status|string status or the error message
---@return integer|string|nil errno a word if TLS has failed
function handle:drain_yield(maxlen, terminator) end

---Starts TLS on a connected handle, sends queued output before, and does the handshake.
---@param options moonbridge_io.starttls_options
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil code an errno, or a word
function handle:starttls(options) end

---The same without waiting; reads and writes drive the handshake and report what has failed.
---@param options moonbridge_io.starttls_options
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil code
function handle:starttls_nb(options) end

---Writes to a small buffer, which is sent when it is full.
---@param ... string|number
---@return moonbridge_io.handle? handle nil after an I/O error
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:write(...) end

---Writes without waiting, and buffers what cannot be sent.
---@param ... string|number
---@return integer? unsent bytes in the buffer; 0 if all but a small portion was sent
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:write_nb(...) end

---Like `write`, but calls `waitfunc` while it is blocked.
---@param waitfunc moonbridge_io.waitfunc
---@param ... string|number
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:write_call(waitfunc, ...) end

---Like `write`, but yields while it is blocked.
---@async
---@param ... string|number
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:write_yield(...) end

---Writes and sends everything, waiting as long as necessary.
---@param ... string|number
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:flush(...) end

---Writes and sends as much as possible without waiting.
---@param ... string|number
---@return integer? unsent bytes in the buffer; 0 if all was sent
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:flush_nb(...) end

---Like `flush`, but calls `waitfunc` while it is blocked.
---@param waitfunc moonbridge_io.waitfunc
---@param ... string|number
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:flush_call(waitfunc, ...) end

---Like `flush`, but yields while it is blocked.
---@async
---@param ... string|number
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:flush_yield(...) end

---Sends what was written, and then the end; you can still read.
---@return true? ok nil after an I/O error
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:finish() end

---Sends what was written and closes (TCP: FIN).
---@return true? ok nil after an I/O error; the handle is closed all the same
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:close() end

---Closes immediately (TCP: RST); unsent data is lost.
---@return true? ok
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:reset() end

---In a server's "connect" handler that returns true afterwards: no process is occupied until the handler is
---called again, when there is input, at the timeout, or at shutdown; `wakeup` tells which. False outside a
---server, and for other sockets than that which the handler was called for.
---The worker sends queued output first, beside its other work; the timeout starts after that.
---See docs/reference/parking.md.
---@param timeout number|false|nil seconds; nil or false: none
---@param stall number|false|nil seconds for which the client may take no output; nil: 60, false: no limit
---@return boolean parked
function handle:park(timeout, stall) end

---In a server's "connect" handler: lets the server send the output and end it, and discard what the client
---still sends until it closes, without a process. Then the socket is not used any more. False where the
---caller has to close for itself: outside a server, and for other sockets than the handler's own.
---@param timeout number|false|nil seconds after the output, then the client gets RST; nil or false: none
---@param stall number|false|nil seconds for which the client may take no output; nil: 60, false: no limit
---@return boolean? lingers nil after an I/O error
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function handle:linger(timeout, stall) end

---A source for ltn12, which delivers what is available.
---@param maxlen integer? bytes at most in a piece, default 16384
---@return fun(): string?, string?
function handle:source(maxlen) end

---A sink for ltn12; the end of the data flushes the handle.
---@return fun(chunk: string?): 1?, string?
function handle:sink() end

---For cqueues: the descriptor.
---@return integer?
function handle:pollfd() end

---For cqueues: what the last blocked operation waits for.
---@return "r"|"w"
function handle:events() end

---For cqueues: 0 if there is no need to wait.
---@return number?
function handle:timeout() end

---For LuaSocket's select: the descriptor, -1 if closed.
---@return integer
function handle:getfd() end

---For LuaSocket's select: whether input is buffered.
---@return boolean
function handle:dirty() end

---A listening socket. Fields of your own can be
---stored in it; declare them with `---@class moonbridge_io.listener` and `---@field` in your code.
---@class moonbridge_io.listener
---@field local_ip4 string? IPv4 address it listens on, 4 raw bytes
---@field local_ip6 string? IPv6 address it listens on, 16 raw bytes
---@field local_ip string? address it listens on, as text
---@field local_tcpport integer? port it listens on
local listener = {}

---Waits for a connection.
---@return moonbridge_io.handle? connection nil after an I/O error
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function listener:accept() end

---Accepts a connection if one is waiting.
---@return moonbridge_io.handle|false|nil connection false if none is there, nil after an I/O error
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function listener:accept_nb() end

---Stops listening. The file of a local socket stays.
---@return true
function listener:close() end

---@return integer
function listener:pollfd() end
---@return "r"
function listener:events() end
---@return nil
function listener:timeout() end
---@return integer
function listener:getfd() end
---@return false
function listener:dirty() end

---A child process. Fields of your own can be
---stored in it; declare them with `---@class moonbridge_io.child` and `---@field` in your code.
---@class moonbridge_io.child
---@field stdin moonbridge_io.handle
---@field stdout moonbridge_io.handle
---@field stderr moonbridge_io.handle
---@field pid integer
local child = {}

---Sends a signal.
---@param signal (integer|string)? number or name, default 9 (SIGKILL)
---@return moonbridge_io.child? child
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function child:kill(signal) end

---Waits for the end.
---@return integer? status exit code, or the negative number of the signal that ended it
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function child:wait() end

---The same without waiting.
---@return integer|false|nil status false while it runs
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function child:wait_nb() end

---Like `wait`, but calls `waitfunc` while the program runs.
---@param waitfunc fun()
---@return integer? status
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function child:wait_call(waitfunc) end

---Like `wait`, but yields while the program runs.
---@async
---@return integer? status
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function child:wait_yield() end

---@return integer
function child:pollfd() end
---@return "r"
function child:events() end
---@return nil
function child:timeout() end
---@return integer
function child:getfd() end
---@return false
function child:dirty() end

---@class moonbridge_io
---@field stdin moonbridge_io.handle descriptor 0
---@field stdout moonbridge_io.handle descriptor 1
---@field stderr moonbridge_io.handle descriptor 2
---@field handle_pt table methods of all handles
---@field listener_pt table methods of all listeners
---@field child_pt table methods of all child processes
local moonbridge_io = {}

---Makes SIGTERM wake `poll` instead of ending the process.
function moonbridge_io.catch_sigterm() end

---@class (exact) moonbridge_io.exec_options
---@field kill_with_parent? boolean kill the program when this process has ended, however that ends

---Starts a program.
---@param command string searched in PATH
---@param ... string|number arguments
---@return moonbridge_io.child? child nil if it could not be started
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
---@overload fun(options: moonbridge_io.exec_options, command: string, ...): moonbridge_io.child?, string?
function moonbridge_io.exec(command, ...) end

---The id of the running process.
---@return integer
function moonbridge_io.getpid() end

---Connects to a local socket.
---@param path string 107 bytes at most
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.localconnect(path) end

---Connects to a local socket without waiting.
---@param path string
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.localconnect_nb(path) end

---Listens on a local socket; replaces an existing socket file.
---@param path string
---@return moonbridge_io.listener? listener
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.locallisten(path) end

---Waits until something is ready.
---@param input_set table<moonbridge_io.pollable, any>?
---@param output_set table<moonbridge_io.handle|integer, any>?
---@param timeout number? seconds; nil: without limit
---@param wakeup_on_sigterm boolean?
---@return boolean? ready nil after an I/O error
---@return string? message why nothing is ready
---@return boolean|integer|nil by_sigterm whether SIGTERM is the reason; the errno of an I/O error
function moonbridge_io.poll(input_set, output_set, timeout, wakeup_on_sigterm) end

---Connects to a TCP port, trying all addresses of the name.
---@param hostname string
---@param port integer|string number or service name
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.tcpconnect(hostname, port) end

---The same without waiting; the first read or write reports a refused connection.
---@param hostname string
---@param port integer|string
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.tcpconnect_nb(hostname, port) end

---Whom a client of TLS believes, and how (docs/reference/tls.md).
---@class (exact) moonbridge_io.tls_options
---@field ca string? certificates to trust instead of the system's: a PEM file, or its text
---@field server_name string? the name that the certificate must be for
---@field certificate string? the client's own: a PEM file, or its text
---@field key string? its key
---@field fingerprints string|string[]|nil SHA-256 of the only certificates to accept
---@field alpn string|string[]|nil protocols to choose from
---@field min_version "1.2"|"1.3"|nil
---@field insecure boolean? believe everybody

---@class (exact) moonbridge_io.starttls_options: moonbridge_io.tls_options
---@field host string? the name that the certificate must be for

---@class moonbridge_io.certificate
---@field der string
---@field subject string?
---@field fingerprint string SHA-256

---@class moonbridge_io.tls
---@field version "1.2"|"1.3"
---@field cipher string
---@field alpn string?
---@field server_name string?
---@field resumed boolean
---@field peer_certificate moonbridge_io.certificate?

---Connects to a TCP port and does the handshake of TLS.
---@param hostname string
---@param port integer|string
---@param options moonbridge_io.tls_options?
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil code an errno, or a word
function moonbridge_io.tlsconnect(hostname, port, options) end

---The same without waiting; reads and writes drive the handshake and report what has failed.
---@param hostname string
---@param port integer|string
---@param options moonbridge_io.tls_options?
---@return moonbridge_io.handle? handle
---@return string? message
---@return integer|string|nil code
function moonbridge_io.tlsconnect_nb(hostname, port, options) end

---Listens on a TCP port.
---@param hostname string "::" for all interfaces
---@param port integer|string 0: any free port
---@return moonbridge_io.listener? listener
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function moonbridge_io.tcplisten(hostname, port) end

---Seconds of a monotonic clock, minus `previous`.
---@param previous number?
---@return number
function moonbridge_io.timeref(previous) end

return moonbridge_io
