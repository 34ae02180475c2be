//! What every block of one forward pass shares: where rows begin and end, and the rotary tables.
//!
//! In:    positions of the tokens, bounds of the rows, the rope descriptions.
//! Out:   cos and sin tables on the device, `[t, head_dim / 2]` in f32.
//! Never: grows with the number of layers.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use planner::architecture::{DecoderSpec, RopeScaling, RopeSpec};

/// Rows of one micro-batch and the rotary tables of its tokens.
#[derive(Debug, Clone)]
pub struct RowContext {
    /// Cumulative bounds of the rows: first 0, last the number of tokens.
    pub segments: Arc<Vec<u32>>,
    /// (cos, sin) for each entry of [`DecoderSpec::ropes`].
    pub tables: Vec<(Tensor<2>, Tensor<2>)>,
    /// Distinguishes micro-batches in dropout masks; 0 outside training.
    pub stream: u64,
}

impl RowContext {
    /// Context of rows laid end to end; positions restart at 0 in each.
    pub fn packed(spec: &DecoderSpec, segments: &[u32], stream: u64, device: &Device) -> RowContext {
        let positions: Vec<u32> = segments.windows(2).flat_map(|bound| 0..bound[1] - bound[0]).collect();
        RowContext { segments: Arc::new(segments.to_vec()), tables: tables(spec, &positions, device), stream }
    }

    /// Context of the new tokens of sequences that go on, at the given positions.
    pub fn at(spec: &DecoderSpec, segments: Vec<u32>, positions: &[u32], device: &Device) -> RowContext {
        RowContext { segments: Arc::new(segments), tables: tables(spec, positions, device), stream: 0 }
    }
}

fn tables(spec: &DecoderSpec, positions: &[u32], device: &Device) -> Vec<(Tensor<2>, Tensor<2>)> {
    let upload = |values: Vec<f32>, half: usize| {
        let data = TensorData::new(values, [positions.len(), half]);
        Tensor::<2>::from_data(data, (device, DType::F32))
    };
    spec.ropes
        .iter()
        .map(|rope| {
            let frequencies = frequencies(rope, spec.head_dim);
            let angles = || positions.iter().flat_map(|&p| frequencies.iter().map(move |f| f64::from(p) * f));
            let cos = angles().map(|angle| angle.cos() as f32).collect();
            let sin = angles().map(|angle| angle.sin() as f32).collect();
            (upload(cos, frequencies.len()), upload(sin, frequencies.len()))
        })
        .collect()
}

/// Angular frequencies of one rope, `head_dim / 2` of them, radians per token.
///
/// Source: Su et al. 2021, arXiv:2104.09864; scaling as in transformers `modeling_rope_utils`.
pub fn frequencies(rope: &RopeSpec, head_dim: usize) -> Vec<f64> {
    let base = (0..head_dim / 2).map(|i| rope.theta.powf(-((2 * i) as f64) / head_dim as f64));
    base.map(|frequency| scaled(frequency, &rope.scaling)).collect()
}

fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original_max_positions / high_freq_factor {
                frequency
            } else if wavelength > original_max_positions / low_freq_factor {
                frequency / factor
            } else {
                let smooth =
                    (original_max_positions / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}
