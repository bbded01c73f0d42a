//! A file that was opened to be sent.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::http::wire::conditional::Validators;

/// A file, or part of one, of up to this size is read and sent with its head; one that is larger is sent by the system.
pub const READ_AT_ONCE: u64 = 64 * 1024;

/// What was opened.
#[derive(Debug)]
pub enum FileKind {
    /// A file.
    File(OpenedFile),
    /// A folder.
    Folder(OwnedFd),
    /// A device, a pipe or a socket.
    Other,
}

/// A file, and what identifies its version.
#[derive(Clone, Debug)]
pub struct OpenedFile {
    /// Its descriptor. The position is its own as long as there is no clone.
    pub file: Rc<OwnedFd>,
    /// What of the file is there.
    pub version: FileVersion,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified, in full seconds: no date of HTTP says more.
    pub modified: SystemTime,
    /// Its entity tag, made of the time of its last modification in nanoseconds and its size.
    pub tag: String,
}

/// What changes with a file and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    place: (u64, u64),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// That of the file that this tells of.
    pub fn of(stat: &FileStat) -> FileVersion {
        FileVersion {
            place: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl FileKind {
    /// What a descriptor refers to. `variant`: a further part of the entity tag.
    ///
    /// # Errors
    /// What the system reports.
    pub fn of(file: OwnedFd, variant: &str) -> io::Result<FileKind> {
        let stat = fstat(file.as_fd())?;
        Ok(match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => FileKind::File(OpenedFile::new(file, &stat, variant)),
            SFlag::S_IFDIR => FileKind::Folder(file),
            _ => FileKind::Other,
        })
    }
}

impl OpenedFile {
    fn new(file: OwnedFd, stat: &FileStat, variant: &str) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let modified = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
        let tag = tag(stat.st_mtime, stat.st_mtime_nsec, size, variant);
        OpenedFile { file: Rc::new(file), version: FileVersion::of(stat), size, modified, tag }
    }

    /// The file from a position on, which has another content than all of it.
    pub fn from(mut self, position: u64) -> Self {
        if position > 0 {
            self.tag.insert_str(self.tag.len() - 1, &format!("+{position:x}"));
        }
        self
    }

    /// What conditions are compared with.
    pub fn validators(&self) -> Validators<'_> {
        Validators { tag: Some(self.tag.as_bytes()), modified: Some(self.modified) }
    }
}

/// The entity tag of a version. Each request for a file needs one, so it is not written by the general means.
fn tag(seconds: i64, nanoseconds: i64, size: u64, variant: &str) -> String {
    let mut tag = String::with_capacity(64);
    tag.push('"');
    push_hex(&mut tag, seconds as u64);
    tag.push('.');
    push_hex(&mut tag, nanoseconds as u64);
    tag.push('-');
    push_hex(&mut tag, size);
    tag.push_str(variant);
    tag.push('"');
    tag
}

fn push_hex(text: &mut String, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place)) as u8 & 15;
        text.push(char::from(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }));
    }
}

/// The last second that a date of HTTP can say: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_tag_has_time_and_size_in_hexadecimal_digits() {
        for (seconds, nanoseconds, size) in
            [(0, 0, 0), (1, 15, 16), (1_764_460_800, 999_999_999, u64::MAX), (-1, 255, 256)]
        {
            let expected = format!("\"{seconds:x}.{nanoseconds:x}-{size:x}-br\"");
            assert_eq!(tag(seconds, nanoseconds, size, "-br"), expected);
        }
    }

    #[test]
    fn what_is_no_file_is_told_apart() {
        let kind = |path: &str| FileKind::of(File::open(path).unwrap().into(), "").unwrap();
        assert!(matches!(kind("/dev/null"), FileKind::Other));
        assert!(matches!(kind("/"), FileKind::Folder(_)));
        let FileKind::File(file) = kind("Cargo.toml") else { panic!("no file") };
        assert_eq!(file.size, std::fs::metadata("Cargo.toml").unwrap().len());
        assert!(crate::http::wire::conditional::is_tag(file.tag.as_bytes()), "{}", file.tag);
        assert!(file.modified <= SystemTime::now());
        let tag = file.tag.clone();
        let (file, tag_of_rest) = (file.from(0), tag.replacen("\"", "", 2));
        assert_eq!(file.tag, tag);
        assert_eq!(file.from(26).tag, format!("\"{tag_of_rest}+1a\""));
    }
}
