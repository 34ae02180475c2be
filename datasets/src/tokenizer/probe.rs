//! The texts on which a fast path must agree with the tokenizers crate before it is used.
//!
//! In:    the added tokens.
//! Out:   [`texts`].
//! Never: random.

/// Added tokens that are tried; more are of one pattern (reserved tokens).
const ADDED_MAX: usize = 64;
/// Distance of the code points of the walk through Unicode: a prime, so that it meets all kinds.
const STEP: usize = 89;

/// Contractions, numbers, white space, scripts, symbols, and what is hard about each.
const PROBE: &str = concat!(
    "It's I'M we'RE they'll he'd You've 'S'tis o'clock it’s don\u{2bc}t '\u{17f} 'ss 'St\n",
    "1 12 123 1234 12345 1234567 3.14 1,000,000 x86 a1b2 ٣٤٥ ²³ ½ Ⅷ 10⁻⁹ 第12回 0x1F\r\n",
    "  two\t\ttabs   three \n\n\n  \r\n \r \u{a0}\u{85}\u{2003}\u{3000} x\u{2028}y  \n  z   ",
    "if (a[i] != b->c) { return \"x\\n\"; } // ------- ===== ### https://a.b/c?d=e&f=%20#g //\n/\n",
    "HTTPServer camelCase ALLCAPS Ǆ ǅ ǆ ʰ ª º ßẞ İı Straße naïve Ünï ﬁ ﬅ\n",
    "Привет мир Ελληνικά हिन्दी ไทย العربية עברית ქართული አማርኛ 漢字かなカナ 한국어 𝒜𝕏 𠀀 ꙮ\n",
    "🦀👩‍👩‍👧‍👦🇩🇪 👍🏽 ❤️ © ™ → ∑ € ¿¡ « » … — \u{200b}\u{feff}\u{e000}\u{378}\u{1f}\u{7f}\u{0}",
    "▁a▁▁b ▁ c <0x41> ĠaĊ [INST] <| |> </s"
);

/// Texts to compare on; `added` are glued to words and to each other.
pub(super) fn texts<'a>(added: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut texts: Vec<String> = PROBE.lines().map(str::to_owned).collect();
    texts.extend(["", " ", "\n", " a", "  a", "a ", "'s", "1", "e\u{301}", "가\u{11a8}"].map(str::to_owned));
    texts.push(PROBE.to_owned());
    texts.push(format!("{PROBE}{}", PROBE.to_uppercase()));
    let walk: Vec<char> = (0..0x11_0000).step_by(STEP).filter_map(char::from_u32).collect();
    let glue = ["", " ", "a", " A", "1", "\n", "  ", "."];
    texts.extend(walk.chunks(512).map(|part| {
        part.iter().enumerate().map(|(at, character)| format!("{character}{}", glue[at % glue.len()])).collect()
    }));
    let added: Vec<&str> = added.take(ADDED_MAX).collect();
    texts.extend(added.iter().map(|token| format!("{token}a {token} b{token}{token}\n{token}  {token}1 ")));
    texts.push(added.join(" a"));
    texts
}
