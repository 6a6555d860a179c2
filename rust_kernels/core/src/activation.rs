//! Activation functions.
//!
//! Clamps (identity, relu, clips) are applied within the product. All others are computed in 64-bit from the 32-bit
//! pre-activation, by a fixed sequence of IEEE operations, and rounded once; every kernel path gives the same bits.

use crate::elementary::{exp, exp_m1, larger, ln_1p, normal_tail, smaller};
use crate::errors::Invalid;
use crate::isa::Path;

/// An activation function of z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Identity,
    Relu,
    /// min(max(z, lower), upper).
    Clip {
        lower: f32,
        upper: f32,
    },
    /// z, or slope * z for negative z.
    LeakyRelu {
        slope: f32,
    },
    /// Like `LeakyRelu`, with a slope for each row.
    Prelu,
    Sigmoid,
    Tanh,
    /// z times the standard normal distribution function of z.
    Gelu,
    /// `Gelu` by a hyperbolic tangent.
    GeluTanh,
    /// z * sigmoid(z).
    Silu,
    /// z * min(max(z + 3, 0), 6) / 6.
    HardSwish,
    /// min(max(alpha * z + beta, 0), 1).
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// z, or alpha * (e^z - 1) for negative z.
    Elu {
        alpha: f32,
    },
    /// ln(1 + e^z).
    Softplus,
}

impl Activation {
    /// Returns an activation by its name and parameters.
    pub fn named(name: &str, parameters: &[f32]) -> Result<Self, Invalid> {
        let activation = match (name, parameters) {
            ("identity", []) => Self::Identity,
            ("relu", []) => Self::Relu,
            ("clipped_relu", &[upper]) if upper > 0.0 => Self::Clip { lower: 0.0, upper },
            ("clip", &[lower, upper]) if lower <= upper => Self::Clip { lower, upper },
            ("leaky_relu", &[slope]) => Self::LeakyRelu { slope },
            ("prelu", []) => Self::Prelu,
            ("sigmoid", []) => Self::Sigmoid,
            ("tanh", []) => Self::Tanh,
            ("gelu", []) => Self::Gelu,
            ("gelu_tanh", []) => Self::GeluTanh,
            ("silu", []) => Self::Silu,
            ("hard_swish", []) => Self::HardSwish,
            ("hard_sigmoid", &[alpha, beta]) => Self::HardSigmoid { alpha, beta },
            ("elu", &[alpha]) => Self::Elu { alpha },
            ("softplus", []) => Self::Softplus,
            _ => return Err(Invalid(format!("there is no activation \"{name}\" with parameters {parameters:?}"))),
        };
        if parameters.iter().all(|parameter| parameter.is_finite()) {
            Ok(activation)
        } else {
            Err(Invalid(format!("the parameters {parameters:?} of the activation \"{name}\" must be finite")))
        }
    }

    /// Returns the (lower, upper) bounds to which a clamp clamps, infinite if there is none; None for other functions.
    pub(crate) fn bounds(self) -> Option<(f32, f32)> {
        match self {
            Self::Identity => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Self::Relu => Some((0.0, f32::INFINITY)),
            Self::Clip { lower, upper } => Some((lower, upper)),
            _ => None,
        }
    }

    /// Replaces each pre-activation by its activation, with -0 stored as +0; `slope` is used by `Prelu` only.
    ///
    /// # Panics
    /// If this processor does not support the path.
    pub fn apply(self, values: &mut [f32], slope: f32, path: Path) {
        assert!(path.supported(), "a path that there is");
        match path {
            Path::Portable => sweep(self, slope, values),
            // SAFETY: the processor has the instructions.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { sweep_avx2(self, slope, values) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => unsafe { sweep_avx512(self, slope, values) },
            // The portable code is compiled for NEON on Arm.
            #[cfg(target_arch = "aarch64")]
            Path::Neon => sweep(self, slope, values),
            _ => unreachable!("not supported on this processor"),
        }
    }

    /// Returns the activation of one pre-activation.
    pub fn value(self, z: f32, slope: f32) -> f32 {
        let mut value = [z];
        sweep(self, slope, &mut value);
        value[0]
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sweep_avx2(activation: Activation, slope: f32, values: &mut [f32]) {
    sweep(activation, slope, values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn sweep_avx512(activation: Activation, slope: f32, values: &mut [f32]) {
    sweep(activation, slope, values);
}

/// Inlined into a function for each instruction set, so that the compiler vectorizes the loops for it.
#[inline(always)]
fn sweep(activation: Activation, slope: f32, values: &mut [f32]) {
    match activation {
        Activation::Identity => each(values, |z| z),
        Activation::Relu => each(values, |z| larger(z, 0.0)),
        Activation::Clip { lower, upper } => {
            each(values, |z| smaller(larger(z, f64::from(lower)), f64::from(upper)));
        }
        Activation::LeakyRelu { slope } => leaky(values, slope),
        Activation::Prelu => leaky(values, slope),
        Activation::Sigmoid => each(values, |z| 1.0 / (1.0 + exp(-z))),
        Activation::Tanh => each(values, |z| {
            let below = exp_m1(-2.0 * z.abs());
            (-below / (2.0 + below)).copysign(z)
        }),
        Activation::Gelu => each(values, |z| z.abs().mul_add(-normal_tail(z.abs()), larger(z, 0.0))),
        Activation::GeluTanh => each(values, |z| {
            // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
            let u = (2.0 / std::f64::consts::PI).sqrt() * z * (z * z).mul_add(0.044_715, 1.0);
            z / (1.0 + exp(-2.0 * u))
        }),
        Activation::Silu => each(values, |z| z / (1.0 + exp(-z))),
        Activation::HardSwish => each(values, |z| z * smaller(larger(z + 3.0, 0.0), 6.0) / 6.0),
        Activation::HardSigmoid { alpha, beta } => {
            each(values, |z| smaller(larger(z.mul_add(f64::from(alpha), f64::from(beta)), 0.0), 1.0));
        }
        Activation::Elu { alpha } => {
            each(values, |z| if z < 0.0 { f64::from(alpha) * exp_m1(z) } else { z });
        }
        Activation::Softplus => each(values, |z| larger(z, 0.0) + ln_1p(exp(-z.abs()))),
    }
}

#[inline(always)]
fn leaky(values: &mut [f32], slope: f32) {
    each(values, |z| if z < 0.0 { f64::from(slope) * z } else { z });
}

#[inline(always)]
fn each(values: &mut [f32], function: impl Fn(f64) -> f64) {
    for value in values {
        *value = function(f64::from(*value)) as f32 + 0.0; // turns -0 into +0
    }
}
