//! A file that was opened to be sent.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, SFlag, fstat};

use super::path::name_of;
use crate::http::wire::conditional::Validators;

/// What nobody knows more about.
const BYTES: &str = "application/octet-stream";

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
#[derive(Debug)]
pub struct OpenedFile {
    /// Its descriptor, whose position is its own.
    pub file: OwnedFd,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified, in full seconds: no date of HTTP says more.
    pub modified: SystemTime,
    /// Its entity tag, made of the time of its last modification in nanoseconds and its size.
    pub tag: String,
}

impl FileKind {
    /// Looks at what a descriptor refers to. `variant`: what the entity tag has to say beside.
    ///
    /// # Errors
    /// What the system reports.
    pub fn look(file: OwnedFd, variant: &str) -> io::Result<FileKind> {
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
        let tag = format!("\"{:x}.{:x}-{size:x}{variant}\"", stat.st_mtime, stat.st_mtime_nsec);
        OpenedFile { file, size, modified, tag }
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

/// The last second that a date of HTTP can say: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// What follows the last dot of a file's name.
pub fn extension_of(path: &[u8]) -> Option<&[u8]> {
    let name = name_of(path);
    name.iter().rposition(|byte| *byte == b'.').map(|dot| &name[dot + 1..])
}

/// The media type of a file by the extension of its name; text is taken for UTF-8.
pub fn media_type(path: &[u8]) -> Cow<'static, str> {
    let extension = extension_of(path).and_then(|extension| str::from_utf8(extension).ok());
    let known = extension.and_then(|extension| mime_guess::from_ext(extension).first_raw());
    let known = known.unwrap_or(BYTES);
    match known {
        "text/html" => "text/html; charset=utf-8".into(),
        "text/css" => "text/css; charset=utf-8".into(),
        "text/javascript" => "text/javascript; charset=utf-8".into(),
        "text/plain" => "text/plain; charset=utf-8".into(),
        text if text.starts_with("text/") => format!("{text}; charset=utf-8").into(),
        other => other.into(),
    }
}

/// Whether files of a media type become much smaller if they are compressed.
pub fn is_compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or((essence, ""));
    match kind {
        "image" => matches!(subtype, "svg+xml" | "bmp" | "x-icon" | "vnd.microsoft.icon"),
        "audio" | "video" => false,
        "font" => !matches!(subtype, "woff" | "woff2"),
        "application" => !matches!(
            subtype,
            "zip"
                | "gzip"
                | "x-gzip"
                | "x-7z-compressed"
                | "x-rar-compressed"
                | "zstd"
                | "x-bzip2"
                | "x-xz"
                | "pdf"
                | "font-woff"
                | "java-archive"
                | "epub+zip"
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn media_types_are_known_by_the_extension() {
        for (path, expected) in [
            (&b"index.html"[..], "text/html; charset=utf-8"),
            (b"a/b/style.CSS", "text/css; charset=utf-8"),
            (b"app.js", "text/javascript; charset=utf-8"),
            (b"a.json", "application/json"),
            (b"a.svg", "image/svg+xml"),
            (b"a.webp", "image/webp"),
            (b"a.woff2", "font/woff2"),
            (b"a.wasm", "application/wasm"),
            (b"a.mp4", "video/mp4"),
            (b"a.tar.gz", "application/gzip"),
            (b"a.d/README", BYTES),
            (b"a.unknownextension", BYTES),
            (b"a.\xff", BYTES),
            (b"", BYTES),
        ] {
            assert_eq!(media_type(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn pictures_and_archives_are_not_compressed_again() {
        for name in [&b"a.html"[..], b"a.js", b"a.svg", b"a.wasm", b"a.ttf", b"a.bin"] {
            assert!(is_compressible(&media_type(name)), "{}", name.escape_ascii());
        }
        for name in [&b"a.png"[..], b"a.mp4", b"a.zip", b"a.woff2", b"a.gz", b"a.ogg"] {
            assert!(!is_compressible(&media_type(name)), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_file_is_told_apart() {
        let look = |path: &str| FileKind::look(File::open(path).unwrap().into(), "").unwrap();
        assert!(matches!(look("/dev/null"), FileKind::Other));
        assert!(matches!(look("/"), FileKind::Folder(_)));
        let FileKind::File(file) = look("Cargo.toml") else { panic!("no file") };
        assert_eq!(file.size, std::fs::metadata("Cargo.toml").unwrap().len());
        assert!(crate::http::wire::conditional::is_tag(file.tag.as_bytes()), "{}", file.tag);
        assert!(file.modified <= SystemTime::now());
        let tag = file.tag.clone();
        let (file, tag_of_rest) = (file.from(0), tag.replacen("\"", "", 2));
        assert_eq!(file.tag, tag);
        assert_eq!(file.from(26).tag, format!("\"{tag_of_rest}+1a\""));
    }
}
