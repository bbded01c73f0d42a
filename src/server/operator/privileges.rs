//! As which users supervisor and workers run: what is impossible is an error at start-up, and root without
//! need is told.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::unistd::geteuid;

use crate::server::credentials::Credentials;
use crate::server::listen::pool::Pool;

/// Checks that this process can become each user that its processes should run as. `server`: what supervisor
/// and workers run as.
///
/// # Errors
/// A sentence that names the pool or the option.
pub fn check(pools: &[Rc<Pool>], server: Option<&Credentials>) -> Result<(), String> {
    server.map_or(Ok(()), Credentials::may_assume)?;
    for pool in pools {
        let Some(identity) = &pool.config.identity else { continue };
        let number = pool.number;
        identity.may_assume().map_err(|text| format!("Pool #{number}: {text}"))?;
    }
    agree(pools, server)
}

/// Checks that these users do not exclude each other.
///
/// # Errors
/// A sentence that names the pool.
pub fn agree(pools: &[Rc<Pool>], server: Option<&Credentials>) -> Result<(), String> {
    for pool in pools {
        let Some(identity) = &pool.config.identity else { continue };
        let number = pool.number;
        if let Some(server) = server
            && !server.uid().is_root()
            && server != identity
        {
            return Err(format!(
                "Pool #{number} cannot have a user of its own: the supervisor runs as the user of the \
                 options of run, which cannot become another one"
            ));
        }
    }
    Ok(())
}

/// Whether this server has warned of handlers that run as root.
static WARNED: AtomicBool = AtomicBool::new(false);

/// A warning if handlers run as root and nobody has said that they should; once, whatever generation of the
/// server has `warned`.
pub fn warning(pools: &[Rc<Pool>], server: Option<&Credentials>, warned: bool) -> Option<String> {
    if WARNED.fetch_or(warned, Relaxed) || warned {
        return None;
    }
    let is_root = geteuid().is_root() && server.is_none();
    let mut pools = pools.iter().filter(|pool| pool.config.identity.is_none());
    let pool = pools.next().filter(|_| is_root)?;
    WARNED.store(true, Relaxed);
    Some(format!(
        "The handlers of pool #{} run as root. Set \"user\" in listen{{...}} or run{{...}} (--user)",
        pool.number
    ))
}

/// Whether the log has told that handlers run as root, in this generation or before.
pub fn has_warned() -> bool {
    WARNED.load(Relaxed)
}
