//! Decoding against bitsandbytes' goldens (tests/fixtures/nf4).

use std::path::Path;

use safetensors::SafeTensors;

use super::*;

/// The buffer of a matrix as `kernels::nf4` lays it out, and where its parts begin.
fn packed(parts: [&[u8]; 4]) -> (Vec<u8>, [usize; 4]) {
    let (mut buffer, mut starts) = (Vec::new(), [0; 4]);
    for (start, part) in starts.iter_mut().zip(parts) {
        buffer.resize(usize::next_multiple_of(buffer.len(), 16), 0);
        *start = buffer.len();
        buffer.extend_from_slice(part);
    }
    buffer.resize(buffer.len().next_multiple_of(16), 0);
    (buffer, starts)
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().unwrap())
}

#[test]
fn matrices_in_4_bits_come_back_bit_for_bit_as_bitsandbytes_decodes_them() {
    let Some(client) = client() else { return };
    let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nf4/golden.safetensors"))
        .unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let bytes = |name: &str| golden.tensor(name).unwrap().data();
    let tables: Vec<f32> = [bytes("code"), bytes("scale_code")].concat().chunks_exact(4).map(float).collect();
    assert_eq!(tables.len(), 16 + 256);
    let tables = upload(&client, &tables, Number::F32);
    let mut tried = 0;
    for case in ["normal", "heavy_tails", "zero_blocks", "short_last_block", "halfway", "all_zero"] {
        let part = |name: &str| bytes(&format!("{case}.{name}"));
        let (buffer, [_, scales_at, groups_at, mean_at]) = packed(["codes", "scales", "groups", "mean"].map(part));
        let expected: Vec<f32> = part("f32").chunks_exact(4).map(float).collect();
        let elements = expected.len();
        let on_device = client.create_from_slice(&buffer);
        let packed = Buffer::words(on_device, buffer.len() / 4);
        let matrix = Nf4 { packed, tables: tables.clone(), elements, scales_at, groups_at, mean_at };
        for (first, count) in [(0, elements), (8, elements - 8), (elements / 2 / 8 * 8, 1), (64, 61)] {
            let numbers = download(&client, &decode(&client, &matrix, first, count, Number::F32), Number::F32);
            assert!(numbers == expected[first..first + count], "{case}: {count} numbers from {first} on");
            tried += 1;
        }
        if formats(&client).contains(&Number::Bf16) {
            let numbers = download(&client, &decode(&client, &matrix, 0, elements, Number::Bf16), Number::Bf16);
            let expected: Vec<f32> = expected.iter().map(|&value| bf16::from_f32(value).to_f32()).collect();
            assert!(numbers == expected, "{case} in bf16");
        }
    }
    assert_eq!(tried, 24);
}
