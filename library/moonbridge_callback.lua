---@meta moonbridge_callback

-- Annotations (LuaCATS) for editors: the parameters and results of moonbridge_callback's functions.
-- The manual is docs/reference/callback.md.

---Gets a chunk of data; "" at the end; nil and a message after a failure. Returns something other than nil to
---continue, and optionally the callback that replaces it; or nil and optionally a message to abort.
---@alias moonbridge_callback.receive_cb fun(chunk: string?, err: string?): any, function|string|nil

---Returns the next chunk, "" at the end, and optionally the callback that replaces it; or nil and optionally
---a message to abort.
---@alias moonbridge_callback.send_cb fun(): string?, function|string|nil

---Gets each chunk, and nil once at the end. Returns a string, or at the end nil.
---@alias moonbridge_callback.filter fun(chunk: string?): string?

---Anything that `receive.concat` can collect into.
---@class moonbridge_callback.collector
---@field addstring fun(self: table, chunk: string)

---The default object of `receive.concat`; it also supports `tostring`.
---@class moonbridge_callback.concat : moonbridge_callback.collector
local collection = {}

---All chunks as one string.
---@return string
function collection:getresult() end

---@class moonbridge_callback.receive
local receive = {}

---Collects all chunks in an object.
---@param concat moonbridge_callback.collector?
---@return moonbridge_callback.receive_cb callback
---@return moonbridge_callback.collector concat the one given, or a moonbridge_callback.concat
function receive.concat(concat) end

---Writes to a file, and closes it at the end or after a failure. Takes the results of io.open.
---@param file any a file, or nil
---@param io_err string?
---@return moonbridge_callback.receive_cb
function receive.file(file, io_err) end

---Passes its input through a filter to another callback.
---@param filter moonbridge_callback.filter
---@param receive_cb moonbridge_callback.receive_cb
---@return moonbridge_callback.receive_cb
function receive.chain(filter, receive_cb) end

---@class moonbridge_callback.send
local send = {}

---Sends the contents of a string.
---@param str string?
---@return moonbridge_callback.send_cb? callback nil for nil, which sends nothing
function send.string(str) end

---Sends the contents of a file, and closes it at the end or after a failure. Takes the results of io.open.
---@param file any a file, or nil
---@param io_err string?
---@return moonbridge_callback.send_cb
function send.file(file, io_err) end

---Passes the output of another callback through a filter.
---@param send_cb moonbridge_callback.send_cb?
---@param filter moonbridge_callback.filter
---@return moonbridge_callback.send_cb? callback nil for nil
function send.chain(send_cb, filter) end

---Streaming with callbacks.
---@class moonbridge_callback
---@field BLOCKSIZE integer the size of the chunks that send.file reads (32 KiB)
---@field receive moonbridge_callback.receive
---@field send moonbridge_callback.send
local callback = {}

---A send callback for an ltn12 source.
---@param source function?
---@return moonbridge_callback.send_cb? callback nil for nil
function callback.from_source(source) end

---An ltn12 source for a send callback; empty for nil.
---@param send_cb moonbridge_callback.send_cb?
---@return function
function callback.to_source(send_cb) end

---A receive callback for an ltn12 sink.
---@param sink function
---@return moonbridge_callback.receive_cb
function callback.from_sink(sink) end

---An ltn12 sink for a receive callback.
---@param receive_cb moonbridge_callback.receive_cb
---@return function
function callback.to_sink(receive_cb) end

---Receives `length` bytes, or everything until EOF, from a handle.
---@param socket moonbridge_io.handle
---@param receive_cb moonbridge_callback.receive_cb
---@param length integer?
---@return integer? count
---@return any message of an abort or an error
---@return integer? errno
function callback.receive_from(socket, receive_cb, length) end

---The same, calling `waitfunc(socket, "r", moonbridge_io)` while nothing is there.
---@param waitfunc moonbridge_io.waitfunc
---@param socket moonbridge_io.handle
---@param receive_cb moonbridge_callback.receive_cb
---@param length integer?
---@return integer? count
---@return any message
---@return integer? errno
function callback.receive_from_call(waitfunc, socket, receive_cb, length) end

---The same with coroutine.yield as waiting function.
---@param socket moonbridge_io.handle
---@param receive_cb moonbridge_callback.receive_cb
---@param length integer?
---@return integer? count
---@return any message
---@return integer? errno
function callback.receive_from_yield(socket, receive_cb, length) end

---Sends all chunks of a callback to a handle, and flushes it; nothing for nil.
---@param socket moonbridge_io.handle
---@param send_cb moonbridge_callback.send_cb?
---@return integer? count
---@return any message of an abort or an error
---@return integer? errno
function callback.send_to(socket, send_cb) end

---The same, calling `waitfunc(socket, "w", moonbridge_io)` while no more can be sent.
---@param waitfunc moonbridge_io.waitfunc
---@param socket moonbridge_io.handle
---@param send_cb moonbridge_callback.send_cb?
---@return integer? count
---@return any message
---@return integer? errno
function callback.send_to_call(waitfunc, socket, send_cb) end

---The same with coroutine.yield as waiting function.
---@param socket moonbridge_io.handle
---@param send_cb moonbridge_callback.send_cb?
---@return integer? count
---@return any message
---@return integer? errno
function callback.send_to_yield(socket, send_cb) end

return callback
