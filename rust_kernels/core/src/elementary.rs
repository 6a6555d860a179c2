//! Exponential, logarithm and error function in 64-bit, each a fixed sequence of IEEE operations without branches.
//!
//! The standard library's functions come from the platform's C library, so their last bits differ between systems.
//! These give the same bits everywhere and can be vectorized. Their relative errors are below 1e-11, so results rounded
//! to 32-bit are within 0.501 units in the last place.

/// Returns 2^k and e^r - 1 of x = k ln 2 + r with |r| <= ln 2 / 2. `x` is clamped to -700..700, whose exponentials are
/// 0 and infinite in 32-bit.
#[inline(always)]
fn exp_parts(x: f64) -> (f64, f64) {
    // ln 2 in two parts; the first has trailing zeros, so its product with k is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding 1.5 * 2^52 rounds to an integer, which is then in the low bits of the sum.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let x = smaller(larger(x, -700.0), 700.0);
    let shifted = x.mul_add(std::f64::consts::LOG2_E, SHIFT);
    let k = shifted - SHIFT;
    let r = k.mul_add(-LN_2_LOW, k.mul_add(-LN_2_HIGH, x));
    // The Taylor series: its next term is below 1e-14 of the sum.
    let mut series = 1.0 / 39_916_800.0;
    for factorial in [3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0] {
        series = r.mul_add(series, 1.0 / factorial);
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    (power, r * series)
}

/// Returns e^x.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let (power, rest) = exp_parts(x);
    power.mul_add(rest, power)
}

/// Returns e^x - 1, also for tiny x without loss.
#[inline(always)]
pub fn exp_m1(x: f64) -> f64 {
    let (power, rest) = exp_parts(x);
    power.mul_add(rest, power - 1.0)
}

/// Returns ln(1 + t) for 0 <= t <= 1, also for tiny t without loss.
#[inline(always)]
pub fn ln_1p(t: f64) -> f64 {
    // ln(1 + t) = 2 artanh(s) = 2 (s + s^3/3 + s^5/5 + ...), with s <= 1/3; the next term is below 1e-15 of the sum.
    let s = t / (2.0 + t);
    let square = s * s;
    let mut series = 1.0 / 29.0;
    for odd in [27.0, 25.0, 23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = square.mul_add(series, 1.0 / odd);
    }
    2.0 * s * series
}

/// Returns the probability that a standard normal variable exceeds `a` >= 0.
#[inline(always)]
pub fn normal_tail(a: f64) -> f64 {
    // erfc(z) exp(z^2) at z = a / sqrt(2) <= 16 / sqrt(2) as a polynomial in u, which maps t = 1 / (1 + z/2) to -1..1:
    // the Chebyshev interpolation of degree 16, as powers. Its relative error is 4e-12. Beyond 16 the tail is 0 in 32-bit.
    const POWERS: [f64; 17] = [
        0.325_290_447_777_600_7,
        0.429_282_330_266_319_6,
        0.200_399_762_372_360_68,
        0.048_847_829_683_230_884,
        -0.000_882_958_464_823_868_9,
        -0.003_233_919_475_544_638,
        6.292_101_606_065_539e-05,
        0.000_290_452_560_858_213_84,
        -4.143_024_480_418_773e-05,
        -2.526_726_652_883_265_5e-05,
        1.033_862_507_999_821e-05,
        6.773_566_837_113_889e-07,
        -1.591_252_750_115_527_7e-06,
        3.420_049_353_194_414_6e-07,
        1.228_700_882_626_605_7e-07,
        -5.931_690_181_164_256e-08,
        1.488_048_531_644_131e-09,
    ];
    let clamped = smaller(a, 16.0);
    let t = 1.0 / clamped.mul_add(0.5 * std::f64::consts::FRAC_1_SQRT_2, 1.0);
    let u = t.mul_add(2.353_553_390_593_274, -1.353_553_390_593_273_7);
    let mut scaled = 0.0;
    for power in POWERS.iter().rev() {
        scaled = u.mul_add(scaled, *power);
    }
    0.5 * exp(-0.5 * a * a) * scaled
}

/// Returns the larger number, which is `b` if either is NaN: one instruction, unlike `f64::max`.
#[inline(always)]
pub fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// Returns the smaller number, which is `b` if either is NaN.
#[inline(always)]
pub fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, expected: f64, bound: f64) -> bool {
        (found - expected).abs() <= bound * expected.abs()
    }

    proptest! {
        #[test]
        fn exponentials_and_logarithms_agree_with_the_standard_library(x in -690.0..690.0_f64, tiny in -40.0..0.0_f64) {
            prop_assert!(close(exp(x), x.exp(), 1e-12));
            let small = tiny.exp2();
            for y in [x, small, -small] {
                prop_assert!(close(exp_m1(y), y.exp_m1(), 1e-12), "{y} {} {}", exp_m1(y), y.exp_m1());
            }
            prop_assert!(close(ln_1p(small), small.ln_1p(), 1e-12));
        }
    }

    #[test]
    fn extremes_are_clamped() {
        assert_eq!(exp(f64::NEG_INFINITY) as f32, 0.0);
        assert_eq!(exp(f64::INFINITY) as f32, f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp_m1(0.0), 0.0);
        assert_eq!(ln_1p(0.0), 0.0);
        assert!(close(ln_1p(1.0), std::f64::consts::LN_2, 1e-14));
    }

    #[test]
    fn normal_tails_are_those_of_tables() {
        // Abramowitz and Stegun, tables 26.1 and 26.2, and the continued fraction for large arguments.
        for (a, tail) in
            [(0.0, 0.5), (1.0, 0.158_655_253_931_457), (2.0, 0.022_750_131_948_179), (5.0, 2.866_515_719e-7)]
        {
            assert!(close(normal_tail(a), tail, 2e-10), "{a}");
        }
        let fraction = (1..60).rev().fold(16.0, |below, k| 16.0 + f64::from(k) / below);
        let density = (-128.0_f64).exp() / std::f64::consts::TAU.sqrt();
        assert!(close(normal_tail(16.0), density / fraction, 1e-11));
        assert_eq!(normal_tail(1e30), normal_tail(40.0));
    }
}
