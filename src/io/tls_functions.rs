//! `tlsconnect`, `tlsconnect_nb` and `socket:starttls`: how a handle comes to TLS (reference, "TLS").

use std::io;

use mlua::{Lua, Table, Value};

use super::args::{Args, borrow};
use super::class::method;
use super::connect;
use super::descriptor_limit::retry_after_collection;
use super::functions::host_and_port;
use super::handle::new_free_handle;
use super::stream::Stream;
use super::tls_options::{self, ClientRequest};
use crate::binding::{self, Fault, Reply};
use crate::sys::os::error_text::CodedError;

/// Puts the functions into the module's table, and the methods into that of handles.
pub fn install(lua: &Lua, module: &Table, handles: &Table) -> mlua::Result<()> {
    type Connect = fn(&str, &str) -> io::Result<Stream>;
    for (name, open, waits) in [
        ("tlsconnect", connect::tcp as Connect, true),
        ("tlsconnect_nb", connect::tcp_nb as Connect, false),
    ] {
        binding::export(lua, module, name, move |lua, args| {
            let mut args = Args::new(name, args);
            let (host, port) = host_and_port(lua, &mut args)?;
            let request = request(args.value(), name)?;
            let stream = retry_after_collection(lua, || {
                let session = request.options.session(name_of(&request, &host))?;
                let mut stream = open(&host, &port)?;
                stream.secure(session);
                if waits {
                    stream.duplex.handshake()?;
                }
                Ok(stream)
            })?;
            Ok(Value::UserData(new_free_handle(lua, stream)?))
        })?;
    }
    for (name, waits) in [("starttls", true), ("starttls_nb", false)] {
        method(lua, handles, name, move |_, args| starttls(args, name, waits))?;
    }
    Ok(())
}

fn request(options: Value, what: &str) -> Reply<ClientRequest> {
    match tls_options::table(options, what)? {
        Some(table) => tls_options::client(&table, what, &[]),
        None => Ok(ClientRequest::default()),
    }
}

fn name_of<'a>(request: &'a ClientRequest, host: &'a str) -> &'a str {
    request.server_name.as_deref().unwrap_or(host)
}

/// `starttls` and `starttls_nb`: from here on a connected handle speaks TLS.
fn starttls(mut args: Args, name: &str, waits: bool) -> Reply<Value> {
    let (this, stream) = args.stream()?;
    let Some(table) = tls_options::table(args.value(), name)? else {
        return Err(args.bad("table with option 'host' expected"));
    };
    let request = tls_options::client(&table, name, &["host"])?;
    let host = match table.raw_get::<Value>("host")? {
        Value::String(host) => host.to_string_lossy(),
        Value::Nil if request.server_name.is_some() => String::new(),
        _ => {
            return Err(Fault::misuse(format!(
                "Option 'host' of {name} is expected to be a string"
            )));
        }
    };
    let mut stream = borrow(&stream)?;
    if !stream.is_open() || stream.is_finished() {
        return Err(Fault::misuse("Attempt to start TLS on a closed or finished I/O handle"));
    }
    if stream.duplex.session().is_some() {
        return Err(Fault::misuse("Attempt to start TLS on an I/O handle that has it already"));
    }
    let left = if waits { stream.duplex.flush().map(|()| 0)? } else { stream.duplex.flush_nb()? };
    if left > 0 {
        return Err(Fault::misuse("Attempt to start TLS while output is queued: flush it before"));
    }
    if !stream.duplex.input().is_empty() {
        // Somebody may have put it there: it would count as sent by the peer whose name is checked.
        let text = "the peer has sent more than its answer before TLS has begun: it may not come from the peer";
        return Err(
            io::Error::from(CodedError { code: "plain_input", text: text.to_owned() }).into()
        );
    }
    stream.secure(request.options.session(name_of(&request, &host))?);
    if waits {
        stream.duplex.handshake()?;
    }
    Ok(this)
}
