//! What a request says, as Lua values made when they are asked for: its fields and their views in C, and
//! for `views.lua` the steps that make the tables of what is too much to be searched.

use std::borrow::Cow;
use std::ffi::c_int;

use mlua::{Function, IntoLuaMulti, Lua, LuaString, Table, Value};

use super::form_steps::is_urlencoded;
use super::step::{SharedConnection, step, with};
use super::tables::{Unfit, limited, sequence, settle, store};
use crate::http::server::connection::HttpConnection;
use crate::http::server::request_body::Reader;
use crate::http::wire::cookies::{self, cookies};
use crate::http::wire::escape::{Encoded, Plus, decode_into};
use crate::http::wire::head::Span;
use crate::http::wire::list::elements;
use crate::http::wire::params::{self, is_searched};
use crate::sys::lua::fields::{self, FieldValue, ObjectFields};
use crate::sys::lua::method::Borrowed;
use crate::sys::lua::userdata::Userdata;
use crate::sys::lua::view::{self, ObjectView, Search, ViewEntry};

/// The numbers of the views.
const PARAMS: c_int = 1;
const COOKIES: c_int = 2;
const HEADERS: c_int = 3;
const CSV_TABLE: c_int = 4;
const CSV_STRING: c_int = 5;
const VALUE: c_int = 6;
const FLAGS: c_int = 7;
const POST_PARAMS: c_int = 8;
const BODY: c_int = 9;

/// The metatables of views of an empty text, after those of the views.
const EMPTY_PARAMS: c_int = 9;
const EMPTY_COOKIES: c_int = 10;

/// The parameters were made into a table for their list.
const PARAMS_STORE: c_int = 0;

/// Added to the number of a view that was given twice.
const AGAIN: c_int = 16;

/// Adds the fields and views to the steps of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    in_c(lua, table, shared)?;
    headers(lua, table, shared)?;
    // get_params(): the query's names and their values, a store of maps.lua.
    let limit = with(shared, |c| c.exchange.options.fields)?;
    step(lua, table, shared, "get_params", move |lua, c, (): ()| {
        let query = with(c, |c| {
            give(c, PARAMS_STORE);
            c.request.query.of(&c.request.bytes).get(1..).unwrap_or_default().to_vec()
        })?;
        let pairs = limited(params::pairs(&query), limit, "Too many parameters");
        settle(lua, c, pairs.and_then(|pairs| store(lua, &pairs)))
    })?;
    // cookies(): the same of the cookies.
    step(lua, table, shared, "cookies", move |lua, c, (): ()| {
        let lines = values(c, b"cookie")?;
        let pairs = limited(lines.iter().flat_map(|line| cookies(line)), limit, "Too many cookies");
        settle(lua, c, pairs.and_then(|pairs| store(lua, &pairs)))
    })?;
    // has_view(number): whether the current request has this view.
    step(lua, table, shared, "has_view", |lua, c, number: c_int| {
        with(c, |c| is_given(c, number))?.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "faulty", |lua, c, (): ()| {
        with(c, |c| c.exchange.usability.is_faulty)?.into_lua_multi(lua)
    })?;
    Ok(())
}

/// The values of the header lines with this name.
fn values(shared: &SharedConnection, name: &[u8]) -> mlua::Result<Vec<Vec<u8>>> {
    with(shared, |c| {
        c.request
            .names
            .values(&c.request.head.fields, &c.request.bytes, name)
            .map(<[u8]>::to_vec)
            .collect()
    })
}

fn slices(texts: &[Vec<u8>]) -> Vec<&[u8]> {
    texts.iter().map(Vec::as_slice).collect()
}

/// Steps `headers`, `headers_csv_table`, … that take a name and return that name's entry.
fn headers(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    const TOO_MANY: &str = "Too many elements in a header";
    let limit = with(shared, |c| c.exchange.options.fields)?;
    step(lua, table, shared, "headers", |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        settle(lua, c, sequence(lua, &slices(&values)))
    })?;
    step(lua, table, shared, "headers_csv_table", move |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        let list = limited(values.iter().flat_map(|value| elements(value)), limit, TOO_MANY);
        settle(lua, c, list.and_then(|list| sequence(lua, &list)))
    })?;
    step(lua, table, shared, "headers_flags", move |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        let flags = limited(values.iter().flat_map(|value| flags(value)), limit, TOO_MANY);
        settle(lua, c, flags.and_then(|flags| store(lua, &flags)))
    })?;
    // header_names(): the names of all header lines, in lower case and each once.
    step(lua, table, shared, "header_names", |lua, c, (): ()| {
        let mut names: Vec<Vec<u8>> = with(c, |c| {
            c.request
                .head
                .fields
                .iter()
                .map(|f| f.name.of(&c.request.bytes).to_ascii_lowercase())
                .collect()
        })?;
        names.sort_unstable();
        names.dedup();
        settle(lua, c, sequence(lua, &slices(&names)))
    })
}

/// The elements of a header in lower case, as names without values.
pub fn flags(value: &[u8]) -> impl Iterator<Item = params::Pair<'_>> {
    elements(value).map(|element| (Cow::Owned(element.to_ascii_lowercase()), Cow::default()))
}

/// Functions that make what is in C:
///
/// * `fields(complete, views, turn, metatables)`: the `__index` of request objects;
/// * `header_view(key, complete, views, metatable, memory)`: that of a view of headers.
fn in_c(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    let connection = shared.clone();
    type Arguments = (Function, Table, Table, Vec<Table>);
    let fields = move |lua: &Lua, (complete, views, turn, metatables): Arguments| {
        let object = Userdata::new(lua, connection.clone())?;
        fields::index::<RequestFields>(lua, &object, &complete, (&views, &turn), metatables)
    };
    table.raw_set("fields", lua.create_function(fields)?)?;
    let connection = shared.clone();
    type ViewArguments = (String, Function, Table, Table, Table);
    let view = move |lua: &Lua, (key, complete, views, flags, memory): ViewArguments| {
        let object = Userdata::new(lua, connection.clone())?;
        let make = match &*key {
            "headers" => view::index::<Header<HEADERS>>,
            "headers_csv_table" => view::index::<Header<CSV_TABLE>>,
            "headers_csv_string" => view::index::<Header<CSV_STRING>>,
            "headers_value" => view::index::<Header<VALUE>>,
            _ => view::index::<Header<FLAGS>>,
        };
        make(lua, &object, &complete, (&views, &memory), &flags)
    };
    table.raw_set("header_view", lua.create_function(view)?)
}

/// Whether the current request has the view with this number.
fn is_given(c: &HttpConnection, number: c_int) -> bool {
    c.views_given & 1 << number != 0
}

fn give(c: &mut HttpConnection, number: c_int) {
    c.views_given |= 1 << number;
}

struct RequestFields;

impl ObjectFields for RequestFields {
    type Object = SharedConnection;

    fn field(shared: &SharedConnection, name: &[u8]) -> FieldValue {
        let Ok(mut connection) = shared.try_borrow_mut() else { return FieldValue::Complete };
        let c = &mut *connection;
        let span = |span: Span| FieldValue::Text(Borrowed::new(span.of(&c.request.bytes)));
        match name {
            b"path" => c.request.path.map_or(FieldValue::Nil, span),
            b"method" => span(c.request.head.method),
            b"query" => c.request.path.map_or(FieldValue::Nil, |_| span(c.request.query)),
            // A proxy may tell another one.
            b"host" | b"scheme" if c.exchange.options.trusted.is_some() => FieldValue::Complete,
            b"host" => span(c.request.host),
            b"target" => span(c.request.head.target),
            b"version" => FieldValue::Text(Borrowed::new(c.request.head.version.name().as_bytes())),
            b"scheme" => FieldValue::Text(Borrowed::new(c.scheme().as_bytes())),
            b"fresh" => FieldValue::Boolean(c.exchange.usability.is_fresh),
            b"faulty" => FieldValue::Boolean(c.exchange.usability.is_faulty),
            b"get_params" => view(c, PARAMS, |c| {
                let query = c.request.query.of(&c.request.bytes).get(1..).unwrap_or_default();
                let is_searched = is_searched(query, b'&', c.exchange.options.fields);
                (is_searched && !is_given(c, PARAMS_STORE)).then(|| Borrowed::new(query))
            }),
            b"cookies" => view(c, COOKIES, |c| {
                let (request, most) = (&mut c.request, c.exchange.options.fields);
                let line = request.names.first(&request.head.fields, &request.bytes, b"cookie");
                let (line, is_only) = line.unwrap_or((&[], true));
                (is_only && is_searched(line, b';', most)).then(|| Borrowed::new(line))
            }),
            b"body" if is_given(c, BODY) => current(c, BODY),
            b"body" if c.exchange.gather() => {
                // The bytes stay where they are until the next body.
                let text = Borrowed::new(c.exchange.body.ready());
                c.exchange.take_gathered(Reader::Whole);
                give(c, BODY);
                FieldValue::Stored(BODY, text)
            }
            b"post_params" => view(c, POST_PARAMS, |c| {
                let is_form = is_urlencoded(c) && c.exchange.gather();
                let body = c.exchange.body.ready();
                let text = Borrowed::new(body);
                // Without a body there is no form to be read: `request.body` can still be asked for.
                let is_searched =
                    !body.is_empty() && is_searched(body, b'&', c.exchange.options.fields);
                (is_form && is_searched).then(|| c.exchange.take_gathered(Reader::Form))?;
                Some(text)
            }),
            b"headers" => view(c, HEADERS, |_| Some(Borrowed::new(b""))),
            b"headers_csv_table" => view(c, CSV_TABLE, |_| Some(Borrowed::new(b""))),
            b"headers_csv_string" => view(c, CSV_STRING, |_| Some(Borrowed::new(b""))),
            b"headers_value" => view(c, VALUE, |_| Some(Borrowed::new(b""))),
            b"headers_flags" => view(c, FLAGS, |_| Some(Borrowed::new(b""))),
            _ => FieldValue::Complete,
        }
    }
}

/// The view with this number, which was given before. From the third time on it is a field of the request: to make it
/// one takes as long as to find it here three times.
fn current(c: &mut HttpConnection, number: c_int) -> FieldValue {
    let was_asked_again = is_given(c, AGAIN + number);
    give(c, AGAIN + number);
    FieldValue::Current(number, was_asked_again)
}

/// The view with this number, new or not; of the text, if that is searched.
fn view(
    c: &mut HttpConnection,
    number: c_int,
    text: fn(&mut HttpConnection) -> Option<Borrowed>,
) -> FieldValue {
    if is_given(c, number) {
        return current(c, number);
    }
    let Some(text) = text(c) else { return FieldValue::Complete };
    give(c, number);
    let metatable = match number {
        PARAMS | POST_PARAMS if text.is_empty() => EMPTY_PARAMS,
        COOKIES if text.is_empty() => EMPTY_COOKIES,
        number => number,
    };
    FieldValue::View(number, metatable, Some(text).filter(|text| !text.is_empty()))
}

/// A view of headers.
struct Header<const NUMBER: c_int>;

impl<const NUMBER: c_int> ObjectView for Header<NUMBER> {
    type Object = SharedConnection;
    const NUMBER: c_int = NUMBER;
    const KEEPS: bool = matches!(NUMBER, HEADERS | CSV_TABLE | FLAGS);

    fn is_given(shared: &SharedConnection) -> bool {
        shared.try_borrow().is_ok_and(|c| is_given(&c, NUMBER))
    }

    fn entry(shared: &SharedConnection, name: &[u8], current: bool) -> ViewEntry {
        let Ok(mut connection) = shared.try_borrow_mut() else { return ViewEntry::Nil };
        let c = &mut *connection;
        let fields = if current { &c.request.head.fields[..] } else { &[] };
        let first = c.request.names.first(fields, &c.request.bytes, name);
        let (first, is_only) = (first.map(|(first, _)| first), first.is_none_or(|(_, only)| only));
        let text = Borrowed::new(first.unwrap_or_default());
        let is_short =
            || is_only && is_searched(first.unwrap_or_default(), b',', c.exchange.options.fields);
        match (NUMBER, first) {
            (VALUE, None) => ViewEntry::Nil,
            (VALUE, Some(_)) if is_only => ViewEntry::Text(text),
            (VALUE, Some(_)) => ViewEntry::Boolean(false),
            (CSV_STRING, _) if is_only => ViewEntry::Text(text),
            (CSV_STRING, _) => {
                let values = c.request.names.values(fields, &c.request.bytes, name);
                ViewEntry::Made(values.collect::<Vec<_>>().join(&b", "[..]))
            }
            (FLAGS, None) => ViewEntry::View(text),
            (_, None) => ViewEntry::Empty,
            (HEADERS, Some(_)) if is_only => ViewEntry::Single(text),
            (CSV_TABLE, Some(_)) if is_short() => ViewEntry::Split(text),
            (FLAGS, Some(_)) if is_short() => ViewEntry::View(text),
            _ => ViewEntry::Complete,
        }
    }

    fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
        elements(text)
    }
}

/// Puts into `native` how texts are searched, and what makes stores of those that are.
pub fn searches(lua: &Lua, native: &Table) -> mlua::Result<()> {
    native.raw_set("view_source", view::source_key())?;
    native.raw_set("search_store", view::search_store(lua)?)?;
    search(lua, native, "search_params", view::search::<Params>)?;
    search(lua, native, "search_cookies", view::search::<Cookies>)?;
    search(lua, native, "search_flags", view::search::<Flags>)?;
    parse(lua, native, "parse_query", |text| params::pairs(text).collect())?;
    parse(lua, native, "parse_cookies", |text| cookies(text).collect())?;
    parse(lua, native, "parse_flags", |text| flags(text).collect())
}

/// A function that makes the `__index` of views of text with a memory.
fn search(
    lua: &Lua,
    native: &Table,
    name: &str,
    search: fn(&Lua, &Table) -> mlua::Result<Function>,
) -> mlua::Result<()> {
    let make = lua.create_function(move |lua, memory: Table| search(lua, &memory))?;
    native.raw_set(name, make)
}

/// A function that makes a store of a text; nil and a message if its names or values collide.
fn parse(
    lua: &Lua,
    native: &Table,
    name: &str,
    pairs: fn(&[u8]) -> Vec<params::Pair<'_>>,
) -> mlua::Result<()> {
    let parse = lua.create_function(move |lua, text: LuaString| {
        match store(lua, &pairs(&text.as_bytes())) {
            Ok(store) => store.into_lua_multi(lua),
            Err(Unfit::Refused(refusal)) => (Value::Nil, refusal.words()).into_lua_multi(lua),
            Err(Unfit::Lua(error)) => Err(error),
        }
    })?;
    native.raw_set(name, parse)
}

fn entry(value: Encoded<'_>) -> ViewEntry {
    let text = Borrowed::new(value.text);
    if value.is_plain { ViewEntry::Text(text) } else { ViewEntry::Encoded(text) }
}

struct Params;
struct Cookies;
struct Flags;

impl Search for Params {
    fn find(text: &[u8], name: &[u8]) -> ViewEntry {
        params::first(text, name).map_or(ViewEntry::Nil, entry)
    }

    fn decode(text: &[u8], out: &mut Vec<u8>) {
        decode_into(text, Plus::Space, out);
    }
}

impl Search for Cookies {
    fn find(text: &[u8], name: &[u8]) -> ViewEntry {
        cookies::first(text, name).map_or(ViewEntry::Nil, entry)
    }

    fn decode(text: &[u8], out: &mut Vec<u8>) {
        decode_into(text, Plus::Literal, out);
    }
}

impl Search for Flags {
    fn find(text: &[u8], name: &[u8]) -> ViewEntry {
        ViewEntry::Boolean(elements(text).any(|element| element.eq_ignore_ascii_case(name)))
    }
}
