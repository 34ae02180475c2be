//! On generated conversations, decoding the trained tokens gives exactly the answers and what ends them.
#![allow(clippy::unwrap_used)]

use super::tests::{conversation, plan};
use super::*;
use crate::random::Random;
use crate::test_tokenizers::{CHATML, byte_level};

/// What answers are made of: several scripts, white space, joined letters, texts of special tokens, template syntax.
const PIECES: [&str; 22] = [
    "hello",
    " ",
    "\n",
    "a",
    "12",
    "user",
    "é",
    "日本",
    "😀",
    "e\u{301}",
    "\u{a0}",
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<s>x",
    "<think>",
    "{{ x }}",
    "{% y %}",
    "\\n",
    "'",
    "\"",
    "assistant",
    "<|im_",
];

fn text(random: &mut Random) -> String {
    let count = 1 + random.below(8);
    let mut text: String = (0..count).map(|_| PIECES[random.below(PIECES.len())]).collect();
    if text.trim().is_empty() {
        text.push('a');
    }
    text
}

/// Special tokens by name, the rest decoded.
fn decoded(ids: &[u32], tokenizer: &Tokenizer) -> String {
    let special = |id: &u32| tokenizer.is_special(*id);
    ids.chunk_by(|left, right| !special(left) && !special(right))
        .map(|run| match special(&run[0]) {
            true => tokenizer.token(run[0]).unwrap(),
            false => tokenizer.decode(run).unwrap(),
        })
        .collect()
}

fn check(template: &str, shown: impl Fn(&str) -> String) {
    let tokenizer = byte_level(Some(template));
    let encoder = Encoder::new(&plan(), &tokenizer).unwrap();
    for seed in 0..400 {
        let mut random = Random::new(seed, 0);
        let texts: Vec<String> = (0..2 + 2 * random.below(3)).map(|_| text(&mut random)).collect();
        let turns: Vec<(&str, &str)> =
            texts.iter().enumerate().map(|(at, text)| (["user", "assistant"][at % 2], text.as_str())).collect();
        let tokens = encoder.encode(&Content::Conversation(conversation(&turns)), &mut Gates::default()).unwrap();
        let found: Vec<String> = tokens
            .trained
            .iter()
            .map(|range| decoded(&tokens.ids[range.start as usize..range.end as usize], &tokenizer))
            .collect();
        let expected: Vec<String> = texts.iter().skip(1).step_by(2).map(|text| shown(text) + "<|im_end|>").collect();
        assert_eq!(found, expected, "seed {seed}: {turns:?}");
        assert!(tokens.trained.windows(2).all(|pair| pair[0].end < pair[1].start), "seed {seed}");
    }
}

#[test]
fn trained_tokens_decode_to_the_answers_with_their_ends() {
    check(CHATML, str::to_owned);
}

#[test]
fn trained_tokens_decode_to_the_trimmed_answers_where_the_template_trims() {
    check(&CHATML.replace("m.content", "m.content | trim"), |text| text.trim().to_owned());
}

#[test]
fn trained_tokens_decode_to_the_marked_answers() {
    let marked = CHATML.replace("{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}", "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}");
    assert!(marked.contains("generation"));
    check(&marked, str::to_owned);
}
