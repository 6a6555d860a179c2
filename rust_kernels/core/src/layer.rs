//! A layer: weights, bias and activation.

use crate::buffer::Buffer;
use crate::csr::{Csr, check_finite};
use crate::errors::Invalid;

/// The activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Identity,
    Relu,
    /// ReLU, clipped at this positive upper bound.
    ClippedRelu(f32),
}

impl Activation {
    /// Returns the (lower, upper) bounds to which the activation clamps; infinite if there is none.
    pub(crate) fn bounds(self) -> (f32, f32) {
        match self {
            Self::Identity => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::ClippedRelu(clip) => (0.0, clip),
        }
    }
}

/// A validated layer, or a subset of its rows.
#[derive(Clone)]
pub struct Layer {
    weights: Csr,
    bias: Buffer<f32>,
    activation: Activation,
    zero_preserving: bool,
}

impl Layer {
    /// Validates a layer. `bias` has one entry per row or one for all; `zero_preserving` says whether the whole layer,
    /// of which this may be a subset of rows, maps an all-zero sample to an all-zero sample.
    pub fn new(
        weights: Csr,
        bias: Buffer<f32>,
        activation: Activation,
        zero_preserving: bool,
    ) -> Result<Self, Invalid> {
        if bias.len() != weights.rows() && bias.len() != 1 {
            return Err(Invalid(format!(
                "{} biases for {} rows; give one a row, or one for all",
                bias.len(),
                weights.rows()
            )));
        }
        check_finite("bias", &bias)?;
        if let Activation::ClippedRelu(clip) = activation
            && !(clip.is_finite() && clip > 0.0)
        {
            return Err(Invalid(format!("the clip is {clip}; it must be positive and finite")));
        }
        if zero_preserving {
            let keeps = |bias: &f32| *bias == 0.0 || (*bias < 0.0 && activation != Activation::Identity);
            if let Some(row) = bias.iter().position(|bias| !keeps(bias)) {
                return Err(Invalid(format!(
                    "the layer is said to keep zeros, but bias {row} is {} and the activation {activation:?}",
                    bias[row]
                )));
            }
        }
        Ok(Self { weights, bias, activation, zero_preserving })
    }

    pub fn weights(&self) -> &Csr {
        &self.weights
    }

    /// Returns one bias per row, or exactly one for all.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    pub fn activation(&self) -> Activation {
        self.activation
    }

    pub fn zero_preserving(&self) -> bool {
        self.zero_preserving
    }

    pub fn rows(&self) -> usize {
        self.weights.rows()
    }

    pub fn columns(&self) -> usize {
        self.weights.columns()
    }
}
