//! Which connections of a listener begin with a PROXY header.

use mlua::{Table, Value};
use socket2::SockAddr;

use crate::binding::{self, Fault, Reply};
use crate::proxy::networks::Networks;
use crate::proxy::proxied::{Peer, Proxied};
use crate::trusted_peers;

/// The fields of a listener that say that.
const SWITCH: &str = "proxy_protocol";
const TRUSTED: &str = "trusted";

/// The peers whose connections begin with a header. It is demanded of them, and of nobody else.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Proxies {
    /// Nobody.
    #[default]
    Nobody,
    /// Everybody.
    Everybody,
    /// Those in these networks.
    Those(Networks),
}

impl Proxies {
    /// Reads the fields of the listener at `index` (from 1).
    ///
    /// # Errors
    /// Misuse that names the listener and the field.
    pub fn read(index: usize, table: &Table) -> Reply<Self> {
        let wrong = |text: String| Err(Fault::misuse(text));
        let is_on = match table.get::<Value>(SWITCH)? {
            Value::Nil => false,
            Value::Boolean(is_on) => is_on,
            other => {
                return wrong(format!(
                    "Field \"{SWITCH}\" of listener #{index} must be a boolean, not a {}",
                    binding::kind(&other)
                ));
            }
        };
        let what = format!("Field \"{TRUSTED}\" of listener #{index}");
        match trusted_peers::read(&table.get(TRUSTED)?, &what)? {
            None if is_on => Ok(Proxies::Everybody),
            None => Ok(Proxies::Nobody),
            Some(networks) if is_on => Ok(Proxies::Those(networks)),
            Some(_) => wrong(format!("{what} is of use with {SWITCH} = true only")),
        }
    }

    /// What is to be told of a connection of this peer by its header.
    pub fn proxied(&self, peer: &SockAddr) -> Proxied {
        let is_expected = match self {
            Proxies::Nobody => false,
            Proxies::Everybody => true,
            Proxies::Those(networks) => networks.contain(Peer::of(peer.as_socket())),
        };
        if is_expected { Proxied::Expected } else { Proxied::No }
    }
}
