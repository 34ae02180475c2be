//! A GGUF file with Gemma's network and a tokenizer: the fixture of that family has none.
//!
//! In:    `tiny-gemma3.gguf`, and `tiny-llama.gguf` for its tokenizer.
//! Out:   a new file, every tensor in f32, as llama.cpp's converter lays it out (norms hold 1 + w).
//! Never: the code under test: the file is written here from the format's description.

use std::fs;
use std::path::Path;

use checkpoints::weights::Weights;

use crate::parity::fixture;

const ALIGNMENT: usize = 32;
/// Tokens of the donor's vocabulary.
const VOCABULARY: usize = 288;

/// Writes the file.
pub fn gemma_with_tokenizer(path: &Path) {
    let gemma = fixture("gguf/tiny-gemma3.gguf");
    let mut pairs = key_values(&fs::read(&gemma).unwrap());
    pairs.retain(|(key, _)| !key.starts_with("tokenizer."));
    let donor = key_values(&fs::read(fixture("gguf/tiny-llama.gguf")).unwrap());
    pairs.extend(donor.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")));
    let weights = Weights::open(&gemma).unwrap();
    let file = weights.gguf().unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = file
        .tensors()
        .iter()
        .map(|info| {
            let (mut shape, mut data) = (info.shape.clone(), file.read(&info.name).unwrap());
            if info.name == "token_embd.weight" {
                shape[0] = VOCABULARY;
                let more = VOCABULARY * shape[1] - data.len();
                data.extend((0..more).map(|at| (at * 37 % 101) as f32 / 200.0 - 0.25));
            }
            (info.name.clone(), shape, data)
        })
        .collect();
    fs::write(path, assembled(&pairs, &tensors)).unwrap();
}

fn assembled(pairs: &[(String, Vec<u8>)], tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    pairs.iter().for_each(|(_, bytes)| out.extend(bytes));
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, values) in tensors {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((shape.len() as u32).to_le_bytes());
        // Innermost size first.
        shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        // Type 0 is f32.
        out.extend(0u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        values.iter().for_each(|value| data.extend(value.to_le_bytes()));
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend(data);
    out
}

/// Every key with the bytes of key, type and value.
fn key_values(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut at = 24;
    let pair = |_| {
        let start = at;
        let key_len = u64_at(bytes, at) as usize;
        let key = String::from_utf8(bytes[at + 8..at + 8 + key_len].to_vec()).unwrap();
        at += 8 + key_len;
        let kind = u32_at(bytes, at);
        at = value_end(bytes, at + 4, kind);
        (key, bytes[start..at].to_vec())
    };
    (0..u64_at(bytes, 16)).map(pair).collect()
}

/// Where a value of type `kind` that begins at `at` ends.
fn value_end(bytes: &[u8], at: usize, kind: u32) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => at + 4,
        10..=12 => at + 8,
        8 => at + 8 + u64_at(bytes, at) as usize,
        9 => {
            let item = u32_at(bytes, at);
            (0..u64_at(bytes, at + 4)).fold(at + 12, |at, _| value_end(bytes, at, item))
        }
        other => panic!("GGUF type {other}"),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
