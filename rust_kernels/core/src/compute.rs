//! The resources for computing products: a kernel path and a thread pool.

use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::errors::Invalid;
use crate::isa::{FloatState, Path};

/// A kernel path and a thread pool.
pub struct Compute {
    path: Path,
    pool: Option<Pool>,
}

/// Threads, and the process that started them: a process that was forked from it has none of them.
struct Pool {
    threads: ThreadPool,
    process: u32,
}

/// The pool that was dropped last, for the next computation with as many threads: starting threads takes longer than a
/// small batch.
static IDLE: Mutex<Option<Pool>> = Mutex::new(None);

impl Pool {
    /// Takes the idle pool if it has as many threads, or starts them.
    fn take(threads: usize) -> Result<Self, Invalid> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).take();
        match idle {
            Some(idle) if idle.is_ours() && idle.threads.current_num_threads() == threads => return Ok(idle),
            Some(idle) => idle.end(),
            None => {}
        }
        let started = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("fsd-compute-{index}"))
            .build()
            .map_err(|error| Invalid(format!("{threads} threads cannot be started: {error}")))?;
        Ok(Self { threads: started, process: std::process::id() })
    }

    fn give_back(self) {
        let former = IDLE.lock().unwrap_or_else(PoisonError::into_inner).replace(self);
        if let Some(former) = former {
            former.end();
        }
    }

    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    fn end(self) {
        if !self.is_ours() {
            std::mem::forget(self); // its threads, for which dropping it could wait, are another process's
        }
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back();
        }
    }
}

impl Compute {
    /// Uses the kernel path of this process and `threads` threads (at least one; one means the caller's own thread).
    pub fn new(threads: usize) -> Result<Self, Invalid> {
        Self::with_path(Path::current()?, threads)
    }

    /// Uses a given kernel path, which this processor must support, and `threads` threads.
    pub fn with_path(path: Path, threads: usize) -> Result<Self, Invalid> {
        if threads == 0 {
            return Err(Invalid("0 threads cannot compute anything; give at least one".into()));
        }
        if !path.supported() {
            return Err(Invalid(format!("this processor does not support the kernel path {path}")));
        }
        Ok(Self { path, pool: if threads > 1 { Some(Pool::take(threads)?) } else { None } })
    }

    pub fn path(&self) -> Path {
        self.path
    }

    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.threads.current_num_threads())
    }

    /// Runs `work`, which maps several times, on a thread of the pool: so its other threads do not fall asleep between.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.threads.install(work),
            None => work(),
        }
    }

    /// Runs tasks 0..count in the standard floating-point state, and returns their results in that order.
    pub fn map<R: Send>(&self, count: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let task = |index| {
            let _state = FloatState::standard();
            task(index)
        };
        match &self.pool {
            Some(pool) if count > 1 => {
                pool.threads.install(|| (0..count).into_par_iter().with_max_len(1).map(task).collect())
            }
            _ => (0..count).map(task).collect(),
        }
    }

    /// Runs a task for each item and its position, as `map`.
    pub fn for_each<T: Send>(&self, items: Vec<T>, task: impl Fn(usize, T) + Sync) {
        let task = |(index, item)| {
            let _state = FloatState::standard();
            task(index, item);
        };
        match &self.pool {
            Some(pool) if items.len() > 1 => {
                pool.threads.install(|| items.into_par_iter().enumerate().with_max_len(1).for_each(task));
            }
            _ => items.into_iter().enumerate().for_each(task),
        }
    }
}
