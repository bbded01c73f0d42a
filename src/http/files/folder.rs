//! A folder that is served: which file a request is for.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, fstat, stat};

use super::media_types::MediaTypes;
use super::opened::{FileKind, OpenedFile};
use super::path::FilePath;
use super::recent::RecentFiles;
use crate::http::wire::accept_encoding::AcceptEncoding;
use crate::sys::os::beneath::{self, Links};

/// Content codings in the order in which they are preferred, with the suffix of a file that has it.
const CODINGS: [(&str, &str); 3] = [("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz")];

/// A folder, and what of it is served.
#[derive(Debug)]
pub struct ServedFolder {
    /// The folder itself.
    pub root: Root,
    /// The names of files that stand for their folder.
    pub index: Vec<Vec<u8>>,
    /// Folders without such a file are listed.
    pub lists: bool,
    /// Names with a dot in front are served.
    pub serves_hidden: bool,
    /// Where links may lead.
    pub links: Links,
    /// Compressed files beside a file are sent in its stead.
    pub is_precompressed: bool,
    /// The media types of its files.
    pub types: MediaTypes,
    /// Small files that were opened lately.
    pub recent: RecentFiles,
}

/// What a path stands for.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(Representation),
    /// A folder whose path ends without a slash.
    FolderWithoutSlash,
    /// A folder that is to be listed.
    Listing(OwnedFd),
    /// Nothing that is served.
    Nothing,
}

/// A file in the form in which it is sent.
#[derive(Debug)]
pub struct Representation {
    /// The file.
    pub opened: OpenedFile,
    /// Its media type, without coding.
    pub media_type: Cow<'static, str>,
    /// Its content coding.
    pub coding: Option<&'static str>,
    /// Whether its form depends on Accept-Encoding.
    pub varies: bool,
}

impl Representation {
    /// A file as it is.
    pub fn plain(opened: OpenedFile, media_type: Cow<'static, str>) -> Self {
        Representation { opened, media_type, coding: None, varies: false }
    }
}

impl ServedFolder {
    /// Finds what a path stands for, for a client that accepts those codings.
    ///
    /// # Errors
    /// What the system reports, but for what means that nothing is there.
    pub fn find(&self, path: &FilePath, accepts: &AcceptEncoding<'_>) -> io::Result<Found> {
        let root = OnceCell::new();
        let open = |name: &[u8], variant: &str| self.open(&root, name, variant);
        let folder = match open(&path.relative, "")? {
            Some(FileKind::File(file)) if !path.is_folder => {
                return self.negotiate(file, &path.relative, accepts, open).map(Found::File);
            }
            Some(FileKind::Folder(_)) if !path.is_folder => return Ok(Found::FolderWithoutSlash),
            Some(FileKind::Folder(folder)) => folder,
            Some(FileKind::File(_) | FileKind::Other) | None => return Ok(Found::Nothing),
        };
        for name in &self.index {
            let name = [&path.relative[..], b"/", name].concat();
            if let Some(FileKind::File(file)) = open(&name, "")? {
                return self.negotiate(file, &name, accepts, open).map(Found::File);
            }
        }
        Ok(if self.lists { Found::Listing(folder) } else { Found::Nothing })
    }

    /// Opens what a name below the folder stands for; None if nothing does. `root`: the folder, once it was needed.
    fn open(
        &self,
        root: &OnceCell<Rc<OwnedFd>>,
        name: &[u8],
        variant: &str,
    ) -> io::Result<Option<FileKind>> {
        if let Some(file) = self.recent.find(&self.root.path, name, variant) {
            return Ok(Some(FileKind::File(file)));
        }
        let root = match root.get() {
            Some(root) => root.clone(),
            None => {
                let opened = self.root.open()?;
                let _ = root.set(opened.clone());
                opened
            }
        };
        match beneath::open(root.as_fd(), name, self.links) {
            Ok(file) => {
                let found = FileKind::of(file, variant)?;
                if let FileKind::File(file) = &found {
                    self.recent.keep(name, variant, file);
                }
                Ok(Some(found))
            }
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Chooses among a file and those beside it that have its content compressed. One that is older than the file has
    /// another content.
    fn negotiate(
        &self,
        file: OpenedFile,
        name: &[u8],
        accepts: &AcceptEncoding<'_>,
        open: impl Fn(&[u8], &str) -> io::Result<Option<FileKind>>,
    ) -> io::Result<Representation> {
        let media_type = self.types.of(name);
        let plain = Representation::plain(file, media_type.name);
        if !self.is_precompressed || !media_type.is_compressible {
            return Ok(plain);
        }
        let mut left = if accepts.is_empty() { Vec::new() } else { CODINGS.to_vec() };
        while let Some(coding) = accepts.choose(left.iter().map(|(coding, _)| *coding)) {
            let Some(index) = left.iter().position(|(other, _)| *other == coding) else { break };
            let (coding, suffix) = left.remove(index);
            let beside = open(&[name, suffix.as_bytes()].concat(), &format!("-{coding}"));
            if let Ok(Some(FileKind::File(beside))) = beside
                && beside.modified >= plain.opened.modified
            {
                return Ok(Representation {
                    opened: beside,
                    coding: Some(coding),
                    varies: true,
                    ..plain
                });
            }
        }
        Ok(Representation { varies: true, ..plain })
    }
}

/// A folder by its path. A deployment may replace it, so each use looks whether it is still the one at that path.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    opened: RefCell<OpenedRoot>,
}

#[derive(Clone, Debug)]
struct OpenedRoot {
    folder: Rc<OwnedFd>,
    /// Device and inode, which no other folder has while this one is open.
    place: (u64, u64),
}

impl Root {
    /// The folder at that path, which is made an absolute one.
    ///
    /// # Errors
    /// There is none, or no current folder any more.
    pub fn new(path: &[u8]) -> io::Result<Root> {
        let path = std::path::absolute(OsStr::from_bytes(path))?;
        let opened = RefCell::new(OpenedRoot::new(&path)?);
        Ok(Root { path, opened })
    }

    fn open(&self) -> io::Result<Rc<OwnedFd>> {
        let now = stat(&self.path)?;
        if self.opened.borrow().place != (now.st_dev, now.st_ino) {
            self.opened.replace(OpenedRoot::new(&self.path)?);
        }
        Ok(self.opened.borrow().folder.clone())
    }
}

impl OpenedRoot {
    fn new(path: &Path) -> io::Result<OpenedRoot> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = openat(AT_FDCWD, path, flags, Mode::empty())?;
        let stat = fstat(&folder)?;
        Ok(OpenedRoot { folder: Rc::new(folder), place: (stat.st_dev, stat.st_ino) })
    }
}

/// Whether an error means that there is nothing of that name that is served.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::ENOTDIR
                | libc::ELOOP
                | libc::EXDEV
                | libc::ENAMETOOLONG
                | libc::ENXIO
                | libc::ENODEV
        )
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::sys::os::file_transfer;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("served-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("sub")).unwrap();
            fs::create_dir_all(path.join("empty")).unwrap();
            for name in ["a.js", "a.js.gz", "a.js.br", "a.png", "a.png.gz", "sub/index.html"] {
                fs::write(path.join(name), name).unwrap();
            }
            Folder(path)
        }

        fn served(&self) -> ServedFolder {
            ServedFolder {
                root: Root::new(self.0.as_os_str().as_encoded_bytes()).unwrap(),
                index: vec![b"index.html".to_vec()],
                lists: false,
                serves_hidden: false,
                links: Links::Inside,
                is_precompressed: true,
                types: MediaTypes::new(vec![(b"png".to_vec(), "image/x".into())]),
                recent: RecentFiles::new(8),
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn content(found: Found) -> String {
        match found {
            Found::File(it) => {
                let mut bytes = vec![0; usize::try_from(it.opened.size).unwrap()];
                file_transfer::read_at(it.opened.file.as_fd(), 0, &mut bytes).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                format!("{text} {} {} {}", it.media_type, it.coding.unwrap_or("-"), it.varies)
            }
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn a_path_stands_for_a_file_or_the_index_of_a_folder() {
        let folder = Folder::new("paths");
        let mut served = folder.served();
        let find = |served: &ServedFolder, path: &str| {
            let path = FilePath::of_uri(path.as_bytes(), false).unwrap();
            content(served.find(&path, &AcceptEncoding::new(b"")).unwrap())
        };
        assert_eq!(find(&served, "a.js"), "a.js text/javascript; charset=utf-8 - true");
        assert_eq!(find(&served, "a.png"), "a.png image/x - false");
        assert_eq!(find(&served, "sub"), "FolderWithoutSlash");
        assert_eq!(find(&served, "sub/"), "sub/index.html text/html; charset=utf-8 - true");
        for path in ["", "empty/", "a.js/", "missing", "a.js/x"] {
            assert_eq!(find(&served, path), "Nothing", "{path}");
        }
        served.lists = true;
        assert_eq!(find(&served, "empty/"), "Listing");
        assert_eq!(find(&served, "missing/"), "Nothing");
    }

    #[test]
    fn a_folder_that_replaces_another_counts_at_once() {
        let folder = Folder::new("replaced");
        let old = folder.0.with_extension("old");
        let served = folder.served();
        let path = FilePath::of_uri(b"a.js", false).unwrap();
        let find = || served.find(&path, &AcceptEncoding::new(b""));
        assert!(content(find().unwrap()).starts_with("a.js "));
        fs::rename(&folder.0, &old).unwrap();
        assert_eq!(find().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&folder.0).unwrap();
        fs::write(folder.0.join("a.js"), "new").unwrap();
        assert!(content(find().unwrap()).starts_with("new "));
        fs::remove_dir_all(&old).unwrap();
    }

    #[test]
    fn a_compressed_file_is_sent_to_who_accepts_it_unless_it_is_old() {
        let folder = Folder::new("codings");
        let served = folder.served();
        let find = |path: &str, accepts: &str| {
            let path = FilePath::of_uri(path.as_bytes(), false).unwrap();
            content(served.find(&path, &AcceptEncoding::new(accepts.as_bytes())).unwrap())
        };
        assert_eq!(
            find("a.js", "gzip, br, zstd"),
            "a.js.br text/javascript; charset=utf-8 br true"
        );
        assert_eq!(
            find("a.js", "zstd, gzip;q=0.5"),
            "a.js.gz text/javascript; charset=utf-8 gzip true"
        );
        assert_eq!(find("a.js", "zstd"), "a.js text/javascript; charset=utf-8 - true");
        assert_eq!(find("a.png", "gzip"), "a.png image/x - false");
        let before = SystemTime::now() - Duration::from_secs(100);
        File::open(folder.0.join("a.js.br")).unwrap().set_modified(before).unwrap();
        assert_eq!(find("a.js", "gzip, br"), "a.js.gz text/javascript; charset=utf-8 gzip true");
    }
}
