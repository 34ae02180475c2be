//! Token ids as they come, as text as soon as it is certain.
//!
//! In:    ids of one answer, one by one; a tokenizer.
//! Out:   pieces of text whose concatenation is [`Tokenizer::decode`] of all ids.
//! Never: half a character: bytes that do not end one yet are held back.

use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// What a decoder writes for bytes that are no character (yet).
const UNFINISHED: char = char::REPLACEMENT_CHARACTER;
/// Ids after which held back bytes are taken for what they are: no character has more than four bytes.
const HELD_MAX: usize = 4;

/// One answer while it is written.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Ids from here on are decoded again with each new one, since a token's text may depend on the one before it.
    from: usize,
    /// Ids before this are told.
    told: usize,
}

impl<'a> TextStream<'a> {
    /// Nothing yet.
    pub fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream { tokenizer, ids: Vec::new(), from: 0, told: 0 }
    }

    /// The next id; returns the text that is certain now, which may be empty.
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.ids.push(id);
        let (before, all) = self.decoded()?;
        let held = self.ids.len() - self.told;
        if all.len() <= before.len() || (all.ends_with(UNFINISHED) && held < HELD_MAX) {
            return Ok(String::new());
        }
        self.from = self.told;
        self.told = self.ids.len();
        Ok(all[before.len()..].to_string())
    }

    /// What was held back.
    pub fn finish(self) -> Result<String, DataError> {
        let (before, all) = self.decoded()?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }

    /// The told ids of the window, and all of it.
    fn decoded(&self) -> Result<(String, String), DataError> {
        let window = |end: usize| self.tokenizer.decode(&self.ids[self.from..end]);
        Ok((window(self.told)?, window(self.ids.len())?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::test_tokenizers::{byte_level, spm_vocabulary};

    const TEXTS: [&str; 5] = [
        "Plain words, then more.",
        "  leading and trailing  ",
        "emoji \u{1f600}\u{1f469}\u{200d}\u{1f4bb} and \u{4e2d}\u{6587}",
        "line\n\n\tbreaks \u{e9}\u{fc}",
        "",
    ];

    #[test]
    fn pieces_put_together_are_the_decoded_whole_and_none_is_half_a_character() {
        for tokenizer in [byte_level(None), Tokenizer::from_gguf(spm_vocabulary()).unwrap()] {
            for text in TEXTS {
                let ids = tokenizer.encode(text).unwrap();
                let mut stream = TextStream::new(&tokenizer);
                let mut told: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
                assert!(!told.iter().any(|piece| piece.contains(UNFINISHED)), "{told:?}");
                told.push(stream.finish().unwrap());
                assert_eq!(told.concat(), tokenizer.decode(&ids).unwrap());
            }
        }
    }

    #[test]
    fn an_answer_that_ends_inside_a_character_says_so_at_its_end() {
        let tokenizer = byte_level(None);
        let mut ids = tokenizer.encode("ok \u{1f600}").unwrap();
        ids.pop();
        let mut stream = TextStream::new(&tokenizer);
        let told: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        assert_eq!(told, "ok ");
        assert!(stream.finish().unwrap().contains(UNFINISHED));
    }
}
