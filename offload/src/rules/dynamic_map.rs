//! The dynamic 8-bit map of bitsandbytes, and quantising to its nearest entry.
//!
//! In:    values divided by the largest magnitude of their block.
//! Out:   codes, indices into a sorted map of 256 values in -1 to 1 (signed) or 0 to 1 (unsigned).
//! Never: leaves an index unchecked by construction: NaN and numbers out of range have codes too.
//!
//! Source: Dettmers 2015, arXiv:1511.04561; `create_dynamic_map` of bitsandbytes 0.50.2, whose values these are to the bit. Between
//! two entries the nearer one is taken, the lower one on a tie; bitsandbytes' CPU library rounds up to a tenth of a gap past the
//! middle, its CUDA kernels do not.

use std::sync::OnceLock;

/// Upper halves of the `f32` bit patterns told apart: from 2^-23, below which every code is that of zero, to 1.
const KEY_MIN: u32 = (127 - 23) << 7;
const KEYS: usize = (127 << 7) - KEY_MIN as usize + 1;
/// Entries of the table: [`KEYS`] for each sign, then unused ones, so that masking an index proves it in bounds.
const ENTRIES: usize = (2 * KEYS).next_power_of_two();

/// The 256 values of the dynamic map in ascending order.
pub fn dynamic_map(signed: bool) -> [f32; 256] {
    let mut map = [0.0f32; 256];
    map[0] = 1.0; // Besides 0 and 1 there are the means below; sorting puts them in place.
    let mut next = 2;
    for exponent in 0..7 {
        let items = if signed { 1 << exponent } else { 2 << exponent };
        let boundaries: Vec<f32> = (0..=items).map(|i| boundary(i, items)).collect();
        let scale = 10f64.powi(exponent - 6) as f32;
        for pair in boundaries.windows(2) {
            map[next] = scale * ((pair[0] + pair[1]) / 2.0);
            next += 1;
            if signed {
                map[next] = -map[next - 1];
                next += 1;
            }
        }
    }
    map.sort_by(f32::total_cmp);
    map
}

/// Entry `i` of torch's `linspace(0.1, 1, items + 1)`, which counts from the nearer end with one rounding.
fn boundary(i: usize, items: usize) -> f32 {
    let (start, end) = (0.1f32, 1.0f32);
    let step = f64::from((end - start) / items as f32);
    if i < items.div_ceil(2) {
        (f64::from(start) + step * i as f64) as f32
    } else {
        (f64::from(end) - step * (items - i) as f64) as f32
    }
}

/// What values with a certain upper half become: in the upper 16 bits the largest lower half that still gets the near code, then 8 bits of
/// near code, then what is added beyond it: 0, 1, or 255 (that is -1) for negative values. Small, so that the table stays in the cache.
type Entry = u32;

/// A map and the table that finds codes in it.
pub(super) struct Quantizer {
    pub map: [f32; 256],
    /// Entries for positive values, then for negative ones.
    entries: [Entry; ENTRIES],
}

impl Quantizer {
    /// The map with negative values, for first moments.
    pub fn signed() -> &'static Quantizer {
        static SIGNED: OnceLock<Quantizer> = OnceLock::new();
        SIGNED.get_or_init(|| Quantizer::new(dynamic_map(true)))
    }

    /// The map without, for second moments.
    pub fn unsigned() -> &'static Quantizer {
        static UNSIGNED: OnceLock<Quantizer> = OnceLock::new();
        UNSIGNED.get_or_init(|| Quantizer::new(dynamic_map(false)))
    }

    fn new(map: [f32; 256]) -> Quantizer {
        let middles: Vec<f64> = map.windows(2).map(|pair| (f64::from(pair[0]) + f64::from(pair[1])) / 2.0).collect();
        let entry = |i: usize| if i < 2 * KEYS { entry(&middles, KEY_MIN + (i % KEYS) as u32, i >= KEYS) } else { 0 };
        Quantizer { map, entries: std::array::from_fn(entry) }
    }

    /// The codes of `values`, which are in -1 to 1; others, and NaN, get a code at the end of their sign.
    ///
    /// Only the look-up in the middle goes value by value, the rest is written for vector instructions.
    #[inline(always)]
    pub fn codes(&self, values: &[f32; 256], codes: &mut [u8; 256]) {
        let index: [u32; 256] = std::array::from_fn(|i| {
            let bits = values[i].to_bits();
            let key = (bits >> 16 & 0x7fff).clamp(KEY_MIN, KEY_MIN + KEYS as u32 - 1) - KEY_MIN;
            key + (bits >> 31) * KEYS as u32
        });
        let entries: [Entry; 256] = std::array::from_fn(|i| self.entries[index[i] as usize % ENTRIES]);
        for ((code, entry), value) in codes.iter_mut().zip(entries).zip(values) {
            // All bits set if beyond.
            let beyond = ((entry >> 16).wrapping_sub(value.to_bits() & 0xffff) as i32 >> 31) as u32;
            *code = ((entry >> 8) + (entry & beyond)) as u8;
        }
    }
}

fn entry(middles: &[f64], key: u32, negative: bool) -> Entry {
    let low = if key == KEY_MIN { 0.0 } else { f32::from_bits(key << 16) };
    let high = if key == 127 << 7 { 1.0 } else { f32::from_bits(key << 16 | 0xffff) };
    let sign = if negative { -1.0 } else { 1.0 };
    // The lower entry on a tie: the code counts the middles that are below.
    let code = |magnitude: f32| middles.partition_point(|middle| *middle < sign * f64::from(magnitude)) as u8;
    let (near, far) = (code(low), code(high));
    if near == far {
        return 0xffff_0000 | u32::from(near) << 8;
    }
    debug_assert_eq!(near.abs_diff(far), 1, "one border between {low} and {high}");
    // The largest magnitude with the near code, by bisection over the bit patterns.
    let (mut inside, mut outside) = (low.to_bits(), high.to_bits());
    while outside - inside > 1 {
        let middle = inside + (outside - inside) / 2;
        if code(f32::from_bits(middle)) == near { inside = middle } else { outside = middle }
    }
    inside << 16 | u32::from(near) << 8 | u32::from(far.wrapping_sub(near))
}

#[cfg(test)]
mod tests {
    use super::super::testing::values;
    use super::*;

    impl Quantizer {
        fn code(&self, value: f32) -> u8 {
            let mut codes = [0; 256];
            self.codes(&[value; 256], &mut codes);
            assert!(codes.iter().all(|code| *code == codes[0]));
            codes[0]
        }
    }

    fn nearest(map: &[f32; 256], value: f32) -> u8 {
        let distance = |i: &usize| (f64::from(map[*i]) - f64::from(value)).abs();
        (0..256).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0) as u8
    }

    #[test]
    fn codes_are_those_of_the_nearest_entry_the_lower_one_on_a_tie() {
        for quantizer in [Quantizer::signed(), Quantizer::unsigned()] {
            let scales = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9];
            let random = scales
                .into_iter()
                .enumerate()
                .flat_map(|(i, scale)| values(2_000, i as u64).into_iter().map(move |x| x * scale));
            let middles = quantizer.map.windows(2).map(|pair| pair[0] / 2.0 + pair[1] / 2.0);
            let around = middles.flat_map(|x| [x.next_down(), x, x.next_up()]);
            for value in random.chain(around).chain(quantizer.map).chain([0.0, -0.0, 1.0, -1.0]) {
                assert_eq!(quantizer.code(value), nearest(&quantizer.map, value), "{value:e}");
            }
        }
    }

    #[test]
    fn every_entry_of_a_map_has_its_own_code() {
        for quantizer in [Quantizer::signed(), Quantizer::unsigned()] {
            assert!(quantizer.map.windows(2).all(|pair| pair[0] < pair[1]));
            assert!((0..256).all(|i| quantizer.code(quantizer.map[i]) == i as u8));
        }
    }

    #[test]
    fn values_out_of_range_and_nan_have_codes() {
        let signed = Quantizer::signed();
        assert_eq!([signed.code(f32::INFINITY), signed.code(7.0), signed.code(-7.0)], [255, 255, 0]);
        assert_eq!([signed.code(f32::NAN), Quantizer::unsigned().code(-f32::NAN)], [255, 0]);
    }
}
