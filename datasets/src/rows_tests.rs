//! Facts about rows, questions and batches, on JSONL files written to disk.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use planner::plan::{DataPlan, DataSource, RowFormat, TemplateChoice, TooLong};

use crate::test_tokenizers::{CHATML, byte_level, spm_vocabulary};
use crate::{Batches, DataError, Dataset, GgufVocabulary, Step, Tokenizer, evaluation_batches, questions};

struct Files {
    _folder: tempfile::TempDir,
    plan: DataPlan,
}

fn file(content: impl AsRef<[u8]>) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, content).unwrap();
    let plan = DataPlan { too_long: TooLong::Drop, seed: 1, ..DataPlan::of(vec![DataSource::of(path)], 64) };
    Files { _folder: folder, plan }
}

fn row(question: &str, answer: &str) -> String {
    let messages = serde_json::json!({"messages": [
        {"role": "user", "content": question}, {"role": "assistant", "content": answer}]});
    format!("{messages}\n")
}

fn load(content: impl AsRef<[u8]>) -> Result<Dataset, DataError> {
    Dataset::load(&file(content).plan, &byte_level(Some(CHATML)))
}

/// The trained tokens of a row, as text with special tokens.
fn trained(row: &crate::Row, tokenizer: &Tokenizer) -> String {
    let ids = row.tokens.iter().zip(&row.trained).filter(|(_, trained)| **trained);
    ids.map(|(id, _)| tokenizer.token(*id).unwrap()).collect()
}

#[test]
fn answers_and_their_end_tokens_are_trained_and_nothing_else() {
    let tokenizer = byte_level(Some(CHATML));
    let line = r#"{"messages":[{"role":"system","content":"hello"},{"role":"user","content":"1"},
        {"role":"assistant","content":"2 hello"},{"role":"user","content":[{"type":"text","text":"3"}]},
        {"role":"assistant","content":"4"}]}"#;
    let dataset = load(line.replace('\n', "")).unwrap();
    assert_eq!(trained(&dataset.rows[0], &tokenizer), "2Ġhello<|im_end|>4<|im_end|>");
    assert_eq!(dataset.report.trained_tokens, 6);
    assert_eq!(dataset.report.ending_trained, 1);
    assert_eq!(dataset.rows[0].tokens[0], tokenizer.bos().unwrap());
}

#[test]
fn an_answer_that_spells_the_users_markers_is_still_trained_whole() {
    let tokenizer = byte_level(Some(CHATML));
    let dataset = load(row("user", "assistant user")).unwrap();
    assert_eq!(trained(&dataset.rows[0], &tokenizer), "assistantĠuser<|im_end|>");
}

#[test]
fn a_template_that_trims_and_one_that_forgets_earlier_reasoning_are_located() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n{% endif %}{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let tokenizer = byte_level(Some(source));
    let files = file(
        r#"{"messages":[{"role":"user","content":"1"},{"role":"assistant","content":" 2 "},{"role":"user","content":"3"},{"role":"assistant","content":"4"}]}"#,
    );
    let dataset = Dataset::load(&files.plan, &tokenizer).unwrap();
    assert_eq!(trained(&dataset.rows[0], &tokenizer), "2<|im_end|><think>ĊĊ4<|im_end|>");
}

#[test]
fn prompt_and_completion_end_with_the_end_token_and_begin_with_bos_where_the_tokenizer_adds_it() {
    let line = r#"{"prompt":"hello","completion":" world"}"#;
    let spm = Tokenizer::from_gguf(spm_vocabulary()).unwrap();
    let dataset = Dataset::load(&file(line).plan, &spm).unwrap();
    let spelled: Vec<String> = dataset.rows[0].tokens.iter().map(|id| spm.token(*id).unwrap()).collect();
    assert_eq!(spelled, ["<s>", "▁hello", "▁world", "</s>"]);
    assert_eq!(dataset.rows[0].trained, [false, false, true, true]);
    let byte = byte_level(None);
    let dataset = Dataset::load(&file(r#"{"prompt":"hel","completion":"lo a"}"#).plan, &byte).unwrap();
    let prompt = byte.encode("hel").unwrap();
    assert!(dataset.rows[0].tokens.starts_with(&prompt), "a token must not cross the border");
    assert_eq!(trained(&dataset.rows[0], &byte), "loĠa<|im_end|>");
}

#[test]
fn a_message_that_repeats_beginning_of_text_is_refused() {
    let template = "{% for m in messages %}{{ bos_token }}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}";
    let files = file(row("<s>x", "y"));
    let error = Dataset::load(&files.plan, &byte_level(Some(template))).unwrap_err().to_string();
    assert!(error.contains("begins with 2 beginning-of-text tokens"), "{error}");
}

#[test]
fn every_bad_line_is_told_with_file_line_and_cause() {
    let good = row("hello", "user");
    let cases: [(&[u8], &str); 12] = [
        (b"{\"messages\": [}", "rows.jsonl:2: column 15: not valid JSON"),
        (b"{\"messages\": \"\xff\"}", "rows.jsonl:2: column 15: not valid UTF-8"),
        (b"[]", "rows.jsonl:2: a row must be a JSON object"),
        (b"{\"prompt\":\"a\",\"completion\":\"b\"}", "rows.jsonl:2: the key \"messages\" must hold a list"),
        (b"{\"messages\":[]}", "rows.jsonl:2: the row has no answer"),
        (b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "rows.jsonl:2: the row has no answer"),
        (b"{\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}", "rows.jsonl:2: message 1: role \"robot\""),
        (
            b"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}",
            "rows.jsonl:2: message 1: role \"assistant\" where \"user\"",
        ),
        (
            b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\" \"}]}",
            "rows.jsonl:2: the answer is empty",
        ),
        (b"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "rows.jsonl:2: message 1: the key \"content\""),
        (
            b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"a\"}]}",
            "message 2: role \"system\"",
        ),
        (b"{\"messages\":[{\"content\":\"a\"}]}", "message 1: the key \"role\""),
    ];
    for (line, expected) in cases {
        let error = load([good.as_bytes(), line].concat()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn files_that_hold_nothing_usable_are_refused() {
    assert!(matches!(load("\n \n"), Err(DataError::EmptyFile { .. })));
    assert!(load(r#"{"text":"x"}"#).unwrap_err().to_string().contains("[\"text\"]"));
    let mut missing = file("").plan;
    missing.sources[0].path = Path::new("/nonexistent/rows.jsonl").to_path_buf();
    let error = Dataset::load(&missing, &byte_level(Some(CHATML))).unwrap_err();
    assert!(matches!(error, DataError::Read { .. }), "{error}");
    let error = Dataset::load(&file(row("a", "b")).plan, &byte_level(None)).unwrap_err().to_string();
    assert!(error.contains("data.chat_template"), "{error}");
}

#[test]
fn a_template_without_end_of_turn_is_refused() {
    let template = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
    let error = Dataset::load(&file(row("a", "b")).plan, &byte_level(Some(template))).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:1: message 2") && error.contains("stop"), "{error}");
    let template =
        "{% if messages | length > 1 %}x{% endif %}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    let error = Dataset::load(&file(row("a", "b")).plan, &byte_level(Some(template))).unwrap_err().to_string();
    assert!(error.contains("cannot be located"), "{error}");
}

#[test]
fn rows_beyond_the_sequence_length_are_dropped_cut_or_refused_and_counted() {
    let long = "hello ".repeat(40);
    let content = row("a", "b") + &row("a", &long) + &row(&long, "b") + &row("a", "c");
    let load = |policy| {
        let mut files = file(&content);
        files.plan.too_long = policy;
        Dataset::load(&files.plan, &byte_level(Some(CHATML)))
    };
    let dropped = load(TooLong::Drop).unwrap();
    let lines: Vec<usize> = dropped.rows.iter().map(|row| row.line).collect();
    assert_eq!((lines, dropped.report.too_long, dropped.report.dropped), (vec![1, 4], 2, 2));
    let cut = load(TooLong::Truncate).unwrap();
    assert_eq!((cut.report.rows, cut.report.truncated, cut.report.dropped), (3, 1, 1));
    assert_eq!(cut.rows[1].tokens.len(), 64);
    assert_eq!(cut.report.ending_trained, 2);
    let error = load(TooLong::Error).unwrap_err().to_string();
    assert!(error.contains("2 rows are longer") && error.contains("rows.jsonl:2"), "{error}");
    let mut none = file(row(&long, "b"));
    none.plan.too_long = TooLong::Truncate;
    let error = Dataset::load(&none.plan, &byte_level(Some(CHATML))).unwrap_err();
    assert!(matches!(error, DataError::NothingToTrain { read: 1, dropped: 1, limit: 64 }), "{error}");
}

#[test]
fn ids_beyond_the_models_embeddings_are_told_with_their_line() {
    let dataset = load(row("a", "b") + &row("a", "<think>")).unwrap();
    let error = dataset.check_vocabulary(272).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:2: token id 272"), "{error}");
    assert!(dataset.check_vocabulary(300).is_ok());
}

#[test]
fn a_question_is_the_beginning_of_its_training_row() {
    let tokenizer = byte_level(Some(CHATML));
    let files = file(row("hello 12", " 34 "));
    let question = questions(&files.plan.sources[0], &TemplateChoice::Auto, &tokenizer).unwrap().remove(0);
    let dataset = Dataset::load(&files.plan, &tokenizer).unwrap();
    assert!(dataset.rows[0].tokens.starts_with(&question.prompt));
    assert_eq!((question.answer.as_str(), question.line), ("34", 1));
    let plain = file(r#"{"prompt":"hello","completion":" user"}"#);
    let source = DataSource { format: Some(RowFormat::PromptCompletion), ..plain.plan.sources[0].clone() };
    let question = questions(&source, &TemplateChoice::Auto, &tokenizer).unwrap().remove(0);
    assert_eq!(question.prompt, tokenizer.encode("hello").unwrap());
}

fn many() -> (Files, Dataset) {
    let content: String = (0..101).map(|n| row(&n.to_string(), &"hello ".repeat(1 + n % 7))).collect();
    let files = file(content);
    let dataset = Dataset::load(&files.plan, &byte_level(Some(CHATML))).unwrap();
    (files, dataset)
}

fn steps(batches: &Batches, epoch: u64) -> Vec<Step> {
    (0..batches.steps_in_epoch(epoch)).map(|index| batches.step(epoch, index)).collect()
}

/// All segments of an epoch, sorted.
fn segments(steps: &[Step]) -> Vec<Vec<u32>> {
    let batches = steps.iter().flat_map(|step| &step.batches);
    let mut rows: Vec<Vec<u32>> = batches
        .flat_map(|batch| {
            batch.segments.windows(2).map(|ends| batch.tokens[ends[0] as usize..ends[1] as usize].to_vec())
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn an_epoch_holds_every_row_once_packed_or_not_and_its_order_is_fixed_by_seed_and_epoch() {
    let (files, dataset) = many();
    let mut rows: Vec<Vec<u32>> = dataset.rows.iter().map(|row| row.tokens.clone()).collect();
    rows.sort();
    for packing in [false, true] {
        let plan = DataPlan { packing, ..files.plan.clone() };
        let batches = Batches::new(&dataset, &plan, 8, 3);
        let first = steps(&batches, 0);
        assert_eq!(segments(&first), rows);
        let second = steps(&batches, 1);
        assert_eq!(segments(&second), rows);
        assert_ne!(first, second);
        assert_eq!(first, steps(&Batches::new(&dataset, &plan, 8, 3), 0));
        assert_ne!(first, steps(&Batches::new(&dataset, &DataPlan { seed: 2, ..plan }, 8, 3), 0));
        let trained: usize = first.iter().map(Step::trained_tokens).sum();
        assert_eq!(trained, dataset.report.trained_tokens);
        assert_eq!(batches.step(0, first.len() as u64), Step::default());
        assert!(first[0].batches.len() == 3 && !first.last().unwrap().batches.is_empty());
    }
}

#[test]
fn packed_rows_stay_below_the_sequence_length_and_save_steps() {
    let (files, dataset) = many();
    let packed = Batches::new(&dataset, &DataPlan { packing: true, ..files.plan.clone() }, 1, 1);
    let plain = Batches::new(&dataset, &files.plan, 1, 1);
    assert!(packed.steps_in_epoch(0) < plain.steps_in_epoch(0));
    assert!(steps(&packed, 0).iter().all(|step| step.tokens() <= 64));
}

#[test]
fn targets_are_the_next_token_of_the_same_segment() {
    let (files, dataset) = many();
    let batches = Batches::new(&dataset, &DataPlan { packing: true, ..files.plan.clone() }, 8, 3);
    for batch in steps(&batches, 0).iter().flat_map(|step| &step.batches) {
        assert_eq!((batch.segments[0], *batch.segments.last().unwrap() as usize), (0, batch.tokens.len()));
        assert_eq!(batch.loss_rows.len(), batch.targets.len());
        for (row, target) in batch.loss_rows.iter().zip(&batch.targets) {
            assert_eq!(batch.tokens[*row as usize + 1], *target);
            assert!(!batch.segments.contains(&(row + 1)), "a target must not cross into the next segment");
        }
    }
}

#[test]
fn evaluation_batches_keep_file_order_and_their_bound() {
    let (_files, dataset) = many();
    let batches = evaluation_batches(&dataset, 100);
    assert!(batches.iter().all(|batch| batch.tokens.len() <= 100));
    let tokens: Vec<u32> = batches.iter().flat_map(|batch| batch.tokens.clone()).collect();
    let expected: Vec<u32> = dataset.rows.iter().flat_map(|row| row.tokens.clone()).collect();
    assert_eq!(tokens, expected);
    assert_eq!(evaluation_batches(&dataset, 1).len(), dataset.rows.len());
}

#[test]
fn the_recipes_template_wins_over_the_models() {
    let mut files = file(row("a", "b"));
    files.plan.chat_template = TemplateChoice::from("{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}".to_string());
    let tokenizer = byte_level(Some(CHATML));
    let dataset = Dataset::load(&files.plan, &tokenizer).unwrap();
    assert_eq!(trained(&dataset.rows[0], &tokenizer), "b<|endoftext|>");
    let spm = Tokenizer::from_gguf(GgufVocabulary { eos: None, ..spm_vocabulary() }).unwrap();
    assert_eq!(spm.eos(), [2]);
}
