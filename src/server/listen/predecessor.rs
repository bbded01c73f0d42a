//! What a generation finds that is started by a reload: its predecessor's listening sockets, and the
//! channels to the predecessor and to the first process.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::unistd::getppid;

use super::inherited::PredecessorSocket;
use crate::io::tls::vault;
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::clock;
use crate::server::ipc::generation::FromPredecessor;
use crate::sys::os::environment;
use crate::sys::os::monotonic::MonotonicTime;

/// The environment variable that says under which numbers the channels were passed: the process id of the
/// first process, then the numbers.
pub const VARIABLE: &str = "MOONBRIDGE_GENERATION";

/// How long to wait for each message of the introduction, in milliseconds.
const INTRODUCTION: u16 = 10_000;

/// What a new generation has of the old one.
pub struct Predecessor {
    /// The channel on which the old generation hands over.
    pub channel: Channel,
    /// The link to the first process.
    pub first: Channel,
    /// The standard error of the server. Until this generation serves it writes to a pipe.
    pub stderr: OwnedFd,
    /// The file by which this generation says that it has the ports.
    pub ports: OwnedFd,
    /// The way to the push process.
    pub push: OwnedFd,
    /// The values of its metrics.
    pub metrics: Option<OwnedFd>,
    /// The log has told that handlers run as root.
    pub warned: bool,
    /// The process group of the server.
    pub group: i32,
}

impl Predecessor {
    /// The numbers of the descriptors.
    pub fn descriptors(&self) -> [RawFd; 4] {
        [self.channel.as_fd(), self.first.as_fd(), self.stderr.as_fd(), self.push.as_fd()]
            .map(|it| it.as_raw_fd())
    }
}

/// Takes over what was passed. None if this process was not started by a reload.
///
/// # Errors
/// The predecessor speaks another version of the messages, or is gone.
pub fn adopt() -> io::Result<Option<(Predecessor, Vec<PredecessorSocket>)>> {
    let Some(value) = environment::take(VARIABLE) else { return Ok(None) };
    let Some([parent, channel, first]) = numbers(&value) else { return Ok(None) };
    if parent != getppid().as_raw() {
        // It was meant for the process that has started this one.
        return Ok(None);
    }
    let [channel, first] = [channel, first].map(environment::adopt);
    let (Some(channel), Some(first)) = (channel, first) else {
        return Err(io::Error::other("the channels of the reload are missing"));
    };
    let (channel, first) = (Channel::from(channel), Channel::from(first));
    let mut inbox = Inbox::default();
    let mut next = || {
        channel.wait_for_message(INTRODUCTION);
        match channel.receive(&mut inbox)? {
            Received::Message(message, descriptors) => Ok((message, descriptors.into_iter())),
            Received::Garbage => Err(io::Error::other(
                "this version of the module cannot take over from the one that runs: restart the server",
            )),
            Received::Empty | Received::Closed => {
                Err(io::Error::other("the old generation is gone"))
            }
        }
    };
    let (message, mut descriptors) = next()?;
    let (FromPredecessor::Hello(hello), Some(stderr), Some(ports), Some(push)) =
        (message, descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(io::Error::other("the old generation does not introduce itself"));
    };
    clock::start_at(MonotonicTime::at(hello.clock));
    if hello.has_key
        && let Some(key) = descriptors.next()
    {
        vault::adopt(key);
    }
    let metrics = descriptors.next();
    let mut sockets = Vec::new();
    for index in 0..hello.sockets {
        let (message, mut descriptors) = next()?;
        let (FromPredecessor::Socket(passed), Some(socket)) = (message, descriptors.next()) else {
            return Err(io::Error::other("the old generation has not passed its sockets"));
        };
        sockets.push(PredecessorSocket { index: index as usize, passed, socket });
    }
    let (warned, group) = (hello.warned, hello.group as i32);
    let predecessor = Predecessor { channel, first, stderr, ports, push, metrics, warned, group };
    Ok(Some((predecessor, sockets)))
}

fn numbers(value: &OsStr) -> Option<[i32; 3]> {
    let parts: Result<Vec<i32>, _> = value.to_str()?.split(':').map(str::parse).collect();
    parts.ok()?.try_into().ok()
}
