//! What was lost since the log last told of it: it tells once a minute of each kind, and at the end.

use std::time::Instant;

use super::push_process::PushProcess;
use super::service::Service;
use crate::server::ipc::clock;
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::listen::pool::Pool;
use crate::server::log_text::{counted, were};
use crate::server::log_throttle::Occasion;
use crate::server::operator::log::{Level, Log};

/// Tells the log what is to be told on this occasion. Returns when the next one is.
pub fn tell(
    service: &mut Service,
    push: &mut PushProcess,
    log: &mut Log,
    occasion: Occasion,
) -> Option<Instant> {
    let mut next = vec![push.tell_losses(log, occasion)];
    let (closed, due) = service.handover.reception.report_closed(occasion);
    closed.into_iter().for_each(|text| log.notice(&text));
    next.push(due);
    next.extend(service.access_log.as_mut().map(|access_log| access_log.tell_lost(log, occasion)));
    let input_limit = service.input_limit();
    let of_pools =
        service.pools.iter().map(|state| of_pool(&state.pool, input_limit, log, occasion));
    next.extend(of_pools);
    next.into_iter().flatten().min()
}

/// What the workers of a pool have lost.
fn of_pool(pool: &Pool, input_limit: usize, log: &mut Log, occasion: Occasion) -> Option<Instant> {
    let now = clock::milliseconds(occasion.now);
    let mut next = None;
    for loss in PoolLoss::ALL {
        let count = pool.scoreboard.losses(loss);
        if let Some(more) = count.rest(now, occasion.is_last) {
            let prefix = format!("[Pool #{}] ", pool.number);
            log.line(Level::Notice, &prefix, &text(loss, more, input_limit));
        }
        next = next.into_iter().chain(count.next(now)).min();
    }
    next.map(clock::instant)
}

fn text(loss: PoolLoss, more: u64, input_limit: usize) -> String {
    match loss {
        PoolLoss::ProxyHeader => {
            format!("Connections closed because they had no valid PROXY header: {more} more")
        }
        PoolLoss::Handshake => format!("TLS handshakes failed: {more} more"),
        PoolLoss::Input => format!(
            "{} {} closed: together they held more than {input_limit} bytes of input",
            counted(more, "more waiting connection"),
            were(more)
        ),
    }
}
