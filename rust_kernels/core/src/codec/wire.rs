//! The number formats to which activations may be rounded before they are packed. A rounded value is still a float32, of
//! which the low bits are zero, so blocks and their decoder are the same for all formats.

use super::lanes::{Lanes, on_path};
use crate::isa::Path;

/// A number format of the activations that ranks send to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// As computed.
    #[default]
    Float32,
    /// 8 bits of precision, the range of float32.
    Bfloat16,
    /// 11 bits of precision, up to 65,504; multiples of 2^-24 below 2^-14.
    Float16,
}

/// The bits of the smallest float16 that is normal, 2^-14.
const LEAST_NORMAL: u32 = 0x3880_0000;

impl Wire {
    /// Returns the format with a name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::Float32),
            "bfloat16" => Some(Self::Bfloat16),
            "float16" => Some(Self::Float16),
            _ => None,
        }
    }

    /// Returns the bits of the least magnitude that is rounded to infinity.
    fn beyond(self) -> u32 {
        match self {
            Self::Float32 => f32::INFINITY.to_bits(),
            Self::Bfloat16 => 0x7f7f_8000,
            Self::Float16 => 65_520f32.to_bits(),
        }
    }

    /// Returns whether all values stay finite if they are rounded.
    pub fn holds(self, values: &[f32], path: Path) -> bool {
        #[inline(always)]
        unsafe fn body<V: Lanes>(values: &[f32]) -> u32 {
            values.iter().fold(0, |most, value| most.max(value.abs().to_bits()))
        }
        // SAFETY: a path is only chosen where it is supported.
        let most = unsafe { on_path!(path, body(values: &[f32]) -> u32) };
        most < self.beyond()
    }

    /// Writes the values, rounded to the nearest one of the format (of two, the even one), to `out`, which is as long.
    /// What becomes zero is a positive zero. The floating-point state must be the standard one.
    pub fn round(self, values: &[f32], out: &mut [f32], path: Path) {
        #[inline(always)]
        unsafe fn bfloat16<V: Lanes>(values: &[f32], out: &mut [f32]) {
            each::<16>(values, out, |_, bits| bits);
        }
        #[inline(always)]
        unsafe fn float16<V: Lanes>(values: &[f32], out: &mut [f32]) {
            // The sum is a multiple of 2^-24, the distance of the floats from 0.5 to 1.
            let small = |value: f32| ((value.abs() + 0.5) - 0.5).to_bits();
            each::<13>(
                values,
                out,
                |value, bits| if value.abs().to_bits() < LEAST_NORMAL { small(value) } else { bits },
            );
        }
        assert_eq!(values.len(), out.len(), "a place for each value");
        // SAFETY: a path is only chosen where it is supported.
        unsafe {
            match self {
                Self::Float32 => out.copy_from_slice(values),
                Self::Bfloat16 => on_path!(path, bfloat16(values: &[f32], out: &mut [f32]) -> ()),
                Self::Float16 => on_path!(path, float16(values: &[f32], out: &mut [f32]) -> ()),
            }
        }
    }
}

/// Rounds magnitudes by `DROPPED` bits of their significands, and has `choose` decide on each result.
#[inline(always)]
fn each<const DROPPED: u32>(values: &[f32], out: &mut [f32], choose: impl Fn(f32, u32) -> u32) {
    for (value, out) in values.iter().zip(out) {
        let bits = value.abs().to_bits();
        let half = (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
        let rounded = choose(*value, (bits + half) >> DROPPED << DROPPED);
        let sign = if rounded == 0 { 0 } else { value.to_bits() & 1 << 31 };
        *out = f32::from_bits(rounded | sign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The value of a finite float16 without its sign.
    fn half(bits: u16) -> f64 {
        let (exponent, fraction) = (i32::from(bits >> 10), f64::from(bits & 0x3ff));
        if exponent == 0 { fraction * 2f64.powi(-24) } else { (1024.0 + fraction) * 2f64.powi(exponent - 25) }
    }

    /// The value of a finite bfloat16 without its sign.
    fn brain(bits: u16) -> f64 {
        f64::from(f32::from_bits(u32::from(bits) << 16))
    }

    /// Rounds by a search among all finite magnitudes of a format, which has `count` of them.
    fn searched(value: f32, count: u16, of: impl Fn(u16) -> f64) -> Option<f64> {
        let magnitude = f64::from(value.abs());
        let (mut low, mut high) = (0, count);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if of(middle) <= magnitude { low = middle } else { high = middle }
        }
        let least = of(low);
        // What follows the largest finite magnitude is as far from it as the one before.
        let next = if low + 1 == count { 2.0 * least - of(low - 1) } else { of(low + 1) };
        let up = match (magnitude - least).total_cmp(&(next - magnitude)) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => low % 2 == 1,
            std::cmp::Ordering::Greater => true,
        };
        let rounded = if up { low + 1 } else { low };
        (rounded < count).then(|| of(rounded))
    }

    fn check(value: f32) {
        if !value.is_finite() {
            return;
        }
        for (wire, found) in
            [(Wire::Bfloat16, searched(value, 0x7f80, brain)), (Wire::Float16, searched(value, 0x7c00, half))]
        {
            for path in Path::available() {
                // One of a vector's lanes, and one of the rest.
                let values = [value; 35];
                assert_eq!(wire.holds(&values, path), found.is_some(), "{wire:?} of {value:e}");
                let Some(found) = found else { continue };
                let mut out = [f32::NAN; 35];
                let _state = crate::isa::FloatState::standard();
                wire.round(&values, &mut out, path);
                let expected = if found == 0.0 { 0.0 } else { (found as f32).copysign(value) };
                assert!(out.iter().all(|out| out.to_bits() == expected.to_bits()), "{wire:?} of {value:e}: {}", out[0]);
            }
        }
    }

    proptest! {
        #[test]
        fn values_become_the_nearest_of_the_format(bits in any::<u32>(), near in 0u32..0x7c00, off in -2i32..3) {
            check(f32::from_bits(bits));
            // Near the values of float16, and half way between them.
            let value = half(near as u16) as f32;
            let between = (value + half((near as u16 + 1).min(0x7bff)) as f32) / 2.0;
            for value in [value, between] {
                check(f32::from_bits(value.to_bits().saturating_add_signed(off)));
                check(-f32::from_bits(value.to_bits().saturating_add_signed(off)));
            }
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_told() {
        for value in
            [0.0, -0.0, 1e-45, 5.960_464_5e-8, 2.980_232_2e-8, 65_504.0, 65_519.99, 65_520.0, f32::MAX, 3.39e38]
        {
            check(value);
            check(-value);
        }
        assert!(Wire::Float32.holds(&[f32::MAX], Path::Portable));
        assert!(!Wire::Float16.holds(&[1.0, -65_520.0], Path::Portable));
    }
}
