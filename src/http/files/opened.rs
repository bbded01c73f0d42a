//! A file that was opened to be sent.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::http::wire::conditional::Validators;
use crate::http::wire::header_lines::push_header;
use crate::sys::block::{SIZE, hex_digits};

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
    /// The header lines that tell its version, and that it can be had in parts; the first one has its entity tag. They
    /// are written once for a file that is kept open.
    lines: Rc<[u8]>,
    tag: Range<usize>,
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
        let (lines, tag) = lines(&tag, modified);
        OpenedFile {
            file: Rc::new(file),
            version: FileVersion::of(stat),
            size,
            modified,
            lines,
            tag,
        }
    }

    /// The file from a position on, which has another content than all of it.
    pub fn from(mut self, position: u64) -> Self {
        if position > 0 {
            let mut tag = self.tag().to_vec();
            tag.truncate(tag.len().saturating_sub(1));
            tag.push(b'+');
            push_hex(&mut tag, position);
            tag.push(b'"');
            (self.lines, self.tag) = lines(&tag, self.modified);
        }
        self
    }

    /// Its entity tag, made of the time of its last modification in nanoseconds and its size.
    pub fn tag(&self) -> &[u8] {
        self.lines.get(self.tag.clone()).unwrap_or_default()
    }

    /// The lines ETag, Last-Modified and Accept-Ranges.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// What conditions are compared with.
    pub fn validators(&self) -> Validators<'_> {
        Validators { tag: Some(self.tag()), modified: Some(self.modified) }
    }
}

/// The header lines of a version, and where the tag is in them.
fn lines(tag: &[u8], modified: SystemTime) -> (Rc<[u8]>, Range<usize>) {
    let mut lines = Vec::with_capacity(160);
    push_header(&mut lines, b"ETag", tag);
    let end = lines.len() - 2;
    push_header(&mut lines, b"Last-Modified", httpdate::fmt_http_date(modified).as_bytes());
    push_header(&mut lines, b"Accept-Ranges", b"bytes");
    (lines.into(), end - tag.len()..end)
}

/// The entity tag of a version. Each file that is opened needs one, so it is not written by the general means.
fn tag(seconds: i64, nanoseconds: i64, size: u64, variant: &str) -> Vec<u8> {
    let mut tag = Vec::with_capacity(64);
    tag.push(b'"');
    push_hex(&mut tag, seconds as u64);
    tag.push(b'.');
    push_hex(&mut tag, nanoseconds as u64);
    tag.push(b'-');
    push_hex(&mut tag, size);
    tag.extend_from_slice(variant.as_bytes());
    tag.push(b'"');
    tag
}

fn push_hex(text: &mut Vec<u8>, number: u64) {
    let mut bytes = [0; SIZE];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    let zeros = number.leading_zeros() as usize / 4;
    text.extend_from_slice(&hex_digits(&bytes)[16 + zeros.min(15)..]);
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
            assert_eq!(tag(seconds, nanoseconds, size, "-br"), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_no_file_is_told_apart() {
        let kind = |path: &str| FileKind::of(File::open(path).unwrap().into(), "").unwrap();
        assert!(matches!(kind("/dev/null"), FileKind::Other));
        assert!(matches!(kind("/"), FileKind::Folder(_)));
        let FileKind::File(file) = kind("Cargo.toml") else { panic!("no file") };
        assert_eq!(file.size, std::fs::metadata("Cargo.toml").unwrap().len());
        assert!(file.modified <= SystemTime::now());
        let tag = String::from_utf8(file.tag().to_vec()).unwrap();
        assert!(crate::http::wire::conditional::is_tag(tag.as_bytes()), "{tag}");
        let lines = |file: &OpenedFile| String::from_utf8(file.lines().to_vec()).unwrap();
        let modified = httpdate::fmt_http_date(file.modified);
        let rest = format!("\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\n");
        let file = file.from(0);
        assert_eq!(lines(&file), format!("ETag: {tag}{rest}"));
        let later = format!("{}+1a\"", &tag[..tag.len() - 1]);
        let file = file.from(26);
        assert_eq!((file.tag(), lines(&file)), (later.as_bytes(), format!("ETag: {later}{rest}")));
    }
}
