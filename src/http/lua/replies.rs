//! What `replies.lua` needs: conditions of requests, and dates.

use std::time::{Duration, UNIX_EPOCH};

use mlua::{Lua, LuaString, Table};

use crate::http::wire::conditional::{self, Conditions, Outcome, Validators};
use crate::http::wire::header_lines::check_header;

/// The last second that a date of HTTP can say: the end of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Puts into the table:
///
/// * `precondition(tag, modified, if_match, if_none_match, if_unmodified_since, if_modified_since)`: the status code
///   of the answer, 304 or 412, or nil if the request is to be answered as usual;
/// * `is_tag(text)`, `is_date(text)`: whether it is an entity tag, a date;
/// * `date(seconds)`: the date that many seconds after 1970;
/// * `header_fault(name, value)`: what is wrong with a header field, or nil.
pub fn functions(lua: &Lua, native: &Table) -> mlua::Result<()> {
    type Texts = [Option<LuaString>; 6];
    let precondition = lua.create_function(|_, (a, b, c, d, e, f)| {
        let texts: Texts = [a, b, c, d, e, f];
        let bytes = texts.each_ref().map(|text| text.as_ref().map(|text| text.as_bytes()));
        let text = |index: usize| bytes[index].as_deref().unwrap_or_default();
        let validators = Validators {
            tag: bytes[0].as_deref(),
            modified: bytes[1].as_deref().and_then(conditional::date),
        };
        let conditions = Conditions {
            if_match: text(2),
            if_none_match: text(3),
            if_unmodified_since: text(4),
            if_modified_since: text(5),
        };
        Ok(match conditional::evaluate(&conditions, &validators) {
            Outcome::Proceed => None,
            Outcome::NotModified => Some(304),
            Outcome::Failed => Some(412),
        })
    })?;
    native.raw_set("precondition", precondition)?;
    let is_tag =
        lua.create_function(|_, text: LuaString| Ok(conditional::is_tag(&text.as_bytes())))?;
    native.raw_set("is_tag", is_tag)?;
    let is_date = lua
        .create_function(|_, text: LuaString| Ok(conditional::date(&text.as_bytes()).is_some()))?;
    native.raw_set("is_date", is_date)?;
    let date = lua.create_function(|_, seconds: f64| {
        let seconds = (seconds.max(0.0) as u64).min(LAST);
        Ok(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
    })?;
    native.raw_set("date", date)?;
    let header_fault = lua.create_function(|_, (name, value): (LuaString, LuaString)| {
        Ok(check_header(&name.as_bytes(), &value.as_bytes()).err())
    })?;
    native.raw_set("header_fault", header_fault)
}
