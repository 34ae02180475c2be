//! Facts about files that become recipes.
#![allow(clippy::unwrap_used)]

use super::tree::{self, Entry, Value};
use super::*;
use crate::recipe::*;
use crate::{MaxGradNorm, MicroBatch, Recipe, TargetNames, TokenCount, WarmupLength};

const EXAMPLES: [(&str, &str); 10] = [
    ("axolotl-qlora.yml", include_str!("examples/axolotl-qlora.yml")),
    ("axolotl-lora-chat.yml", include_str!("examples/axolotl-lora-chat.yml")),
    ("axolotl-full-zero3.yml", include_str!("examples/axolotl-full-zero3.yml")),
    ("axolotl-pretraining.yml", include_str!("examples/axolotl-pretraining.yml")),
    ("axolotl-anchors.yml", include_str!("examples/axolotl-anchors.yml")),
    ("axolotl.json", include_str!("examples/axolotl.json")),
    ("llama-factory-lora-sft.yaml", include_str!("examples/llama-factory-lora-sft.yaml")),
    ("llama-factory-qlora.yaml", include_str!("examples/llama-factory-qlora.yaml")),
    ("llama-factory-full-zero3.yaml", include_str!("examples/llama-factory-full-zero3.yaml")),
    ("llama-factory-pretraining.yaml", include_str!("examples/llama-factory-pretraining.yaml")),
];

fn migrated(name: &str) -> (Migrated, Recipe) {
    let (_, yaml) = EXAMPLES.iter().find(|(example, _)| *example == name).unwrap();
    let migrated = migrate(yaml, name).unwrap();
    let recipe = crate::parse(&migrated.toml, "recipe.toml", &[]).unwrap();
    (migrated, recipe)
}

fn note<'a>(migrated: &'a Migrated, key: &str) -> &'a Note {
    migrated
        .notes
        .iter()
        .find(|note| note.key == key)
        .unwrap_or_else(|| panic!("no note on {key}: {:#?}", migrated.notes))
}

/// Every key with a value that is no mapping, dotted.
fn leaves(entries: &[Entry], prefix: &str, keys: &mut Vec<String>) {
    for entry in entries {
        let key = format!("{prefix}{}", entry.key);
        match &entry.value {
            Value::Map(inner) if !inner.is_empty() => leaves(inner, &format!("{key}."), keys),
            Value::List(items) if items.iter().any(|item| matches!(item, Value::Map(_))) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Map(inner) = item {
                        leaves(inner, &format!("{key}[{index}]."), keys);
                    }
                }
            }
            _ => keys.push(key),
        }
    }
}

#[test]
fn every_key_of_every_example_is_carried_noted_or_empty() {
    for (name, yaml) in EXAMPLES {
        let (migrated, _) = migrated(name);
        let mut keys = Vec::new();
        leaves(&tree::read(yaml, name).unwrap(), "", &mut keys);
        assert!(keys.len() > 8, "{name}");
        // Data sets are accounted for key by key: only other mappings may be noted as a whole.
        let whole = |key: &str, leaf: &str| {
            leaf == key
                || !key.ends_with("datasets") && !key.ends_with("_dataset") && leaf.starts_with(&format!("{key}."))
        };
        for leaf in keys {
            let noted = migrated.notes.iter().any(|note| whole(&note.key, &leaf));
            let carried = migrated.carried.iter().any(|carried| whole(&carried.key, &leaf));
            let empty = migrated.empty.contains(&leaf);
            assert!(noted || carried || empty, "{name}: {leaf} was dropped silently");
        }
    }
}

#[test]
fn a_carried_key_stands_in_the_recipe_where_the_account_says() {
    for (name, _) in EXAMPLES {
        let (migrated, recipe) = migrated(name);
        let table: toml::Table = recipe.to_toml().parse().unwrap();
        for carried in migrated.carried {
            let mut value = toml::Value::Table(table.clone());
            for part in carried.to.split('.') {
                let inner = match &value {
                    toml::Value::Array(items) => items.iter().find_map(|item| item.get(part)).cloned(),
                    other => other.get(part).cloned(),
                };
                // `false` and shapes that the rows show need no word in the recipe.
                let silent = carried.to.starts_with("data.");
                let Some(inner) = inner else {
                    assert!(silent, "{name}: {} -> {}", carried.key, carried.to);
                    break;
                };
                value = inner;
            }
        }
    }
}

#[test]
fn an_axolotl_qlora_file_lands_in_the_right_keys() {
    let (migrated, recipe) = migrated("axolotl-qlora.yml");
    assert_eq!(migrated.kind, Kind::Axolotl);
    assert_eq!(recipe.model.source.0, ["hf:example/Llama-3-8B"]);
    let lora = recipe.method.lora().unwrap();
    assert_eq!((lora.base, lora.rank, lora.alpha, lora.dropout), (BaseChoice::Nf4, 32, 16.0, 0.05));
    assert_eq!(lora.targets, TargetNames::AllLinear);
    assert_eq!(recipe.train.tokens_per_step, TokenCount::Tokens(4 * 2 * 4096));
    assert_eq!((recipe.train.micro_batch, recipe.train.epochs), (MicroBatch::Rows(2), Some(4.0)));
    assert!(recipe.data.packing && recipe.data.too_long == TooLong::Drop);
    assert_eq!(recipe.data.sources[0].format, Some(RowFormat::Instruction));
    assert_eq!(recipe.data.sources[0].path.to_str(), Some("data/alpaca.jsonl"));
    assert_eq!(recipe.optimizer.kind, OptimizerKind::Adamw);
    assert_eq!((recipe.schedule.kind, recipe.schedule.warmup), (ScheduleChoice::Cosine, WarmupLength::Steps(10)));
    assert_eq!(recipe.eval.unwrap().share, Some(0.02));
    assert_eq!(note(&migrated, "datasets[0].path").what, What::CarriedDifferently);
    assert_eq!(note(&migrated, "special_tokens").what, What::NotNeeded);
    assert_eq!(note(&migrated, "saves_per_epoch").line, 51);
    assert!(migrated.empty.contains(&"wandb_project".to_string()));
    assert!(migrated.notes.iter().all(|note| note.what != What::NoCounterpart), "{:#?}", migrated.notes);
}

#[test]
fn an_axolotl_chat_file_keeps_columns_files_and_formats() {
    let (migrated, recipe) = migrated("axolotl-lora-chat.yml");
    let sources = &recipe.data.sources;
    let paths: Vec<_> = sources.iter().map(|source| source.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["rows/chat.jsonl", "rows/qa.csv", "rows/a.jsonl", "rows/b.jsonl"]);
    assert_eq!((sources[0].format, sources[0].columns.len()), (Some(RowFormat::Conversations), 0));
    assert_eq!((sources[1].format, sources[1].file_format), (Some(RowFormat::Instruction), Some(FileFormat::Csv)));
    assert_eq!((&*sources[1].columns[&Field::Instruction], &*sources[1].columns[&Field::Output]), ("Q", "A"));
    assert_eq!((sources[3].format, &*sources[3].columns[&Field::Text]), (Some(RowFormat::Text), "body"));
    assert_eq!((recipe.train.steps, recipe.train.epochs, recipe.train.seed), (Some(200), None, 7));
    assert!(!recipe.data.packing && recipe.data.group_by_length && recipe.data.too_long == TooLong::Error);
    assert_eq!(recipe.data.clean.deduplicate, Deduplicate::Exact);
    let optimizer = &recipe.optimizer;
    assert_eq!((optimizer.kind, optimizer.betas, optimizer.epsilon), (OptimizerKind::Adamw8bit, [0.9, 0.95], 1e-5));
    assert_eq!((optimizer.learning_rate, optimizer.max_grad_norm), (1e-4, MaxGradNorm::None));
    assert_eq!((recipe.schedule.kind, recipe.schedule.warmup), (ScheduleChoice::Constant, WarmupLength::Share(0.1)));
    assert_eq!((recipe.checkpoint.every_steps, recipe.checkpoint.keep_last), (Some(50), 3));
    let eval = recipe.eval.unwrap();
    assert_eq!((eval.every_steps, eval.source.unwrap().path.to_str()), (Some(25), Some("rows/held.jsonl")));
    let lora = match &recipe.method {
        MethodSection::Lora(lora) => lora,
        other => panic!("{other:?}"),
    };
    assert_eq!(lora.targets, TargetNames::Named(vec!["q_proj".to_string(), "v_proj".to_string()]));
    assert!(lora.rank_stabilized);
    assert_eq!(lora.base, BaseChoice::Int8);
    assert!(migrated.carried.iter().any(|one| (one.key.as_str(), one.to.as_str()) == ("load_in_8bit", "method.bits")));
    for key in [
        "lora_modules_to_save",
        "lora_target_modules",
        "neftune_noise_alpha",
        "datasets[1].type.format",
        "datasets[2].shards",
    ] {
        assert_eq!(note(&migrated, key).what, What::NoCounterpart, "{key}");
    }
    assert_eq!(note(&migrated, "chat_template").what, What::CarriedDifferently);
    assert_eq!(note(&migrated, "deepspeed").what, What::NotNeeded);
    assert_eq!(migrated.notes[0].what, What::NoCounterpart, "what may change a result comes first");
}

#[test]
fn full_training_names_what_it_cannot_carry() {
    let (migrated, recipe) = migrated("axolotl-full-zero3.yml");
    assert!(recipe.method.lora().is_none());
    assert_eq!(recipe.model.source.0, ["hf:example/Qwen-4B@abc123"]);
    assert_eq!(
        (recipe.train.tokens_per_step, recipe.model.precision),
        (TokenCount::Tokens(8 * 2048), PrecisionChoice::Bf16)
    );
    assert_eq!((recipe.optimizer.kind, recipe.optimizer.betas), (OptimizerKind::Lion, [0.9, 0.999]));
    assert_eq!(recipe.schedule.warmup, WarmupLength::Share(0.03), "Axolotl's default");
    for key in ["lr_scheduler", "train_on_inputs", "plugins", "my_own_switch"] {
        assert_eq!(note(&migrated, key).what, What::NoCounterpart, "{key}");
    }
    for key in ["optimizer", "fp16", "datasets[0].type"] {
        assert_eq!(note(&migrated, key).what, What::CarriedDifferently, "{key}");
    }
    assert_eq!(note(&migrated, "my_own_switch").line, 21);
    assert_eq!(note(&migrated, "lora_r").what, What::NotNeeded);
}

#[test]
fn pretraining_reads_text_without_a_template() {
    let (axolotl, recipe) = migrated("axolotl-pretraining.yml");
    let source = &recipe.data.sources[0];
    assert_eq!((source.format, source.path.to_str()), (Some(RowFormat::Text), Some("data/web-corpus-en.jsonl")));
    assert_eq!(source.columns[&Field::Text], "content");
    assert_eq!((recipe.optimizer.kind, recipe.train.steps), (OptimizerKind::Adafactor, Some(100)));
    assert_eq!(note(&axolotl, "adam_beta1").what, What::NotNeeded);
    let (factory, recipe) = migrated("llama-factory-pretraining.yaml");
    assert_eq!(recipe.data.sources[0].format, Some(RowFormat::Text));
    assert!(recipe.data.packing, "LLaMA-Factory packs in pre-training");
    assert_eq!(note(&factory, "fp16").what, What::CarriedDifferently);
    assert_eq!(recipe.schedule.kind, ScheduleChoice::Linear, "transformers' default");
}

#[test]
fn anchors_merge_and_two_data_sets_of_one_name_get_two_files() {
    let (migrated, recipe) = migrated("axolotl-anchors.yml");
    let paths: Vec<_> = recipe.data.sources.iter().map(|source| source.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["rows/a.jsonl", "data/a-set.jsonl", "data/a-set-2.jsonl"]);
    let formats: Vec<_> = recipe.data.sources.iter().map(|source| source.format).collect();
    assert_eq!(formats, [Some(RowFormat::Messages), Some(RowFormat::Conversations), None]);
    assert_eq!(recipe.data.chat_template, TemplateChoice::Chatml);
    assert_eq!(recipe.schedule.warmup, WarmupLength::Steps(0), "the schedule constant has no warmup");
    assert_eq!(note(&migrated, "val_set_size").what, What::NoCounterpart);
    assert!(recipe.eval.is_none());
}

#[test]
fn json_is_yaml() {
    let (migrated, recipe) = migrated("axolotl.json");
    assert_eq!(migrated.kind, Kind::Axolotl);
    let named = vec!["q_proj".to_string(), "v_proj".to_string()];
    assert_eq!(recipe.method.lora().unwrap().targets, TargetNames::Named(named), "PEFT's default");
    assert_eq!(recipe.data.sequence_length, TokenCount::Tokens(512), "Axolotl's default");
    assert!(migrated.toml.contains("# Axolotl's default; the file does not say it\npacking = false"));
}

#[test]
fn a_llama_factory_file_lands_in_the_right_keys() {
    let (migrated, recipe) = migrated("llama-factory-lora-sft.yaml");
    assert_eq!(migrated.kind, Kind::LlamaFactory);
    let lora = recipe.method.lora().unwrap();
    assert_eq!((lora.base, lora.rank, lora.alpha), (BaseChoice::Dense, 8, 16.0));
    assert_eq!(recipe.train.tokens_per_step, TokenCount::Tokens(8 * 2048));
    let paths: Vec<_> = recipe.data.sources.iter().map(|source| source.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["data/identity.jsonl", "data/alpaca_en_demo.jsonl"]);
    assert!(recipe.data.sources.iter().all(|source| source.max_rows == Some(1000)));
    assert_eq!(recipe.schedule.warmup, WarmupLength::Share(0.1));
    assert!(!recipe.data.packing && recipe.data.too_long == TooLong::Truncate);
    let eval = recipe.eval.unwrap();
    assert_eq!((eval.share, eval.every_steps), (Some(0.1), Some(500)));
    assert_eq!(note(&migrated, "dataset").what, What::CarriedDifferently);
    assert_eq!(note(&migrated, "template").what, What::CarriedDifferently);
    assert!(migrated.notes.iter().all(|note| note.what != What::NoCounterpart), "{:#?}", migrated.notes);
}

#[test]
fn llama_factory_defaults_are_written_out() {
    let (migrated, recipe) = migrated("llama-factory-qlora.yaml");
    assert_eq!(recipe.method.lora().unwrap().base, BaseChoice::Nf4);
    assert_eq!(recipe.train.tokens_per_step, TokenCount::Tokens(8 * 2048), "8 rows is transformers' default");
    assert_eq!((recipe.optimizer.kind, recipe.optimizer.learning_rate), (OptimizerKind::Adamw8bit, 5e-5));
    assert_eq!(recipe.train.epochs, Some(3.0));
    assert_eq!((recipe.data.train_on, recipe.data.chat_template), (TrainOn::Last, TemplateChoice::Chatml));
    assert_eq!(recipe.eval.unwrap().source.unwrap().path.to_str(), Some("data/my_eval.jsonl"));
    assert_eq!(note(&migrated, "loraplus_lr_ratio").what, What::NoCounterpart);
    assert!(note(&migrated, "dataset").why.contains("rows/dataset_info.json"));
    let (migrated, recipe) = migrated_full();
    assert_eq!(recipe.model.source.0, ["/models/Qwen-4B"]);
    for key in ["use_galore", "train_on_prompt", "unheard_of", "lr_scheduler_type"] {
        assert_eq!(note(&migrated, key).what, What::NoCounterpart, "{key}");
    }
    assert_eq!(note(&migrated, "unheard_of").value, "{a: 1, b: [x, y]}");
    assert_eq!(note(&migrated, "use_badam").what, What::NotNeeded);
    assert_eq!(note(&migrated, "packing").what, What::CarriedDifferently);
}

fn migrated_full() -> (Migrated, Recipe) {
    migrated("llama-factory-full-zero3.yaml")
}

#[test]
fn a_value_cannot_write_into_the_recipe_beside_its_key() {
    let yaml = "base_model: \"a/b\\\"\\nname = \\\"x\\\"\"\nlearning_rate: 1\nchat_template: \"x\\n[train]\\nsteps = 1\"\ndatasets: [{path: \"r\\n[offload]\\n.jsonl\"}]\n";
    let migrated = migrate(yaml, "x\n[y].yml").unwrap();
    let recipe = crate::parse(&migrated.toml, "recipe", &[]).unwrap();
    assert_eq!(recipe.model.source.0, ["a/b\"\nname = \"x\""]);
    assert_eq!((recipe.train.steps, recipe.offload), (None, OffloadSection::default()));
}

#[test]
fn a_key_spelt_like_a_dotted_name_is_listed_on_one_line() {
    let rows = "datasets:\n  - path: rows.jsonl\n    type: chat_template\n";
    let yaml = format!("base_model: a/b\nlearning_rate: 1\n{rows}\"datasets[0].path\": x\n\"a\\nb\": y\n");
    let migrated = migrate(&yaml, "old.yml").unwrap();
    assert_eq!(note(&migrated, "datasets[0].path").line, 6);
    assert_eq!(note(&migrated, "a b").line, 7);
}

#[test]
fn the_document_names_every_key_of_the_tables() {
    let document = include_str!("../../../docs/migrate.md");
    let in_document: Vec<&str> = document.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
    let listed =
        [&common_tables::COMMON[..], &axolotl_tables::FILE, &axolotl_tables::DATASET, &llama_factory_tables::FILE];
    let plain = common::PLAIN.iter().chain(&axolotl::LORA).chain(&llama_factory::LORA).map(|plain| plain.from);
    let listed = listed.into_iter().flatten().flat_map(|listed| listed.keys.iter().copied());
    let handled =
        axolotl_tables::HANDLED.iter().chain(&llama_factory_tables::HANDLED).chain(&super::optimizer::KEYS).copied();
    let columns = axolotl_data::COLUMNS.iter().map(|(key, _)| *key);
    for key in plain.chain(handled).chain(columns).chain(listed) {
        assert!(in_document.contains(&key), "docs/migrate.md does not name `{key}`");
    }
}
