//! Facts about the GGUF reader; every lie a header can tell is written into a real file.
#![allow(clippy::unwrap_used)]

use super::*;

/// Writes small GGUF files, honest unless told otherwise.
pub(crate) struct Builder {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    entries: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder { version: 3, alignment: 32, entries: Vec::new(), tensors: Vec::new(), data: Vec::new() }
    }

    pub(crate) fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Builder {
        self.entries.push([&string(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Builder {
        self.entry(key, 8, &string(value))
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Builder {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Builder {
        self.entry(key, 6, &value.to_le_bytes())
    }

    /// `shape` outermost first.
    pub(crate) fn tensor(mut self, name: &str, shape: &[usize], kind: u32, data: &[u8]) -> Builder {
        let offset = self.data.len() as u64;
        self.tensors.push((name.into(), shape.iter().rev().map(|&n| n as u64).collect(), kind, offset));
        self.data.extend_from_slice(data);
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        self
    }

    pub(crate) fn f32_tensor(self, name: &str, shape: &[usize], values: &[f32]) -> Builder {
        self.tensor(name, shape, 0, bytemuck::cast_slice(values))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.iter().for_each(|entry| out.extend(entry));
        for (name, dimensions, kind, offset) in &self.tensors {
            out.extend(string(name));
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

fn small() -> Builder {
    let list = |kind: u32, count: u64, items: &[u8]| [&kind.to_le_bytes()[..], &count.to_le_bytes(), items].concat();
    let tokens = list(8, 2, &[string("a"), string("b")].concat());
    let scores = list(6, 2, &[1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat());
    let types = list(5, 2, &[1i32.to_le_bytes(), (-3i32).to_le_bytes()].concat());
    Builder::new()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("llama.epsilon", 0.5)
        .entry("flag", 7, &[1])
        .entry("tokens", 9, &tokens)
        .entry("scores", 9, &scores)
        .entry("types", 9, &types)
        .f32_tensor("first", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .f32_tensor("second", &[1], &[7.0])
}

fn error_of(bytes: &[u8]) -> GgufError {
    Header::parse(bytes).unwrap_err()
}

#[test]
fn an_honest_file_gives_back_its_keys_and_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    for version in [2, 3] {
        std::fs::write(&path, Builder { version, ..small() }.bytes()).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(file.metadata().u32("llama.block_count").unwrap(), Some(2));
        assert_eq!(file.metadata().u64("llama.block_count").unwrap(), Some(2));
        assert_eq!(file.metadata().f32("llama.epsilon").unwrap(), Some(0.5));
        assert_eq!(file.metadata().bool("flag").unwrap(), Some(true));
        assert_eq!(file.metadata().texts("tokens").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(file.metadata().f32s("scores").unwrap().unwrap(), [1.5, -2.0]);
        assert_eq!(file.metadata().i32s("types").unwrap().unwrap(), [1, -3]);
        assert_eq!(file.metadata().text("nothing").unwrap(), None);
        assert!(matches!(file.metadata().text("flag"), Err(GgufError::WrongType { .. })));
        assert_eq!(file.tensor("first").unwrap().shape, [2, 3]);
        assert_eq!(file.read("first").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(file.read("second").unwrap(), [7.0]);
        assert!(file.read("third").unwrap_err().to_string().contains("`third`"));
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_never_a_panic() {
    let bytes = small().bytes();
    let needed = bytes.len() - 28; // the padding behind the last tensor's four bytes may be missing
    for length in 0..needed {
        assert!(Header::parse(&bytes[..length]).is_err(), "a prefix of {length} bytes was accepted");
    }
    assert!(Header::parse(&bytes[..needed]).is_ok());
}

#[test]
fn a_file_with_any_one_byte_changed_never_panics() {
    let bytes = small().bytes();
    for index in 0..bytes.len() {
        for value in [0, 0x7f, 0xff, bytes[index] ^ 1] {
            let mut changed = bytes.clone();
            changed[index] = value;
            if let Ok(header) = Header::parse(&changed) {
                for tensor in &header.tensors {
                    tensor.kind.decode(&changed[tensor.extent.clone()]);
                }
            }
        }
    }
}

#[test]
fn other_files_and_versions_are_refused() {
    assert!(matches!(error_of(b"PK\x03\x04 this is a zip"), GgufError::Magic { .. }));
    assert!(matches!(error_of(b""), GgufError::Magic { .. }));
    for (version, hint) in [(1, "convert"), (3u32.swap_bytes(), "big-endian"), (9, "")] {
        let text = error_of(&Builder { version, ..small() }.bytes()).to_string();
        assert!(text.contains(&version.to_string()) && text.contains(hint), "{text}");
    }
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    for at in [8, 16] {
        let mut bytes = small().bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(error_of(&bytes), GgufError::Truncated { .. }));
    }
    for kind in [0u32, 4, 8, 10] {
        let list = [&kind.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
        assert!(matches!(error_of(&small().entry("bomb", 9, &list).bytes()), GgufError::Truncated { .. }));
    }
    let long = small().entry("long", 8, &(1u64 << 40).to_le_bytes());
    assert!(matches!(error_of(&long.bytes()), GgufError::Truncated { .. }));
}

#[test]
fn values_outside_the_format_are_refused() {
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    assert!(matches!(error_of(&small().entry("nested", 9, &nested).bytes()), GgufError::ValueType { found: 9, .. }));
    assert!(matches!(error_of(&small().entry("odd", 77, &[]).bytes()), GgufError::ValueType { found: 77, .. }));
    let text = [&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat();
    assert!(matches!(error_of(&small().entry("latin", 8, &text).bytes()), GgufError::Utf8 { .. }));
    assert!(matches!(error_of(&small().u32("flag", 1).bytes()), GgufError::Duplicate { .. }));
    for alignment in [0, 3, 48, 1 << 20] {
        let lie = small().u32("general.alignment", alignment);
        assert!(matches!(error_of(&lie.bytes()), GgufError::Alignment { .. }));
    }
}

/// `small()` with one more tensor described as `change` leaves it.
fn with_tensor(change: impl Fn(&mut (String, Vec<u64>, u32, u64))) -> GgufError {
    let mut builder = small().f32_tensor("third", &[4], &[0.0; 4]);
    change(builder.tensors.last_mut().unwrap());
    error_of(&builder.bytes())
}

#[test]
fn tensors_that_lie_are_refused_by_name() {
    let refused = [
        with_tensor(|t| t.1 = vec![0]),
        with_tensor(|t| t.1 = vec![1 << 40, 1 << 40]),
        with_tensor(|t| t.1 = vec![1 << 60]),
        with_tensor(|t| t.1 = vec![]),
        with_tensor(|t| t.1 = vec![1; 5]),
        with_tensor(|t| (t.1, t.2) = (vec![33], 2)),
        with_tensor(|t| t.2 = 10),
        with_tensor(|t| t.3 = 68),
        with_tensor(|t| t.3 = u64::MAX - 31),
        with_tensor(|t| t.1 = vec![1000]),
        with_tensor(|t| t.3 = 0),
    ];
    let expected =
        ["zero", "overflows", "disk", "1 to 4", "1 to 4", "blocks", "Q2_K", "multiple", "needs", "needs", "overlap"];
    for (error, expected) in refused.iter().zip(expected) {
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("third"), "{expected}: {text}");
    }
    assert!(matches!(with_tensor(|t| t.0 = "first".into()), GgufError::Duplicate { .. }));
}

#[test]
fn every_block_type_decodes_like_the_gguf_package() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for code in [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30] {
        let kind = BlockType::from_code(code).unwrap();
        let blocks = std::fs::read(golden.join(format!("{kind:?}.bin"))).unwrap();
        let values = std::fs::read(golden.join(format!("{kind:?}.f32"))).unwrap();
        let expected: Vec<f32> = values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        assert_eq!(kind.decode(&blocks), expected, "{kind:?}");
        // Many blocks cross the borders of parallel tasks.
        let many = kind.decode(&blocks.repeat(100));
        assert_eq!(many, expected.repeat(100), "{kind:?} in parallel");
    }
}
