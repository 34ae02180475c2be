//! Every format and compression gives the same rows; memory stays bounded.
#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use planner::plan::{DataSource, FileFormat};
use tempfile::TempDir;

use super::*;
use crate::content::Content;
use crate::gates::Gates;
use crate::shapes::{Shape, content};

/// Rows with all that a format could stumble over.
const ROWS: &str = concat!(
    "{\"question\": \"What is 7 * 6?\", \"answer\": \"7 * 6 = 42.\\n#### 42\"}\n",
    "{\"question\": \"Say \\\"hello, world\\\"\", \"answer\": \"\\\"hello,\\tworld\\\" \\\\ fine\"}\n",
    "{\"question\": \"Größe in 日本語 😀?\", \"answer\": \" kept as it is \\r\\n\"}\n",
);

/// A conversation whose messages have different keys.
const MESSAGES: &str = concat!(
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Weather in Oslo?\"},{\"role\":\"assistant\",\"content\":null,",
    "\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":\"{\\\"city\\\":\\\"Oslo\\\"}\"}}]},",
    "{\"role\":\"tool\",\"content\":\"rain\",\"tool_call_id\":\"1\"},{\"role\":\"assistant\",\"content\":\"It rains.\"}]}\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello\"}]}\n",
);

pub(super) fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// JSON lines as an Arrow table.
pub(super) fn table(lines: &str) -> RecordBatch {
    let (schema, _) = arrow_json::reader::infer_json_schema(Cursor::new(lines), None).unwrap();
    let mut reader = arrow_json::ReaderBuilder::new(Arc::new(schema)).build(Cursor::new(lines)).unwrap();
    reader.next().unwrap().unwrap()
}

pub(super) fn parquet(table: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes
}

pub(super) fn arrow_file(table: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(table).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

pub(super) fn arrow_stream(table: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(table).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// All records of all files that `source` names, read in portions of two.
pub(super) fn records(source: &DataSource) -> Result<Vec<Record>, FileError> {
    let mut all = Vec::new();
    for (index, file) in list(source)?.iter().enumerate() {
        let mut reader = Reader::open(file, index as u32)?;
        loop {
            let portion = reader.take(2, 1 << 20)?;
            assert!(portion.len() <= 2);
            if portion.is_empty() {
                break;
            }
            all.extend(portion);
        }
    }
    Ok(all)
}

fn contents(path: &Path) -> Vec<Content> {
    let source = DataSource::of(path);
    let records = records(&source).unwrap();
    let shape = Shape::detect(&records[0].raw, &source).unwrap();
    let mut findings = Gates::default();
    records.into_iter().map(|record| content(record.raw, &shape, Gates::default(), &mut findings).unwrap()).collect()
}

fn as_csv(delimiter: u8) -> Vec<u8> {
    let mut writer = ::csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    writer.write_record(["question", "answer"]).unwrap();
    for line in ROWS.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        writer.write_record([row["question"].as_str().unwrap(), row["answer"].as_str().unwrap()]).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn every_format_and_compression_gives_the_same_contents() {
    let folder = TempDir::new().unwrap();
    let listed = format!("[\n{}\n]", ROWS.trim_end().replace('\n', ",\n"));
    let table = table(ROWS);
    let plain: Vec<(&str, Vec<u8>)> = vec![
        ("a.jsonl", ROWS.into()),
        ("lines.json", ROWS.into()),
        ("a.json", listed.clone().into()),
        ("keyed.json", format!("{{\"data\": {listed}}}\n").into()),
        ("pretty.json", ROWS.replace("\", \"answer", "\",\n \"answer").into()),
        ("marked.jsonl", format!("\u{feff}{ROWS}").into()),
        ("marked.csv", [b"\xef\xbb\xbf".as_slice(), &as_csv(b',')].concat()),
        ("a.csv", as_csv(b',')),
        ("a.tsv", as_csv(b'\t')),
        ("a.parquet", parquet(&table)),
        ("a.arrow", arrow_file(&table)),
        ("stream.arrow", arrow_stream(&table)),
    ];
    let expected = contents(&write(&folder, "expected.jsonl", ROWS));
    assert_eq!(expected.len(), 3);
    for (name, bytes) in plain {
        assert_eq!(contents(&write(&folder, name, &bytes)), expected, "{name}");
        if !name.ends_with("parquet") && !name.ends_with("arrow") {
            assert_eq!(contents(&write(&folder, &format!("{name}.gz"), gzip(&bytes))), expected, "{name}.gz");
            assert_eq!(contents(&write(&folder, &format!("{name}.zst"), zstd(&bytes))), expected, "{name}.zst");
            // Seen from the first bytes, whatever the name says.
            assert_eq!(contents(&write(&folder, &format!("x-{name}"), gzip(&bytes))), expected, "x-{name}");
        }
    }
}

#[test]
fn nested_messages_of_columnar_files_read_like_the_json_they_were_made_of() {
    let folder = TempDir::new().unwrap();
    let table = table(MESSAGES);
    let expected = contents(&write(&folder, "a.jsonl", MESSAGES));
    assert_eq!(contents(&write(&folder, "a.parquet", parquet(&table))), expected);
    assert_eq!(contents(&write(&folder, "a.arrow", arrow_file(&table))), expected);
    let Content::Conversation(first) = &expected[0] else { panic!() };
    assert_eq!(first.messages[1].value["tool_calls"][0]["function"]["arguments"]["city"], "Oslo");
}

#[test]
fn dictionary_large_and_view_strings_of_arrow_are_text() {
    use arrow_array::{DictionaryArray, LargeStringArray, StringViewArray, types::Int32Type};
    let questions: DictionaryArray<Int32Type> = vec!["same?", "same?"].into_iter().collect();
    let table = RecordBatch::try_from_iter([
        ("question", Arc::new(questions) as _),
        ("answer", Arc::new(LargeStringArray::from(vec!["one", "two"])) as _),
        ("system", Arc::new(StringViewArray::from(vec![Some("be brief and to the point"), None])) as _),
    ]);
    let folder = TempDir::new().unwrap();
    for (name, bytes) in [("a.parquet", parquet(table.as_ref().unwrap())), ("a.arrow", arrow_file(&table.unwrap()))] {
        let contents = contents(&write(&folder, name, bytes));
        let texts: Vec<String> = contents.iter().map(Content::text).collect();
        assert_eq!(texts, ["same?\none", "same?\ntwo"], "{name}");
        let Content::Conversation(first) = &contents[0] else { panic!() };
        assert_eq!(first.messages[0].role, "system");
    }
}

#[test]
fn members_of_one_gzip_file_and_frames_of_one_zstd_file_are_read_on() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl.gz", [gzip(b"{\"text\": \"a\"}\n"), gzip(b"{\"text\": \"b\"}\n")].concat());
    assert_eq!(contents(&path).len(), 2);
    let path = write(&folder, "a.jsonl.zst", [zstd(b"{\"text\": \"a\"}\n"), zstd(b"{\"text\": \"b\"}\n")].concat());
    assert_eq!(contents(&path).len(), 2);
}

#[test]
fn places_are_lines_of_line_formats_and_row_numbers_elsewhere() {
    let folder = TempDir::new().unwrap();
    let lines = |name: &str, text: &[u8]| -> Vec<u64> {
        let records = records(&DataSource::of(write(&folder, name, text))).unwrap();
        records.iter().map(|record| record.place.line).collect()
    };
    assert_eq!(lines("a.jsonl", b"\n{\"text\":\"a\"}\n\n \n{\"text\":\"b\"}"), [2, 5]);
    assert_eq!(lines("a.csv", b"text\n\"two\nlines\"\n\nb\r\nc"), [2, 5, 6]);
    assert_eq!(lines("a.json", b"[{\"text\":\n\"a\"},\n\n{\"text\":\"b\"}]"), [1, 2]);
    assert_eq!(lines("a.parquet", &parquet(&table(ROWS))), [1, 2, 3]);
    assert_eq!(lines("a.txt", b"a\nb\n"), [1]);
}

#[test]
fn csv_is_read_as_the_csv_crate_reads_it() {
    let folder = TempDir::new().unwrap();
    let sound = "a,b\n1,2\r\n\"x,\"\"y\"\"\n z\",\n,\"\"\n5\" screen, q\"q\n\n\"\",\"last\"";
    let mut expected = Vec::new();
    for record in ::csv::Reader::from_reader(sound.as_bytes()).records() {
        expected.push(record.unwrap().iter().map(str::to_owned).collect::<Vec<_>>());
    }
    let mut found = Vec::new();
    for record in records(&DataSource::of(write(&folder, "a.csv", sound))).unwrap() {
        let Raw::Fields { text, ends, .. } = record.raw else { panic!() };
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let fields = begins.zip(&ends).map(|(begin, end)| String::from_utf8(text[begin..*end].to_vec()).unwrap());
        found.push(fields.collect::<Vec<_>>());
    }
    assert_eq!(found, expected);
    assert_eq!(found.len(), 5);
}

#[test]
fn a_folder_gives_its_data_files_in_order_of_path_without_hidden_ones() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir_all(folder.path().join("b/.cache")).unwrap();
    for name in ["c.jsonl", "b/z.csv.gz", "a.parquet", ".hidden.jsonl", "b/.cache/x.jsonl", "LICENSE"] {
        write(&folder, name, "x");
    }
    let names = |source: &DataSource| -> Vec<String> {
        let strip = |file: InputFile| file.path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        list(source).unwrap().into_iter().map(strip).collect()
    };
    let mut source = DataSource::of(folder.path());
    assert_eq!(names(&source), ["a.parquet", "b/z.csv.gz", "c.jsonl"]);
    source.file_format = Some(FileFormat::Json);
    assert_eq!(names(&source), ["c.jsonl"]);
    assert_eq!(names(&DataSource::of(folder.path().join("**/*.csv*"))), ["b/z.csv.gz"]);
    let literal = write(&folder, "[a]*.jsonl", "x");
    assert_eq!(list(&DataSource::of(&literal)).unwrap()[0].path, literal);
}

/// 200 MB as 40,000 rows of 5 KB: what a portion holds is bounded by its own limits, not by the file.
#[test]
fn a_large_json_list_inside_gzip_is_read_in_small_portions() {
    let folder = TempDir::new().unwrap();
    let row = format!("{{\"text\":\"{}\"}}", "a".repeat(5_000));
    let thousand = vec![row.as_str(); 1_000].join(",");
    let path = folder.path().join("large.json.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for (index, begin) in std::iter::once("[").chain(std::iter::repeat_n(",", 39)).enumerate() {
        packer.write_all(begin.as_bytes()).unwrap();
        packer.write_all(thousand.as_bytes()).unwrap();
        assert!(index < 40);
    }
    packer.write_all(b"]").unwrap();
    packer.finish().unwrap();
    let mut reader = Reader::open(&list(&DataSource::of(&path)).unwrap()[0], 0).unwrap();
    let (mut rows, mut largest, mut total) = (0, 0, 0);
    loop {
        let portion = reader.take(4_096, 1 << 20).unwrap();
        let bytes: usize = portion.iter().map(|record| record.raw.bytes()).sum();
        if portion.is_empty() {
            break;
        }
        (rows, largest, total) = (rows + portion.len(), largest.max(bytes), total + bytes);
    }
    assert_eq!((rows, total), (40_000, 40_000 * row.len()));
    assert!(largest < (1 << 20) + 10_000, "a portion held {largest} bytes");
}
