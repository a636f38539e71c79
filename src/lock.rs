//! The lock by which one process at a time works on a folder.

use std::fs::{File, TryLockError};

/// A file that is held locked. Killed or not, the process takes the lock with it.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Locks a file; the error is [`TryLockError::WouldBlock`] where another process holds it.
    pub fn take(file: File) -> Result<Lock, TryLockError> {
        file.try_lock()?;
        Ok(Lock(file))
    }
}

impl Drop for Lock {
    /// To close the file is not enough: until a child that is just being started runs its program, it has the file open too.
    fn drop(&mut self) {
        // It is closed in any case.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_is_free_though_a_child_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let open = || File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        let held = Lock::take(open()).unwrap();
        let childs = held.0.try_clone().unwrap();
        assert!(matches!(Lock::take(open()), Err(TryLockError::WouldBlock)));
        drop(held);
        Lock::take(open()).unwrap();
        drop(childs);
    }
}
