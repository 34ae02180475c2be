//! Facts about tokenizers, on tiny vocabularies built here and on folders written to disk.
#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::json;

use crate::gguf_vocabulary::{GgufVocabulary, tokenizer_json};
use crate::test_tokenizers::{byte_level, byte_level_vocabulary, spm_vocabulary};
use crate::{DataError, Tokenizer};

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.token(id).unwrap()).collect()
}

fn from(vocabulary: GgufVocabulary) -> Tokenizer {
    Tokenizer::from_gguf(vocabulary).unwrap()
}

#[test]
fn byte_level_text_comes_back_unchanged() {
    let tokenizer = byte_level(None);
    for text in ["hello user 123", "  four spaces\n\n", "naïve café 漢字 🦀", "a\tb\r\n"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
}

#[test]
fn smollm_takes_every_digit_alone_and_llama_takes_three() {
    assert_eq!(spelled(&byte_level(None), "hello 123"), ["hello", "Ġ", "1", "2", "3"]);
    assert_eq!(spelled(&from(byte_level_vocabulary("llama-bpe")), "hello 1234"), ["hello", "Ġ", "123", "4"]);
    assert_eq!(spelled(&from(byte_level_vocabulary("qwen2")), "123"), ["1", "2", "3"]);
    assert_eq!(spelled(&from(byte_level_vocabulary("gpt-2")), "1234"), ["123", "4"]);
}

#[test]
fn special_tokens_in_text_are_found_and_left_out_of_decoded_text() {
    let tokenizer = byte_level(None);
    assert_eq!(spelled(&tokenizer, "<|im_start|>user<think>"), ["<|im_start|>", "user", "<think>"]);
    let ids = tokenizer.encode("<|im_start|>user<think>").unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "user<think>");
}

#[test]
fn offsets_are_bytes_of_the_text() {
    let encoded = byte_level(None).encode_with_offsets("é hello").unwrap();
    assert_eq!(encoded.offsets.last().unwrap().clone(), 3..8);
    assert_eq!(encoded.offsets[0], 0..2);
}

#[test]
fn end_tokens_are_the_named_one_first_then_those_known_by_name() {
    assert_eq!(byte_level(None).eos(), [3, 1]);
    assert_eq!(byte_level(None).bos(), Some(0));
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = from(spm_vocabulary());
    assert_eq!(spelled(&tokenizer, "hello world"), ["▁hello", "▁world"]);
    assert_eq!(spelled(&tokenizer, "é漢"), ["▁", "é", "<0xE6>", "<0xBC>", "<0xA2>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("hello 漢 world").unwrap()).unwrap(), "hello 漢 world");
    assert!(tokenizer.adds_bos());
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), [2].as_slice()));
}

#[test]
fn sentencepiece_without_space_prefix_spells_text_as_it_stands() {
    let tokenizer = from(GgufVocabulary { add_space_prefix: Some(false), ..spm_vocabulary() });
    assert_eq!(spelled(&tokenizer, "hello"), ["h", "el", "lo"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(" hello").unwrap()).unwrap(), " hello");
}

#[test]
fn unknown_kinds_of_tokenizer_are_refused_by_name() {
    let error = Tokenizer::from_gguf(byte_level_vocabulary("mystery")).unwrap_err();
    assert!(matches!(&error, DataError::UnsupportedPreTokenizer { pre, .. } if pre == "mystery"), "{error}");
    let error = Tokenizer::from_gguf(GgufVocabulary { model: "bert".into(), ..spm_vocabulary() }).unwrap_err();
    assert!(error.to_string().contains("\"bert\""), "{error}");
}

#[test]
fn a_vocabulary_that_lies_is_refused() {
    type Spoil = fn(&mut GgufVocabulary);
    let cases: [(&str, Spoil); 5] = [
        ("merge 1", |v| v.merges[1] = "hello hello".into()),
        ("merge 0", |v| v.merges[0] = "x".into()),
        ("token_type has 3 entries", |v| v.token_types = Some(vec![1; 3])),
        ("special token id 9999", |v| v.bos = Some(9999)),
        ("merge 2", |v| v.merges[2] = String::new()),
    ];
    for (expected, spoil) in cases {
        let mut vocabulary = byte_level_vocabulary("smollm");
        spoil(&mut vocabulary);
        let error = Tokenizer::from_gguf(vocabulary).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Tokenizer::from_gguf(GgufVocabulary { scores: None, ..spm_vocabulary() }).unwrap_err().to_string();
    assert!(error.contains("scores"), "{error}");
    let mut long = spm_vocabulary();
    long.tokens[260] = "e".repeat(5000);
    assert!(Tokenizer::from_gguf(long).unwrap_err().to_string().contains("5000 bytes"));
    assert!(Tokenizer::from_gguf(GgufVocabulary { model: "gpt2".into(), ..GgufVocabulary::default() }).is_err());
}

#[test]
fn a_model_with_fewer_embeddings_than_tokens_is_refused() {
    let tokenizer = byte_level(None);
    let proper = tokenizer.vocabulary() - 1; // the last token is an added one
    assert!(tokenizer.check_vocabulary(proper).is_ok());
    assert!(matches!(tokenizer.check_vocabulary(100), Err(DataError::VocabularyTooLarge { rows: 100, .. })));
}

fn folder(config: serde_json::Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let json = tokenizer_json(byte_level_vocabulary("smollm")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn a_folder_gives_the_same_ids_as_the_gguf() {
    let folder = folder(json!({"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "chat_template": "a"}));
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let text = "<s>hello 123<|im_end|>\n";
    assert_eq!(tokenizer.encode(text).unwrap(), byte_level(None).encode(text).unwrap());
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), [3, 1].as_slice()));
    assert_eq!(tokenizer.chat_template(), Some("a"));
    assert!(!tokenizer.adds_bos());
}

#[test]
fn end_tokens_come_from_every_configuration_file_and_the_template_file_wins() {
    let templates = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    let folder = folder(json!({"bos_token": "<s>", "add_bos_token": true, "chat_template": templates}));
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [2, 3]}"#).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"text_config": {"eos_token_id": 7}}"#).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.eos(), [2, 3, 7, 1]);
    assert_eq!(tokenizer.chat_template(), Some("d"));
    assert!(tokenizer.adds_bos());
    fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().chat_template(), Some("file"));
}

#[test]
fn a_folder_without_or_with_a_broken_tokenizer_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::from_folder(empty.path()), Err(DataError::NoTokenizerFile { .. })));
    fs::write(empty.path().join("tokenizer.json"), "{").unwrap();
    assert!(Tokenizer::from_folder(empty.path()).is_err());
    let named = folder(json!({"eos_token": "<nowhere>"}));
    assert!(Tokenizer::from_folder(named.path()).unwrap_err().to_string().contains("<nowhere>"));
    let mut json = tokenizer_json(byte_level_vocabulary("smollm")).unwrap();
    json["model"]["merges"][0] = json!(["user", "user"]);
    fs::write(empty.path().join("tokenizer.json"), json.to_string()).unwrap();
    assert!(Tokenizer::from_folder(empty.path()).unwrap_err().to_string().contains("merge 0"));
}
