//! The steps of reading a form, for `body.lua`.

use mlua::{IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::step::{Code, SharedConnection, StepResult, code, problem, step, with};
use super::tables::{lists, settle};
use crate::http::form::multipart::Part;
use crate::http::form::reader::{Form, FormField, FormStep};
use crate::http::server::connection::HttpConnection;
use crate::http::server::options::Options;
use crate::http::server::request_body::Reader;
use crate::http::server::request_body::Supply;
use crate::http::server::usability::Problem;
use crate::http::wire::refusal::Refusal;

/// Adds the steps to those of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &SharedConnection) -> mlua::Result<()> {
    // form_kind(): "none" if there is no body or no type, "form" if it can be read as one, else
    // "other".
    step(lua, table, shared, "form_kind", |lua, c, (): ()| {
        with(c, |c| kind(c))?.into_lua_multi(lua)
    })?;
    // form_open(asks): begins to read the form, or refuses it.
    step(lua, table, shared, "form_open", |lua, c, asks: bool| {
        match with(c, |c| open(c, asks))? {
            Ok(()) => Ok(MultiValue::new()),
            Err(error) => problem(lua, error),
        }
    })?;
    // form_step(): what comes next.
    //   "begin", field name, file name, content type | "chunk", string | "end"  (of a field)
    //   INPUT | END (of the form) | a problem's code
    step(lua, table, shared, "form_step", |lua, c, (): ()| match with(c, advance)? {
        Ok(FormProgress::Begin(part)) => {
            let string = |bytes: Option<Vec<u8>>| match bytes {
                Some(bytes) => lua.create_string(bytes)?.into_lua(lua),
                None => Ok(Value::Nil),
            };
            let name = lua.create_string(part.field_name)?;
            ("begin", name, string(part.file_name)?, string(part.content_type)?).into_lua_multi(lua)
        }
        Ok(FormProgress::Chunk) => {
            let chunk = with(c, |c| {
                let form = c.exchange.body.form.as_mut()?;
                let chunk = lua.create_string(form.chunk());
                form.chunk_taken();
                Some(chunk)
            })?;
            ("chunk", chunk.transpose()?).into_lua_multi(lua)
        }
        Ok(FormProgress::FieldEnd) => "end".into_lua_multi(lua),
        Ok(FormProgress::Input) => code(lua, Code::Input),
        Ok(FormProgress::End) => code(lua, Code::End),
        Err(error) => problem(lua, error),
    })?;
    // form_stream(): passes the field that begins on in chunks.
    step(lua, table, shared, "form_stream", |_, c, (): ()| {
        with(c, |c| c.exchange.body.form.as_mut().map(Form::stream_field))?;
        Ok(MultiValue::new())
    })?;
    // form_values(): the lists of the kept fields' values. The form is over then, but for its metadata.
    step(lua, table, shared, "form_values", |lua, c, (): ()| values(lua, c))?;
    // form_at_once(): the same of a form whose body is there, and that has no reader yet; nothing
    // if that is not so.
    step(lua, table, shared, "form_at_once", |lua, c, (): ()| {
        let read = with(c, |c| {
            if kind(c) != "form" || !c.exchange.gather() {
                return Ok(false);
            }
            open(c, false)?;
            let is_complete = matches!(advance(c)?, FormProgress::End);
            c.exchange.body.is_used = !is_complete;
            Ok(is_complete)
        })?;
        match read {
            Ok(true) => values(lua, c),
            Ok(false) => Ok(MultiValue::new()),
            Err(error) => problem(lua, error),
        }
    })?;
    // form_metadata(): the lists of the kept fields' metadata; nothing if it is no multipart form.
    step(lua, table, shared, "form_metadata", |lua, c, (): ()| {
        let form = with(c, |c| c.exchange.body.form.take())?;
        match form.filter(Form::is_multipart) {
            Some(mut form) => metadata(lua, &form.take_fields())?.into_lua_multi(lua),
            None => Ok(MultiValue::new()),
        }
    })?;
    // taken(): how the body was read at once, as `state` in body.lua; nothing if it was not. From then
    // on it counts as used.
    step(lua, table, shared, "taken", |lua, c, (): ()| {
        let reader = with(c, |c| {
            let reader =
                if c.exchange.body.is_used { Reader::Nobody } else { c.exchange.body.reader };
            c.exchange.body.is_used |= reader != Reader::Nobody;
            reader
        })?;
        match reader {
            Reader::Nobody => Ok(MultiValue::new()),
            Reader::Whole => "whole".into_lua_multi(lua),
            _ => "done".into_lua_multi(lua),
        }
    })
}

fn values(lua: &Lua, shared: &SharedConnection) -> StepResult {
    let fields =
        with(shared, |c| c.exchange.body.form.as_mut().map(Form::take_fields))?.unwrap_or_default();
    let pairs = fields.iter().map(|field| (&field.part.field_name[..], &field.value[..]));
    let made = lists(lua, pairs);
    with(shared, |c| c.exchange.body.form.as_mut().map(|form| form.keep_parts(fields)))?;
    settle(lua, shared, made)
}

fn metadata(lua: &Lua, fields: &[FormField]) -> mlua::Result<Table> {
    let lists = lua.create_table()?;
    for FormField { part, .. } in fields {
        let entry = lua.create_table()?;
        for (key, text) in [("file_name", &part.file_name), ("content_type", &part.content_type)] {
            if let Some(text) = text {
                entry.raw_set(key, lua.create_string(text)?)?;
            }
        }
        let name = lua.create_string(&part.field_name)?;
        match lists.raw_get(&name)? {
            Value::Table(list) => list.raw_push(entry)?,
            _ => lists.raw_set(name, lua.create_sequence_from([entry])?)?,
        }
    }
    Ok(lists)
}

/// The Content-Type: `None` if there is none, an error if there are several.
fn content_type(c: &HttpConnection) -> Result<Option<&[u8]>, ()> {
    let fields = c.request.head.fields.iter();
    let mut types = fields
        .filter(|field| field.name.of(&c.request.bytes).eq_ignore_ascii_case(b"content-type"))
        .map(|field| field.value.of(&c.request.bytes));
    match (types.next(), types.next()) {
        (first, None) => Ok(first.filter(|value| !value.is_empty())),
        _ => Err(()),
    }
}

/// Whether the body is an urlencoded form.
pub fn is_urlencoded(c: &HttpConnection) -> bool {
    content_type(c).is_ok_and(|value| value.is_some_and(Form::is_urlencoded))
}

fn kind(c: &HttpConnection) -> &'static str {
    let has_body = !c.exchange.body.is_received() || !c.exchange.body.ready().is_empty();
    match content_type(c) {
        Ok(None) => "none",
        _ if !has_body => "none",
        Ok(Some(value)) if Form::reads(value) => "form",
        Ok(Some(_)) => "other",
        Err(()) => "other",
    }
}

fn open(c: &mut HttpConnection, asks: bool) -> Result<(), Problem> {
    c.exchange.set_reader(Reader::Form)?;
    let form = match content_type(c) {
        Ok(value) => {
            let Options { fields, input_chunk, .. } = *c.exchange.options;
            Form::new(value.unwrap_or_default(), fields, asks, input_chunk)
        }
        Err(()) => Err(Refusal::bad_request("More than one Content-Type header")),
    };
    match form {
        Ok(form) => {
            c.exchange.body.form = Some(form);
            Ok(())
        }
        Err(refusal) => Err(c.exchange.refuse_body(&refusal)),
    }
}

enum FormProgress {
    Begin(Part),
    Chunk,
    FieldEnd,
    Input,
    End,
}

/// Lets the form go on with what is there of the body, until something is to be done.
fn advance(c: &mut HttpConnection) -> Result<FormProgress, Problem> {
    loop {
        c.exchange.usability.touch()?;
        let step = match c.exchange.body.step_form() {
            Ok(step) => step,
            Err(refusal) => return Err(c.exchange.refuse_body(&refusal)),
        };
        match step {
            FormStep::Begin => {
                let part = c.exchange.body.form.as_ref().and_then(Form::current).cloned();
                return Ok(FormProgress::Begin(part.unwrap_or_default()));
            }
            FormStep::Chunk => return Ok(FormProgress::Chunk),
            FormStep::FieldEnd => return Ok(FormProgress::FieldEnd),
            FormStep::Done => return Ok(FormProgress::End),
            FormStep::More => match c.exchange.supply()? {
                Supply::Ready | Supply::End => {}
                Supply::Block => return Ok(FormProgress::Input),
            },
        }
    }
}
