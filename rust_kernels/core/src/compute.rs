//! The resources for computing products: a kernel path and a thread pool.

use rayon::prelude::*;

use crate::errors::Invalid;
use crate::isa::{FloatState, Path};

/// A kernel path and a thread pool.
pub struct Compute {
    path: Path,
    pool: Option<rayon::ThreadPool>,
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
        let start = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("fsd-compute-{index}"))
                .build()
                .map_err(|error| Invalid(format!("{threads} threads cannot be started: {error}")))
        };
        Ok(Self { path, pool: if threads > 1 { Some(start()?) } else { None } })
    }

    pub fn path(&self) -> Path {
        self.path
    }

    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `work`, which maps several times, on a thread of the pool: so its other threads do not fall asleep between.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
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
            Some(pool) if count > 1 => pool.install(|| (0..count).into_par_iter().with_max_len(1).map(task).collect()),
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
                pool.install(|| items.into_par_iter().enumerate().with_max_len(1).for_each(task));
            }
            _ => items.into_iter().enumerate().for_each(task),
        }
    }
}
