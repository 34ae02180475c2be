//! Looks at the lengths that compressed buffers of an Arrow IPC file claim, before anything is unpacked.
//!
//! In:    an Arrow IPC file or stream.
//! Out:   nothing, or the claim that is too large.
//! Never: reads a body; judges what the reader itself will refuse.

use std::io::{Read, Seek, SeekFrom};

use arrow_ipc::{MessageHeader, RecordBatch, root_as_footer, root_as_message};

/// Most bytes that one buffer may claim. `arrow-ipc` 60 asks for the claimed length at once (`compression.rs`,
/// `decompress_lz4`), and a process that is refused memory is ended, so a flipped bit there must be found before.
const BUFFER_BYTES_MAX: i64 = 1 << 30;
/// Marks the begin of a message since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Refuses a stream whose messages claim a buffer beyond the limit. What else is wrong, its reader finds at the same place.
pub(super) fn check_stream(file: &mut (impl Read + Seek)) -> Result<(), String> {
    let mut begin = 0;
    while let Some((metadata, body)) = message(file, begin) {
        let Some(length) = check_message(file, &metadata, body)? else { break };
        let Some(next) = body.checked_add(length) else { break };
        begin = next;
    }
    Ok(())
}

/// Refuses a file whose footer leads to such messages, or to none: the reader goes by the footer's lengths, not by those
/// that stand before each message.
pub(super) fn check_file(file: &mut (impl Read + Seek)) -> Result<(), String> {
    let Some(footer) = footer(file) else { return Ok(()) };
    let Ok(footer) = root_as_footer(&footer) else { return Ok(()) };
    for block in footer.dictionaries().iter().chain(&footer.recordBatches()).flat_map(|blocks| blocks.iter()) {
        let damaged = || format!("the footer leads to byte {}, where no message stands: damaged", block.offset());
        let begin = u64::try_from(block.offset()).map_err(|_| damaged())?;
        let length = u64::try_from(block.metaDataLength()).map_err(|_| damaged())?;
        let (metadata, body) = block_metadata(file, begin, length).ok_or_else(damaged)?;
        check_message(file, &metadata, body)?.ok_or_else(damaged)?;
    }
    Ok(())
}

/// The metadata of a block without the words before it, and where its body begins.
fn block_metadata(file: &mut (impl Read + Seek), begin: u64, length: u64) -> Option<(Vec<u8>, u64)> {
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut metadata = Vec::new();
    let read = file.take(length).read_to_end(&mut metadata).ok()?;
    let words = if metadata.starts_with(&CONTINUATION) { 8 } else { 4 };
    (read as u64 == length && read >= words).then(|| (metadata.split_off(words), begin.saturating_add(length)))
}

/// The footer's bytes: they end 10 bytes before the file does, with their length and `ARROW1` behind them.
fn footer(file: &mut (impl Read + Seek)) -> Option<Vec<u8>> {
    let end = file.seek(SeekFrom::End(-10)).ok()?;
    let mut length = [0; 4];
    file.read_exact(&mut length).ok()?;
    let length = u64::try_from(i32::from_le_bytes(length)).ok().filter(|length| *length <= end)?;
    file.seek(SeekFrom::Start(end - length)).ok()?;
    let mut footer = Vec::new();
    file.take(length).read_to_end(&mut footer).ok()?;
    Some(footer)
}

/// Checks a message; gives its body's length, `None` for what is no message.
fn check_message(file: &mut (impl Read + Seek), metadata: &[u8], body: u64) -> Result<Option<u64>, String> {
    let Ok(message) = root_as_message(metadata) else { return Ok(None) };
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => None,
    };
    if let Some(batch) = batch {
        claims(file, body, &batch)?;
    }
    Ok(u64::try_from(message.bodyLength()).ok())
}

/// A message's metadata and where its body begins; `None` at the end, or where the reader will find a fault.
fn message(file: &mut (impl Read + Seek), at: u64) -> Option<(Vec<u8>, u64)> {
    file.seek(SeekFrom::Start(at)).ok()?;
    let (mut word, mut begin) = ([0; 4], at + 4);
    file.read_exact(&mut word).ok()?;
    if word == CONTINUATION {
        file.read_exact(&mut word).ok()?;
        begin += 4;
    }
    let length = u64::try_from(i32::from_le_bytes(word)).ok().filter(|length| *length > 0)?;
    let mut metadata = Vec::new();
    let read = file.take(length).read_to_end(&mut metadata).ok()?;
    (read as u64 == length).then(|| (metadata, begin + length))
}

fn claims(file: &mut (impl Read + Seek), body: u64, batch: &RecordBatch) -> Result<(), String> {
    let (Some(_), Some(buffers)) = (batch.compression(), batch.buffers()) else { return Ok(()) };
    for buffer in buffers {
        let at = u64::try_from(buffer.offset()).ok().and_then(|offset| body.checked_add(offset));
        let mut claim = [0; 8];
        let found = at.filter(|_| buffer.length() >= 8).and_then(|at| file.seek(SeekFrom::Start(at)).ok());
        if found.is_some() && file.read_exact(&mut claim).is_ok() && i64::from_le_bytes(claim) > BUFFER_BYTES_MAX {
            let claimed = i64::from_le_bytes(claim);
            return Err(format!("a compressed buffer claims {claimed} bytes; the most is {BUFFER_BYTES_MAX}"));
        }
    }
    Ok(())
}
