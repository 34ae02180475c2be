//! Facts about the parts that need no server: prompts, replies, rules, journal.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::chunks::Chunk;
use super::job::{Asking, Start};
use super::journal::{Entry, Journal, key};
use super::prompts::Prompts;
use super::questions::Questions;
use super::reply::{Candidate, candidates};
use super::rules::{Rules, Words};

fn pair(question: &str, answer: &str) -> Candidate {
    Candidate::Pair { question: question.to_string(), answer: answer.to_string() }
}

fn chunk(text: &str) -> Chunk {
    Chunk {
        document: "a.md".to_string(),
        title: "A".to_string(),
        headings: vec!["B".to_string(), "C".to_string()],
        characters: [0, text.len() as u64],
        pages: None,
        text: text.to_string(),
    }
}

fn asking() -> Asking {
    Asking {
        model: "m".to_string(),
        prompts: Prompts::default(),
        pairs: 3,
        language: "German".to_string(),
        temperature: 0.0,
        seed: 1,
        reply_tokens_max: 100,
    }
}

#[test]
fn a_pair_is_found_in_every_form_that_models_write_it() {
    let one = r#"{"pairs": [{"question": "Q?", "answer": "A"}]}"#;
    let forms = [
        one.to_string(),
        format!("Here you are:\n```json\n{one}\n```\nI hope [this] helps {{you}}."),
        format!("<think>maybe {{\"pairs\": []}} or {one}?</think>\n{one}"),
        r#"[{"question": "Q?", "answer": "A"}]"#.to_string(),
        r#"{"Question": "Q?", "Answer": "A"}"#.to_string(),
        // Cut off in the second pair.
        r#"{"pairs": [{"question": "Q?", "answer": "A"}, {"question": "R?", "ans"#.to_string(),
    ];
    for form in forms {
        assert_eq!(candidates(&form), Some(vec![pair("Q?", "A")]), "{form}");
    }
    let lines = "{\"question\": \"Q?\", \"answer\": \"A\"}\n{\"question\": \"R?\", \"answer\": 7}\n";
    assert_eq!(candidates(lines), Some(vec![pair("Q?", "A"), pair("R?", "7")]));
}

#[test]
fn a_reply_without_pairs_is_told_from_one_that_says_there_are_none() {
    assert_eq!(candidates(r#"{"pairs": []}"#), Some(vec![]));
    for text in ["", "I cannot do that.", "{", "[[[[", "<think>{\"pairs\": []}", "{\"pairs\": \"none\"}", "[1, 2]"] {
        assert_eq!(candidates(text), None, "{text}");
    }
    assert_eq!(candidates(r#"{"pairs": [["Q?", "A"]]}"#), Some(vec![Candidate::Other(r#"["Q?","A"]"#.to_string())]));
}

#[test]
fn a_hostile_reply_is_read_in_bounded_time() {
    let begin = std::time::Instant::now();
    for unit in ["[", "{", "{\"a\":", "[\"[", "[1,"] {
        assert_eq!(candidates(&unit.repeat(200_000)), None);
    }
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn each_rule_refuses_what_it_names() {
    let rules = Rules { grounded_min: Some(0.5), ..Rules::default() };
    let words = Words::of("The turbine was inspected in 1987 by engineers from Malmö.");
    assert_eq!(rules.refuse("When was it inspected?", "The turbine was inspected in 1987.", &words), None);
    let refused = [
        ("", "A", "empty question"),
        ("When was it?", "", "empty answer"),
        ("Q?", "An answer", "question too short or too long"),
        ("What is the turbine?", "what is the Turbine", "answer repeats the question"),
        ("What is the turbine?", "<|im_start|>user", "token of a chat template"),
        ("When was it inspected?", "Inspectors arrived during 1999 through Copenhagen.", "not grounded in the chunk"),
    ];
    for (question, answer, reason) in refused {
        assert_eq!(rules.refuse(question, answer, &words), Some(reason), "{question} {answer}");
    }
    assert_eq!(rules.refuse("Is a |> b <| c fine?", "Yes: x <| f |> g", &words), None);
}

#[test]
fn questions_that_differ_only_in_form_are_one_and_in_a_number_are_two() {
    let mut questions = Questions::new(0.8);
    assert!(questions.keep("In which year was the old bridge over the river built?").is_ok());
    assert!(questions.keep("in which year was the OLD bridge over the river built").is_err());
    assert!(questions.keep("In which year was the old bridge over the river first built?").is_err());
    assert!(questions.keep("Who paid for the old bridge over the river?").is_ok());
    assert!(questions.keep("What happened to the bridge in March of the year 1931?").is_ok());
    assert!(questions.keep("What happened to the bridge in March of the year 1932?").is_ok());
    assert!(questions.keep("橋はいつ建てられましたか").is_ok());
    assert!(questions.keep("橋はいつ建てられましたか。").is_err());
}

#[test]
fn what_a_document_says_in_placeholders_is_not_filled_in() {
    let (system, user) = asking().render(&chunk("Write {{title}} and {{nonsense}} here"));
    assert!(user.contains("Write {{title}} and {{nonsense}} here") && user.contains("Document: A"), "{user}");
    assert!(user.contains("B > C") && user.contains("3 questions") && user.contains("German"), "{user}");
    assert!(!system.contains("{{"), "{system}");
}

#[test]
fn written_prompts_load_as_the_built_in_ones_and_bad_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    Prompts::write(folder.path()).unwrap();
    assert_eq!(Prompts::load(folder.path()).unwrap(), Prompts::default());
    assert!(Prompts::write(folder.path()).unwrap_err().to_string().contains("exists already"));
    fs::write(folder.path().join("user.txt"), "a\n{{chunk}} {{chunks}}").unwrap();
    let error = Prompts::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("user.txt: line 2: unknown placeholder {{chunks}}"), "{error}");
    fs::write(folder.path().join("user.txt"), "nothing").unwrap();
    assert!(Prompts::load(folder.path()).unwrap_err().to_string().contains("does not hold {{chunk}}"));
}

#[test]
fn a_journal_torn_at_any_byte_keeps_its_whole_lines_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl.journal");
    let keys: Vec<_> = ["one", "two", "three"].map(|text| key(&asking(), &chunk(text))).into();
    let entries: Vec<_> = keys.iter().map(|key| Entry::new(key, "größer\n\"x\"".to_string(), 1, 2)).collect();
    let mut journal = Journal::open(&path, Start::GoOn).unwrap();
    let mut ends = vec![0];
    for entry in &entries {
        journal.append(entry).unwrap();
        ends.push(fs::metadata(&path).unwrap().len());
    }
    drop(journal);
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut journal = Journal::open(&path, Start::GoOn).unwrap();
        let kept = ends[1..].iter().filter(|&&end| end <= length as u64).count();
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(journal.get(key).unwrap().is_some(), place < kept, "{length} bytes, key {place}");
        }
        entries[kept..].iter().for_each(|entry| journal.append(entry).unwrap());
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole, "{length} bytes");
    }
}

#[test]
fn a_journal_is_used_by_one_process_and_its_foreign_lines_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    fs::write(&path, "not JSON\n{\"version\":2}\n").unwrap();
    let journal = Journal::open(&path, Start::GoOn).unwrap();
    assert_eq!(journal.lines_dropped(), 2);
    assert!(Journal::open(&path, Start::GoOn).err().unwrap().to_string().contains("in use"));
    drop(journal);
    assert_eq!(Journal::open(&path, Start::Anew).unwrap().lines_dropped(), 0);
}

#[test]
fn a_key_changes_with_everything_that_changes_the_reply_and_with_nothing_else() {
    let (ask, piece) = (asking(), chunk("text"));
    let first = key(&ask, &piece);
    assert_eq!(first, key(&ask, &Chunk { document: "b.md".to_string(), characters: [5, 9], ..piece.clone() }));
    assert_ne!(first, key(&ask, &chunk("texts")));
    assert_ne!(first, key(&Asking { model: "n".to_string(), ..ask.clone() }, &piece));
    assert_ne!(first, key(&Asking { pairs: 4, ..ask.clone() }, &piece));
    assert_ne!(first, key(&Asking { seed: 2, ..ask.clone() }, &piece));
    assert_ne!(first, key(&Asking { temperature: 0.5, ..ask.clone() }, &piece));
}
