//! Finds a part by what people type.
//!
//! In:    `RTX 4090`, `rtx4090`, `NVIDIA GeForce RTX 4090`, `4090`, and the entries' names, titles and other names.
//! Out:   the one entry that is meant, or the nearest names.
//! Never: picks one of several that fit equally well.

use super::error::HardwareError;

/// Words that add nothing: makers and what they put before or behind every name.
const FILLERS: [&str; 17] = [
    "nvidia",
    "geforce",
    "quadro",
    "tesla",
    "amd",
    "radeon",
    "instinct",
    "intel",
    "apple",
    "samsung",
    "wd",
    "black",
    "ryzen",
    "generation",
    "edition",
    "graphics",
    "core",
];
/// Shortest text that may stand for the end of a name, such as `4090`.
const ENDING_MIN: usize = 4;
/// So many names are near.
const NEAREST: usize = 3;

/// Names of an entry.
pub(super) trait Named {
    /// `gpu`, `cpu`, `ssd`.
    const KIND: &'static str;
    fn name(&self) -> &str;
    fn title(&self) -> &str;
    fn aliases(&self) -> &[String];
}

macro_rules! named {
    ($entry:ty, $kind:literal) => {
        impl Named for $entry {
            const KIND: &'static str = $kind;
            fn name(&self) -> &str {
                &self.name
            }
            fn title(&self) -> &str {
                &self.title
            }
            fn aliases(&self) -> &[String] {
                &self.aliases
            }
        }
    };
}

named!(super::Gpu, "gpu");
named!(super::Cpu, "cpu");
named!(super::Ssd, "ssd");

/// Letters and digits in lower case, without the words of [`FILLERS`] and what stands in brackets.
pub(super) fn squeezed(text: &str) -> String {
    let text = text.split('(').next().unwrap_or(text).to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '.').filter(|word| !word.is_empty());
    let told: String = words.clone().filter(|word| !FILLERS.contains(word)).collect();
    if told.is_empty() { words.collect() } else { told }
}

/// The entry that `text` means.
pub(super) fn find<'a, E: Named>(entries: &'a [E], text: &str) -> Result<&'a E, HardwareError> {
    let wanted = squeezed(text);
    let keys = |entry: &E| {
        let others = entry.aliases().iter().map(|alias| squeezed(alias));
        [squeezed(entry.name()), squeezed(entry.title())].into_iter().chain(others).collect::<Vec<_>>()
    };
    if let Some(entry) = entries.iter().find(|entry| entry.name() == text.trim()) {
        return Ok(entry);
    }
    if let Some(entry) = entries.iter().find(|entry| !wanted.is_empty() && keys(entry).contains(&wanted)) {
        return Ok(entry);
    }
    let sized = |entry: &&E| squeezed(entry.name()).strip_prefix(&wanted).is_some_and(is_size);
    let last_words = |name: &str| name.match_indices('-').any(|(at, _)| squeezed(&name[at + 1..]) == wanted);
    let ending = |entry: &&E| wanted.len() >= ENDING_MIN && last_words(entry.name());
    let variants: Vec<&E> =
        entries.iter().filter(|entry| !wanted.is_empty() && (sized(entry) || ending(entry))).collect();
    match variants[..] {
        [one] => Ok(one),
        [] => Err(HardwareError::Unknown { kind: E::KIND, name: shown(text), nearest: nearest(entries, &wanted) }),
        _ => {
            let variants = variants.iter().map(|entry| entry.name()).collect::<Vec<_>>().join(", ");
            Err(HardwareError::Ambiguous { kind: E::KIND, name: shown(text), variants })
        }
    }
}

/// `16gb`, `2tb`, `3.84tb`: what tells variants apart.
pub(super) fn is_size(rest: &str) -> bool {
    let number = rest.strip_suffix("gb").or_else(|| rest.strip_suffix("tb"));
    number.is_some_and(|number| number.parse::<f64>().is_ok())
}

fn nearest<E: Named>(entries: &[E], wanted: &str) -> String {
    let score = |entry: &&E| (strsim::jaro_winkler(wanted, &squeezed(entry.name())) * 1e6) as i64;
    let mut sorted: Vec<&E> = entries.iter().collect();
    sorted.sort_by_key(|entry| -score(entry));
    sorted.iter().take(NEAREST).map(|entry| entry.name()).collect::<Vec<_>>().join(", ")
}

/// What was typed, in one line and not too long for one.
pub(super) fn shown(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(60) {
        line.truncate(at);
        line.push_str("...");
    }
    line
}

/// `rtx-a4500x2` as `rtx-a4500` and 2: only a reading, a name may end like this itself.
pub(super) fn counted(text: &str) -> Option<(&str, i64)> {
    let (name, count) = text.trim().rsplit_once(['x', 'X', '×', '*'])?;
    let name = name.trim_end_matches([' ', '-', '_']);
    let count = count.trim();
    let is_number = count.strip_prefix(['-', '+']).unwrap_or(count).bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || count.is_empty() || !is_number {
        return None;
    }
    Some((name, count.parse().unwrap_or(i64::MAX)))
}
