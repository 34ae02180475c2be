//! What every page and chart is made with: escaping, and the colours of things told apart.
//!
//! In:    any text.
//! Out:   the same text, safe between tags and in quoted attributes of HTML and SVG.
//! Never: lets text become markup.

/// Colours of things in one chart, readable on light and on dark: those of Okabe and Ito 2008, some darker. The last is "other".
pub const PALETTE: [&str; 9] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b3a100", "#8c6d5a", "#9aa0a8"];

/// Text as text, wherever it stands. Control characters, which neither HTML nor XML allows even escaped, become U+FFFD.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<script>\"a\" & 'b'\u{0}"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}");
        assert_eq!(escaped("two\nlines\u{ffff}"), "two\nlines\u{fffd}");
    }
}
