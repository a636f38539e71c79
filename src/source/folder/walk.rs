//! What lies below a path: the files that are wanted, and what cannot be followed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{FolderError, fault};

/// Deepest folder that is followed.
const DEPTH_MAX: usize = 8;
/// Most files of one data set.
const FILES_MAX: usize = 1_000_000;
/// A folder in which file systems keep what they have found; only they may read it.
const FOUND: &str = "lost+found";

/// Why something is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// A link to nothing, or to what may not be seen.
    Dangling,
    /// It may not be read.
    Closed,
    /// It lies too deep.
    Deep,
    /// A link to a folder in which it lies itself: what is in that is read without it.
    Loop,
}

impl Block {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Block::Dangling => "it is a link to nothing that can be read: let it lead to data, or take it away",
            Block::Closed => "it may not be read: let the adapter read it, or put it elsewhere",
            Block::Deep => "it lies more than 8 folders deep: put it higher, or elsewhere",
            Block::Loop => "it is a link to a folder in which it lies itself, and is passed over",
        }
    }
}

/// What is found below a path; sorted, so that the order of the file system does not matter.
pub(super) struct Walk<'w> {
    is_wanted: &'w dyn Fn(&Path, bool) -> bool,
    pub files: Vec<PathBuf>,
    pub blocked: Vec<(PathBuf, Block)>,
    /// The folders on the way down, by the names that they have without links.
    above: Vec<PathBuf>,
}

impl<'w> Walk<'w> {
    /// Of the files below a path those that are wanted, in folders that are (`true`).
    pub fn below(path: &Path, is_wanted: &'w dyn Fn(&Path, bool) -> bool) -> Result<Walk<'w>, FolderError> {
        let mut walk = Walk { is_wanted, files: Vec::new(), blocked: Vec::new(), above: Vec::new() };
        if !path.exists() {
            return Err(fault(path, "it does not exist"));
        }
        if path.is_dir() {
            std::fs::read_dir(path).map_err(|error| fault(path, error))?;
        }
        walk.take(path)?;
        Ok(walk)
    }

    fn take(&mut self, path: &Path) -> Result<(), FolderError> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return self.folder(path),
            Ok(_) if (self.is_wanted)(path, false) => self.files.push(path.to_owned()),
            Ok(_) => {}
            Err(_) => match std::fs::symlink_metadata(path) {
                Ok(_) => self.blocked.push((path.to_owned(), Block::Dangling)),
                // What vanishes meanwhile is noticed at the end.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => self.blocked.push((path.to_owned(), Block::Closed)),
            },
        }
        if self.files.len() > FILES_MAX { Err(fault(path, format!("more than {FILES_MAX} files"))) } else { Ok(()) }
    }

    fn folder(&mut self, path: &Path) -> Result<(), FolderError> {
        if !(self.is_wanted)(path, true) || path.file_name().is_some_and(|name| name == FOUND) {
            return Ok(());
        }
        let entries = || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect() };
        let block = match (std::fs::canonicalize(path), entries()) {
            (Ok(own), _) if self.above.contains(&own) => Block::Loop,
            _ if self.above.len() > DEPTH_MAX => Block::Deep,
            (Ok(own), Ok(mut entries)) => {
                entries.sort();
                self.above.push(own);
                let taken = entries.iter().try_for_each(|entry| self.take(entry));
                self.above.pop();
                return taken;
            }
            _ => Block::Closed,
        };
        self.blocked.push((path.to_owned(), block));
        Ok(())
    }
}
