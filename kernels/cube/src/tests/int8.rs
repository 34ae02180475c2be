//! Decoding of 8-bit integers against the same product on the host.

use super::*;

#[test]
fn integers_come_back_times_their_blocks_scale() {
    let Some(client) = client() else { return };
    for elements in [1usize, 63, 64, 65, 1000] {
        let codes: Vec<u8> = (0..elements).map(|at| (at * 37 % 255) as u8).collect();
        let scales: Vec<f32> = (0..elements.div_ceil(64)).map(|block| 0.01 + block as f32 * 0.3).collect();
        let mut buffer = codes.clone();
        buffer.resize(elements.next_multiple_of(16), 0);
        let scales_at = buffer.len();
        scales.iter().for_each(|scale| buffer.extend(scale.to_le_bytes()));
        buffer.resize(buffer.len().next_multiple_of(16), 0);
        let packed = Buffer::words(client.create_from_slice(&buffer), buffer.len() / 4);
        let expected: Vec<f32> =
            codes.iter().enumerate().map(|(at, &code)| f32::from(code as i8) * scales[at / 64]).collect();
        let numbers = download(&client, &decode_int8(&client, &packed, elements, scales_at, Number::F32), Number::F32);
        assert!(numbers == expected, "{elements} numbers");
    }
}
