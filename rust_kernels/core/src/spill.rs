//! Storage of encoded bytes in memory or, beyond a budget, in temporary files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::Buffer;

/// The memory budget of encoded bytes, and the directory for bytes beyond it.
pub struct Budget {
    directory: Option<PathBuf>,
    bytes: u64,
    held: u64,
}

/// Stored bytes; a file is deleted when its value is dropped.
pub enum Kept {
    Memory(Buffer<u8>),
    File(Spilled),
}

pub struct Spilled {
    path: PathBuf,
    length: usize,
}

impl Budget {
    /// Creates a budget: at most `bytes` are held in memory if there is a `directory` for the rest.
    pub fn new(directory: Option<PathBuf>, bytes: u64) -> Self {
        Self { directory, bytes, held: 0 }
    }

    /// Returns the bytes currently held in memory.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Stores bytes. If writing to disk fails they stay in memory, where the run may still fit.
    pub fn keep(&mut self, bytes: Buffer<u8>) -> Kept {
        if self.held + bytes.len() as u64 > self.bytes
            && let Some(directory) = &self.directory
            && let Ok(spilled) = Spilled::write(directory.clone(), &bytes)
        {
            return Kept::File(spilled);
        }
        self.held += bytes.len() as u64;
        Kept::Memory(bytes)
    }

    /// Returns stored bytes, of which there are `length`, one part after the other, and releases them.
    pub fn join(&mut self, parts: impl ExactSizeIterator<Item = Kept>, length: usize) -> io::Result<Buffer<u8>> {
        let is_whole = parts.len() == 1;
        let mut joined = Vec::new();
        for part in parts {
            match part {
                Kept::Memory(bytes) => {
                    self.held -= bytes.len() as u64;
                    if is_whole {
                        return Ok(bytes);
                    }
                    joined.try_reserve_exact(length - joined.len())?;
                    joined.extend_from_slice(&bytes);
                }
                Kept::File(spilled) => {
                    joined.try_reserve_exact(length - joined.len())?;
                    spilled.read(&mut joined)?;
                }
            }
        }
        Ok(joined.into())
    }
}

impl Spilled {
    fn write(directory: PathBuf, bytes: &[u8]) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("fsd-{}-{}.frame", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // From here on the file is deleted in any case.
        let spilled = Self { path, length: bytes.len() };
        file.write_all(bytes)?;
        Ok(spilled)
    }

    fn read(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let read = File::open(&self.path)?.take(self.length as u64).read_to_end(out)?;
        if read == self.length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be deleted; it lies in a directory for temporary files.
        let _ = fs::remove_file(&self.path);
    }
}
