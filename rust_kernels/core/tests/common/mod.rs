//! Random layers and a naive implementation of them, the oracle of the tests.

use fsd_core::buffer::Buffer;
use fsd_core::csr::{Csr, Indices};
use fsd_core::layer::{Activation, Layer};
use proptest::prelude::*;

/// A layer as plain vectors.
#[derive(Clone, Debug)]
pub struct Plain {
    pub columns: usize,
    pub rows: Vec<Vec<(u32, f32)>>,
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub zero_preserving: bool,
    pub one_value: bool,
    pub wide: bool,
}

impl Plain {
    pub fn layer(&self) -> Layer {
        let mut indptr = vec![0];
        for row in &self.rows {
            indptr.push(indptr.last().unwrap() + row.len() as i64);
        }
        let connections = || self.rows.iter().flatten();
        let indices = if self.wide {
            Indices::U32(connections().map(|c| c.0).collect::<Vec<_>>().into())
        } else {
            Indices::U16(connections().map(|c| c.0 as u16).collect::<Vec<_>>().into())
        };
        let mut values: Vec<f32> = connections().map(|c| c.1).collect();
        if self.one_value {
            values.truncate(1);
        }
        let weights = Csr::new(indptr.into(), indices, values.into(), self.columns).unwrap();
        Layer::new(weights, Buffer::from(self.bias.clone()), self.activation, self.zero_preserving).unwrap()
    }

    /// Returns one row for one sample, or None if it is not finite.
    pub fn value(&self, row: usize, sample: &[f32]) -> Option<f32> {
        let mut acc = 0.0_f32;
        for &(column, weight) in &self.rows[row] {
            acc = weight.mul_add(sample[column as usize], acc);
        }
        let z = acc + self.bias[if self.bias.len() == 1 { 0 } else { row }];
        let y = match self.activation {
            Activation::Identity => z,
            Activation::Relu => z.max(0.0),
            Activation::ClippedRelu(clip) => z.max(0.0).min(clip),
        };
        z.is_finite().then_some(if y == 0.0 { 0.0 } else { y })
    }

    /// Returns the layer's output for one sample, or the lowest row that is not finite.
    pub fn apply(&self, sample: &[f32]) -> Result<Vec<f32>, usize> {
        (0..self.rows.len()).map(|row| self.value(row, sample).ok_or(row)).collect()
    }
}

/// Generates relevant values: zeros of both signs, small integers, any floats, subnormals, and (rarely) huge ones.
pub fn value(huge: bool) -> impl Strategy<Value = f32> {
    prop_oneof![
        3 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.0625]),
        5 => -2.0_f32..2.0,
        1 => (0..1_u32 << 23).prop_map(f32::from_bits),
        u32::from(huge) => prop::sample::select(vec![f32::MAX, f32::MIN, 3e38]),
    ]
}

/// Generates a layer with these numbers of columns and rows.
pub fn plain(columns: usize, rows: usize, huge: bool) -> impl Strategy<Value = Plain> {
    let row = prop::collection::btree_map(0..columns.max(1) as u32, value(huge), 0..=columns.min(40));
    let activation = prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::ClippedRelu(1.5)),
        Just(Activation::ClippedRelu(f32::MIN_POSITIVE / 2.0)),
    ];
    let rows = prop::collection::vec(row, rows);
    let bias = (any::<bool>(), any::<bool>(), value(false));
    (rows, activation, bias, any::<bool>(), any::<bool>(), value(huge)).prop_flat_map(
        move |(rows, activation, (one_bias, preserve, bias), one_value, wide, weight)| {
            let mut rows: Vec<Vec<(u32, f32)>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
            if columns == 0 {
                rows.iter_mut().for_each(Vec::clear);
            }
            let one_value = one_value && rows.iter().any(|row| !row.is_empty());
            if one_value {
                rows.iter_mut().flatten().for_each(|connection| connection.1 = weight);
            }
            let biases = if one_bias { 1 } else { rows.len() };
            prop::collection::vec(value(false), biases).prop_map(move |biases| {
                let sign = |bias: f32| if activation == Activation::Identity { 0.0 } else { -bias.abs() };
                let biases = if one_bias { vec![bias] } else { biases };
                Plain {
                    columns,
                    rows: rows.clone(),
                    bias: if preserve { biases.into_iter().map(sign).collect() } else { biases },
                    activation,
                    zero_preserving: preserve,
                    one_value,
                    wide,
                }
            })
        },
    )
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
