//! `moonbridge.http`: HTTP/1.1 for the handlers of applications.
//!
//! | room | what it is |
//! |---|---|
//! | [`wire`] | parsers and writers that server and client share (pure) |
//! | [`form`] | incremental parsers of forms (pure) |
//! | [`server`] | the server's side of a connection |
//! | `lua` | what Lua sees of a request, and the chunks that call the application |
//! | [`files`] | files as responses |
//! | [`client`] | `http.request` |
//! | [`websocket`] | `http.websocket` and `http.websocket_connect` |
//!
//! `wire` knows none of the others; `form`, `files` and `client` know `wire`, `server` knows `wire` and `form`,
//! `websocket` knows `wire` and `server`, and `lua` knows all but `client` and `websocket`.

pub mod client;
pub mod files;
pub mod form;
mod lua;
mod secrets;
pub(crate) mod server;
pub mod websocket;
pub mod wire;

use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, Result, Table, Value};

use crate::binding::{self, Fault};
use crate::server::development::Development;
use crate::server::listen::speaks_first;
use crate::server::worker::context;
use server::options::Options;
use wire::escape::Plus;

#[derive(Clone)]
struct HttpModule(Table);

/// The module's table: always the same one.
pub fn module(lua: &Lua) -> Result<Table> {
    Ok(binding::once(lua, load)?.0)
}

fn load(lua: &Lua) -> Result<HttpModule> {
    let module = lua.create_table()?;
    escapes(lua, &module)?;
    secrets::add(lua, &module)?;
    let native = native(lua)?;
    let io = crate::io::module(lua)?;
    let error_log: Function = binding::chunk(
        lua,
        "moonbridge.http.error_log",
        include_str!("lua/error_log.lua"),
        &native,
    )?;
    module.raw_set("error_log", error_log)?;
    let acme: Function =
        binding::chunk(lua, "moonbridge.http.acme", include_str!("lua/acme.lua"), ())?;
    module.raw_set("acme_challenge", acme)?;
    let maps: Table =
        binding::chunk(lua, "moonbridge.http.maps", include_str!("lua/maps.lua"), &native)?;
    let views: Function =
        binding::chunk(lua, "moonbridge.http.views", include_str!("lua/views.lua"), &maps)?;
    let args = (&native, &maps);
    let body: Function =
        binding::chunk(lua, "moonbridge.http.body", include_str!("lua/body.lua"), args)?;
    let args = (&native, crate::callback::protocol(lua)?);
    let streaming: Function =
        binding::chunk(lua, "moonbridge.http.streaming", include_str!("lua/streaming.lua"), args)?;
    let args = (&native, &module);
    let replies: Function =
        binding::chunk(lua, "moonbridge.http.replies", include_str!("lua/replies.lua"), args)?;
    let server = websocket::install(lua, &module, &io, &client::install(lua, &module)?)?;
    let nearest = crate::known_options::nearest_function(lua)?;
    native.raw_set("encode_path", module.raw_get::<Function>("encode_path")?)?;
    let args = (&native, nearest);
    let files: Table =
        binding::chunk(lua, "moonbridge.http.files", include_str!("lua/files.lua"), args)?;
    module.raw_set("static", files.raw_get::<Function>("static")?)?;
    let args = (&native, views, body, streaming, replies, server, files);
    let request: Function =
        binding::chunk(lua, "moonbridge.http.request", include_str!("lua/request.lua"), args)?;
    let args = (&native, io, request);
    let handler: Function =
        binding::chunk(lua, "moonbridge.http.handler", include_str!("lua/handler.lua"), args)?;
    module.raw_set("generate_handler", handler)?;
    let parse_query = include_str!("lua/parse_query.lua");
    let parse_query: Function =
        binding::chunk(lua, "moonbridge.http.parse_query", parse_query, (&native, &maps))?;
    module.raw_set("parse_query", parse_query)?;
    Ok(HttpModule(module))
}

/// `encode_html`, and how URIs and paths are encoded and decoded.
fn escapes(lua: &Lua, module: &Table) -> Result<()> {
    fn export(
        lua: &Lua,
        module: &Table,
        name: &'static str,
        convert: impl Fn(&[u8]) -> Vec<u8> + 'static,
    ) -> Result<()> {
        binding::export(lua, module, name, move |lua, args| {
            let text = string(lua, args.front(), name)?;
            Ok(lua.create_string(convert(&text.as_bytes()))?)
        })
    }
    export(lua, module, "encode_html", |text| wire::escape::encode_html(text).into_owned())?;
    export(lua, module, "encode_uri", wire::escape::encode_uri)?;
    export(lua, module, "decode_uri", |text| wire::escape::decode(text, Plus::Space).into_owned())?;
    export(lua, module, "encode_path", wire::escape::encode_path)?;
    export(lua, module, "decode_path", |text| {
        wire::escape::decode(text, Plus::Literal).into_owned()
    })
}

/// The first argument of `name` as a string; numbers are converted as Lua does.
fn string(lua: &Lua, value: Option<&Value>, name: &str) -> binding::Reply<mlua::LuaString> {
    let text = match value {
        Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            lua.coerce_string(value.clone())?
        }
        _ => None,
    };
    text.ok_or_else(|| Fault::Misuse(format!("bad argument #1 to '{name}' (string expected)")))
}

/// What the Lua chunks of this module call.
fn native(lua: &Lua) -> Result<Table> {
    let native = lua.create_table()?;
    native.raw_set("codes", lua::step::codes(lua)?)?;
    let start = std::time::Instant::now();
    let now = lua.create_function(move |_, ()| Ok(start.elapsed().as_secs_f64()))?;
    native.raw_set("now", now)?;
    let note = lua.create_function(|_, text: mlua::LuaString| {
        context::note_traceback(text.to_string_lossy());
        Ok(())
    })?;
    native.raw_set("note_traceback", note)?;
    let waits = lua.create_function(|lua, connect: Function| {
        speaks_first::mark(lua, &connect)?;
        Ok(connect)
    })?;
    native.raw_set("client_speaks_first", waits)?;
    // configure(options): time limits and a function that makes steps; or what is wrong.
    let configure = lua.create_function(|lua, table: Table| {
        match Options::read(&table).and_then(|o| Ok((Options::times(lua, &table)?, o))) {
            Ok((times, mut options)) => {
                options.development = Development::of(lua);
                let limits = Options::limits(&times)?;
                (times, lua::steps::factory(lua, Rc::new(options), limits)?).into_lua_multi(lua)
            }
            Err(Fault::Misuse(text) | Fault::System(text, _)) => text.into_lua_multi(lua),
            Err(Fault::Lua(error)) => Err(error),
        }
    })?;
    native.raw_set("configure", configure)?;
    lua::log_field::add(lua, &native)?;
    lua::replies::functions(lua, &native)?;
    lua::file_steps::functions(lua, &native)?;
    lua::views::searches(lua, &native)?;
    Ok(native)
}
