//! What belongs to a connection and is too long for a message of the control channel, received input
//! and output that is not sent yet: it travels as a file in memory, which the supervisor passes on
//! unseen.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::connection_state::ConnectionState;

/// A file with these bytes, one part after the other.
///
/// # Errors
/// What the system reports for lack of descriptors or memory.
pub fn store(parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"moonbridge", MFdFlags::MFD_CLOEXEC)?);
    parts.iter().try_for_each(|part| file.write_all(part))?;
    Ok(file.into())
}

/// Moves the data of a connection into a file. None if there is none, or no memory or descriptor: it is
/// left as it is then.
pub fn move_data(state: &mut ConnectionState) -> Option<OwnedFd> {
    let file = store(&[&state.data]).ok().filter(|_| !state.data.is_empty())?;
    state.data = Vec::new();
    Some(file)
}

/// The bytes of a file that [`store`] has made.
///
/// # Errors
/// What the system reports.
pub fn load(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let (one, other) = bytes.split_at(150_000);
        assert_eq!(load(store(&[one, other]).unwrap()).unwrap(), bytes);
    }
}
