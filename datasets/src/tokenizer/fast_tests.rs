//! The fast path gives the tokenizers crate's ids and offsets, on every family of splitting rules.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::pattern::Pattern;
use super::{Encoded, Facts, Tokenizer};
use crate::gguf_vocabulary::{GgufVocabulary, tokenizer_json};
use crate::test_tokenizers::{byte_level_vocabulary, spm_vocabulary};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's expression, which Phi-4-mini and others use.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek V3's three.
const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

fn split(expression: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
}

fn with(pre: &str, change: impl FnOnce(&mut Value)) -> Tokenizer {
    let mut json = tokenizer_json(byte_level_vocabulary(pre)).unwrap();
    change(&mut json);
    Tokenizer::build(&json, |_| Ok(Facts::default())).unwrap()
}

fn splitting(expressions: &[&str]) -> Tokenizer {
    with("gpt-2", |json| {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let cuts: Vec<Value> = expressions.iter().map(|expression| split(expression)).chain([bytes]).collect();
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": cuts});
    })
}

fn trimming(keep_first_space: bool) -> Tokenizer {
    with("llama-bpe", |json| {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": keep_first_space, "trim_offsets": true});
        json["post_processor"] = json!({"type": "Sequence", "processors": [bytes]});
    })
}

/// Added tokens that take white space with them, and some that are found after normalisation.
fn greedy_added() -> Tokenizer {
    with("qwen2", |json| {
        let added = json["added_tokens"].as_array_mut().unwrap();
        for (at, token) in added.iter_mut().enumerate() {
            token["lstrip"] = (at % 2 == 1).into();
            token["rstrip"] = (at > 1).into();
            token["normalized"] = (at == 4).into();
        }
        json["post_processor"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
    })
}

fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let gguf = |vocabulary| Tokenizer::from_gguf(vocabulary).unwrap();
    let mut all: Vec<_> = ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"]
        .map(|pre| (pre, gguf(byte_level_vocabulary(pre))))
        .into_iter()
        .collect();
    all.push(("o200k", splitting(&[O200K])));
    all.push(("deepseek", splitting(&DEEPSEEK)));
    all.push(("trimmed offsets", trimming(true)));
    all.push(("trimmed offsets of the first token too", trimming(false)));
    all.push(("added tokens with white space", greedy_added()));
    all.push((
        "runs of digits",
        with("smollm", |json| {
            json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false.into();
        }),
    ));
    all.push((
        "a vocabulary without some bytes",
        with("gpt-2", |json| {
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            ["ð", "Ł", "Ã", "q"].iter().for_each(|letter| assert!(vocabulary.remove(*letter).is_some()));
        }),
    ));
    all.push(("sentencepiece", gguf(spm_vocabulary())));
    all.push((
        "sentencepiece as it stands",
        gguf(GgufVocabulary { add_space_prefix: Some(false), ..spm_vocabulary() }),
    ));
    all
}

/// splitmix64: the numbers of one seed are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % bound as u64) as usize
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 52] = [
            "hello",
            " hello",
            "user",
            " a",
            "'s",
            "'RE",
            "'ll",
            "'",
            "’t",
            "'\u{17f}",
            "123",
            "7",
            " 42",
            "\u{663}",
            "½",
            " ",
            "  ",
            "    ",
            "\n",
            "\r\n",
            "\r",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "\u{85}",
            "\u{2028}",
            "<|im_start|>",
            "<|im_end|>",
            "<s>",
            "<think>",
            "<|im_",
            "<|",
            "</s>",
            "<0x41>",
            "▁",
            " ▁",
            "Ġ",
            "é",
            "漢字",
            "カナ",
            "ไทย",
            "🦀",
            "Ǆ",
            "ǅ",
            "ʰ",
            "A",
            "bC",
            ".",
            "//",
            "--",
            "{}",
            "$^",
        ];
        const PLANES: [(u32, u32); 5] =
            [(0, 0x300), (0x300, 0x3000), (0x3000, 0x1_0000), (0x1_0000, 0x4_0000), (0x4_0000, 0x11_0000)];
        let count = self.below(24);
        let mut text = String::new();
        for _ in 0..count {
            if self.below(4) > 0 {
                text.push_str(PIECES[self.below(PIECES.len())]);
            } else {
                let (from, to) = PLANES[self.below(PLANES.len())];
                text.extend(char::from_u32(from + self.below((to - from) as usize) as u32));
            }
        }
        text
    }
}

fn slow(tokenizer: &Tokenizer, text: &str) -> Encoded {
    let mut encoded = Encoded::default();
    tokenizer.encode_slowly(text, &mut encoded).unwrap();
    encoded
}

#[test]
fn the_fast_path_runs_every_known_family_and_gives_the_same_ids_and_offsets_on_random_text() {
    for (name, tokenizer) in tokenizers() {
        let fast = tokenizer.fast().unwrap_or_else(|reason| panic!("{name} is slow: {reason}"));
        let mut encoded = Encoded::default();
        let (mut numbers, mut answered) = (Numbers(7), 0);
        for _ in 0..2000 {
            let text = numbers.text();
            if fast.encode_into(&tokenizer.inner, &text, &mut encoded) {
                answered += 1;
                assert_eq!(encoded, slow(&tokenizer, &text), "{name}: {text:?}");
            }
            assert_eq!(tokenizer.encode_with_offsets(&text).unwrap(), slow(&tokenizer, &text), "{name}: {text:?}");
        }
        assert!(answered > 700, "{name}: {answered} of 2000 texts went the fast way");
    }
}

#[test]
fn the_words_that_are_remembered_are_replaced_without_mixing_them_up() {
    let tokenizer = splitting(&[LLAMA3]);
    let texts: Vec<String> = (0..60)
        .map(|at| {
            (0..5000).map(|word| format!(" {:x}", (at * 5000 + word) as u64 * 2_654_435_761 % 1_000_003)).collect()
        })
        .collect();
    for text in texts.iter().chain(&texts[..3]) {
        assert_eq!(tokenizer.encode_with_offsets(text).unwrap(), slow(&tokenizer, text));
    }
    let long: String = ["y".repeat(25), "z".repeat(96), "x".repeat(97), "w".repeat(3000)].join(" ");
    for _ in 0..2 {
        assert_eq!(tokenizer.encode_with_offsets(&long).unwrap(), slow(&tokenizer, &long));
    }
}

#[test]
fn threads_that_share_a_tokenizer_get_the_same_ids() {
    let tokenizer = splitting(&[LLAMA3]);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let tokenizer = &tokenizer;
            scope.spawn(move || {
                let mut numbers = Numbers(seed);
                for _ in 0..300 {
                    let text = numbers.text();
                    assert_eq!(tokenizer.encode_with_offsets(&text).unwrap(), slow(tokenizer, &text));
                }
            });
        }
    });
}

#[test]
fn what_the_fast_path_does_not_know_is_said_and_left_to_the_crate() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 7] = [
        ("add_prefix_space", |json| json["pre_tokenizer"]["pretokenizers"][0]["add_prefix_space"] = true.into()),
        ("Lowercase", |json| json["normalizer"] = json!({"type": "Lowercase"})),
        ("whole word", |json| json["added_tokens"][0]["single_word"] = true.into()),
        ("dropout", |json| json["model"]["dropout"] = 0.5.into()),
        ("Whitespace", |json| json["pre_tokenizer"] = json!({"type": "Whitespace"})),
        ("RobertaProcessing", |json| {
            json["post_processor"] = json!({"type": "RobertaProcessing", "sep": ["<s>", 0], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true});
        }),
        ("(?<=a)b", |json| json["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().insert(0, split("(?<=a)b"))),
    ];
    for (expected, change) in cases {
        let tokenizer = with("gpt-2", change);
        let reason = tokenizer.slow_because().unwrap_or_else(|| panic!("{expected} is fast"));
        assert!(reason.contains(expected), "{reason}");
        assert!(!tokenizer.encode("hello").unwrap().is_empty());
    }
    let mut crossing = spm_vocabulary();
    crossing.tokens[260] = "h▁".into();
    let tokenizer = Tokenizer::from_gguf(crossing).unwrap();
    assert!(tokenizer.slow_because().unwrap().contains("crosses a space"), "{:?}", tokenizer.slow_because());
}

#[test]
fn expressions_with_unknown_parts_are_refused_and_known_ones_match_first_alternative_first() {
    for unknown in [
        "^a",
        "a$",
        r"\ba",
        "a+?",
        "a++",
        "(a)b",
        "(?:a|b)c",
        "a*",
        "(?i:[ab])",
        "[[:alpha:]]",
        "[a&&b]",
        ".",
        r"\p{Cn}",
        "a|",
        "(",
        "a)",
        "[a",
        "a{2",
        "a{3,2}",
        r"\1",
        r"(?=a)a",
        "",
    ] {
        assert!(Pattern::new(unknown).is_none(), "{unknown:?}");
    }
    let ends = |expression: &str, text: &str| Pattern::new(expression).unwrap().end_of_match(text, 0);
    assert_eq!(ends("a|ab", "ab"), Some(1));
    assert_eq!(ends("ab|a", "ab"), Some(2));
    assert_eq!(ends(r"\s+(?!\S)|\s", "   x"), Some(2));
    assert_eq!(ends(r"\s+(?!\S)|\s", " x"), Some(1));
    assert_eq!(ends(r"\s*[\r\n]+", "  \n  \n x"), Some(6));
    assert_eq!(ends("x(?i:'ll|'s)?", "x'Sy"), Some(3));
    assert_eq!(ends("x(?i:'ll|'s)?", "x'y"), Some(1));
    assert_eq!(ends(r"\p{N}{1,3}", "12345"), Some(3));
    assert_eq!(ends(r"é+x", "ééx"), Some(5));
    assert_eq!(ends("b", "a"), None);
}

#[test]
fn the_fingerprint_names_what_decides_ids() {
    let base = || byte_level_vocabulary("smollm");
    let fingerprint = |vocabulary| Tokenizer::from_gguf(vocabulary).unwrap().fingerprint();
    assert_eq!(fingerprint(base()), fingerprint(base()));
    assert_eq!(fingerprint(base()), fingerprint(GgufVocabulary { chat_template: Some("x".into()), ..base() }));
    let mut merges = base();
    merges.merges.swap(0, 1);
    for other in [byte_level_vocabulary("gpt-2"), merges, GgufVocabulary { eos: Some(1), ..base() }] {
        assert_ne!(fingerprint(base()), fingerprint(other));
    }
}

#[test]
fn the_bytes_of_all_tokens_of_a_text_are_the_text() {
    let text = "hello 123 é漢🦀\n<think>";
    let bytes = |tokenizer: &Tokenizer| {
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect::<Vec<u8>>()
    };
    assert_eq!(bytes(&Tokenizer::from_gguf(byte_level_vocabulary("qwen2")).unwrap()), text.as_bytes());
    assert_eq!(bytes(&Tokenizer::from_gguf(spm_vocabulary()).unwrap()), format!(" {text}").as_bytes());
    let tokenizer = Tokenizer::from_gguf(byte_level_vocabulary("qwen2")).unwrap();
    assert_eq!(tokenizer.token_bytes(9999), None);
    let marked = "<|im_start|>user<think>";
    assert_eq!(tokenizer.decode_with_special(&tokenizer.encode(marked).unwrap()).unwrap(), marked);
}
