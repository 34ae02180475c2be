//! Facts about templates for servers, on the published templates of five families.
#![allow(clippy::unwrap_used)]

use planner::plan::{DataPlan, TemplateChoice};

use super::*;
use crate::gguf_vocabulary::GgufVocabulary;
use crate::test_tokenizers::{CHATML, byte_level_vocabulary};

const LLAMA3: &str = "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
const GEMMA: &str = "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}{%- for message in loop_messages -%}{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}";
const MISTRAL: &str = "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for m in turns %}{%- if m.role == 'user' %}{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}{%- else %}{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}{%- else %}{{- ' ' + m.content + '<|endoftext|>' }}{%- endif %}{%- endfor %}";
const PHI: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\n' + m.content + '<|end|>\n' }}{% elif m.role == 'user' %}{{ '<|user|>\n' + m.content + '<|end|>\n' }}{% else %}{{ '<|assistant|>\n' + m.content + '<|end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
const QWEN: &str = "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}{%- for m in messages %}{%- if m.role != 'system' %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}";

fn tokenizer(adds_bos: bool) -> Tokenizer {
    Tokenizer::from_gguf(GgufVocabulary { add_bos: Some(adds_bos), ..byte_level_vocabulary("smollm") }).unwrap()
}

fn served<'a>(source: &str, tokenizer: &'a Tokenizer) -> ServedTemplate<'a> {
    let plan = DataPlan { chat_template: TemplateChoice::Text(source.to_owned()), ..DataPlan::of(Vec::new(), 64) };
    ServedTemplate::of(&plan, tokenizer).unwrap().unwrap()
}

#[test]
fn chatml_becomes_the_loop_that_ollama_ships_for_it_without_the_beginning_that_the_server_writes() {
    let tokenizer = tokenizer(true);
    let go = served(CHATML, &tokenizer).go().unwrap();
    assert_eq!(
        go.text,
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ else }}{{ end }}{{ range $i, $_ := .Messages \
         }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role \"user\" }}<|im_start|>user\n{{ .Content \
         }}<|im_end|>\n{{ if $last }}<|im_start|>assistant\n{{ end }}{{ else if eq .Role \"assistant\" \
         }}<|im_start|>assistant\n{{ .Content }}{{ if not $last }}<|im_end|>\n{{ end }}{{ end }}{{ end }}"
    );
    assert!(go.notes.is_empty(), "{:?}", go.notes);
    assert_eq!(served(CHATML, &tokenizer).stops(), ["<|im_end|>", "<|endoftext|>"]);
}

#[test]
fn the_beginning_stays_where_the_server_does_not_write_it_and_its_lack_is_told() {
    let silent = tokenizer(false);
    assert!(served(CHATML, &silent).go().unwrap().text.contains("{{ else }}<s>{{ end }}"));
    let adding = tokenizer(true);
    let notes = served(PHI, &adding).go().unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("writes no <s>")), "{notes:?}");
}

#[test]
fn every_published_shape_is_found_with_its_place_for_the_system_text() {
    let tokenizer = tokenizer(true);
    let go = |source| served(source, &tokenizer).go().unwrap();
    assert!(go(LLAMA3).text.contains("<|start_header_id|>user<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"));
    assert!(go(LLAMA3).notes[0].contains("white space"), "{:?}", go(LLAMA3).notes);
    assert!(go(GEMMA).text.contains("<start_of_turn>user\n{{ if and $fresh $.System }}{{ $.System }}\n\n{{ end }}"));
    assert!(
        go(MISTRAL).text.contains("[INST] {{ if and $last $.System }}{{ $.System }}\n\n{{ end }}{{ .Content }}[/INST]")
    );
    assert!(go(PHI).text.contains("{{ if .System }}<|system|>\n{{ .System }}<|end|>\n{{ else }}"));
    assert!(go(QWEN).text.contains("{{ else }}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{{ end }}"));
    assert_eq!(served(LLAMA3, &tokenizer).stops()[0], "<|eot_id|>");
    assert_eq!(served(GEMMA, &tokenizer).stops()[0], "<end_of_turn>");
    assert_eq!(served(MISTRAL, &tokenizer).stops()[0], "<|endoftext|>");
}

#[test]
fn a_template_that_no_loop_of_fixed_texts_equals_is_refused_with_the_reason() {
    let tokenizer = tokenizer(false);
    let refusal = |source| served(source, &tokenizer).go().unwrap_err();
    let counting = "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' ~ loop.index ~ '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    assert!(refusal(counting).contains("first user turn"), "{}", refusal(counting));
    let shouting = CHATML.replace("m.content", "m.content | upper");
    assert!(refusal(&shouting).contains("changes"), "{}", refusal(&shouting));
    // Right for the turns that shapes are read from, wrong for a second answer.
    let late = CHATML.replace("'<|im_end|>\n'", "('<|im_end|>\n' if loop.index < 4 else '<|im_end|>')");
    assert!(refusal(&late).contains("differs at byte"), "{}", refusal(&late));
    let braces = CHATML.replace("'<|im_start|>'", "'{{'");
    assert!(refusal(&braces).contains("Modelfile"), "{}", refusal(&braces));
}
