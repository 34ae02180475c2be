//! What transformers prints, byte for byte: `tests/golden/chat_templates.py` writes the expected texts.
#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;

use super::*;

const SNIPPETS: &str = include_str!("../../tests/golden/chat_snippets.json");
const RENDERED: &str = include_str!("../../tests/golden/chat_templates.json");
const CONVERSATIONS: &str = include_str!("../../tests/golden/chat_conversations.json");

fn day() -> Day {
    Day::parse("2024-07-26").unwrap()
}

/// What minijinja does otherwise and no filter, method or rewriting mends; chat templates that people publish use none of it.
const KNOWN_DIFFERENCES: [&str; 21] = [
    // Python refuses to compare values of different types; here they have an order.
    "{{ missing < 1 }}",
    "{{ 1 < 'a' }}",
    "{{ none < 1 }}",
    "{{ 1 in 'abc' }}",
    // Python's True is 1, also as a key.
    "{{ {1: 'a', none: 2, true: 3} | tojson }}",
    // Operators.
    "{{ +n }}",
    "{{ 'x' * -1 }}",
    // Macros: extra arguments, defaults that name other arguments, tuples of names.
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 'a', k=2) }}",
    "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
    "{% macro f(a=[], b=none) %}{{ a }}{{ b }}{{ a is defined }}{% endmacro %}{{ f() }}{{ f.name }}{{ f.arguments }}",
    // Constructors from other values.
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{{ dict([('a', 1)]) }}",
    // Python's repr as a conversion.
    "{{ '%s %r' % (q, q) }}",
    "{{ '{!r}'.format('x') }}",
    // HTML: text is never escaped unasked.
    "{{ ('<a>' | safe) + '<b>' }}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    // Filters for web pages.
    "{{ 'hello world foo' | truncate(8) }}",
    "{{ '<b>x</b> y' | striptags }}",
    "{{ 'a b' | wordwrap(1) }}",
    "{{ s | attr('upper') is defined }}",
    "{{ ['a', 'A'] | unique(true) | list }}",
];

#[test]
fn every_snippet_prints_what_jinja2_prints_or_fails_where_it_raises() {
    let golden: Json = serde_json::from_str(SNIPPETS).unwrap();
    let variables = conversion::value(&golden["variables"]);
    let mut wrong = Vec::new();
    for row in golden["snippets"].as_array().unwrap() {
        let source = row["source"].as_str().unwrap();
        let told = Template::new(source, &Specials::default(), day())
            .and_then(|template| template.render_with(variables.clone()));
        let told = told.map(|text| text.replace([OPEN, CLOSE], ""));
        let expected = row["text"].as_str();
        let agrees = told.as_ref().ok().map(String::as_str) == expected;
        if agrees == KNOWN_DIFFERENCES.contains(&source) {
            wrong.push(format!("{source}\n   expected {expected:?}\n   got      {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_template_renders_every_conversation_as_transformers_does() {
    let conversations: Json = serde_json::from_str(CONVERSATIONS).unwrap();
    let rows: Vec<Json> = serde_json::from_str(RENDERED).unwrap();
    let specials = Specials { bos: Some("<s>".to_owned()), eos: Some("</s>".to_owned()) };
    let mut wrong = Vec::new();
    for row in &rows {
        let conversation = &conversations[row["conversation"].as_str().unwrap()];
        let messages = conversation["messages"].as_array().unwrap();
        let path = format!(
            "{}/tests/golden/templates/{}.jinja",
            env!("CARGO_MANIFEST_DIR"),
            row["template"].as_str().unwrap()
        );
        let template = Template::new(&std::fs::read_to_string(path).unwrap(), &specials, day()).unwrap();
        let turns = Turns::new(messages.iter(), conversation.get("tools"));
        let until = if row["generate"] == true { Until::Answer(turns.count()) } else { Until::End };
        let told = template.render(&turns, until);
        let text = told.as_ref().ok().map(|rendered| rendered.text.as_str());
        if text != row["text"].as_str() {
            wrong.push(format!("{row}\n   got {told:?}"));
        } else if let (Some(expected), Ok(rendered)) = (row["generation"].as_array(), &told) {
            // Python counts characters.
            let place = |at: usize| Json::from(rendered.text[..at].chars().count());
            let found: Vec<Json> = rendered
                .generation
                .iter()
                .map(|range| Json::from(vec![place(range.start), place(range.end)]))
                .collect();
            if found != *expected {
                wrong.push(format!("{row}\n   generation {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn mangled_templates_give_a_text_or_an_error_and_never_a_panic() {
    let conversations: Json = serde_json::from_str(CONVERSATIONS).unwrap();
    let conversation = &conversations["tools"];
    let turns = Turns::new(conversation["messages"].as_array().unwrap().iter(), conversation.get("tools"));
    let parts = [
        "{{", "}}", "{%", "%}", "[", "]", "(", ")", ":", "|", "%", "-1", "'", "in", "if", "[::-1]", ".x", "none", "é",
        "~",
    ];
    for name in ["llama3", "qwen3", "mistral", "harmony", "smollm3"] {
        let path = format!("{}/tests/golden/templates/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
        let letters: Vec<char> = std::fs::read_to_string(path).unwrap().chars().collect();
        for seed in 0..60 {
            let mut random = crate::random::Random::new(seed, 0);
            let mut text = letters.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(text.len());
                let end = (at + random.below(6)).min(text.len());
                text.splice(at..end, parts[random.below(parts.len())].chars());
            }
            let source: String = text.into_iter().collect();
            let told = Template::new(&source, &Specials::default(), day())
                .and_then(|template| template.render(&turns, Until::End));
            assert_ne!(told, Err(TemplateError::Engine), "{name} seed {seed}:\n{source}");
        }
    }
    let deep = format!("{{{{ {}1{} }}}}", "a[".repeat(20_000), ":]".repeat(20_000));
    assert!(Template::new(&deep, &Specials::default(), day()).is_err());
}
