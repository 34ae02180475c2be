//! Facts about which tokens of a row are trained on.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use planner::plan::{DataPlan, Gate, TemplateChoice, TrainOn};
use serde_json::json;

use super::*;
use crate::test_tokenizers::{CHATML, byte_level, spm_vocabulary};

/// A conversation of (role, text) pairs.
pub(crate) fn conversation(turns: &[(&str, &str)]) -> Conversation {
    let message = |(role, text): &(&str, &str)| Message {
        role: (*role).to_owned(),
        text: (*text).to_owned(),
        train: None,
        value: json!({"role": role, "content": text}),
    };
    Conversation { messages: turns.iter().map(message).collect(), tools: None }
}

pub(crate) fn plan() -> DataPlan {
    DataPlan::of(Vec::new(), 4096)
}

/// The trained tokens as the vocabulary spells them, ranges apart by `|`.
pub(crate) fn spelled(tokens: &Tokens, tokenizer: &Tokenizer) -> String {
    let spell = |range: &Range<u32>| -> String {
        tokens.ids[range.start as usize..range.end as usize].iter().map(|id| tokenizer.token(*id).unwrap()).collect()
    };
    tokens.trained.iter().map(spell).collect::<Vec<String>>().join("|")
}

fn trained(template: &str, turns: &[(&str, &str)]) -> Result<String, RowError> {
    let tokenizer = byte_level(Some(template));
    let encoder = Encoder::new(&plan(), &tokenizer).unwrap();
    let tokens = encoder.encode(&Content::Conversation(conversation(turns)), &mut Gates::default())?;
    Ok(spelled(&tokens, &tokenizer))
}

const TWO: [(&str, &str); 5] =
    [("system", "hello"), ("user", "1"), ("assistant", "2 hello"), ("user", "3"), ("assistant", "4")];

#[test]
fn answers_and_their_end_tokens_are_trained_and_nothing_else() {
    assert_eq!(trained(CHATML, &TWO).unwrap(), "2Ġhello<|im_end|>|4<|im_end|>");
}

#[test]
fn only_the_last_answer_is_trained_where_the_plan_says_so_and_a_message_may_say_otherwise() {
    let tokenizer = byte_level(Some(CHATML));
    let encoder = Encoder::new(&DataPlan { train_on: TrainOn::Last, ..plan() }, &tokenizer).unwrap();
    let mut row = conversation(&TWO);
    let encode = |row: &Conversation| encoder.encode(&Content::Conversation(row.clone()), &mut Gates::default());
    assert_eq!(spelled(&encode(&row).unwrap(), &tokenizer), "4<|im_end|>");
    (row.messages[2].train, row.messages[4].train) = (Some(true), Some(false));
    assert_eq!(spelled(&encode(&row).unwrap(), &tokenizer), "2Ġhello<|im_end|>");
    row.messages[2].train = Some(false);
    assert_eq!(encode(&row), Err(RowError::NothingTrained));
    row.messages[1].train = Some(true);
    assert!(encode(&row).unwrap_err().to_string().contains("only answers are trained on"));
}

#[test]
fn generation_blocks_decide_where_the_template_has_them() {
    let template = "{{ bos_token }}{% for m in messages %}<|im_start|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}";
    assert_eq!(trained(template, &TWO).unwrap(), "2Ġhello<|im_end|>|4<|im_end|>");
    let marked = [("user", "a"), ("assistant", "b\u{FDD0}c")];
    assert!(trained(template, &marked).unwrap_err().to_string().contains("U+FDD0"));
    let open = template.replace("<|im_end|>{% endgeneration", "{% endgeneration");
    assert_eq!(trained(&open, &TWO), Err(RowError::NoTerminator { message: 3 }));
}

#[test]
fn a_template_that_trims_and_one_that_forgets_earlier_reasoning_are_located() {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n{% endif %}{{ (m.content.split('</think>') | last) | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let turns = [("user", "1"), ("assistant", "<think>us</think> 2 "), ("user", "3"), ("assistant", " 4")];
    assert_eq!(trained(template, &turns).unwrap(), "2<|im_end|>|<think>ĊĊ4<|im_end|>");
}

#[test]
fn a_prompt_that_opens_reasoning_and_a_text_without_it_share_their_beginning() {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}";
    assert_eq!(trained(template, &TWO).unwrap(), "2Ġhello<|im_end|>|4<|im_end|>");
}

#[test]
fn tool_calls_are_trained_through_their_end() {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}<|endoftext|>{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let template = template.replace("<|endoftext|>", "<s>");
    let tokenizer = byte_level(Some(&template));
    let encoder = Encoder::new(&plan(), &tokenizer).unwrap();
    let mut row = conversation(&[("user", "1"), ("assistant", ""), ("tool", "12"), ("assistant", "3")]);
    row.messages[1].value = json!({"role": "assistant", "tool_calls": [1]});
    let tokens = encoder.encode(&Content::Conversation(row), &mut Gates::default()).unwrap();
    assert_eq!(spelled(&tokens, &tokenizer), "<s>[1]<|im_end|>|3<|im_end|>");
}

#[test]
fn special_tokens_that_an_answer_spells_do_not_end_it() {
    let turns =
        [("user", "<|im_end|>"), ("assistant", "a<|im_end|>b<|im_start|>"), ("user", "1"), ("assistant", "<|im_end|>")];
    let expected = "a<|im_end|>b<|im_start|><|im_end|>|<|im_end|><|im_end|>";
    assert_eq!(trained(CHATML, &turns).unwrap(), expected);
}

#[test]
fn a_token_never_crosses_the_border_of_prompt_and_answer() {
    let template = "{% for m in messages %}<|im_start|>{% if m.role == 'assistant' %}hel{% endif %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>hel{% endif %}";
    assert_eq!(trained(template, &[("user", "1"), ("assistant", "lo")]).unwrap(), "lo<|im_end|>");
}

#[test]
fn a_template_that_ends_no_answer_is_refused_unless_allowed() {
    let template = "{% for m in messages %}<|im_start|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";
    assert_eq!(trained(template, &TWO), Err(RowError::NoTerminator { message: 3 }));
    let tokenizer = byte_level(Some(template));
    let encoder = Encoder::new(&DataPlan { allow: vec![Gate::AnswerEnd], ..plan() }, &tokenizer).unwrap();
    let mut findings = Gates::default();
    let tokens = encoder.encode(&Content::Conversation(conversation(&TWO)), &mut findings).unwrap();
    assert_eq!(spelled(&tokens, &tokenizer), "2ĠhelloĊ|4Ċ");
    assert!(findings.contains(Gate::AnswerEnd));
}

#[test]
fn two_beginnings_of_text_are_refused_and_none_too_where_the_tokenizer_adds_one() {
    let doubled = CHATML.replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}");
    assert_eq!(trained(&doubled, &TWO), Err(RowError::RepeatedBos { count: 2 }));
    let mut vocabulary = spm_vocabulary();
    let bare = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    vocabulary.chat_template = Some(bare.to_owned());
    let spm = Tokenizer::from_gguf(vocabulary).unwrap();
    let row = Content::Conversation(conversation(&[("user", "hello"), ("assistant", "world")]));
    let encode = |plan: &DataPlan| Encoder::new(plan, &spm).unwrap().encode(&row, &mut Gates::default());
    assert_eq!(encode(&plan()), Err(RowError::MissingBos { token: "<s>".to_owned() }));
    let tokens = encode(&DataPlan { allow: vec![Gate::OneBos], ..plan() }).unwrap();
    assert_eq!(spelled(&tokens, &spm), "▁world</s>");
}

#[test]
fn prompt_and_completion_end_with_the_end_token_and_begin_with_bos_where_the_tokenizer_adds_it() {
    let spm = Tokenizer::from_gguf(spm_vocabulary()).unwrap();
    let encoder = Encoder::new(&plan(), &spm).unwrap();
    let row = Content::Completion { prompt: "hello".to_owned(), completion: " world".to_owned() };
    let tokens = encoder.encode(&row, &mut Gates::default()).unwrap();
    let all: Vec<String> = tokens.ids.iter().map(|id| spm.token(*id).unwrap()).collect();
    assert_eq!((all.join(" ").as_str(), tokens.trained), ("<s> ▁hello ▁world </s>", vec![2..4]));
    let byte = byte_level(None);
    let encoder = Encoder::new(&plan(), &byte).unwrap();
    let row = Content::Completion { prompt: "hel".to_owned(), completion: "lo a".to_owned() };
    assert_eq!(spelled(&encoder.encode(&row, &mut Gates::default()).unwrap(), &byte), "loĠa<|im_end|>");
}

#[test]
fn texts_are_trained_whole_and_segments_where_they_say_so() {
    let spm = Tokenizer::from_gguf(spm_vocabulary()).unwrap();
    let encoder = Encoder::new(&plan(), &spm).unwrap();
    let tokens = encoder.encode(&Content::Text("hello".to_owned()), &mut Gates::default()).unwrap();
    assert_eq!((spelled(&tokens, &spm).as_str(), tokens.ids.len()), ("▁hello</s>", 3));
    let segment = |text: &str, train| Segment { text: text.to_owned(), train };
    let row = Content::Segments(vec![segment("hel", false), segment("lo", true), segment(" world", false)]);
    let tokens = encoder.encode(&row, &mut Gates::default()).unwrap();
    let all: Vec<String> = tokens.ids.iter().map(|id| spm.token(*id).unwrap()).collect();
    assert_eq!((all.join(" ").as_str(), tokens.trained), ("<s> ▁hel lo ▁world </s>", vec![2..3]));
}

#[test]
fn a_model_without_a_template_gets_chatml_and_a_note() {
    let byte = byte_level(None);
    let encoder = Encoder::new(&plan(), &byte).unwrap();
    let row = conversation(&[("user", "1"), ("assistant", "2")]);
    assert_eq!(encoder.render(&row).unwrap(), "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n");
    assert!(encoder.notes[0].contains("ChatML"), "{:?}", encoder.notes);
    let spm = Tokenizer::from_gguf(spm_vocabulary()).unwrap();
    let encoder = Encoder::new(&plan(), &spm).unwrap();
    assert!(encoder.render(&row).unwrap().starts_with("<s><|im_start|>user\n1</s>\n"));
    assert_eq!(encoder.notes.len(), 2, "{:?}", encoder.notes);
    let tokens = encoder.encode(&Content::Conversation(row.clone()), &mut Gates::default()).unwrap();
    assert!(spelled(&tokens, &spm).ends_with("</s>"));
    let tools = Conversation { tools: Some(json!([{"name": "f"}])), ..row };
    assert!(encoder.render(&tools).unwrap_err().to_string().contains("no place for tools"));
}

#[test]
fn a_template_that_renders_otherwise_than_the_models_own_is_refused_unless_allowed() {
    let tokenizer = byte_level(Some(CHATML));
    let with = |text: &str, allow: Vec<Gate>| {
        let choice = TemplateChoice::Text(text.to_owned());
        Encoder::new(&DataPlan { chat_template: choice, allow, ..plan() }, &tokenizer)
    };
    // Another spelling of the same text is no difference.
    assert!(with(&CHATML.replace("m.role", "m['role']"), Vec::new()).unwrap().notes.is_empty());
    let other = CHATML.replace("<|im_end|>", "<|endoftext|>");
    let error = with(&other, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("4 of 4 probe conversations"), "{error}");
    assert!(with(&other, vec![Gate::ServingTemplate]).unwrap().notes[0].contains("serve with it"));
}

#[test]
fn bad_templates_days_and_files_are_refused() {
    let tokenizer = byte_level(None);
    let error = |plan: DataPlan| Encoder::new(&plan, &tokenizer).unwrap_err().to_string();
    let text = TemplateChoice::Text("a\n{% for %}".to_owned());
    assert!(error(DataPlan { chat_template: text, ..plan() }).contains("template line 2"));
    assert!(error(DataPlan { template_date: "2024-02-30".to_owned(), ..plan() }).contains("2024-02-30"));
    let file = TemplateChoice::File("nowhere/x.jinja".into());
    assert!(error(DataPlan { chat_template: file, ..plan() }).starts_with("nowhere/x.jinja: "));
}

#[test]
fn hostile_templates_end_with_an_error() {
    let turns = [("user", "1"), ("assistant", "2")];
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(90) %}{{ 'x' * 1000000 }}{% endfor %}",
        "{{ [1][5:1:-1] }}{{ 'abc'[1:3:-1] }}{{ 1 // 0 }}",
    ] {
        assert!(matches!(trained(template, &turns), Err(RowError::Render { .. })), "{template}");
    }
}
