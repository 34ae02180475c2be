//! Every way a file can lie is an error that names it.
#![allow(clippy::unwrap_used)]

use planner::plan::{DataSource, FileFormat};
use tempfile::TempDir;

use super::tests::{arrow_file, arrow_stream, gzip, parquet, records, table, write, zstd};
use super::text::RECORD_BYTES_MAX;
use super::*;

const ROWS: &str = "{\"text\": \"a first row\"}\n{\"text\": \"a second row\"}\n";

/// What reading `bytes` under `name` says, without the folder's path.
fn said(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let folder = TempDir::new().unwrap();
    let error = records(&DataSource::of(write(&folder, name, bytes))).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[track_caller]
fn refused(name: &str, bytes: impl AsRef<[u8]>, words: &str) {
    let said = said(name, bytes);
    assert!(said.starts_with(name) && said.contains(words), "{said:?} should contain {words:?}");
    assert!(!said.contains('\n'), "{said:?} is more than one line");
}

#[test]
fn text_that_is_no_text_of_its_format_is_refused() {
    refused("a.jsonl", "", "holds no row");
    refused("a.jsonl", "\n \n", "holds no row");
    refused("a.txt", " \n", "holds no row");
    refused("a.csv", "text\n", "holds no row");
    refused("a.json", "[]", "holds no row");
    refused("a.json", "", "holds no row");
    refused("a.jsonl", b"\xff\xfe{\0}\0", "UTF-16");
    refused("a.csv", b"t\0e\0x\0t\0", "UTF-16");
    refused("a.jsonl", "[{\"text\": \"a\"}]", "file_format = \"json\"");
    refused("a.json", "text,more\n", "neither [ nor {");
    refused("a.csv", parquet(&table(ROWS)), "file_format = \"parquet\"");
    refused("a.jsonl", arrow_file(&table(ROWS)), "file_format = \"arrow\"");
    refused("a.txt", b"%PDF-1.7\n", "PDF");
    refused("a.jsonl.gz", gzip(&gzip(ROWS.as_bytes())), "gzip inside a compressed file");
}

#[test]
fn json_lists_with_a_broken_frame_are_refused_with_line_and_element() {
    refused("a.json", "[{\"text\": \"a\"},\n{\"text\": \"b\"}", "a.json:2: element 3: the file ends before");
    refused("a.json", "[{\"text\": \"a\"},\n{\"text\": \"b", "a.json:2: element 2: the file ends inside");
    refused("a.json", "[{\"text\": \"a\"}\n{\"text\": \"b\"}]", "a.json:2: element 2: '{' where a comma");
    refused("a.json", "[{\"text\": \"a\"},]", "a comma without an element");
    refused("a.json", "[,{\"text\": \"a\"}]", "a comma without an element");
    refused("a.json", "[{\"text\": [1}]", "'}' where ']' should stand");
    refused("a.json", "[{\"text\": \"a\"}] more", "'m' after the end of the list");
    refused("a.json", "{\"data\": [{\"text\": \"a\"}], \"version\": 1}", "only one list is read");
    refused("a.json", format!("[{}", "[".repeat(100_000)), "nested deeper than 127");
    refused("a.json", "{\"text\": \"a\",\n\"b\": 1} 7", "'7' where an object should begin");
}

#[test]
fn csv_that_csv_readers_let_pass_is_refused() {
    refused("a.csv", "a,b\n1,2\n3\n", "a.csv:3: 1 fields, but the header names 2 columns");
    refused("a.csv", "a,b\n1,2,3\n", "a.csv:2: 3 fields");
    refused("a.csv", "a,b\n1,\"open\n2,3\n", "a.csv:2: the quote opened in this line is not closed");
    refused("a.csv", "a,b\n\"x\" y,1\n", "a.csv:2: field 1: text after the closing quote");
    refused("a.csv", "a,a\n1,2\n", "two columns are called \"a\"");
    refused("a.csv", b"a,\xff\n1,2\n", "column 2 is not valid UTF-8");
}

#[test]
fn compressed_files_that_are_cut_off_or_damaged_are_refused_never_ended_early() {
    let rows: String =
        (0..5_000).map(|number| format!("{{\"text\": \"row {number} {}\"}}\n", number * number)).collect();
    // With its checksum, which the zstd program writes and the library does not: without, some damage cannot be seen.
    let mut checked = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    checked.include_checksum(true).unwrap();
    std::io::copy(&mut rows.as_bytes(), &mut checked).unwrap();
    for (name, packed) in [("a.jsonl.gz", gzip(rows.as_bytes())), ("a.jsonl.zst", checked.finish().unwrap())] {
        for cut in [11, packed.len() / 2, packed.len() - 5, packed.len() - 1] {
            refused(name, &packed[..cut], "data cannot be unpacked");
        }
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 16].fill(0xaa);
        refused(name, damaged, "data cannot be unpacked");
        refused(name, [packed.as_slice(), b"garbage"].concat(), "data cannot be unpacked");
    }
}

#[test]
fn columnar_files_that_are_cut_off_foreign_or_packed_are_refused_at_every_byte() {
    let table = table(ROWS);
    for (name, bytes) in [("a.parquet", parquet(&table)), ("a.arrow", arrow_file(&table))] {
        for cut in (0..bytes.len()).step_by(7) {
            said(name, &bytes[..cut]);
        }
        refused(name, gzip(&bytes), "inside gzip; unpack it");
        refused(name, zstd(&bytes), "inside zstd; unpack it");
        refused(name, ROWS, if name == "a.arrow" { "a.arrow: Arrow" } else { "first bytes are none that are known" });
    }
    let stream = arrow_stream(&table);
    refused("a.arrow", &stream[..stream.len() - 40], "Arrow, after row 0");
    refused("a.parquet", &parquet(&table)[..200], "cut off");
    refused("a.parquet", arrow_file(&table), "file_format = \"arrow\"");
    refused("a.arrow", parquet(&table), "file_format = \"parquet\"");
    refused("a.arrow", b"FEA1 and so on", "Feather");
}

#[test]
fn a_parquet_or_arrow_file_with_any_byte_changed_never_panics() {
    let folder = TempDir::new().unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let table = table(ROWS);
    for (name, sound) in
        [("a.parquet", parquet(&table)), ("a.arrow", arrow_file(&table)), ("b.arrow", arrow_stream(&table))]
    {
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0xff;
            let _ = records(&DataSource::of(write(&folder, name, &bytes)));
        }
    }
    std::panic::set_hook(hook);
}

#[test]
fn a_compressed_arrow_buffer_that_claims_to_be_huge_is_refused_before_memory_is_asked_for() {
    let table = table(&ROWS.repeat(500));
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let options = options.try_with_compression(Some(arrow_ipc::CompressionType::LZ4_FRAME)).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &table.schema(), options).unwrap();
    writer.write(&table).unwrap();
    writer.finish().unwrap();
    let mut bytes = writer.into_inner().unwrap();
    let mark = bytes.windows(4).position(|window| window == b"\x04\x22\x4d\x18").unwrap();
    bytes[mark - 2] = 0x7f;
    refused("a.arrow", bytes, "a compressed buffer claims");
}

#[test]
fn a_row_beyond_the_limit_is_refused_with_its_line_also_out_of_a_bomb() {
    let long = vec![b' '; RECORD_BYTES_MAX + 10];
    refused(
        "a.jsonl.gz",
        gzip(&[b"{\"text\": \"a\"}\n", long.as_slice()].concat()),
        "a.jsonl.gz:2: the row that begins",
    );
    refused("a.csv.zst", zstd(&[b"a\n\"", long.as_slice()].concat()), "a.csv.zst:2: the row that begins");
    refused("a.json.zst", zstd(&[b"[{\"", long.as_slice()].concat()), "a.json.zst:1: the row that begins");
    refused("a.txt.zst", zstd(&[b"x", long.as_slice()].concat()), "a.txt.zst:1: the row that begins");
}

#[test]
fn what_is_not_there_not_allowed_or_no_file_is_said() {
    let folder = TempDir::new().unwrap();
    let error = |path: &str| list(&DataSource::of(folder.path().join(path))).unwrap_err().to_string();
    assert!(error("none.jsonl").contains("No such file"));
    assert!(error("*.jsonl").contains("no file matches"));
    assert!(error("a[").contains("not a valid glob"));
    assert!(error("").contains("none of the 0 files"));
    write(&folder, "data.bin", "x");
    assert!(error("data.bin").contains("set file_format"));
    assert!(error("").contains("none of the 1 files"));
    write(&folder, "a.jsonl", ROWS);
    write(&folder, "README.md", "words");
    let mixed = error("");
    assert!(mixed.contains("a.jsonl") && mixed.contains("README.md"), "{mixed}");
    let as_folder = InputFile { path: folder.path().to_path_buf(), format: FileFormat::Jsonl, bytes: 0 };
    assert!(matches!(Reader::open(&as_folder, 0), Err(FileError::Read { .. })));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        assert!(error("").contains("leads back"));
    }
}

#[test]
fn a_file_that_grows_or_vanishes_while_it_is_read_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", ROWS);
    let input = list(&DataSource::of(&path)).unwrap().remove(0);
    let mut reader = Reader::open(&input, 0).unwrap();
    assert_eq!(reader.take(2, usize::MAX).unwrap().len(), 2);
    std::fs::write(&path, ROWS.repeat(2)).unwrap();
    while let Ok(portion) = reader.take(2, usize::MAX) {
        assert!(!portion.is_empty(), "the end was reached without a word");
    }
    std::fs::write(&path, ROWS).unwrap();
    let mut reader = Reader::open(&input, 0).unwrap();
    assert_eq!(reader.take(8, usize::MAX).unwrap().len(), 2);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(reader.take(8, usize::MAX), Err(FileError::Read { .. })));
    assert!(matches!(Reader::open(&input, 0), Err(FileError::Read { .. })));
}
