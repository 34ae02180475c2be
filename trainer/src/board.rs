//! A TensorBoard event file: scalars over steps.
//!
//! In:    tags, values and steps.
//! Out:   `events.out.tfevents.*` in the run directory, records as TensorFlow frames them.
//! Never: ends a run: the crate that was used here before panics when a disk is full.
//!
//! A record is its length, that length's masked CRC-32C, its bytes, and their masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The
//! bytes are an `Event` message (tensorflow/core/util/event.proto): 1 wall time, 2 step, 3 version, 5 summary; a summary holds values, each
//! 1 tag, 2 value.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::patient::PatientFile;

/// The file of one process.
#[derive(Debug)]
pub(crate) struct Board(PatientFile);

impl Board {
    /// A new file in `run`.
    pub(crate) fn create(run: &Path) -> std::io::Result<Board> {
        let path = run.join(format!("events.out.tfevents.{:010.0}.tune.{}", now(), std::process::id()));
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let written = file.metadata()?.len();
        let mut board = Board(PatientFile::new(path, file, written));
        let mut event = wall_time();
        text(&mut event, 3, b"brain.Event:2");
        board.record(&event)?;
        Ok(board)
    }

    /// Values of one step.
    pub(crate) fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut one = Vec::new();
            text(&mut one, 1, tag.as_bytes());
            one.push(2 << 3 | 5);
            one.extend_from_slice(&(*value as f32).to_le_bytes());
            text(&mut summary, 1, &one);
        }
        let mut event = wall_time();
        event.push(2 << 3);
        number(&mut event, step);
        text(&mut event, 5, &summary);
        self.record(&event)
    }

    /// What people should know, once.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.0.take_note()
    }

    /// Everything is on the disk.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        self.0.finish()
    }

    fn record(&mut self, event: &[u8]) -> std::io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let sums = [masked(&length).to_le_bytes(), masked(event).to_le_bytes()];
        self.0.append(&[&length[..], &sums[0], event, &sums[1]].concat())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The beginning of an event: field 1, a double.
fn wall_time() -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&now().to_le_bytes());
    event
}

/// A field of bytes: its number, their length, they.
fn text(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C bit by bit: a few hundred bytes a step.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sum_is_that_of_rfc_3720_and_masked_as_tensorflow_masks_it() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        // The length field of a record of 24 bytes, from a file that TensorBoard's own writer made.
        assert_eq!(masked(&24u64.to_le_bytes()), u32::from_le_bytes([0xa3, 0x7f, 0x4b, 0x22]));
    }

    #[test]
    fn records_follow_one_another_and_hold_tag_value_and_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::create(folder.path()).unwrap();
        board.scalars(300, &[("train/loss", 0.5)]).unwrap();
        board.finish().unwrap();
        let entry = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(entry.file_name().to_string_lossy().starts_with("events.out.tfevents."));
        let bytes = std::fs::read(entry.path()).unwrap();
        let mut records = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            assert_eq!(masked(&bytes[at..at + 8]).to_le_bytes(), bytes[at + 8..at + 12]);
            let event = &bytes[at + 12..at + 12 + length];
            assert_eq!(masked(event).to_le_bytes(), bytes[at + 12 + length..at + 16 + length]);
            records.push(event.to_vec());
            at += 16 + length;
        }
        assert!(records[0].ends_with(b"brain.Event:2"));
        // Step 300 is ac 02; the value 0.5 is 00 00 00 3f.
        let expected =
            [&[0x10, 0xac, 0x02, 0x2a, 19, 0x0a, 17, 0x0a, 10][..], b"train/loss", &[0x15, 0, 0, 0, 0x3f]].concat();
        assert_eq!(records[1][9..], expected);
    }
}
