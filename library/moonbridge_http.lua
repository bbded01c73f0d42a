---@meta moonbridge_http

-- Annotations (LuaCATS) for editors: the parameters and results of moonbridge_http's functions.
-- The manual is docs/reference/http.md.

---Options of `generate_handler`. Sizes are in bytes, times in seconds; `false` means no limit; for the
---two `_buffering` options, no buffering.
---@class (exact) moonbridge_http.options
---@field request_body_size_limit integer|false|nil maximum size of a request body (64 MiB)
---@field request_header_size_limit integer|false|nil maximum size of request line and headers (1 MiB)
---@field request_header_count_limit integer|false|nil maximum number of header lines (1000)
---@field request_field_count_limit integer|false|nil most parameters, cookies, elements or fields (4096)
---@field request_buffering integer|false|nil bodies to receive before the handler runs (64 KiB)
---@field response_buffering integer|false|nil output queued before `send_data` waits (256 KiB)
---@field chunk_size integer? default for the following two options
---@field maximum_input_chunk_size integer? maximum size of strings for stream callbacks (16384)
---@field minimum_output_chunk_size integer? shorter pieces of a response are joined to one chunk (1024)
---@field compress boolean|moonbridge_http.compress|nil compress responses (false)
---@field decompress boolean|moonbridge_http.decompress|nil decompress request bodies (false)
---@field static_headers string|table|nil headers: lines, list of lines, list of pairs, or names to values
---@field idle_timeout number|false|nil until the first byte of a request (65)
---@field request_header_timeout number|false|nil until a request head is complete (120)
---@field stall_timeout number|false|nil without any progress of a request body or a response (60)
---@field response_timeout number|false|nil for the handler, whose worker is then killed (3600); 0 is no limit
---@field request_body_timeout number|false|nil for the handler to wait for a body (20)
---@field request_body_minimum_rate number|false|nil bytes that extend that time by 1 s (500)
---@field drain_timeout number|false|nil for the client to send or close, after the last response (2)
---@field trusted string[]? proxies that are believed: addresses, networks, "unix"
---@field forwarded_fields "X-Forwarded"|"Forwarded"|nil set by trusted proxies (both)
---@field poll_function moonbridge_http.poll? used instead of moonbridge_io.poll
---@field header_size_limit integer|false|nil older name of request_header_size_limit
---@field body_size_limit integer|false|nil older name of request_body_size_limit

---Has the arguments and results of moonbridge_io.poll.
---@alias moonbridge_http.poll fun(input_set: table?, output_set: table?, timeout: number?): boolean

---@alias moonbridge_http.handler fun(request: moonbridge_http.request): any `true` if the process may live on

---Metadata of a form field.
---@class (exact) moonbridge_http.metadata
---@field file_name string? for files: the name given by the client, which may contain slashes and `../`
---@field content_type string? as sent by the client

---@class (exact) moonbridge_http.stream_metadata : moonbridge_http.metadata
---@field field_name string name of the field

---Gets the first chunk with metadata, the others without, and no arguments at the end.
---@alias moonbridge_http.param_callback fun(chunk: string?, metadata: moonbridge_http.stream_metadata?)

---A request, and the response to it. You can store fields of your own in it; declare them with
---`---@class moonbridge_http.request` and `---@field` in your code.
---@class moonbridge_http.request
---@field method string the request method, e.g. "GET"
---@field target string the request target as sent
---@field version "HTTP/1.1"|"HTTP/1.0" the version of the protocol
---@field scheme "http"|"https" as a trusted proxy says, else "http"
---@field client_ip string? the client, as a trusted proxy or the connection says; nil: local socket
---@field id string from X-Request-Id of a trusted proxy, else 32 random hexadecimal digits
---@field traceparent string of W3C Trace Context, from a trusted proxy or made
---@field tracestate string? of W3C Trace Context, from a trusted proxy
---@field path string? without the leading slash, not decoded; nil for `OPTIONS *`
---@field query string? with the leading question mark, or ""; nil for `OPTIONS *`
---@field host string as a trusted proxy says, else from an absolute target or the Host header
---@field get_params table<string,string> names in the query → first values
---@field get_params_list table<string,string[]> names in the query → all values
---@field post_params table<string,string> names in the form → first values
---@field post_params_list table<string,string[]> names in the form → all values
---@field post_metadata table<string,moonbridge_http.metadata>? of multipart forms
---@field post_metadata_list table<string,moonbridge_http.metadata[]>? of multipart forms
---@field cookies table<string,string> names as sent → decoded values
---@field headers table<string,string[]> names in any case → a value per line
---@field headers_csv_string table<string,string> names in any case → all values joined by ", "
---@field headers_csv_table table<string,string[]> names in any case → a value per list element
---@field headers_flags table<string,table<string,boolean>> names in any case → elements → whether present
---@field headers_value table<string,string|false> names in any case → the value; false if there are several
---@field body string the whole request body
---@field socket moonbridge_io.handle the underlying connection
---@field fresh boolean whether the request has not been used yet
---@field faulty boolean whether the request can no longer be used
local request = {}

---Begins the response. Informational ones (1xx) may precede the final one.
---@param status string|integer three digits and a reason phrase, e.g. "200 OK"
function request:send_status(status) end

---Sends a header line of the response.
---@param key string
---@param value string|number
function request:send_header(key, value) end

---Ends and sends the headers of the response.
function request:finish_headers() end

---Sends data of the response's body; converts its arguments with tostring. They leave at the end of the
---response, with a flush, when the handler waits, or after one second at most.
---@param ... any
function request:send_data(...) end

---Keeps the response open without a worker: from the end of the handler on, the client gets what is
---published on the topics. Nothing can be sent afterwards. Only in a server. Over TLS 1.2 the response
---ends with its worker.
---@param options moonbridge_http.hold_options
---@return true
function request:hold(options) end

---Adds a field to this request's line in the access log (`moonbridge.run{ access_log = … }`), or
---replaces its value. Does nothing without a log.
---@param name string not empty
---@param value string|number|boolean all fields of a request have at most 16 KiB together
function request:log_field(name, value) end

---A whole response, with `Content-Length`. Answers conditional requests if `headers` has an ETag or a
---Last-Modified.
---@param status string|integer three digits and a reason phrase
---@param content_type string? the value of Content-Type
---@param content string|number|nil the body
---@param headers table<string,string|number>? further headers; Last-Modified also in seconds since 1970
function request:send(status, content_type, content, headers) end

---@class (exact) moonbridge_http.compress
---@field level integer? from 1, fast, to 9, small (5)
---@field minimum integer? shorter bodies stay as they are, in bytes (256)
---@field types string[]? media types (those that become much smaller)

---@class (exact) moonbridge_http.decompress
---@field limit integer|false|nil the most that may come out (request_body_size_limit)

---@class (exact) moonbridge_http.file_options
---@field content_type string? the media type; without it, that of the extension
---@field attachment boolean|string|nil true: a browser saves the file; a string: under that name
---@field folder string? the file's path is one below this folder, and never leads out of it
---@field cache_control string? the value of Cache-Control
---@field headers table<string,string|number>? further headers
---@field status string? another status than 200: conditions and ranges are ignored

---Sends a file as the whole response, as RFC 9110 13 and 14 have it for conditions and ranges. The handler
---need not wait for the client. A file that cannot be sent is answered with 404, 403, 500 or 503.
---@param file string|file* a path, or an open file: sent from its position on, and may be closed at once
---@param options moonbridge_http.file_options?
---@return true? sent
---@return string? message
---@return integer? errno
function request:send_file(file, options) end

---A redirect without a body: a whole response.
---@param location string a URI
---@param status 301|302|303|307|308|string|nil 303 by default
function request:redirect(location, status) end

---@class (exact) moonbridge_http.cookie
---@field name string a token
---@field value string|number any text: it is encoded
---@field max_age number? seconds; 0 removes the cookie
---@field path string?
---@field domain string?
---@field secure boolean? only over HTTPS
---@field http_only boolean? hidden from scripts
---@field same_site "Strict"|"Lax"|"None"|nil
---@field secret string|string[]|nil signs name and value; the first of a list does

---Adds a Set-Cookie header, also before the status is sent.
---@param cookie moonbridge_http.cookie
function request:set_cookie(cookie) end

---The value of a cookie that was set with this secret; nil if it is missing or was changed.
---@param name string
---@param secret string|string[] at least 16 bytes each
---@return string? value
function request:signed_cookie(name, secret) end

---Sends all pending data.
function request:flush() end

---Ends and sends the response.
function request:finish() end

---Closes the connection after the response.
function request:close_after_finish() end

---Like close_after_finish, but also discards what the client still sends.
function request:monologue() end

---Reads the body to its end, calling the registered callbacks and parsing forms.
function request:consume_input() end

---Registers a callback for the chunks of the body and nil at its end. Without a callback the body is
---read and thrown away.
---@param callback fun(chunk: string?)|nil
function request:stream_request_body(callback) end

---Reads the body to its end, with a callback for its chunks.
---@param callback fun(chunk: string)
function request:stream_request_body_now(callback) end

---Passes the body to a receive callback (docs/reference/callback.md).
---@param receive_cb moonbridge_callback.receive_cb
---@return integer? count the number of bytes
---@return any message of an abort, or of a broken connection
function request:receive_body(receive_cb) end

---Sends the chunks of a send callback as body of the response, or part of it. An abort resets the connection.
---@param send_cb moonbridge_callback.send_cb?
---@return integer? count the number of bytes
---@return any message of an abort
function request:send_body(send_cb) end

---Registers a callback for a field of the form.
---@param field_name string
---@param callback moonbridge_http.param_callback
function request:stream_post_param(field_name, callback) end

---Registers a callback for all fields of the form whose names match a Lua pattern.
---@param pattern string
---@param callback moonbridge_http.param_callback
function request:stream_post_params(pattern, callback) end

---@deprecated use stream_request_body
---@param callback fun(chunk: string?)|nil
function request:set_request_body_streamer(callback) end

---@deprecated use consume_input
function request:process_request_body() end

---@deprecated does nothing: responding never waits for the request body
function request:defer_reading() end

---@class moonbridge_http
local moonbridge_http = {}

---Turns a function that answers requests into a `connect` function for `listen`.
---@param callback moonbridge_http.handler
---@param options moonbridge_http.options?
---@return fun(socket: moonbridge_io.handle): any
---@overload fun(options: moonbridge_http.options?, callback: moonbridge_http.handler): function
function moonbridge_http.generate_handler(callback, options) end

---Options of `websocket`. Sizes are in bytes, times in seconds.
---@class (exact) moonbridge_http.websocket_options
---@field open (fun(ws: moonbridge_http.websocket, request: moonbridge_http.request))? a connection opens
---@field message (fun(ws: moonbridge_http.websocket, text: string, kind: "text"|"binary"))? a message
---@field close (fun(ws: moonbridge_http.websocket, code: integer, reason: string))? a connection ends
---@field protocols string[]? subprotocols, preferred ones first
---@field origins string[]|"*"|nil whose pages may connect (those of the same host)
---@field message_limit integer? maximum size of a message (1 MiB)
---@field heartbeat number|false|nil silence before a ping, and before the connection is lost (30)
---@field timeout number|false|nil time without a message after which to close the connection (none)
---@field compress boolean? accept compression (false)
---@field name string? finds these functions in another worker (by their order)

---A WebSocket, while one of its functions runs.
---@class moonbridge_http.websocket
---@field state string? stays with the connection; at most 4096 bytes
---@field protocol string? the subprotocol
local websocket = {}

---Sends a message.
---@param text string|number
---@param kind "text"|"binary"|nil "text" by default, which has to be UTF-8
---@return true? sent
---@return string? message
function websocket:send(text, kind) end

---Closes the connection after what was sent.
---@param code integer? 1000 by default
---@param reason string?
---@return true
function websocket:close(code, reason) end

---From the return of the function on, the client gets what is published on the topic.
---@param topic string
---@return true
function websocket:subscribe(topic) end

---The client does not get that any longer.
---@param topic string
---@return true
function websocket:unsubscribe(topic) end

---A function that accepts a request for a WebSocket, or refuses it; a handler returns what it returns.
---See docs/reference/websocket.md.
---@param options moonbridge_http.websocket_options
---@return fun(request: moonbridge_http.request): true
function moonbridge_http.websocket(options) end

---Options of `websocket_connect`.
---@class (exact) moonbridge_http.websocket_connect_options
---@field headers table? names to values or lists of values, or a list of pairs
---@field protocols string[]? subprotocols
---@field origin string? value of the header Origin
---@field timeout number? seconds for connecting, and for each wait while something is sent (60)
---@field message_limit integer? maximum size of a message (1 MiB)
---@field compress boolean? offer compression (false)
---@field tls moonbridge_io.tls_options? for `wss` URLs

---A WebSocket of another server.
---@class moonbridge_http.websocket_client
---@field protocol string? the subprotocol
---@field headers table<string, string> of the server's response
---@field socket moonbridge_io.handle to wait for
local websocket_client = {}

---Receives a message.
---@param seconds number? how long to wait (no limit)
---@return string? text
---@return string kind "text" or "binary", or why there is none
---@return integer? code the close code if the connection is over
function websocket_client:receive(seconds) end

---@param waitfunc fun(handle: moonbridge_io.handle, mode: "r"|"w", module: table)
---@param seconds number?
---@return string? text
---@return string kind
---@return integer? code
function websocket_client:receive_call(waitfunc, seconds) end

---@param seconds number?
---@return string? text
---@return string kind
---@return integer? code
function websocket_client:receive_yield(seconds) end

---Receives a message that is there already; nil and "block" if there is none.
---@return string? text
---@return string kind
---@return integer? code
function websocket_client:receive_nb() end

---Sends a message.
---@param text string|number
---@param kind "text"|"binary"|nil
---@return true? sent
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function websocket_client:send(text, kind) end

---@param waitfunc fun(handle: moonbridge_io.handle, mode: "r"|"w", module: table)
---@param text string|number
---@param kind "text"|"binary"|nil
---@return true? sent
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function websocket_client:send_call(waitfunc, text, kind) end

---@param text string|number
---@param kind "text"|"binary"|nil
---@return true? sent
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function websocket_client:send_yield(text, kind) end

---Sends a message as far as it goes.
---@param text string|number
---@param kind "text"|"binary"|nil
---@return integer? queued
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function websocket_client:send_nb(text, kind) end

---Sends what is queued as far as it goes.
---@return integer? queued
---@return string? message
---@return integer|string|nil errno a word if TLS has failed
function websocket_client:flush_nb() end

---Sends a ping.
---@param payload string? at most 125 bytes
---@return true? sent
---@return string? message
function websocket_client:ping(payload) end

---Closes the connection, and waits for the server's answer.
---@param code integer? 1000 by default
---@param reason string?
---@return true
function websocket_client:close(code, reason) end

---@param waitfunc fun(handle: moonbridge_io.handle, mode: "r"|"w", module: table)
---@param code integer?
---@param reason string?
---@return true
function websocket_client:close_call(waitfunc, code, reason) end

---@param code integer?
---@param reason string?
---@return true
function websocket_client:close_yield(code, reason) end

---Connects to a WebSocket.
---See docs/reference/websocket.md.
---@param url string
---@param options moonbridge_http.websocket_connect_options?
---@return moonbridge_http.websocket_client? ws
---@return string? message
---@return integer|string|nil status of the server that has refused; or a word if TLS has failed
function moonbridge_http.websocket_connect(url, options) end

---@param waitfunc fun(handle: moonbridge_io.handle, mode: "r"|"w", module: table)
---@param url string
---@param options moonbridge_http.websocket_connect_options?
---@return moonbridge_http.websocket_client? ws
---@return string? message
---@return integer|string|nil status
function moonbridge_http.websocket_connect_call(waitfunc, url, options) end

---@param url string
---@param options moonbridge_http.websocket_connect_options?
---@return moonbridge_http.websocket_client? ws
---@return string? message
---@return integer|string|nil status
function moonbridge_http.websocket_connect_yield(url, options) end

---@class (exact) moonbridge_http.static_options
---@field index string|string[]|false|nil files that stand for their folder; "index.html" by default
---@field listing boolean? folders without such a file are listed
---@field hidden boolean? also names that begin with a dot are served
---@field links "inside"|"none"|"anywhere"|nil where symbolic links may lead; "inside" by default
---@field precompressed boolean? compressed files beside a file are sent in its stead; true by default
---@field cache_control string|nil|fun(path: string): string? the value of Cache-Control
---@field content_types table<string,string>? media types by extension
---@field headers table<string,string|number>? further headers
---@field fallback nil|fun(request: moonbridge_http.request, path: string?): any answers what is missing

---A function that answers requests with files of a folder (RFC 9110 13 and 14), and nothing outside of it.
---@param folder string its path
---@param options moonbridge_http.static_options?
---@return fun(request: moonbridge_http.request, path: string?): any answer `path` is not decoded
function moonbridge_http.static(folder, options) end

---Random bytes of the system, fit for tokens and keys.
---@param bytes integer from 1 to 1048576
---@return string
function moonbridge_http.random(bytes) end

---HMAC-SHA-256 (RFC 2104).
---@param key string
---@param text string
---@return string code 32 bytes
function moonbridge_http.hmac_sha256(key, text) end

---Whether two strings are equal, in a time that does not tell where they differ.
---@param a string
---@param b string
---@return boolean
function moonbridge_http.equal(a, b) end

---Writes a line to the server's log that names a request: its method, target and id.
---@param about moonbridge_http.request one that is being handled
---@param text string|number control characters are written as escapes
function moonbridge_http.error_log(about, text) end

---Answers the challenges by which an authority finds out who has a host (http-01, docs/tls.md).
---@param folder string the webroot of certbot or lego
---@return fun(request: moonbridge_http.request): boolean answer whether it was a challenge, which is answered
function moonbridge_http.acme_challenge(folder) end

---Replaces `<`, `>`, `&`, `"` and `'` with character references.
---@param text string
---@return string
function moonbridge_http.encode_html(text) end

---Escapes everything but `0-9A-Za-z_.~-` as `%xx`.
---@param text string
---@return string
function moonbridge_http.encode_uri(text) end

---Decodes `%XX`, and `+` as a space; invalid escapes stay.
---@param text string
---@return string
function moonbridge_http.decode_uri(text) end

---Escapes what is not allowed in a path as `%xx`; slashes stay.
---@param text string
---@return string
function moonbridge_http.encode_path(text) end

---Decodes `%XX`; `+` and invalid escapes stay.
---@param text string
---@return string
function moonbridge_http.decode_path(text) end

---Parses a query string or urlencoded text, with or without a leading question mark.
---@param query string
---@return table<string,string> first_values
---@return table<string,string[]> lists
function moonbridge_http.parse_query(query) end

---The options of `request`. Only `url` is required.
---@class (exact) moonbridge_http.request_options
---@field url string `http[s]://[user:password@]host[:port]/target` or `unix:/path:/target`
---@field method string? GET, or POST if there is a body
---@field headers table? names to values or lists of values; or pairs {name, value}
---@field body string|moonbridge_callback.send_cb|nil
---@field source function? an ltn12 source, instead of body
---@field receive moonbridge_callback.receive_cb? gets the body of the response
---@field sink function? an ltn12 sink, instead of receive
---@field head moonbridge_http.head_function? is called before the body comes
---@field interim fun(status: integer, headers: table, line: string)? is told of each interim response (1xx)
---@field timeout number|moonbridge_http.time_limits|nil seconds for connecting, and for each wait (60)
---@field redirect boolean|integer|nil whether, or how often, redirects are followed (5)
---@field keepalive boolean|number|nil whether, or for how many seconds, the connection is kept (30)
---@field body_limit integer? the longest body that is returned as a string (1 GiB)
---@field trace moonbridge_http.request? sends its id and trace on to the other service
---@field tls moonbridge_io.tls_options? for `https` URLs
---@field proxy string|boolean|nil the URL of a proxy, or true for that of the environment
---@field lenient boolean? accept responses that others may read differently: see the reference

---Options of `request:hold`. Times are in seconds.
---@class (exact) moonbridge_http.hold_options
---@field topics string|string[] what the response hears, up to 100 topics (required)
---@field once boolean? the first message completes the response
---@field otherwise string? with once: the status if no message comes ("204 No Content")
---@field timeout number|string|false|nil after which the response ends (none)
---@field heartbeat { [1]: number|string, [2]: string }|false|nil { seconds, text }: sent in a pause
---@field last_id string|false|nil the id of the last message that the client has
---@field on_gap string|false|nil sent if the client has missed more than the topics remember
---@field farewell string|false|nil sent before the end when the server shuts down
---@field limit integer|string|false|nil bytes that may wait for a slow client (256 KiB)
---@field overflow "close"|"drop_oldest"|nil what happens beyond the limit ("close")

---@class (exact) moonbridge_http.time_limits
---@field connect number? until the connection is established (60)
---@field stall number? without any progress (60)
---@field total number? for all of the request (no limit)

---Gets status, headers (names in any case → values) and status line; may return the receive callback for
---the body.
---@alias moonbridge_http.head_function fun(status: integer, headers: table, line: string): function?

---Sends a request and receives the response. With a URL and a body, the body is posted as a form.
---@param url string|moonbridge_http.request_options
---@param body string|moonbridge_callback.send_cb|nil
---@return string|1|nil body 1 if it went to a receive callback; nil if the request failed
---@return integer|any status or the message
---@return table<string,string>|any headers names in any case → values; or an errno, or a word of TLS
---@return string? line the status line
function moonbridge_http.request(url, body) end

---The same, calling `waitfunc(socket, "r" or "w", moonbridge_io)` instead of blocking.
---@param waitfunc moonbridge_io.waitfunc
---@param url string|moonbridge_http.request_options
---@param body string|moonbridge_callback.send_cb|nil
---@return string|1|nil body
---@return integer|any status or the message
---@return table<string,string>|any headers or the code
---@return string? line
function moonbridge_http.request_call(waitfunc, url, body) end

---The same with coroutine.yield as wait function.
---@param url string|moonbridge_http.request_options
---@param body string|moonbridge_callback.send_cb|nil
---@return string|1|nil body
---@return integer|any status or the message
---@return table<string,string>|any headers or the code
---@return string? line
function moonbridge_http.request_yield(url, body) end

---Closes the idle connections of this process.
function moonbridge_http.close_idle_connections() end

return moonbridge_http
