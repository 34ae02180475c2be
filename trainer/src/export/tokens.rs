//! Token ids of an exported tokenizer against those that training used, and the fixed prompt of the logits.
//!
//! In:    both tokenizers.
//! Out:   how many ids were compared; a prompt.
//! Never: a text that depends on the run.

use datasets::Tokenizer;

use super::ExportError;

/// Where transformers looks for a chat template first.
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Words, numbers, code, white space, several scripts, an emoji of several code points, what byte fallback must spell.
const TEXTS: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog, and 1,234,567.89 kB of text follow.",
    "fn main() {\n    let x = vec![0x1F; 3];\n\tprintln!(\"{x:?}\");\n}\n",
    "  two spaces before, three behind   \n\n\nand three line ends; don't, can't, it's.",
    "Größe, façade, naïve; Привет, мир; 你好，世界; こんにちは; שלום; नमस्ते",
    "emoji: 👩‍👩‍👧‍👦 🏳️‍🌈, a control \u{1} and a private \u{e000} character",
    "<|im_start|>user\nHello<|im_end|>\n<s></s><|endoftext|><|eot_id|><start_of_turn>model\n",
];
/// Longest prompt of the logits.
const PROMPT_TOKENS_MAX: usize = 48;

/// Compares ids of every text, the tokens that begin and end texts, and the chat template. Returns how many ids were equal.
pub(super) fn compare(ours: &Tokenizer, template: Option<&str>, written: &Tokenizer) -> Result<usize, ExportError> {
    let mut ids = 0;
    for text in TEXTS {
        let (expected, found) = (ours.encode(text)?, written.encode(text)?);
        if expected != found {
            return Err(ExportError::TokensDiffer { text: text.to_string(), expected, found });
        }
        ids += expected.len();
    }
    let ends = |tokenizer: &Tokenizer| (tokenizer.bos(), tokenizer.adds_bos(), tokenizer.eos().to_vec());
    if ends(ours) != ends(written) {
        return Err(ExportError::EndsDiffer {
            expected: format!("{:?}", ends(ours)),
            found: format!("{:?}", ends(written)),
        });
    }
    match written.chat_template() == template.or(ours.chat_template()) {
        true => Ok(ids),
        false => Err(ExportError::TemplateDiffers),
    }
}

/// The same tokens for every run on a model: of the first text, or made up where the model has no tokenizer.
pub(super) fn prompt(tokenizer: Option<&Tokenizer>, vocabulary: usize) -> Result<Vec<u32>, ExportError> {
    let Some(tokenizer) = tokenizer else {
        return Ok((0..PROMPT_TOKENS_MAX / 2).map(|at| ((7 * at + 3) % vocabulary) as u32).collect());
    };
    let mut prompt: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
    prompt.extend(tokenizer.encode(TEXTS[0])?);
    prompt.truncate(PROMPT_TOKENS_MAX);
    Ok(prompt)
}

/// `tokenizer_config.json` with another template, for readers that do not look at the template's own file.
pub(super) fn with_template(config: &[u8], template: &str) -> Vec<u8> {
    match serde_json::from_slice::<serde_json::Value>(config) {
        Ok(mut config) if config.is_object() => {
            config["chat_template"] = template.into();
            format!("{config:#}\n").into_bytes()
        }
        _ => config.to_vec(),
    }
}
