//! What keeps a damaged or hostile template from overflowing the stack: the engine parses, compiles, prints, compares and
//! frees by recursion, and looks at its depth only here and there.
//!
//! In:    the extent of a source as `source` counts it; each value that a `set` tag keeps.
//! Out:   an error that names the bound; a value that is plain data of bounded depth.
//! Never: refuses a template that people use: the bounds are several times the largest of those.
//!
//! Loops make values deeper only through a variable that they keep (`set ns.x = [ns.x]`), so depth is looked at there.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::wrong;
use super::collections::View;
use super::{OUTPUT_BYTES_MAX, TemplateError, python};

/// Bytes of a template; those of Llama 4, Qwen3 and gpt-oss have 5,000 to 17,000.
const SOURCE_BYTES_MAX: usize = 512 << 10;
/// Tokens of one tag. Operators in a row become as many levels of a tree.
const TAG_TOKENS_MAX: usize = 2_000;
/// Brackets inside each other in one tag.
const BRACKETS_MAX: usize = 50;
/// `elif` tags: each is a level inside the one before.
const ELIFS_MAX: usize = 500;
/// Levels of lists and dictionaries in a value that is kept. Data from JSON has 128 at most.
const KEPT_DEPTH_MAX: usize = 150;
/// Lists and dictionaries in a value that is kept, each counted as often as it stands there.
const KEPT_COLLECTIONS_MAX: usize = 4_000_000;
/// Stack that the largest template within these bounds leaves some of (measured by the tests below).
pub(crate) const STACK_LEFT_MIN: usize = 6 << 20;
/// Stack that a thread with less gets while it compiles or renders.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// How large the largest parts of a source are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    tag_tokens: usize,
    brackets: usize,
    elifs: usize,
}

impl Extent {
    /// Counts a tag: its first word, and for each token whether it opens (1) or closes (-1) a bracket.
    pub(crate) fn tag(&mut self, word: &str, steps: impl Iterator<Item = i32>) {
        let (mut tokens, mut open, mut deepest) = (0, 0, 0);
        for step in steps {
            tokens += 1;
            open += step;
            deepest = deepest.max(open);
        }
        self.tag_tokens = self.tag_tokens.max(tokens);
        self.brackets = self.brackets.max(usize::try_from(deepest).unwrap_or(0));
        self.elifs += usize::from(word == "elif");
    }

    /// Counts what begins like a tag and does not end: a token a byte at the most.
    pub(crate) fn unclosed(&mut self, rest: &str) {
        self.tag_tokens = self.tag_tokens.max(rest.len());
    }

    /// Whether `source`, of this extent, is within the bounds.
    pub(crate) fn check(&self, source: &str) -> Result<(), TemplateError> {
        let parts = [
            ("a length in bytes", source.len(), SOURCE_BYTES_MAX),
            ("a tag with a number of tokens", self.tag_tokens, TAG_TOKENS_MAX),
            ("brackets inside each other to a depth", self.brackets, BRACKETS_MAX),
            ("a number of elif tags", self.elifs, ELIFS_MAX),
        ];
        match parts.into_iter().find(|(_, found, limit)| found > limit) {
            Some((what, found, limit)) => Err(TemplateError::Extent { what, found, limit }),
            None => Ok(()),
        }
    }
}

/// The filter of `set x = ..`: the value, if it is no longer or deeper than the bounds and holds no namespace or macro inside a
/// collection.
///
/// What the engine would compute anew at each use (a reversed list, two lists joined) is computed once, so that a loop
/// cannot stack thousands of such promises.
pub(crate) fn keep(value: Value) -> Result<Value, Error> {
    let bytes = value.as_str().map_or(0, str::len);
    if bytes > OUTPUT_BYTES_MAX {
        return Err(wrong(format!("a text of {bytes} bytes cannot be kept in a variable; {OUTPUT_BYTES_MAX} can")));
    }
    let value = computed(value)?;
    if is_collection(&value) {
        check(&value, 1, &mut 0)?;
    }
    Ok(value)
}

/// The filter of `set x.y = ..`: as [`keep`], and no namespace, macro or loop. Inside a namespace it could hold itself.
pub(crate) fn keep_inside(value: Value) -> Result<Value, Error> {
    // A collection is walked by `keep`, once.
    if !is_collection(&value) {
        inside(&value, 0, &mut 0)?;
    }
    keep(value)
}

fn is_collection(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) || python::is_dict(value)
}

/// A plain list or dictionary in place of a promise of one.
fn computed(value: Value) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value) };
    let is_view = object.is::<View>();
    if object.type_name().ends_with("MergeDict") {
        return Ok(python::pairs(&value).collect());
    }
    match (value.kind() == ValueKind::Iterable && !is_view) || object.type_name().ends_with("MergeSeq") {
        true => Ok(Value::from(value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?)),
        false => Ok(value),
    }
}

fn check(value: &Value, depth: usize, collections: &mut usize) -> Result<(), Error> {
    *collections += 1;
    if depth > KEPT_DEPTH_MAX {
        return Err(wrong(format!("a value nested more than {KEPT_DEPTH_MAX} deep cannot be kept in a variable")));
    }
    if *collections > KEPT_COLLECTIONS_MAX {
        return Err(wrong(format!("a value of more than {KEPT_COLLECTIONS_MAX} lists cannot be kept in a variable")));
    }
    match python::is_dict(value) {
        true => python::pairs(value).try_for_each(|(key, item)| {
            inside(&key, depth, collections)?;
            inside(&item, depth, collections)
        }),
        false => value.try_iter()?.checked().try_for_each(|item| inside(&item?, depth, collections)),
    }
}

fn inside(value: &Value, depth: usize, collections: &mut usize) -> Result<(), Error> {
    match value.kind() {
        _ if is_collection(value) => check(value, depth + 1, collections),
        ValueKind::Map | ValueKind::Plain => {
            Err(wrong("a namespace, macro or loop cannot be kept inside another variable's value"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Day, Specials, Template};
    use super::*;

    /// Compiles and renders without variables, on a thread with the stack of a worker.
    fn render(source: &str) -> Result<String, TemplateError> {
        let source = source.to_owned();
        let work = move || {
            let day = Day::parse("2024-07-26").unwrap();
            Template::new(&source, &Specials::default(), day)?.render_with(Value::from_pairs([("x", 1)]))
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap()
    }

    fn refused(source: &str, part: &str) {
        let error = render(source).expect_err(&source[..source.len().min(80)]).to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn sources_beyond_a_bound_are_refused_with_both_numbers() {
        refused(
            &format!("{{{{ x{} }}}}", " + x".repeat(1_100)),
            "a tag with a number of tokens of 2201, more than the limit of 2000",
        );
        refused(&format!("{{{{ {}x }}}}", "not ".repeat(2_000)), "of 2001, more");
        refused(
            &format!("{{{{ {}x{} }}}}", "[".repeat(51), "]".repeat(51)),
            "to a depth of 51, more than the limit of 50",
        );
        refused(&format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(501)), "a number of elif tags of 501");
        refused(&" ".repeat((512 << 10) + 1), "a length in bytes of 524289");
        refused(&format!("{{{{ {}", "not ".repeat(2_000)), "a tag with a number of tokens");
    }

    #[test]
    fn the_largest_sources_within_the_bounds_render_on_a_small_stack() {
        let long = "1".to_owned();
        assert_eq!(render(&format!("{{{{ x{} }}}}", " + 0".repeat(999))).unwrap(), long);
        assert_eq!(render(&format!("{{{{ x{} }}}}", "|abs".repeat(999))).unwrap(), long);
        assert_eq!(render(&format!("{{{{ {}x }}}}", "not ".repeat(1_999))).unwrap(), "False");
        assert_eq!(render(&format!("{{{{ {}x{} }}}}", "[".repeat(50), "]".repeat(50))).unwrap().len(), 101);
        let chain = format!("{{% if not x %}}{}{{% elif x %}}1{{% endif %}}", "{% elif not x %}".repeat(499));
        assert_eq!(render(&chain).unwrap(), long);
        let nested = format!("{}1{}", "{% if x %}".repeat(140), "{% endif %}".repeat(140));
        assert_eq!(render(&nested).unwrap(), long);
        let recursion = "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}";
        assert_eq!(render(recursion).unwrap(), "");
        refused("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion");
    }

    #[test]
    fn values_that_a_loop_makes_deeper_are_refused_and_those_it_makes_longer_are_not() {
        let looped = |body: &str| {
            format!(
                "{{% set ns = namespace(x=[], d={{}}) %}}{{% for i in range(5000) %}}{body}{{% endfor %}}{{{{ ns.x|length }}}}"
            )
        };
        for body in ["{% set ns.x = [ns.x] %}", "{% set ns.x = {'a': ns.x} %}", "{% set ns.x = (ns.x, 1) %}"] {
            refused(&looped(body), "a value nested more than 150 deep");
        }
        assert_eq!(render(&looped("{% set ns.x = ns.x + [i] %}")).unwrap(), "5000");
        assert_eq!(render(&looped("{% set ns.x = ns.x|reverse %}")).unwrap(), "0");
        assert_eq!(render(&looped("{% set ns.d = dict(ns.d, a=i) %}")).unwrap(), "0");
        refused(&looped("{% set ns.x = [ns.x, ns.x, ns.x, ns.x] %}"), "a value of more than 4000000 lists");
    }

    #[test]
    fn a_text_that_a_loop_doubles_ends_at_the_longest_that_is_written() {
        let doubled =
            "{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        refused(doubled, "a text of 134217728 bytes cannot be kept");
    }

    #[test]
    fn what_would_hold_itself_is_refused() {
        let held = "cannot be kept inside another variable's value";
        refused("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", held);
        refused("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", held);
        refused("{% set ns = namespace() %}{% set y = {'a': ns} %}{{ y }}", held);
        refused("{% set ns = namespace() %}{% macro f() %}{{ ns.f }}{% endmacro %}{% set ns.f = f %}", held);
    }
}
