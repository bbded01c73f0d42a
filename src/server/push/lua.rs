//! The Lua interface: `topic`, `publish` and `subscribers` (reference, "Held responses and topics").

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, LuaString, MultiValue, Table, Value};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

use crate::binding::{self, Fault, Reply};
use crate::io::stream::Direction;
use crate::io::wait;
use crate::known_options;
use crate::server::ipc::overflow;
use crate::server::ipc::push_line::PushLine;
use crate::server::ipc::push_message::{
    LONGEST_TEXT, Publication, ToPush, TopicSpec, decode_count,
};
use crate::server::listen::registry::Registry;
use crate::server::metrics::push::{PushCounters, PushTotal};
use crate::sys::os::error_text::ErrorCode;

/// The longest name of a topic, and the longest id, in bytes.
pub const LONGEST_NAME: usize = 255;

/// The longest history, in messages.
const LONGEST_HISTORY: f64 = 1e6;

/// How long [`subscribers`] waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How much may wait for the push process, in bytes ([`Publication::cost`]). A longer message passes if nothing waits.
const WAITING: u64 = 64 * 1024 * 1024;

/// Why nothing is published where no server runs.
const NO_SERVER: &str = "No server runs in this process";

/// Defines the functions.
pub fn export(lua: &Lua, module: &Table, registry: Rc<Registry>) -> mlua::Result<()> {
    let topics = registry.clone();
    binding::export(lua, module, "topic", move |lua, args| topic(lua, args, &topics))?;
    binding::export(lua, module, "publish", move |lua, args| publish(lua, args, &registry))?;
    binding::export(lua, module, "subscribers", subscribers)
}

/// `topic(name, { history = 100 })`: the last messages of a topic are kept.
fn topic(lua: &Lua, args: MultiValue, registry: &Registry) -> Reply<()> {
    let mut args = args.into_iter();
    let name = name(lua, "topic", args.next())?;
    let history = match args.next() {
        None | Some(Value::Nil) => 0.0,
        Some(Value::Table(options)) => {
            known_options::check(&options, "topic", &["history"], 0)?;
            match options.get::<Value>("history")? {
                Value::Nil => 0.0,
                value => lua.coerce_number(value)?.unwrap_or(-1.0),
            }
        }
        Some(other) => {
            let kind = binding::kind(&other);
            return Err(Fault::misuse(format!("topic expects a table of options, not a {kind}")));
        }
    };
    if !(0.0..=LONGEST_HISTORY).contains(&history) || history.fract() != 0.0 {
        return Err(Fault::misuse(
            "Option \"history\" of topic must be a number of messages, at most 1000000",
        ));
    }
    registry.declare_topic(TopicSpec { name, history: history as u64 })
}

/// `publish(topic, message [, { id = "17" }])`: all held connections that hear the topic get the message. Returns true,
/// or nil and what is wrong. It does not wait for anybody.
fn publish(lua: &Lua, args: MultiValue, registry: &Registry) -> Reply<bool> {
    let mut args = args.into_iter();
    let topic = name(lua, "publish", args.next())?;
    let data = match args.next() {
        Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            text(lua, value)?
        }
        other => {
            let kind = other.as_ref().map_or("nothing", binding::kind);
            return Err(Fault::misuse(format!(
                "publish expects a message as a string, not {kind}"
            )));
        }
    };
    let id = match args.next() {
        None | Some(Value::Nil) => None,
        Some(Value::Table(options)) => {
            known_options::check(&options, "publish", &["id"], 0)?;
            match options.get::<Value>("id")? {
                Value::Nil => None,
                value => Some(short(lua, "The id of a message", Some(value))?),
            }
        }
        Some(other) => {
            let kind = binding::kind(&other);
            return Err(Fault::misuse(format!("publish expects a table of options, not a {kind}")));
        }
    };
    let Some(line) = PushLine::current() else {
        return Err(Fault::System(NO_SERVER.into(), None));
    };
    let Some(counters) = wanted(registry) else { return Ok(true) };
    let mut publication = Publication { topic, id, data, in_file: None };
    let (cost, waiting) = (publication.cost(), counters.waiting());
    if waiting > 0 && waiting.saturating_add(cost) > WAITING {
        return Err(too_much());
    }
    let mut file = None;
    if publication.data.len() > LONGEST_TEXT {
        let data = std::mem::take(&mut publication.data);
        file = Some(overflow::store(&[&data])?);
        publication.in_file = Some(data.len() as u64);
    }
    let descriptors: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    match line.publish(publication, &descriptors) {
        Ok(()) => {
            counters.add(PushTotal::Unread, cost);
            Ok(true)
        }
        Err(Errno::EAGAIN) => Err(too_much()),
        Err(errno) => Err(errno.into()),
    }
}

fn too_much() -> Fault {
    let code = Some(ErrorCode::Errno(Errno::EAGAIN as i32));
    Fault::System("More is published than can be passed on".into(), code)
}

/// A connection will be held: what is published from now on may be heard.
pub fn want(lua: &Lua) {
    if let Ok(counters) = Registry::of(lua).metrics.push() {
        counters.set(PushTotal::Wanted, 1);
    }
}

/// The counters, if somebody may hear a message: otherwise no process is started for it.
fn wanted(registry: &Registry) -> Option<PushCounters> {
    registry.metrics.push().ok().filter(|counters| counters.get(PushTotal::Wanted) > 0)
}

/// `subscribers(topic)`: how many connections hear a topic, or nil and what is wrong.
fn subscribers(lua: &Lua, args: MultiValue) -> Reply<i64> {
    let topic = name(lua, "subscribers", args.into_iter().next())?;
    let Some(line) = PushLine::current() else {
        return Err(Fault::System(NO_SERVER.into(), None));
    };
    let registry = Registry::of(lua);
    if wanted(&registry).is_none() {
        return Ok(0);
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    line.send(&ToPush::Count(topic), &[theirs.as_fd()])?;
    drop(theirs);
    let mut answer = [0; 8];
    let count = if wait::ready(ours.as_fd(), Direction::Read, Some(ANSWER_WITHIN))? {
        recv(ours.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?
    } else {
        0
    };
    let answer = answer.get(..count).unwrap_or_default();
    let count = decode_count(answer)
        .map_err(|_| Fault::from(io::Error::from_raw_os_error(Errno::ETIMEDOUT as i32)))?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

fn text(lua: &Lua, value: Value) -> Reply<Vec<u8>> {
    let text: Option<LuaString> = lua.coerce_string(value)?;
    Ok(text.map(|text| text.as_bytes().to_vec()).unwrap_or_default())
}

/// The name of a topic.
fn name(lua: &Lua, function: &str, value: Option<Value>) -> Reply<Vec<u8>> {
    short(lua, &format!("{function}: the name of a topic"), value)
}

/// A string that is neither empty nor long.
fn short(lua: &Lua, what: &str, value: Option<Value>) -> Reply<Vec<u8>> {
    let bytes = match value {
        Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            text(lua, value)?
        }
        other => {
            let kind = other.as_ref().map_or("nothing", binding::kind);
            return Err(Fault::misuse(format!("{what} must be a string, not {kind}")));
        }
    };
    if bytes.is_empty() || bytes.len() > LONGEST_NAME {
        let size = bytes.len();
        return Err(Fault::misuse(format!(
            "{what} must have 1 to {LONGEST_NAME} bytes, not {size}"
        )));
    }
    Ok(bytes)
}
