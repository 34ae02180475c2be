//! Text to token ids and back, with the few facts about special tokens that training needs.
//!
//! In:    a model folder, or the tokenizer metadata of a GGUF file.
//! Out:   a [`Tokenizer`].
//! Never: adds special tokens that the text does not name; truncates; pads.

mod added;
mod classes;
mod fast;
#[cfg(test)]
mod fast_tests;
pub(crate) mod letters;
mod pattern;
mod probe;
mod rules;
mod words;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::gguf_vocabulary::GgufVocabulary;
use crate::row_error::RowError;
use crate::{folder, gguf_tokens, gguf_vocabulary};
use fast::Fast;
use rules::Rules;

/// Names that end a turn or a text wherever a tokenizer has them as special tokens. Models are published whose
/// configuration lists only one of the two that they were trained with; llama.cpp keeps the same list.
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|eom_id|>",
    "</s>",
];

/// Changes when the same JSON gives other ids.
const FINGERPRINT_VERSION: &[u8] = b"tokenizer 1\n";

/// A tokenizer with its beginning and end tokens and its chat template.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    highest: u32,
    facts: Facts,
    special: Vec<u32>,
    spelling: Spelling,
    fingerprint: [u8; 32],
    rules: Arc<Result<Rules, String>>,
    /// Built at the first text: most programs that look at a tokenizer encode none.
    fast: Arc<OnceLock<Result<Fast, String>>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vocabulary = self.vocabulary();
        out.debug_struct("Tokenizer")
            .field("vocabulary", &vocabulary)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// How the vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A letter for each byte.
    Letters,
    /// Text with `▁` for space, and `<0xNN>` for bytes.
    Pieces,
    /// Text.
    Text,
}

/// What the files around the vocabulary say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Where it came from, for errors.
    pub(crate) place: String,
    /// Beginning-of-text token.
    pub(crate) bos: Option<u32>,
    /// Tokens that end a text, the tokenizer's own first.
    pub(crate) eos: Vec<u32>,
    /// Whether plain text starts with `bos`.
    pub(crate) adds_bos: bool,
    /// Jinja source.
    pub(crate) chat_template: Option<String>,
}

/// Token ids with the bytes of the text that each covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Byte range of each token in the text.
    pub offsets: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the configuration files around it.
    pub fn from_folder(folder: &Path) -> Result<Tokenizer, DataError> {
        let (json, facts) = folder::read(folder)?;
        Tokenizer::build(&json, |inner| folder::resolve(facts, inner))
    }

    /// Builds the tokenizer that a GGUF file's metadata describes.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Tokenizer, DataError> {
        let facts = gguf_vocabulary::facts(&vocabulary)?;
        let json = gguf_vocabulary::tokenizer_json(vocabulary)?;
        Tokenizer::build(&json, |_| Ok(facts))
    }

    /// Parses a checked `tokenizer.json` and completes `facts` from what it knows.
    fn build(
        json: &Value,
        facts: impl FnOnce(&tokenizers::Tokenizer) -> Result<Facts, DataError>,
    ) -> Result<Tokenizer, DataError> {
        let bytes = serde_json::to_vec(json).map_err(|error| DataError::tokenizer("tokenizer.json", error))?;
        let mut hash = Sha256::new_with_prefix(FINGERPRINT_VERSION);
        hash.update(&bytes);
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| DataError::tokenizer("tokenizer.json", error))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| DataError::tokenizer("tokenizer.json", error))?;
        let mut facts = facts(&inner)?;
        let Some(highest) = inner.get_vocab(true).into_values().max() else {
            return Err(DataError::tokenizer(facts.place, "the vocabulary is empty"));
        };
        let mut special: Vec<u32> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token)| token.special.then_some(id))
            .collect();
        special.sort_unstable();
        for id in END_NAMES.iter().filter_map(|name| inner.token_to_id(name)) {
            if special.binary_search(&id).is_ok() && !facts.eos.contains(&id) {
                facts.eos.push(id);
            }
        }
        if let Some(id) = facts.bos.iter().chain(&facts.eos).find(|id| inner.id_to_token(**id).is_none()) {
            return Err(DataError::tokenizer(facts.place, format!("special token id {id} is not in the vocabulary")));
        }
        hash.update(format!("{:?} {:?} {}", facts.bos, facts.eos, facts.adds_bos));
        Ok(Tokenizer {
            inner,
            highest,
            facts,
            special,
            spelling: spelling(&json["decoder"]),
            fingerprint: hash.finalize().into(),
            rules: Arc::new(rules::read(json)),
            fast: Arc::default(),
        })
    }

    /// Highest token id plus one.
    pub fn vocabulary(&self) -> usize {
        self.highest as usize + 1
    }

    /// Refuses a model whose embedding has fewer rows than the vocabulary proper has ids. Added tokens may lie beyond
    /// it (Gemma 3's image token does); rows that use them are refused by [`crate::Dataset::check_vocabulary`].
    pub fn check_vocabulary(&self, embedding_rows: usize) -> Result<(), DataError> {
        let added = self.inner.get_added_tokens_decoder();
        let ids = self.inner.get_vocab(false).into_values().filter(|id| !added.contains_key(id));
        let needed = ids.chain(self.facts.bos).chain(self.facts.eos.iter().copied()).max().unwrap_or(0);
        if needed as usize >= embedding_rows {
            return Err(DataError::VocabularyTooLarge { highest: needed, rows: embedding_rows });
        }
        Ok(())
    }

    /// Token ids of `text`; special tokens written in it are recognised, none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode_with_offsets(text).map(|encoded| encoded.ids)
    }

    /// As [`Tokenizer::encode`], with the byte range of each token. A character that several tokens share is covered
    /// whole by each of them.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoded, DataError> {
        let mut encoded = Encoded::default();
        self.encode_into(text, &mut encoded)?;
        Ok(encoded)
    }

    /// As [`Tokenizer::encode_with_offsets`], into memory that is used again.
    pub fn encode_into(&self, text: &str, encoded: &mut Encoded) -> Result<(), DataError> {
        match self.fast() {
            Ok(fast) if fast.encode_into(&self.inner, text, encoded) => Ok(()),
            _ => self.encode_slowly(text, encoded),
        }
    }

    /// The tokenizers crate's answer, which the fast path must repeat.
    pub fn encode_slowly(&self, text: &str, encoded: &mut Encoded) -> Result<(), DataError> {
        let encoding =
            self.inner.encode(text, false).map_err(|error| DataError::tokenizer(&self.facts.place, error))?;
        encoded.ids.clear();
        encoded.ids.extend_from_slice(encoding.get_ids());
        encoded.offsets.clear();
        encoded.offsets.extend(encoding.get_offsets().iter().map(|&(start, end)| start..end));
        Ok(())
    }

    fn fast(&self) -> Result<&Fast, &str> {
        let build =
            || self.rules.as_ref().as_ref().map_err(Clone::clone).and_then(|rules| Fast::new(rules, &self.inner));
        self.fast.get_or_init(build).as_ref().map_err(String::as_str)
    }

    /// Gives the memory of known words back (at most 8 MiB a thread): when the rows are prepared, training needs it more.
    pub fn forget_words(&self) {
        if let Some(Ok(fast)) = self.fast.get() {
            fast.forget_words();
        }
    }

    /// Which part of this tokenizer only the tokenizers crate can run, several times slower; `None` where none is.
    pub fn slow_because(&self) -> Option<&str> {
        self.fast().err()
    }

    /// SHA-256 over everything that decides ids: the tokenizer's JSON and its beginning and end tokens.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Text of `ids`, special tokens as they are written.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner.decode(ids, false).map_err(|error| DataError::tokenizer(&self.facts.place, error))
    }

    /// The bytes that one token stands for, which need not be whole characters; `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.id_to_token(id)?;
        if self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return Some(token.into_bytes());
        }
        Some(match self.spelling {
            Spelling::Letters => letters::bytes(&token).unwrap_or_else(|| token.into_bytes()),
            Spelling::Pieces => match byte_piece(&token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            Spelling::Text => token.into_bytes(),
        })
    }

    /// Text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner.decode(ids, true).map_err(|error| DataError::tokenizer(&self.facts.place, error))
    }

    /// Text of one token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// All ids that end generation; the first ends a completion in training.
    pub fn eos(&self) -> &[u32] {
        &self.facts.eos
    }

    /// Beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.facts.bos
    }

    /// Whether plain text (no template) starts with [`Tokenizer::bos`].
    pub fn adds_bos(&self) -> bool {
        self.facts.adds_bos && self.facts.bos.is_some()
    }

    /// The model's own chat template, Jinja source.
    pub fn chat_template(&self) -> Option<&str> {
        self.facts.chat_template.as_deref()
    }

    /// Whether `id` is a special token (a template's marker, not text).
    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok() || self.facts.eos.contains(&id)
    }

    /// The entries of a GGUF file that say the same, and notes on what llama.cpp does otherwise. `folder` is where the tokenizer was
    /// read from, if from a folder; `rows` is the height of the model's embedding.
    pub fn to_gguf(&self, folder: Option<&Path>, rows: usize) -> Result<(GgufVocabulary, Vec<String>), DataError> {
        gguf_tokens::vocabulary(self, folder, rows)
    }

    /// Id of a token by its spelling.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// `tokenizer.json` of this tokenizer.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(|error| DataError::tokenizer(&self.facts.place, error))
    }

    /// `tokenizer_config.json` of this tokenizer: special tokens and the chat template.
    pub fn config(&self) -> serde_json::Value {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": name(self.facts.bos),
            "eos_token": name(self.facts.eos.first().copied()),
            "add_bos_token": self.adds_bos(),
            "chat_template": self.facts.chat_template,
            "clean_up_tokenization_spaces": false,
        })
    }

    pub(crate) fn encode_row(&self, text: &str) -> Result<Encoded, RowError> {
        self.encode_with_offsets(text).map_err(|error| RowError::Encode { reason: error.to_string() })
    }
}

fn spelling(decoder: &Value) -> Spelling {
    let parts = match decoder["decoders"].as_array() {
        Some(parts) => parts.as_slice(),
        None => std::slice::from_ref(decoder),
    };
    let has = |kind: &str| parts.iter().any(|part| part["type"] == kind);
    match (has("ByteLevel"), has("ByteFallback")) {
        (true, _) => Spelling::Letters,
        (false, true) => Spelling::Pieces,
        (false, false) => Spelling::Text,
    }
}

/// The byte that `<0xNN>` stands for.
fn byte_piece(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
