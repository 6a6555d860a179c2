//! The kernel path of this process, and the floating-point state in which every path computes.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::errors::Invalid;

/// A kernel implementation for an instruction set; all give bit-identical results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Portable,
    Avx2,
    Avx512,
    Neon,
}

impl Path {
    const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon];

    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Returns whether this processor supports the path.
    pub fn supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.supported() && is_x86_feature_detected!("avx512f"),
            // Every 64-bit Arm processor that runs Linux has it, and it is always compiled for.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            _ => false,
        }
    }

    /// Returns the paths that this processor supports, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|path| path.supported()).collect()
    }

    /// Returns the path of this process: the fastest, or the one that the environment variable `FSD_KERNEL` names.
    pub fn current() -> Result<Self, Invalid> {
        static CURRENT: OnceLock<Result<Path, Invalid>> = OnceLock::new();
        CURRENT.get_or_init(Self::choose).clone()
    }

    fn choose() -> Result<Self, Invalid> {
        let Some(forced) = std::env::var_os("FSD_KERNEL").filter(|name| !name.is_empty()) else {
            return Ok(*Self::available().last().expect("the portable path is always there"));
        };
        let path: Self = forced.to_string_lossy().parse()?;
        if !path.supported() {
            return Err(Invalid(format!("FSD_KERNEL asks for {path}, which this processor does not support")));
        }
        Ok(path)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Path {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|path| path.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Invalid(format!("FSD_KERNEL is \"{name}\"; the kernel paths are {names}"))
        })
    }
}

/// Typical sizes of a core's caches for data; those of aarch64 are of Neoverse N1 and V1 (AWS Graviton 2 and 3).
const TYPICAL_CACHES: [usize; 2] = [if cfg!(target_arch = "aarch64") { 64 << 10 } else { 32 << 10 }, 1 << 20];

/// Returns the bytes of a core's cache for data of a level (1 or 2), or a typical size if the processor does not report it.
pub fn cache_bytes(level: u32) -> usize {
    static BYTES: [OnceLock<usize>; 2] = [const { OnceLock::new() }; 2];
    *BYTES[level as usize - 1].get_or_init(|| reported_cache(level).unwrap_or(TYPICAL_CACHES[level as usize - 1]))
}

/// Returns the size of a cache from the leaf for deterministic cache parameters: 4 of Intel, 0x8000001D of AMD.
#[cfg(target_arch = "x86_64")]
fn reported_cache(level: u32) -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMD: u32 = 0x8000_001D;
    const INSTRUCTIONS: u32 = 2;
    let leaf = if __cpuid(0x8000_0000).eax >= AMD && __cpuid_count(AMD, 0).eax & 31 != 0 { AMD } else { 4 };
    if leaf == 4 && __cpuid(0).eax < 4 {
        return None;
    }
    let caches = (0..16).map(|index| __cpuid_count(leaf, index)).take_while(|cache| cache.eax & 31 != 0);
    let mut data = caches.filter(|cache| cache.eax & 31 != INSTRUCTIONS && cache.eax >> 5 & 7 == level);
    let cache = data.next()?;
    let field = |shift: u32, bits: u32| (cache.ebx >> shift & ((1 << bits) - 1)) as usize + 1;
    Some(field(22, 10) * field(12, 10) * field(0, 12) * (cache.ecx as usize + 1))
}

#[cfg(not(target_arch = "x86_64"))]
fn reported_cache(level: u32) -> Option<usize> {
    listed_cache(std::path::Path::new("/sys/devices/system/cpu/cpu0/cache"), level)
}

/// Returns the size of a cache from the kernel's list of a processor's caches, a directory for each.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn listed_cache(list: &std::path::Path, level: u32) -> Option<usize> {
    let caches = (0..).map(|index| list.join(format!("index{index}"))).take_while(|cache| cache.is_dir());
    let read = |cache: &std::path::Path, name| std::fs::read_to_string(cache.join(name)).unwrap_or_default();
    let mut data = caches.filter(|cache| {
        read(cache, "level").trim() == level.to_string() && read(cache, "type").trim() != "Instruction"
    });
    let kilobytes: usize = read(&data.next()?, "size").trim().strip_suffix('K')?.parse().ok()?;
    (kilobytes > 0).then_some(kilobytes << 10)
}

/// A guard that makes this thread round to nearest and keep subnormals until it is dropped: other libraries may have
/// set the thread to flush subnormals to zero.
pub struct FloatState {
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code))]
    before: u64,
}

impl FloatState {
    /// Sets the standard state and remembers the current one, which dropping the guard restores.
    pub fn standard() -> Self {
        let before = control::read();
        control::write(control::STANDARD);
        Self { before }
    }
}

impl Drop for FloatState {
    fn drop(&mut self) {
        control::write(self.before);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod control {
    use std::arch::asm;

    /// MXCSR: exceptions masked, round to nearest, no flushing.
    pub const STANDARD: u64 = 0x1F80;

    pub fn read() -> u64 {
        let mut mxcsr = 0_u32;
        // SAFETY: stores 4 bytes at the pointer's target.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags)) };
        u64::from(mxcsr)
    }

    pub fn write(state: u64) {
        let mxcsr = state as u32;
        // SAFETY: the value is the default one, or was read from the register before.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod control {
    use std::arch::asm;

    /// FPCR: no traps, round to nearest, no flushing.
    pub const STANDARD: u64 = 0;

    pub fn read() -> u64 {
        let fpcr: u64;
        // SAFETY: reads a control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) fpcr, options(nostack, nomem, preserves_flags)) };
        fpcr
    }

    pub fn write(state: u64) {
        // SAFETY: the value is the default one, or was read from the register before.
        unsafe { asm!("msr fpcr, {}", in(reg) state, options(nostack, preserves_flags)) };
    }
}

/// Elsewhere, and under Miri, which has no inline assembly, the state is taken to be the standard one.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod control {
    pub const STANDARD: u64 = 0;

    pub fn read() -> u64 {
        0
    }

    pub fn write(_state: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for path in Path::ALL {
            assert_eq!(path.name().parse(), Ok(path));
        }
        assert!("sse".parse::<Path>().unwrap_err().to_string().contains("\"sse\""));
        assert!(Path::available().contains(&Path::Portable));
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn neon_is_chosen_on_arm() {
        assert_eq!(Path::available(), [Path::Portable, Path::Neon]);
    }

    #[test]
    fn caches_grow_with_their_level() {
        let (l1, l2) = (cache_bytes(1), cache_bytes(2));
        assert!((8 << 10..=1 << 20).contains(&l1) && l1 < l2 && l2 <= 1 << 28, "{l1} {l2}");
    }

    #[test]
    fn the_kernels_list_of_caches_is_read() {
        let list = std::env::temp_dir().join(format!("fsd-caches-{}", std::process::id()));
        // In Linux's form, with the sizes of Graviton 3.
        let caches =
            [("1", "Data", "64K"), ("1", "Instruction", "64K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")];
        for (index, (level, kind, size)) in caches.into_iter().enumerate() {
            let cache = list.join(format!("index{index}"));
            std::fs::create_dir_all(&cache).unwrap();
            for (name, value) in [("level", level), ("type", kind), ("size", size)] {
                std::fs::write(cache.join(name), format!("{value}\n")).unwrap();
            }
        }
        let found = [1, 2, 4].map(|level| listed_cache(&list, level));
        std::fs::write(list.join("index0/size"), "unknown\n").unwrap();
        let damaged = listed_cache(&list, 1);
        std::fs::remove_dir_all(&list).unwrap();
        assert_eq!(found, [Some(64 << 10), Some(1 << 20), None]);
        assert_eq!((damaged, listed_cache(&list, 1)), (None, None));
    }

    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    #[test]
    fn subnormals_are_kept_and_the_callers_state_comes_back() {
        // Flush subnormal results to zero, and on x86 subnormal operands too, which Arm's bit includes. MXCSR also has
        // the flags of exceptions, in its low bits; Arm has those elsewhere.
        let flushing = if cfg!(target_arch = "aarch64") { 1 << 24 } else { 0x9FC0 };
        let before = control::read();
        control::write(flushing);
        {
            let _state = FloatState::standard();
            assert_eq!(control::read() & !0x3F, control::STANDARD);
            let tiny = std::hint::black_box(f32::MIN_POSITIVE);
            assert!(std::hint::black_box(tiny / 2.0) > 0.0);
        }
        let after = control::read();
        control::write(before);
        assert_eq!(after & !0x3F, flushing);
    }
}
