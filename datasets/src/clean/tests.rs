//! Facts about cleaning as a whole.

#![allow(clippy::unwrap_used)]

use planner::plan::CleanRules;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::duplicates::Repeat;
use super::overlap::Match;
use super::rules::Refusal;
use super::test_texts::{Edit, edited, jaccard, text};
use super::*;
use crate::random::Random;

fn similarity(one: &str, other: &str) -> f64 {
    Fingerprint::of(one).sketch.similarity(&Fingerprint::of(other).sketch)
}

fn repeats_with(texts: &[String], search: Search, memory_bytes: usize) -> Repeats {
    let folder = tempfile::tempdir().unwrap();
    let mut duplicates = Duplicates::new(folder.path(), search, Limits { memory_bytes, examples: 4 });
    let fingerprints: Vec<Fingerprint> = texts.par_iter().map(|text| Fingerprint::of(text)).collect();
    fingerprints.iter().for_each(|fingerprint| duplicates.push(fingerprint).unwrap());
    duplicates.finish().unwrap()
}

fn near_repeats(texts: &[String]) -> Repeats {
    repeats_with(texts, Search::Near(Similarity::DEFAULT), 128 << 20)
}

/// Families of one text with a near copy of every kind, and strangers between them.
fn mixed_rows(random: &mut Random, families: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for _ in 0..families {
        let original = text(random, 12);
        for edit in [Edit::Words(100), Edit::Prefix, Edit::Case, Edit::Punctuation, Edit::Shuffled] {
            rows.push(edited(&original, edit, random));
            rows.push(text(random, 6));
        }
        rows.push(original.clone());
        rows.push(format!(" {}\n", original.replace(' ', "  ")));
    }
    random.shuffle(&mut rows);
    rows
}

#[test]
fn the_same_text_has_one_exact_number_whatever_its_white_space_and_composition() {
    let exact = |text| Fingerprint::of(text).exact;
    assert_eq!(exact("Two  words\n\there "), exact("Two words here"));
    assert_eq!(exact("Ko\u{308}ln  am Rhein"), exact("K\u{f6}ln am\u{a0}Rhein"));
    assert_ne!(exact("Two words here"), exact("two words here"), "case is kept");
    assert_ne!(exact("Two words here"), exact("Two words here."));
    assert_ne!(exact("ab"), exact("a b"));
    let texts = ["Two  words", "K\u{f6}ln", "", "a", "x y z"];
    assert!(texts.iter().all(|text| exact(text) == Fingerprint::exact_only(text).exact));
}

#[test]
fn the_estimate_stays_near_the_counted_similarity() {
    let mut random = Random::new(11, 0);
    let (mut worst, mut squares, mut pairs) = (0.0_f64, 0.0_f64, 0.0);
    for sentences in [2, 5, 20, 100] {
        for every in [7, 12, 20, 40, 100] {
            for _ in 0..20 {
                let original = text(&mut random, sentences);
                let copy = edited(&original, Edit::Words(every), &mut random);
                let error = similarity(&original, &copy) - jaccard(&original, &copy);
                worst = worst.max(error.abs());
                squares += error * error;
                pairs += 1.0;
            }
        }
    }
    let root_mean_square = (squares / pairs).sqrt();
    println!("error of the estimate: root mean square {root_mean_square:.4}, worst {worst:.4} of {pairs} pairs");
    assert!(root_mean_square < 0.025 && worst < 0.12, "{root_mean_square} {worst}");
}

#[test]
fn strangers_and_rows_of_one_template_are_told_apart() {
    let mut random = Random::new(12, 0);
    let template = text(&mut random, 3);
    let rows: Vec<String> = (0..2_000).map(|_| format!("{template} {}", text(&mut random, 3))).collect();
    let repeats = near_repeats(&rows);
    assert!(jaccard(&rows[0], &rows[1]) > 0.2, "half of each row is shared");
    assert_eq!((repeats.exact_rows, repeats.near_rows), (0, 0));
}

#[test]
fn near_copies_are_found_by_their_counted_similarity() {
    let mut random = Random::new(13, 0);
    let edits = [40, 60, 100, 200].map(Edit::Words).into_iter();
    for edit in edits.chain([Edit::Prefix, Edit::Case, Edit::Punctuation, Edit::Shuffled]) {
        let rows: Vec<String> = (0..200).map(|_| text(&mut random, 15)).collect();
        let copies: Vec<String> = rows.iter().map(|row| edited(row, edit, &mut random)).collect();
        let mean = rows.iter().zip(&copies).map(|(row, copy)| jaccard(row, copy)).sum::<f64>() / 200.0;
        let found = near_repeats(&[rows, copies].concat());
        let share = (found.exact_rows + found.near_rows) as f64 / 200.0;
        println!("{edit:?}: similarity {mean:.3}, found {share:.3}");
        assert!(mean < 0.86 || share > 0.97, "{edit:?}");
        assert!(mean > 0.72 || share < 0.03, "{edit:?}");
        assert!((0..200).all(|row| !found.is_near(row) && !found.is_exact(row)), "the first stays");
    }
}

#[test]
fn a_tiny_memory_limit_and_any_number_of_threads_give_the_same_rows() {
    let rows = mixed_rows(&mut Random::new(14, 0), 40);
    let expected = near_repeats(&rows);
    assert!(expected.exact_rows >= 40 && expected.near_rows >= 120, "{expected:?}");
    for memory_bytes in [0, 5_000, 100_000] {
        assert_eq!(repeats_with(&rows, Search::Near(Similarity::DEFAULT), memory_bytes), expected);
    }
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| near_repeats(&rows)), expected);
    }
}

#[test]
fn every_row_that_goes_names_an_earlier_one_that_is_so_alike() {
    let rows = mixed_rows(&mut Random::new(15, 0), 10);
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { examples: 1_000, ..Limits::default() };
    let mut duplicates = Duplicates::new(folder.path(), Search::Near(Similarity::DEFAULT), limits);
    rows.iter().for_each(|row| duplicates.push(&Fingerprint::of(row)).unwrap());
    let found = duplicates.finish().unwrap();
    assert_eq!(
        (found.exact_examples.len(), found.near_examples.len()),
        (found.exact_rows as usize, found.near_rows as usize)
    );
    for repeat in found.exact_examples.iter().chain(&found.near_examples) {
        let [row, earlier] = [repeat.row, repeat.earlier].map(|row| &rows[row as usize]);
        assert!(repeat.earlier < repeat.row);
        match repeat.likeness {
            Likeness::Exact => {
                assert!(found.is_exact(repeat.row) && row.split_whitespace().eq(earlier.split_whitespace()))
            }
            Likeness::Near(similarity) => {
                assert!(found.is_near(repeat.row) && similarity >= 0.8);
                assert!((jaccard(row, earlier) - similarity).abs() < 0.1, "{} {similarity}", jaccard(row, earlier));
            }
        }
    }
}

#[test]
fn exact_search_finds_only_equal_rows() {
    let rows = ["a b c d e f", "A b c d e f", "x", "", " a b  c d e f", "x", " "].map(str::to_owned);
    let repeats = repeats_with(&rows, Search::Exact, 0);
    let found: Vec<u64> = (0..8).filter(|&row| repeats.is_exact(row)).collect();
    assert_eq!((found, repeats.exact_rows, repeats.near_rows), (vec![4, 5, 6], 3, 0));
    let first = Repeat { row: 4, earlier: 0, likeness: Likeness::Exact };
    assert_eq!(repeats.exact_examples[0], first);
    assert_eq!(repeats_with(&[], Search::Exact, 0).rows, 0);
}

#[test]
fn empty_and_one_word_texts_are_like_themselves_only() {
    let rows = ["", "yes", "no", "Yes!", "...", "+ +", "1", "2", "是", "否"].map(str::to_owned);
    let repeats = near_repeats(&rows);
    let found: Vec<u64> = (0..10).filter(|&row| repeats.is_exact(row) || repeats.is_near(row)).collect();
    assert_eq!(found, [3], "only \"Yes!\" repeats \"yes\", nearly");
    assert_eq!(similarity("", ""), 0.0);
    assert_eq!(similarity("yes", "YES"), 1.0);
}

#[test]
fn scripts_without_spaces_have_near_copies_too() {
    let long: String = (0..300).filter_map(|index| char::from_u32(0x4e00 + index * 37 % 5_000)).collect();
    let copy = format!("{}新{}", &long[..300], &long[303..]);
    assert!(similarity(&long, &copy) > 0.9 && similarity(&long, &copy) < 1.0, "{}", similarity(&long, &copy));
    assert!(similarity(&long, &long.chars().rev().collect::<String>()) < 0.05);
}

#[test]
fn ten_megabytes_in_one_text_are_fingerprinted_and_checked() {
    let mut random = Random::new(16, 0);
    let paragraph = text(&mut random, 2_000);
    let huge = paragraph.repeat((10 << 20) / paragraph.len() + 1);
    let other = format!("{huge} End.");
    assert!(similarity(&huge, &other) > 0.99 && Fingerprint::of(&huge).exact != Fingerprint::of(&other).exact);
    let rules = CleanRules { max_repeated_words: Some(0.5), ..CleanRules::default() };
    assert!(matches!(Rules::new(&rules).check(&huge), Err(Refusal::MaxRepeatedWords { .. })));
    assert_eq!(Rules::new(&rules).check(&paragraph), Ok(()));
}

#[test]
fn held_out_rows_are_found_in_training_rows() {
    let mut random = Random::new(17, 0);
    let held_out: Vec<String> = (0..300).map(|_| text(&mut random, 8)).collect();
    let overlap = Overlap::new(held_out.iter().map(|row| Fingerprint::of(row)), Similarity::DEFAULT);
    assert_eq!(overlap.held_out_rows(), 300);
    for (row, held_out) in (0_u32..).zip(&held_out) {
        let exact = overlap.find(&Fingerprint::of(&format!("{held_out} \n")));
        assert_eq!(exact, Some(Match { held_out_row: row, likeness: Likeness::Exact }));
        let near = overlap.find(&Fingerprint::of(&edited(held_out, Edit::Case, &mut random)));
        assert_eq!(near, Some(Match { held_out_row: row, likeness: Likeness::Near(1.0) }));
        assert_eq!(overlap.find(&Fingerprint::of(&text(&mut random, 8))), None);
    }
    assert_eq!(Overlap::new([], Similarity::DEFAULT).find(&Fingerprint::of("")), None);
}

#[test]
fn each_rule_refuses_with_the_number_it_measured() {
    let none = CleanRules::default();
    let refused = |rules: CleanRules, text: &str| Rules::new(&rules).check(text).unwrap_err().to_string();
    let cases = [
        (CleanRules { min_characters: Some(5), ..none }, "Köln", "4 characters, fewer than min_characters = 5"),
        (CleanRules { max_characters: Some(3), ..none }, "Köln", "4 characters, more than max_characters = 3"),
        (CleanRules { max_repeated_lines: Some(0.3), ..none }, "a\n\nb\n a \na\n", "2 of 4 lines repeat"),
        (CleanRules { max_repeated_words: Some(0.1), ..none }, "a b c d e a b c d e", "1 of 6 five-word sequences"),
        (CleanRules { min_letters: Some(0.5), ..none }, "ab - -- !", "2 of 6 characters are letters"),
        (CleanRules { max_same_character: Some(3), ..none }, "so======", "'=' stands 6 times in a row"),
    ];
    for (rules, text, expected) in cases {
        assert!(refused(rules, text).contains(expected), "{}", refused(rules, text));
        assert_eq!(Rules::new(&none).check(text), Ok(()));
    }
}

#[test]
fn rules_hold_at_their_bounds_and_for_every_script() {
    let strict = CleanRules {
        min_characters: Some(4),
        max_characters: Some(60),
        max_repeated_lines: Some(0.5),
        max_repeated_words: Some(0.0),
        min_letters: Some(0.9),
        max_same_character: Some(2),
        ..CleanRules::default()
    };
    for text in ["Köln", "हिन्दी भाषा", "我喜欢吃苹果", "ภาษาไทยเป็น", "a\na", "нет слов", "مرحبا بالعالم"]
    {
        let found = Rules::new(&strict).check(text);
        assert_eq!(found.err().map(|refusal| refusal.rule()), (text == "a\na").then_some("min_characters"), "{text}");
    }
    let empty = Rules::new(&CleanRules { min_letters: Some(0.1), ..CleanRules::default() }).check("");
    assert_eq!(empty.map_err(|refusal| refusal.rule()), Err("min_letters"));
}
