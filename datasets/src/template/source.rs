//! Rewrites Jinja source where minijinja's own operators cannot be mended from outside.
//!
//! In:    Jinja source.
//! Out:   source that means in minijinja what the original means in Jinja2: slices, `%` after a string, loops over what
//!        is no collection, `{% generation %}` blocks; every value that `set` keeps goes through [`KEEP`] or
//!        [`KEEP_INSIDE`]; and the source's [`Extent`], which `bounds` judges.
//! Never: touches text outside of tags, string literals, comments or raw blocks; fails: what it does not understand is
//!        left for the compiler to refuse.

use super::bounds::Extent;
use super::text;

/// Rewritten source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// The source.
    pub(crate) text: String,
    /// Whether it has generation blocks.
    pub(crate) generation: bool,
    /// How large its largest parts are.
    pub(crate) extent: Extent,
}

/// The method that a slice becomes: `x[a:b]` is `x.__slice__(a, b, none)`.
pub(crate) const SLICE: &str = "__slice__";
/// The filter that `%` after a string literal becomes.
pub(crate) const PERCENT: &str = "__percent__";
/// The filter that a loop's collection goes through.
pub(crate) const ITERATE: &str = "__iterate__";
/// The filter that a value goes through before `set` keeps it.
pub(crate) const KEEP: &str = "__keep__";
/// The same where `set` keeps it inside a namespace.
pub(crate) const KEEP_INSIDE: &str = "__keep_inside__";
/// The function whose call block a generation block becomes, as in transformers.
pub(crate) const GENERATION: &str = "__generation__";

/// One token of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Text,
    /// Names and numbers.
    Word,
    Sign,
}

/// Rewrites `source`; line ends become `\n` as in Jinja2.
pub(crate) fn rewrite(source: &str) -> Rewritten {
    let source = text::unix_lines(source);
    let mut out = Rewritten { text: String::with_capacity(source.len()), generation: false, extent: Extent::default() };
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'{') => tag(rest, "}}", &mut out),
            Some(b'%') => tag(rest, "%}", &mut out),
            _ => 1,
        };
        if matches!(rest.as_bytes().get(1), Some(b'{' | b'%')) {
            rest = &rest[taken..];
        } else {
            out.text.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    out.text.push_str(rest);
    out
}

/// Rewrites the tag that `rest` begins with, and a raw block whole; how many bytes it took.
fn tag(rest: &str, end: &str, out: &mut Rewritten) -> usize {
    let sign = usize::from(matches!(rest.as_bytes().get(2), Some(b'-' | b'+')));
    let start = 2 + sign;
    let Some((tokens, length)) = tokens(&rest[start..], end) else {
        out.text.push_str(rest);
        out.extent.unclosed(rest);
        return rest.len();
    };
    out.text.push_str(&rest[..start]);
    let close = start + length;
    let word = tokens.iter().find(|token| token.kind != Kind::Space).map_or("", |token| token.text);
    out.extent.tag(word, tokens.iter().filter(|token| token.kind != Kind::Space).map(step));
    if end == "%}" {
        match word {
            "raw" => {
                let whole = raw_end(rest).unwrap_or(rest.len());
                out.text.push_str(&rest[start..whole]);
                return whole;
            }
            "generation" => {
                out.generation = true;
                out.text.push_str(&format!(" call {GENERATION}() "));
            }
            "endgeneration" => out.text.push_str(" endcall "),
            "for" => for_tag(&tokens, &mut out.text),
            "set" => set_tag(&tokens, &mut out.text),
            _ => expression(&tokens, 0, &mut out.text),
        }
    } else {
        expression(&tokens, 0, &mut out.text);
    }
    let closed = close + usize::from(matches!(rest.as_bytes().get(close), Some(b'-' | b'+'))) + 2;
    out.text.push_str(&rest[close..closed.min(rest.len())]);
    closed.min(rest.len())
}

/// Where the raw block that `rest` begins with ends.
fn raw_end(rest: &str) -> Option<usize> {
    let mut from = 2;
    loop {
        let at = from + rest.get(from..)?.find("{%")?;
        let body = rest[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if body.starts_with("endraw") {
            return Some(at + rest[at..].find("%}")? + 2);
        }
        from = at + 2;
    }
}

/// Tokens up to the tag's end (or the sign before it), and how many bytes they are; `None` where the tag does not end.
fn tokens<'a>(rest: &'a str, end: &str) -> Option<(Vec<Token<'a>>, usize)> {
    let (mut tokens, mut at, mut depth) = (Vec::new(), 0, 0i32);
    loop {
        let here = &rest[at..];
        let first = here.chars().next()?;
        let signed = here.starts_with(['-', '+']) && here[1..].starts_with(end);
        if depth <= 0 && (here.starts_with(end) || signed) {
            return Some((tokens, at));
        }
        let (kind, length) = match first {
            '\'' | '"' => (Kind::Text, literal(here, first)?),
            first if first.is_whitespace() => (Kind::Space, run(here, char::is_whitespace)),
            first if is_word(first) => (Kind::Word, run(here, is_word)),
            first => (Kind::Sign, first.len_utf8()),
        };
        depth += match first {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        tokens.push(Token { kind, text: &here[..length] });
        at += length;
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn run(text: &str, inside: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !inside(letter)).unwrap_or(text.len())
}

/// Bytes of the string literal that `text` begins with.
fn literal(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `for x in EXPR if ..` becomes `for x in (EXPR)|__iterate__ if ..`.
fn for_tag(tokens: &[Token], out: &mut String) {
    let word = |from: usize, word: &str| find(tokens, from, |token| token.kind == Kind::Word && token.text == word);
    let Some(start) = word(0, "in") else { return expression(tokens, 0, out) };
    let end = [word(start, "if"), word(start, "recursive")].into_iter().flatten().min().unwrap_or(tokens.len());
    expression(&tokens[..=start], 0, out);
    out.push_str(" (");
    expression(&tokens[start + 1..end], 0, out);
    out.push_str(&format!(")|{ITERATE} "));
    expression(&tokens[end..], 0, out);
}

/// `set x = EXPR` becomes `set x = (EXPR)|__keep__`, with an attribute `__keep_inside__`; a block's text is kept as it is.
fn set_tag(tokens: &[Token], out: &mut String) {
    let equals = find(tokens, 0, |token| is(Some(token), "="));
    let value = equals.map_or(tokens.len(), |equals| skip_space(tokens, equals + 1));
    if value == tokens.len() {
        return expression(tokens, 0, out);
    }
    expression(&tokens[..value], 0, out);
    out.push('(');
    expression(&tokens[value..], 0, out);
    let has_attribute = tokens[..value].iter().any(|token| is(Some(token), "."));
    out.push_str(&format!(")|{} ", if has_attribute { KEEP_INSIDE } else { KEEP }));
}

/// The first token from `from` on, outside of brackets, that `wanted` accepts.
fn find(tokens: &[Token], from: usize, wanted: impl Fn(&Token) -> bool) -> Option<usize> {
    let mut depth = 0i32;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        if depth == 0 && wanted(token) {
            return Some(index);
        }
        depth += step(token);
        if depth < 0 {
            return None;
        }
    }
    None
}

fn step(token: &Token) -> i32 {
    match (token.kind, token.text) {
        (Kind::Sign, "(" | "[" | "{") => 1,
        (Kind::Sign, ")" | "]" | "}") => -1,
        _ => 0,
    }
}

fn is(token: Option<&Token>, sign: &str) -> bool {
    token.is_some_and(|token| token.kind == Kind::Sign && token.text == sign)
}

/// Slices in slices that are rewritten; the compiler refuses deeper ones.
const DEPTH_MAX: usize = 100;

/// Copies an expression with slices and `%` rewritten.
fn expression(tokens: &[Token], depth: usize, out: &mut String) {
    if depth > DEPTH_MAX {
        return out.extend(tokens.iter().map(|token| token.text));
    }
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        index = match token {
            Token { kind: Kind::Sign, text: "[" } => subscript(tokens, index, depth, out),
            Token { kind: Kind::Text, .. } => percent(tokens, index, depth, out),
            token => {
                out.push_str(token.text);
                index + 1
            }
        };
    }
}

/// A slice, or the bracket alone; the index after what was written.
fn subscript(tokens: &[Token], open: usize, depth: usize, out: &mut String) -> usize {
    let end = find(tokens, open + 1, |token| is(Some(token), "]"));
    let first = find(tokens, open + 1, |token| is(Some(token), ":"));
    let (Some(end), Some(_)) = (end, first.filter(|first| end.is_some_and(|end| *first < end))) else {
        out.push('[');
        return open + 1;
    };
    out.push_str(&format!(".{SLICE}("));
    let mut from = open + 1;
    for part in 0..3 {
        let until = find(tokens, from, |token| is(Some(token), ":")).filter(|at| *at < end).unwrap_or(end);
        let inside = &tokens[from.min(until)..until];
        out.push_str(if part == 0 { "" } else { ", " });
        match inside.iter().all(|token| token.kind == Kind::Space) {
            true => out.push_str("none"),
            false => expression(inside, depth + 1, out),
        }
        from = (until + 1).min(end);
    }
    out.push(')');
    end + 1
}

/// `'..' % argument` becomes a filter; a literal without `%` is copied.
fn percent(tokens: &[Token], literal: usize, depth: usize, out: &mut String) -> usize {
    let operator = skip_space(tokens, literal + 1);
    let argument = skip_space(tokens, operator + 1);
    let end = if is(tokens.get(operator), "%") { operand(tokens, argument) } else { argument };
    if !is(tokens.get(operator), "%") || end == argument {
        out.push_str(tokens[literal].text);
        return literal + 1;
    }
    out.push_str(&format!("({}|{PERCENT}(", tokens[literal].text));
    expression(&tokens[argument..end], depth + 1, out);
    out.push_str("))");
    end
}

fn skip_space(tokens: &[Token], from: usize) -> usize {
    (from..tokens.len()).find(|index| tokens[*index].kind != Kind::Space).unwrap_or(tokens.len())
}

/// The end of the operand that begins at `start`: signs, one value, then attributes, calls, subscripts and filters.
fn operand(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while is(tokens.get(at), "-") || is(tokens.get(at), "+") {
        at = skip_space(tokens, at + 1);
    }
    at = match tokens.get(at) {
        Some(token) if step(token) == 1 => group(tokens, at),
        Some(token) if matches!(token.kind, Kind::Text | Kind::Word) => at + 1,
        _ => return start,
    };
    loop {
        let next = skip_space(tokens, at);
        at = match tokens.get(next).map(|token| token.text) {
            Some("." | "|") => skip_space(tokens, next + 1) + 1,
            Some("(" | "[") => group(tokens, next),
            _ => return at.min(tokens.len()),
        };
    }
}

/// The index after the bracket that closes the one at `open`.
fn group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        depth += step(token);
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        rewrite(source).text
    }

    #[test]
    fn slices_become_calls_and_other_brackets_stay() {
        assert_eq!(text("{{ a[1:] }}"), "{{ a.__slice__(1, none, none) }}");
        assert_eq!(text("{{ a[::-1][b[:2]] }}"), "{{ a.__slice__(none, none, -1)[b.__slice__(none, 2, none)] }}");
        assert_eq!(
            text("{{ [1, {'a:b': 2}['a:b']] }} a[1:] {# x[1:] #}"),
            "{{ [1, {'a:b': 2}['a:b']] }} a[1:] {# x[1:] #}"
        );
        assert_eq!(
            text("{% raw %}{{ a[1:] }}{% endraw %}{{ '[1:]' }}"),
            "{% raw %}{{ a[1:] }}{% endraw %}{{ '[1:]' }}"
        );
    }

    #[test]
    fn a_percent_after_a_literal_becomes_a_filter_with_its_operand() {
        assert_eq!(text("{{ 'a' ~ '%s' % x.y(1)[0] ~ 2 }}"), "{{ 'a' ~ ('%s'|__percent__(x.y(1)[0])) ~ 2 }}");
        assert_eq!(text("{{ '%s' % (a, b) }}{{ 7 % 2 }}"), "{{ ('%s'|__percent__((a, b))) }}{{ 7 % 2 }}");
    }

    #[test]
    fn loops_check_their_collection_and_generation_becomes_a_call_block() {
        assert_eq!(
            text("{%- for a in b[1:] if c -%}"),
            "{%- for a in ( b.__slice__(1, none, none) )|__iterate__ if c -%}"
        );
        let block = rewrite("{%- generation -%} x {% endgeneration %}");
        assert_eq!(block.text, "{%- call __generation__() -%} x {% endcall %}");
        assert!(block.generation);
    }

    #[test]
    fn what_set_keeps_goes_through_a_filter_and_set_blocks_do_not() {
        assert_eq!(text("{% set ns.x = a[1:] -%}"), "{% set ns.x = (a.__slice__(1, none, none) )|__keep_inside__ -%}");
        assert_eq!(text("{% set a, b = 1, x == 2 %}"), "{% set a, b = (1, x == 2 )|__keep__ %}");
        assert_eq!(text("{% set x | replace(a='b') %}c{% endset %}"), "{% set x | replace(a='b') %}c{% endset %}");
        assert_eq!(text("{% set x = %}"), "{% set x = %}");
    }

    #[test]
    fn what_does_not_end_is_left_as_it_is() {
        for source in
            ["{{ a[1:", "{% for", "{# x", "{{ 'a", "{", "{%", "{{ a[1: }}", "{% raw %}", "{{ '%s' % }}", "{{ a] }}"]
        {
            assert!(rewrite(source).text.starts_with('{'), "{source}");
        }
    }
}
