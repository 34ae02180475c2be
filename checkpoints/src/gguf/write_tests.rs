//! Facts about written GGUF files and about the encoders; what they should be comes from the `gguf` package or from the format.
#![allow(clippy::unwrap_used)]

use super::*;

/// Numbers of `encode.f32` that are normally distributed.
const NORMAL: usize = 4096;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn floats(name: &str) -> Vec<f32> {
    golden(name).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn simple_formats_are_encoded_bit_for_bit_like_the_gguf_package() {
    let values = floats("encode.f32");
    for kind in ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"] {
        let expected = golden(&format!("encode.{kind}.bin"));
        let kind =
            [1, 2, 3, 6, 7, 8, 30].into_iter().filter_map(BlockType::from_code).find(|k| format!("{k:?}") == kind);
        let kind = kind.unwrap();
        assert!(kind.encode(&values) == expected, "{kind:?}");
        // Many blocks cross the borders of parallel tasks.
        assert!(kind.encode(&values.repeat(9)) == expected.repeat(9), "{kind:?} in parallel");
    }
}

/// Root mean square of the error, relative to the numbers'.
fn error_of(values: &[f32], read: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value).powi(2);
    let error: f64 = values.iter().zip(read).map(|(a, b)| square(a - b)).sum();
    (error / values.iter().map(|&value| square(value)).sum::<f64>()).sqrt()
}

#[test]
fn super_blocks_are_as_near_to_their_numbers_as_those_of_ggml() {
    let values = floats("encode.f32");
    for kind in [BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K] {
        let theirs = golden(&format!("encode.{kind:?}.bin"));
        // Normally distributed numbers first, then blocks of every awkward kind.
        for part in [0..NORMAL, NORMAL..values.len()] {
            let blocks = part.start / kind.elements() * kind.bytes()..part.end / kind.elements() * kind.bytes();
            let (ours, values) = (kind.encode(&values[part.clone()]), &values[part]);
            let ours = error_of(values, &kind.decode(&ours));
            let theirs = error_of(values, &kind.decode(&theirs[blocks]));
            assert!(ours <= theirs * 1.0001, "{kind:?}: {ours} against ggml's {theirs}");
        }
    }
}

#[test]
fn super_blocks_of_any_numbers_keep_within_half_a_step() {
    let ramp: Vec<f32> = (0..256).map(|n| n as f32 - 100.0).collect();
    let shifted: Vec<f32> = (0..256).map(|n| 5.0 + n as f32 / 64.0).collect();
    let one: Vec<f32> = (0..256).map(|n| if n == 77 { -3.0 } else { 0.0 }).collect();
    for kind in [BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K] {
        assert!(kind.decode(&kind.encode(&[0.0; 256])).iter().all(|&value| value == 0.0), "{kind:?} of zeros");
        for (name, values) in [("ramp", &ramp), ("shifted", &shifted), ("one", &one)] {
            let error = error_of(values, &kind.decode(&kind.encode(values)));
            assert!(error < 0.06, "{kind:?} of {name}: {error}");
        }
        let equal = kind.decode(&kind.encode(&[-0.25; 256]));
        assert!(equal.iter().all(|value| (value + 0.25).abs() < 0.005), "{kind:?} of equal numbers");
    }
}

#[test]
fn a_written_file_gives_back_every_key_and_tensor_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/model.gguf");
    let entries = [
        ("a.u32", Entry::U32(7)),
        ("a.u64", Entry::U64(1 << 40)),
        ("a.f32", Entry::F32(0.5)),
        ("a.flag", Entry::Bool(true)),
        ("a.text", Entry::Text("naïve".into())),
        ("a.texts", Entry::Texts(vec!["x".into(), String::new()])),
        ("a.f32s", Entry::F32s(vec![1.5, -2.0])),
        ("a.i32s", Entry::I32s(vec![1, -3])),
    ]
    .map(|(key, entry)| (key.to_string(), entry));
    let new = |name: &str, shape: &[usize], kind| NewTensor { name: name.into(), shape: shape.to_vec(), kind };
    let tensors = vec![
        new("odd", &[3], BlockType::F32),
        new("matrix", &[2, 64], BlockType::Q8_0),
        new("half", &[5, 3], BlockType::F16),
    ];
    let matrix: Vec<f32> = (0..128).map(|n| n as f32).collect();
    let mut writer = Writer::create(&path, &entries, tensors).unwrap();
    writer.append(&[1.0, 2.0, 3.0]).unwrap();
    assert_eq!(writer.next_tensor().unwrap().name, "matrix");
    writer.append(&matrix[..32]).unwrap();
    writer.append(&matrix[32..]).unwrap();
    writer.append(&[0.5; 15]).unwrap();
    let bytes = writer.finish().unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(file.bytes(), bytes);
    assert_eq!(file.metadata().u32("a.u32").unwrap(), Some(7));
    assert_eq!(file.metadata().u64("a.u64").unwrap(), Some(1 << 40));
    assert_eq!(file.metadata().f32("a.f32").unwrap(), Some(0.5));
    assert_eq!(file.metadata().bool("a.flag").unwrap(), Some(true));
    assert_eq!(file.metadata().text("a.text").unwrap(), Some("naïve"));
    assert_eq!(file.metadata().texts("a.texts").unwrap().unwrap(), ["x", ""]);
    assert_eq!(file.metadata().f32s("a.f32s").unwrap().unwrap(), [1.5, -2.0]);
    assert_eq!(file.metadata().i32s("a.i32s").unwrap().unwrap(), [1, -3]);
    assert_eq!(file.read("odd").unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(file.tensor("matrix").unwrap().shape, [2, 64]);
    assert_eq!(file.read("matrix").unwrap(), BlockType::Q8_0.decode(&BlockType::Q8_0.encode(&matrix)));
    assert_eq!(file.read("half").unwrap(), [0.5; 15]);
    let beside: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(beside.len(), 1);
}

#[test]
fn entries_carried_over_from_another_file_stay_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.gguf"), folder.path().join("second.gguf"));
    // Types that this program never writes itself.
    let builder = tests::Builder::new()
        .entry("tokenizer.u8", 0, &[200])
        .entry("tokenizer.f64", 12, &0.1f64.to_le_bytes())
        .entry("tokenizer.flags", 9, &[&7u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[1, 0]].concat());
    std::fs::write(&first, builder.bytes()).unwrap();
    let file = File::open(&first).unwrap();
    let stored: Vec<(String, Entry)> =
        file.stored_entries().into_iter().map(|(key, entry)| (key.to_string(), entry)).collect();
    assert_eq!(
        stored.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["tokenizer.u8", "tokenizer.f64", "tokenizer.flags"]
    );
    Writer::create(&second, &stored, Vec::new()).unwrap().finish().unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
}

#[test]
fn an_unfinished_file_leaves_the_old_one_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, b"old").unwrap();
    let tensor = NewTensor { name: "t".into(), shape: vec![2], kind: BlockType::F32 };
    let mut writer = Writer::create(&path, &[], vec![tensor]).unwrap();
    writer.append(&[1.0]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_mix_q4_k_m_gives_six_bits_where_llama_cpp_does() {
    let network = MixNetwork { layers: 16, tied_head: true };
    let kind = |mix: Mix, name: &str, shape: &[usize]| mix.choose(name, shape, network).kind;
    let m = |name: &str| kind(Mix::Q4_K_M, name, &[512, 512]);
    let six: Vec<usize> = (0..16).filter(|layer| m(&format!("blk.{layer}.attn_v.weight")) == BlockType::Q6_K).collect();
    // The first and last eighth, and every third from the second of the rest on.
    assert_eq!(six, [0, 1, 4, 7, 10, 13, 14, 15]);
    assert!(
        (0..16).all(|layer| m(&format!("blk.{layer}.ffn_down.weight")) == m(&format!("blk.{layer}.attn_v.weight")))
    );
    assert_eq!(m("blk.0.attn_q.weight"), BlockType::Q4_K);
    assert_eq!(m("token_embd.weight"), BlockType::Q6_K);
    let untied = MixNetwork { tied_head: false, ..network };
    assert_eq!(Mix::Q4_K_M.choose("token_embd.weight", &[512, 512], untied).kind, BlockType::Q4_K);
    assert_eq!(Mix::Q4_K_M.choose("output.weight", &[512, 512], untied).kind, BlockType::Q6_K);
    assert_eq!(kind(Mix::Q4_K_M, "blk.0.attn_norm.weight", &[512]), BlockType::F32);
    assert_eq!(kind(Mix::Q4_K_S, "blk.3.attn_v.weight", &[512, 512]), BlockType::Q5_K);
    assert_eq!(kind(Mix::Q4_0, "token_embd.weight", &[512, 512]), BlockType::Q6_K);
    assert_eq!(kind(Mix::Q8_0, "token_embd.weight", &[512, 512]), BlockType::Q8_0);
    assert_eq!(kind(Mix::F16, "token_embd.weight", &[512, 512]), BlockType::F16);
}

#[test]
fn rows_that_blocks_do_not_divide_get_the_format_that_llama_cpp_takes_and_say_so() {
    let network = MixNetwork { layers: 30, tied_head: true };
    let choose = |name: &str, row: usize| Mix::Q4_K_M.choose(name, &[64, row], network);
    let instead = |kind, wanted| Choice { kind, instead_of: Some(wanted) };
    assert_eq!(choose("blk.5.attn_q.weight", 576), instead(BlockType::Q5_0, BlockType::Q4_K));
    assert_eq!(choose("blk.0.attn_v.weight", 576), instead(BlockType::Q8_0, BlockType::Q6_K));
    assert_eq!(choose("token_embd.weight", 576), Choice { kind: BlockType::Q8_0, instead_of: None });
    assert_eq!(choose("blk.5.attn_q.weight", 24), instead(BlockType::F16, BlockType::Q4_K));
    assert_eq!(Mix::Q8_0.choose("blk.5.attn_q.weight", &[64, 24], network), instead(BlockType::F16, BlockType::Q8_0));
}

#[test]
fn every_mix_is_known_by_its_name() {
    for mix in Mix::ALL {
        assert_eq!(Mix::from_name(&mix.name().to_lowercase()), Some(mix));
    }
    assert_eq!(Mix::from_name("Q2_K"), None);
}
