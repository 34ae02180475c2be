//! Simple HTML as Markdown: headings, paragraphs, lists, preformatted text.
//!
//! In:    HTML text, well-formed or not.
//! Out:   [`Page`].
//! Never: runs scripts, loads anything, recurses.

/// What a page says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// `<title>`, if it has text.
    pub(crate) title: Option<String>,
    /// The body.
    pub(crate) markdown: String,
}

/// Elements whose content is not text.
const SILENT: [&str; 6] = ["script", "style", "noscript", "template", "svg", "head"];

/// Turns `html` into text.
pub(crate) fn to_markdown(html: &str) -> Page {
    let mut page = Page { title: title(html), markdown: String::new() };
    let mut preformatted = false;
    let mut rest = html;
    // Past the last `>` no tag ends: looking for one at every `<` would take quadratic time.
    let after_last_tag = html.rfind('>').map_or(usize::MAX, |last| html.len() - last);
    while let Some(open) = rest.find('<') {
        push_text(&mut page.markdown, &rest[..open], preformatted);
        rest = &rest[open..];
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.find("-->").map_or("", |end| &after[end + 3..]);
            continue;
        }
        let begins_tag = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        let may_end = begins_tag && rest.len() > after_last_tag;
        let Some(close) = may_end.then(|| rest.find('>')).flatten() else {
            page.markdown.push('<');
            rest = &rest[1..];
            continue;
        };
        let tag = rest[1..close].to_ascii_lowercase();
        rest = &rest[close + 1..];
        let name: &str = tag.split(|c: char| c.is_whitespace() || c == '>').next().unwrap_or_default();
        if SILENT.contains(&name) && !tag.ends_with('/') {
            rest = after_end(rest, name);
            continue;
        }
        preformatted = match name {
            "pre" => true,
            "/pre" => false,
            _ => preformatted,
        };
        page.markdown.push_str(mark(name.trim_end_matches('/')));
    }
    push_text(&mut page.markdown, rest, preformatted);
    page
}

/// What a tag leaves in the text.
fn mark(name: &str) -> &'static str {
    match name {
        "h1" => "\n\n# ",
        "h2" => "\n\n## ",
        "h3" => "\n\n### ",
        "h4" => "\n\n#### ",
        "h5" => "\n\n##### ",
        "h6" => "\n\n###### ",
        "pre" | "/pre" => "\n\n```\n",
        "li" => "\n- ",
        "br" | "tr" | "dt" | "dd" => "\n",
        "td" | "th" => " ",
        "p" | "/p" | "div" | "/div" | "section" | "/section" | "article" | "/article" | "ul" | "/ul" | "ol" | "/ol"
        | "table" | "/table" | "blockquote" | "/blockquote" | "hr" | "/h1" | "/h2" | "/h3" | "/h4" | "/h5" | "/h6"
        | "header" | "/header" | "footer" | "/footer" | "main" | "/main" | "nav" | "/nav" => "\n\n",
        _ => "",
    }
}

fn after_end<'a>(rest: &'a str, name: &str) -> &'a str {
    let end = find_ignoring_case(rest, &format!("</{name}"));
    end.and_then(|end| rest[end..].find('>').map(|close| &rest[end + close + 1..])).unwrap_or("")
}

fn title(html: &str) -> Option<String> {
    let open = find_ignoring_case(html, "<title")?;
    let begin = open + html[open..].find('>')? + 1;
    let end = begin + find_ignoring_case(&html[begin..], "</title")?;
    let mut title = String::new();
    push_text(&mut title, html[begin..end].trim(), false);
    Some(title).filter(|title| !title.is_empty())
}

fn find_ignoring_case(text: &str, ascii_needle: &str) -> Option<usize> {
    let needle = ascii_needle.as_bytes();
    text.as_bytes().windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle))
}

fn push_text(out: &mut String, text: &str, preformatted: bool) {
    let text = entities(text);
    if preformatted {
        out.push_str(&text);
        return;
    }
    for c in text.chars() {
        let c = if c.is_whitespace() { ' ' } else { c };
        if c != ' ' || !out.is_empty() && !out.ends_with([' ', '\n']) {
            out.push(c);
        }
    }
}

/// Named entities that are common, and all numbered ones; others stay as they are.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| entity(&rest[1..end]).map(|c| (end, c))) {
            Some((end, c)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return code.ok().and_then(char::from_u32);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '\u{2013}',
        "mdash" => '\u{2014}',
        "hellip" => '\u{2026}',
        "lsquo" => '\u{2018}',
        "rsquo" => '\u{2019}',
        "ldquo" => '\u{201c}',
        "rdquo" => '\u{201d}',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "euro" => '€',
        "copy" => '©',
        _ => return None,
    })
}
