//! Random layers and a naive implementation of them, the oracle of the tests.

use fsd_core::activation::Activation;
use fsd_core::buffer::Buffer;
use fsd_core::csr::{Csr, Indices};
use fsd_core::layer::{Group, Layer, Reduce};
use proptest::prelude::*;

/// A layer as plain vectors.
#[derive(Clone, Debug)]
pub struct Plain {
    pub columns: usize,
    pub rows: Vec<Vec<(u32, f32)>>,
    pub bias: Vec<f32>,
    pub slopes: Vec<f32>,
    pub groups: Vec<Group>,
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
        let (bias, slopes) = (Buffer::from(self.bias.clone()), Buffer::from(self.slopes.clone()));
        Layer::new(weights, bias, slopes, self.groups.clone(), self.zero_preserving).unwrap()
    }

    fn group(&self, row: usize) -> Group {
        let mut end = 0;
        let holds = |group: &&Group| {
            end += group.rows;
            row < end
        };
        *self.groups.iter().find(holds).unwrap()
    }

    /// Returns one row for one sample, or None if it is not finite.
    pub fn value(&self, row: usize, sample: &[f32]) -> Option<f32> {
        let group = self.group(row);
        let mut acc = if group.reduce == Reduce::Max { f32::NEG_INFINITY } else { 0.0_f32 };
        for &(column, weight) in &self.rows[row] {
            let x = sample[column as usize];
            acc = if group.reduce == Reduce::Max { acc.max(x) } else { weight.mul_add(x, acc) };
        }
        let z = acc + self.bias[if self.bias.len() == 1 { 0 } else { row }];
        let y = match group.activation {
            Activation::Identity => z,
            Activation::Relu => z.max(0.0),
            Activation::Clip { lower, upper } => z.max(lower).min(upper),
            Activation::LeakyRelu { slope } => {
                if z < 0.0 {
                    slope * z
                } else {
                    z
                }
            }
            Activation::Prelu => {
                if z < 0.0 {
                    self.slopes[row] * z
                } else {
                    z
                }
            }
            other => other.value(z, 0.0), // its accuracy is tested elsewhere
        };
        (z.is_finite() && y.is_finite()).then_some(if y == 0.0 { 0.0 } else { y })
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

fn activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(vec![
        Activation::Identity,
        Activation::Relu,
        Activation::Clip { lower: 0.0, upper: 1.5 },
        Activation::Clip { lower: 0.0, upper: f32::MIN_POSITIVE / 2.0 },
        Activation::Clip { lower: -1.0, upper: f32::MAX },
        Activation::LeakyRelu { slope: 0.01 },
        Activation::Prelu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::Elu { alpha: 1.0 },
        Activation::Softplus,
    ])
}

/// Returns the activation, or one like it that is 0 for any bias that is not positive.
fn keeping(activation: Activation) -> Activation {
    match activation {
        Activation::Relu | Activation::Clip { lower: 0.0, .. } => activation,
        _ => Activation::Relu,
    }
}

/// Generates a layer with these numbers of columns and rows, one activation for all rows or groups of them.
pub fn plain(columns: usize, rows: usize, huge: bool) -> impl Strategy<Value = Plain> {
    let row = prop::collection::btree_map(0..columns.max(1) as u32, value(huge), 0..=columns.min(40));
    let groups = prop::collection::vec((0..=rows, any::<bool>(), activation()), 0..4);
    let weights = (prop::collection::vec(row, rows), any::<bool>(), any::<bool>(), value(huge));
    let bias = (any::<bool>(), prop::collection::vec(value(false), rows.max(1)));
    let slopes = prop::collection::vec(value(false), rows);
    (weights, groups, activation(), any::<bool>(), bias, slopes).prop_map(
        move |((connections, one_value, wide, weight), drawn, last, preserve, (one_bias, bias), slopes)| {
            let mut rows: Vec<Vec<(u32, f32)>> = connections.into_iter().map(|row| row.into_iter().collect()).collect();
            if columns == 0 {
                rows.iter_mut().for_each(Vec::clear);
            }
            let one_value = one_value && rows.iter().any(|row| !row.is_empty());
            if one_value {
                rows.iter_mut().flatten().for_each(|connection| connection.1 = weight);
            }
            let mut groups: Vec<Group> = Vec::new();
            let mut left = rows.len();
            for (count, max, activation) in drawn.into_iter().chain([(usize::MAX, false, last)]) {
                let start = rows.len() - left;
                let count = count.min(left);
                left -= count;
                let filled = rows[start..start + count].iter().all(|row| !row.is_empty());
                let reduce = if max && filled && !one_value { Reduce::Max } else { Reduce::Sum };
                if reduce == Reduce::Max {
                    rows[start..start + count].iter_mut().flatten().for_each(|connection| connection.1 = 1.0);
                }
                let activation = if preserve { keeping(activation) } else { activation };
                groups.push(Group { rows: count, reduce, activation });
            }
            let mut bias = if one_bias { bias[..1].to_vec() } else { bias[..rows.len()].to_vec() };
            if preserve {
                bias.iter_mut().for_each(|bias| *bias = -bias.abs());
            }
            let slopes = if groups.iter().any(|group| group.activation == Activation::Prelu) { slopes } else { vec![] };
            Plain { columns, rows, bias, slopes, groups, zero_preserving: preserve, one_value, wide }
        },
    )
}

pub fn relu(rows: usize) -> Vec<Group> {
    vec![Group { rows, reduce: Reduce::Sum, activation: Activation::Relu }]
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
