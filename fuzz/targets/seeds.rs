//! Writes small sound files of every format, from which fuzzing starts: `seeds FOLDER`.
//!
//! In:    a folder.
//! Out:   `FOLDER/TARGET/NAME` for each fuzz target.
//! Never: writes anything else; fuzzes: it is built like a target only because everything here is built with coverage, which needs
//!        libFuzzer to link.
#![allow(clippy::unwrap_used)]
#![no_main]

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

const ROWS: [&str; 8] = [
    r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"1"},{"role":"assistant","content":[{"type":"text","text":"a"}],"train":true}],"tools":[]}"#,
    r#"{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}],"system":"s"}"#,
    r#"{"instruction":"i","input":"x","output":"o","history":[["a","b"]]}"#,
    r#"{"question":"q","answer":"a"}"#,
    r#"{"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}]}"#,
    r#"{"text":"a \"quoted\" \u00e9"}"#,
    r#"{"segments":[{"text":"a","train":false},{"text":"b","train":true}]}"#,
    r#"{"prompt":"p","chosen":"good","rejected":"bad"}"#,
];

const TEMPLATES: [&str; 4] = [
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{% macro turn(m, last=false) %}{% generation %}{{ m['content'].strip() }}{% endgeneration %}{% endmacro %}{% for m in messages[::-1] %}{{ turn(m) }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + loop.index0 %}{% else %}{{ raise_exception('none') }}{% endfor %}{{ '%d' % ns.n }}",
    "{{ messages | map(attribute='content') | join(', ') | tojson(indent=2) }}{{ strftime_now('%d %b %Y') }}{{ [1, 2.5, none, {'a': true}] }}",
];

libfuzzer_sys::fuzz_target!(init: write_all(), |_bytes: &[u8]| {});

/// Writes all seeds and ends the process before libFuzzer begins.
fn write_all() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: seeds FOLDER"));
    for (index, row) in ROWS.iter().enumerate() {
        let put = |target: &str, bytes: &[u8]| write(&folder, target, index, bytes);
        let lines = format!("{row}\n{row}\n");
        put("shapes", row.as_bytes());
        put("jsonl", lines.as_bytes());
        put("json", format!("[{row}, {row}]").as_bytes());
        put("text", row.as_bytes());
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(lines.as_bytes()).unwrap();
        put("compressed", &packer.finish().unwrap());
        write(&folder, "compressed", index + 100, &zstd::encode_all(lines.as_bytes(), 1).unwrap());
        // Content that is text here and a list there has no column type.
        let Ok((schema, _)) = arrow_json::reader::infer_json_schema(Cursor::new(&lines), None) else { continue };
        let Ok(reader) = arrow_json::ReaderBuilder::new(Arc::new(schema)).build(Cursor::new(&lines)) else { continue };
        for table in reader.flatten() {
            columnar(&folder, index, &table);
        }
    }
    write(&folder, "json", 100, format!("{{\"data\": [{}]}}", ROWS[3]).as_bytes());
    write(&folder, "json", 101, ROWS[3].replace(',', ",\n").as_bytes());
    for (index, template) in TEMPLATES.iter().enumerate() {
        write(&folder, "template", index, format!("{template}\0question\0answer\0again").as_bytes());
    }
    write(&folder, "csv", 0, b"question,answer\n\"a, \"\"b\"\"\n\",c\r\n1,2\n");
    write(&folder, "tsv", 0, b"question\tanswer\n\"a\t\"\"b\"\"\n\"\tc\r\n1\t2\n");
    std::process::exit(0);
}

fn columnar(folder: &Path, index: usize, table: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    write(folder, "parquet", index, &bytes);
    let packed = IpcWriteOptions::default().try_with_compression(Some(arrow_ipc::CompressionType::LZ4_FRAME)).unwrap();
    for (number, options) in [IpcWriteOptions::default(), packed].into_iter().enumerate() {
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &table.schema(), options.clone()).unwrap();
        writer.write(table).unwrap();
        writer.finish().unwrap();
        write(folder, "arrow", index + 100 * number, &writer.into_inner().unwrap());
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &table.schema(), options).unwrap();
        writer.write(table).unwrap();
        writer.finish().unwrap();
        write(folder, "arrow", index + 100 * number + 50, &writer.into_inner().unwrap());
    }
}

fn write(folder: &Path, target: &str, index: usize, bytes: &[u8]) {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("seed-{index}")), bytes).unwrap();
}
