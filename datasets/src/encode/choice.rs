//! Which chat template a run uses.
//!
//! In:    the plan, the tokenizer with the model's own template.
//! Out:   the compiled template, and notes on what was chosen for the user.
//! Never: replaces a model's template silently: one that renders otherwise is refused by the gate `serving-template`.

use planner::plan::{DataPlan, Gate, TemplateChoice};
use serde_json::{Value, json};

use crate::error::DataError;
use crate::gates::Gates;
use crate::template::{Day, Specials, Template, TemplateError, Turns, Until};
use crate::tokenizer::Tokenizer;

/// ChatML, the format of OpenAI's 2023 chat markup. `BEGIN` and `END` are replaced.
const CHATML: &str = r#"BEGIN{% if tools %}{{ raise_exception("the ChatML template has no place for tools; give a template as data.chat_template") }}{% endif %}
{%- for message in messages %}
{%- if message.tool_calls %}{{ raise_exception("the ChatML template has no place for tool calls; give a template as data.chat_template") }}{% endif %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}{{ message.content }}{% elif message.content %}{{ message.content | map(attribute='text') | join }}{% endif %}
{{- 'END\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"#;
/// How ChatML ends a turn.
const CHATML_END: &str = "<|im_end|>";

/// The template, and what the user should know about it.
pub(crate) fn settle(
    plan: &DataPlan,
    tokenizer: &Tokenizer,
    allowed: Gates,
) -> Result<(Option<Template>, Vec<String>), DataError> {
    let bad_date = || DataError::TemplateDate { text: plan.template_date.clone() };
    let day = Day::parse(&plan.template_date).ok_or_else(bad_date)?;
    let name = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    let specials = Specials { bos: name(tokenizer.bos()), eos: name(tokenizer.eos().first().copied()) };
    let mut notes = Vec::new();
    let source = match (&plan.chat_template, tokenizer.chat_template()) {
        (TemplateChoice::Model, Some(own)) => Some(own.to_owned()),
        (TemplateChoice::Model, None) | (TemplateChoice::Chatml, _) => chatml(tokenizer, &specials, &mut notes),
        (TemplateChoice::Text(text), _) => Some(text.clone()),
        (TemplateChoice::File(path), _) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|source| DataError::Read { path: path.clone(), source })?)
        }
    };
    let Some(source) = source else { return Ok((None, notes)) };
    let compile = |source: &str| {
        Template::new(source, &specials, day).map_err(|error| DataError::BadTemplate { reason: error.to_string() })
    };
    let template = compile(&source)?;
    if let Some(own) = tokenizer.chat_template().filter(|own| *own != source) {
        // A model's own template that does not compile cannot be compared: nothing serves with it either.
        if let Ok(own) = compile(own) {
            compare(&template, &own, allowed, &mut notes)?;
        }
    }
    Ok((Some(template), notes))
}

/// ChatML for this tokenizer; `None` where nothing can end a turn.
fn chatml(tokenizer: &Tokenizer, specials: &Specials, notes: &mut Vec<String>) -> Option<String> {
    let known = |token: &str| {
        let ids = tokenizer.encode(token).unwrap_or_default();
        matches!(ids.as_slice(), [id] if tokenizer.is_special(*id))
    };
    let end = if known(CHATML_END) { CHATML_END.to_owned() } else { specials.eos.clone()? };
    if tokenizer.chat_template().is_none() {
        notes
            .push(format!("the model has no chat template; conversations are written in ChatML, turns end with {end}"));
    }
    if !known("<|im_start|>") {
        notes.push("the tokenizer has no token <|im_start|>; ChatML's turns begin with it as plain text".to_owned());
    }
    let begin = if tokenizer.adds_bos() { "{{ bos_token }}" } else { "" };
    let end = end.replace('\\', "\\\\").replace('\'', "\\'");
    Some(CHATML.replacen("BEGIN", begin, 1).replacen("END", &end, 1))
}

/// Conversations that tell templates apart: one turn, a system text, several turns, white space.
fn probes() -> [(&'static str, Value); 4] {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let (question, answer) = (turn("user", "How are you?"), turn("assistant", "Well, thanks."));
    [
        ("conversation of one turn", json!([question, answer])),
        ("conversation with a system text", json!([turn("system", "Be kind."), question, answer])),
        ("conversation of two turns", json!([question, answer, turn("user", "And now?"), turn("assistant", "Still.")])),
        ("conversation with white space", json!([turn("user", " a\n"), turn("assistant", "\n b ")])),
    ]
}

/// The gate `serving-template`.
fn compare(ours: &Template, own: &Template, allowed: Gates, notes: &mut Vec<String>) -> Result<(), DataError> {
    let probes = probes();
    let mut differences =
        probes.iter().filter_map(|(name, messages)| difference(ours, own, messages).map(|at| (*name, at)));
    let Some((probe, at)) = differences.next() else { return Ok(()) };
    let error = DataError::ServingTemplate { differing: 1 + differences.count(), probes: probes.len(), probe, at };
    if !allowed.contains(Gate::ServingTemplate) {
        return Err(error);
    }
    notes.push(
        "data.chat_template renders conversations otherwise than the model's own template: serve with it".to_owned(),
    );
    Ok(())
}

/// The first byte at which two templates differ on a conversation, or on its prompt.
fn difference(ours: &Template, own: &Template, messages: &Value) -> Option<usize> {
    let messages = messages.as_array()?;
    let turns = Turns::new(messages.iter(), None);
    let text = |template: &Template, until| -> Result<String, TemplateError> {
        template.render(&turns, until).map(|rendered| rendered.text)
    };
    [Until::End, Until::Answer(messages.len() - 1)].into_iter().find_map(|until| {
        match (text(ours, until), text(own, until)) {
            (Ok(ours), Ok(own)) if ours == own => None,
            (Err(_), Err(_)) => None,
            (Ok(ours), Ok(own)) => {
                Some(ours.bytes().zip(own.bytes()).take_while(|(left, right)| left == right).count())
            }
            _ => Some(0),
        }
    })
}
