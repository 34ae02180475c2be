//! `tune data inspect`: rows as the model reads them, trained tokens in colour.
//!
//! In:    a recipe, which rows.
//! Out:   rendered text; token ids on demand; borders of the rows that share a packed row.
//! Never: shows what differs from the tokens that training reads: the text is decoded from them.

use std::fmt::Write;

use anyhow::anyhow;
use datasets::{Batch, Batches, Dataset, Row};
use serde_json::{Value, json};

use super::Rows;
use super::pieces::{Kind, Piece, mask, pieces, text};
use crate::args::InspectArguments;
use crate::failure::{Failure, OrFail};
use crate::paint::{Paint, Painter};

/// Prints rows.
pub fn print(arguments: &InspectArguments) -> Result<(), Failure> {
    let rows = Rows::of(&arguments.recipe)?;
    let painter = Painter::of_stdout();
    if arguments.packed {
        return packed(&rows, arguments, &painter);
    }
    let dataset = part(&rows, arguments)?;
    let numbers = numbers(&rows, dataset, arguments)?;
    if arguments.json {
        let shown: Vec<Value> = numbers.into_iter().map(|number| as_json(&rows, dataset, number)).collect();
        println!("{}", Value::from(shown));
        return Ok(());
    }
    let mut page = legend(&painter);
    for number in numbers {
        let row = dataset.row(number);
        let trained = mask(row.tokens.len(), row.trained);
        page += &painter.paint(Paint::Title, &head(&rows, number, &row));
        page.push('\n');
        page += &body(&pieces(row.tokens, &trained, &rows.tokenizer), arguments, &painter);
    }
    print!("{page}");
    Ok(())
}

/// The rows to train on, or those held out.
fn part<'a>(rows: &'a Rows, arguments: &InspectArguments) -> Result<&'a Dataset, Failure> {
    match (arguments.held_out, &rows.prepared.held_out) {
        (false, _) => Ok(&rows.prepared.training),
        (true, Some(held_out)) => Ok(held_out),
        (true, None) => Err(anyhow!("no rows are held out: the recipe has no [eval]")).or_input(),
    }
}

/// Which rows are shown.
fn numbers(rows: &Rows, dataset: &Dataset, arguments: &InspectArguments) -> Result<Vec<usize>, Failure> {
    let count = dataset.len();
    if let Some(number) = arguments.row {
        return match number {
            1.. if number <= count => Ok(vec![number - 1]),
            _ => Err(anyhow!("--row {number}: there are rows 1 to {count}")).or_input(),
        };
    }
    if let Some(at) = &arguments.at {
        return at_place(rows, dataset, at).or_input();
    }
    if arguments.longest {
        let mut numbers: Vec<usize> = (0..count).collect();
        numbers.sort_by_key(|&number| std::cmp::Reverse(dataset.length(number)));
        numbers.truncate(arguments.rows);
        return Ok(numbers);
    }
    Ok((0..count.min(arguments.rows)).collect())
}

/// Rows of `FILE:LINE`; the end of a path is enough.
fn at_place(rows: &Rows, dataset: &Dataset, at: &str) -> anyhow::Result<Vec<usize>> {
    let parsed = at.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse::<u64>().ok()?)));
    let Some((file, line)) = parsed else { return Err(anyhow!("--at {at}: expected FILE:LINE")) };
    let files = &rows.prepared.report.files;
    let wanted = |number: &usize| {
        let place = dataset.row(*number).place;
        place.line == line && files[place.file as usize].ends_with(file)
    };
    let found: Vec<usize> = (0..dataset.len()).filter(wanted).collect();
    match found.is_empty() {
        true => {
            Err(anyhow!("--at {at}: no row of the prepared data comes from there (left out, removed or held out?)"))
        }
        false => Ok(found),
    }
}

fn head(rows: &Rows, number: usize, row: &Row<'_>) -> String {
    let trained = row.trained_tokens();
    let file = rows.prepared.report.files[row.place.file as usize].display();
    format!("row {} · {file}:{} · {} tokens, {trained} trained", number + 1, row.place.line, row.tokens.len())
}

/// What the colours mean, or the brackets where there are none.
fn legend(painter: &Painter) -> String {
    match painter.is_plain() {
        true => "trained tokens stand in ⟦ ⟧\n\n".to_owned(),
        false => format!(
            "{}  {}  {}\n\n",
            painter.paint(Paint::Trained, "trained"),
            painter.paint(Paint::Dim, "context"),
            painter.paint(Paint::Marker, "<special token>")
        ),
    }
}

fn body(pieces: &[Piece], arguments: &InspectArguments, painter: &Painter) -> String {
    let mut text = painted(pieces, painter);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if arguments.ids {
        let ids: Vec<String> = pieces.iter().map(|piece| ids_text(piece, painter)).collect();
        let _ = writeln!(text, "{}", ids.join(" "));
    }
    text.push('\n');
    text
}

fn ids_text(piece: &Piece, painter: &Painter) -> String {
    let ids = piece.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    match (painter.is_plain(), piece.kind.trained) {
        (true, true) => format!("⟦{ids}⟧"),
        _ => painter.paint(look(piece.kind), &ids),
    }
}

/// Text with trained tokens in colour; without colours, in brackets.
fn painted(pieces: &[Piece], painter: &Painter) -> String {
    let mut text = String::new();
    let mut inside = false;
    for piece in pieces {
        if painter.is_plain() && piece.kind.trained != inside {
            text.push(if inside { '⟧' } else { '⟦' });
            inside = !inside;
        }
        text += &painter.paint(look(piece.kind), &visible(&piece.text));
    }
    if inside {
        text.push('⟧');
    }
    text
}

/// Control characters would move the cursor or hide text: they are shown as their pictures.
fn visible(text: &str) -> String {
    let picture = |letter: char| match letter {
        '\n' | '\t' => letter,
        '\u{7f}' => '␡',
        control if (control as u32) < 32 => char::from_u32(0x2400 + control as u32).unwrap_or(control),
        other => other,
    };
    text.chars().map(picture).collect()
}

fn look(kind: Kind) -> Paint {
    match (kind.trained, kind.marker) {
        (true, true) => Paint::TrainedMarker,
        (true, false) => Paint::Trained,
        (false, true) => Paint::Marker,
        (false, false) => Paint::Dim,
    }
}

fn as_json(rows: &Rows, dataset: &Dataset, number: usize) -> Value {
    let row = dataset.row(number);
    let file = rows.prepared.report.files[row.place.file as usize].display().to_string();
    let text = text(row.tokens, &rows.tokenizer);
    json!({
        "row": number + 1, "file": file, "line": row.place.line, "ids": row.tokens, "trained": row.trained, "text": text,
    })
}

/// A packed row of the first epoch with the borders between its rows.
fn packed(rows: &Rows, arguments: &InspectArguments, painter: &Painter) -> Result<(), Failure> {
    let sources = &rows.prepared.report.source_of_file;
    let batches = Batches::new(rows.prepared.training.clone(), &rows.plan, sources, 1, 1).or_input()?;
    let count = batches.steps_in_epoch(0);
    let first = arguments.row.unwrap_or(1) as u64;
    if first == 0 || first > count {
        return Err(anyhow!("--row {first}: there are packed rows 1 to {count}")).or_input();
    }
    let shown = if arguments.row.is_some() { 1 } else { arguments.rows as u64 };
    let mut page = legend(painter);
    for number in first..=count.min(first + shown - 1) {
        for batch in &batches.step(0, number - 1).batches {
            page += &packed_row(rows, number, batch, arguments, painter);
        }
    }
    print!("{page}");
    Ok(())
}

fn packed_row(rows: &Rows, number: u64, batch: &Batch, arguments: &InspectArguments, painter: &Painter) -> String {
    let (tokens, limit) = (batch.tokens.len(), rows.plan.sequence_length);
    let head = format!(
        "packed row {number} · {} rows · {tokens} of {limit} tokens, {} trained",
        batch.segments.len() - 1,
        batch.targets.len()
    );
    let mut page = painter.paint(Paint::Title, &head) + "\n";
    let mut trained = vec![false; tokens];
    batch.loss_rows.iter().for_each(|&at| trained[at as usize + 1] = true);
    for (index, border) in batch.segments.windows(2).enumerate() {
        let range = border[0] as usize..border[1] as usize;
        let line = format!("──── segment {} · tokens {} to {} ", index + 1, range.start, range.end - 1);
        page += &painter.paint(Paint::Title, &format!("{line:─<76}"));
        page.push('\n');
        let pieces = pieces(&batch.tokens[range.clone()], &trained[range], &rows.tokenizer);
        page += body(&pieces, arguments, painter).trim_end_matches('\n');
        page.push('\n');
    }
    page + "\n"
}
