//! One pass over all files: held-out rows first, then the rows to train on, into a token cache.
//!
//! In:    files, encoder, content address.
//! Out:   a published cache with its report.
//! Never: publishes anything where a gate refused a row.

use std::path::Path;
use std::thread;

use planner::plan::{CleanRules, DataPlan, Deduplicate, HeldOut, TooLong};
use rayon::prelude::*;

use super::faults::Faults;
use super::inputs::{self, Inputs, Portion, portions};
use super::report::{Count, Duplicate, FIRST_PLACES, Report, SourceReport};
use super::row::{Cut, Fate, Made, Maker, Purpose, ROW_GATES};
use super::{Progress, Request};
use crate::cache::{Cache, Part, Writer};
use crate::clean::{Duplicates, Fingerprint, Likeness, Limits, Overlap, Repeats, Rules, Search, Similarity};
use crate::content::Place;
use crate::encode::{Encoder, Tokens};
use crate::error::DataError;
use crate::gates::Gates;
use crate::row_error::RowError;

/// What a pass collects.
struct Pass<'a> {
    plan: &'a DataPlan,
    inputs: &'a Inputs,
    writer: Writer,
    /// Taken at the end.
    duplicates: Option<Duplicates>,
    records: Records,
    faults: Faults,
    report: Report,
    first_too_long: Option<Place>,
    too_long: u64,
    /// Fingerprints of held-out rows.
    held_out: Vec<Fingerprint>,
    read: u64,
}

/// Prepares everything and publishes it.
pub(super) fn run(
    request: &Request,
    inputs: &Inputs,
    encoder: &Encoder,
    address: &str,
    events: &mut dyn FnMut(Progress),
) -> Result<Cache, DataError> {
    let writer = Writer::create(request.cache, address)?;
    let scratch = scratch_folder(request.cache)?;
    let search = search(&request.plan.clean)?;
    let duplicates = Some(Duplicates::new(scratch.path(), search, Limits::default()));
    let mut pass = Pass {
        plan: request.plan,
        inputs,
        writer,
        duplicates,
        records: Records::default(),
        faults: Faults::default(),
        report: empty_report(request.plan, inputs),
        first_too_long: None,
        too_long: 0,
        held_out: Vec::new(),
        read: 0,
    };
    let near = similarity(&request.plan.clean)?;
    let mut maker = Maker {
        plan: request.plan,
        encoder,
        embedding_rows: request.embedding_rows,
        allowed: Gates::of(&request.plan.allow),
        rules: Rules::new(&request.plan.clean),
        overlap: None,
    };
    let training = 0..request.plan.sources.len() as u32;
    match &request.plan.held_out {
        Some(HeldOut::Source(_)) => pass.rows(&maker, training.end..training.end + 1, Purpose::HeldOut, events)?,
        Some(HeldOut::Share(_)) => pass.collect_held_out(&maker, training.clone())?,
        None => {}
    }
    let held_out = std::mem::take(&mut pass.held_out);
    maker.overlap = (!held_out.is_empty()).then(|| Overlap::new(held_out, near));
    pass.rows(&maker, training, Purpose::Training, events)?;
    pass.finish()
}

fn empty_report(plan: &DataPlan, inputs: &Inputs) -> Report {
    let source = |(number, source): (usize, &planner::plan::DataSource)| SourceReport {
        name: source.name.clone().unwrap_or_else(|| source.path.display().to_string()),
        files: inputs.files.iter().filter(|input| input.source as usize == number).count() as u64,
        ..SourceReport::default()
    };
    Report {
        files: inputs.paths(),
        source_of_file: inputs.files.iter().map(|input| input.source).collect(),
        sources: inputs::sources(plan).enumerate().map(source).collect(),
        ..Report::default()
    }
}

impl Pass<'_> {
    /// Encodes the rows of sources in `of`.
    fn rows(
        &mut self,
        maker: &Maker,
        of: std::ops::Range<u32>,
        purpose: Purpose,
        events: &mut dyn FnMut(Progress),
    ) -> Result<(), DataError> {
        let (inputs, plan) = (self.inputs, self.plan);
        thread::scope(|scope| {
            for portion in portions(scope, inputs, plan, of) {
                let Portion { records, shape, source, bytes_done } = portion?;
                let made: Vec<(Place, Result<Made, RowError>)> =
                    records.into_par_iter().map(|record| (record.place, maker.make(record, &shape, purpose))).collect();
                for (place, made) in made {
                    self.take(place, made, source, purpose)?;
                }
                events(Progress::Rows { rows: self.read, bytes: bytes_done, of: inputs.bytes });
            }
            Ok(())
        })
    }

    /// Looks through the training rows for those that the share holds out.
    fn collect_held_out(&mut self, maker: &Maker, of: std::ops::Range<u32>) -> Result<(), DataError> {
        let (inputs, plan) = (self.inputs, self.plan);
        thread::scope(|scope| {
            for portion in portions(scope, inputs, plan, of) {
                let Portion { records, shape, .. } = portion?;
                let found: Vec<Fingerprint> =
                    records.into_par_iter().filter_map(|record| maker.held_out_fingerprint(record, &shape)).collect();
                self.held_out.extend(found);
            }
            Ok(())
        })
    }

    fn take(
        &mut self,
        place: Place,
        made: Result<Made, RowError>,
        source: u32,
        purpose: Purpose,
    ) -> Result<(), DataError> {
        self.read += 1;
        self.report.sources[source as usize].read += 1;
        let made = match made {
            Ok(made) => made,
            Err(fault) => {
                self.faults.add(place, fault);
                return Ok(());
            }
        };
        self.note(&made);
        match made.fate {
            Fate::Rows { rows, cut, held_out, fingerprint } => {
                self.report.truncated += u64::from(cut == Cut::Truncated);
                self.report.split += u64::from(cut == Cut::Split);
                if held_out {
                    return self.keep_held_out(place, &rows, *fingerprint, purpose);
                }
                return self.keep(place, &rows, &fingerprint);
            }
            Fate::Dropped => self.report.dropped += 1,
            Fate::TooLong => {
                self.too_long += 1;
                self.first_too_long = self.first_too_long.or(Some(place));
            }
            Fate::Removed(rule) => self.report.remove(&rule, place),
            Fate::Preference => self.report.preferences += 1,
        }
        Ok(())
    }

    fn note(&mut self, made: &Made) {
        let report = &mut self.report;
        report.longest = report.longest.max(made.length as u64);
        report.too_long += u64::from(made.length > self.plan.sequence_length);
        for gate in ROW_GATES.into_iter().filter(|gate| made.findings.contains(*gate)) {
            match report.allowed.iter_mut().find(|(found, _)| *found == gate) {
                Some((_, count)) => *count += 1,
                None => report.allowed.push((gate, 1)),
            }
        }
    }

    fn keep(&mut self, place: Place, rows: &[Tokens], fingerprint: &Fingerprint) -> Result<(), DataError> {
        let first = self.writer.rows(Part::Training);
        self.records.add(first, rows.len() as u64);
        if let Some(duplicates) = &mut self.duplicates {
            duplicates.push(fingerprint)?;
        }
        for row in rows {
            self.writer.push(Part::Training, place, &row.ids, &row.trained)?;
        }
        Ok(())
    }

    fn keep_held_out(
        &mut self,
        place: Place,
        rows: &[Tokens],
        fingerprint: Fingerprint,
        purpose: Purpose,
    ) -> Result<(), DataError> {
        if purpose == Purpose::HeldOut {
            self.held_out.push(fingerprint);
        }
        for row in rows {
            self.writer.push(Part::HeldOut, place, &row.ids, &row.trained)?;
        }
        Ok(())
    }

    /// Refuses, or removes duplicates and publishes.
    fn finish(mut self) -> Result<Cache, DataError> {
        if let Some(refused) = std::mem::take(&mut self.faults).refused(self.read, &self.report.files) {
            return Err(DataError::Refused(Box::new(refused)));
        }
        self.check_lengths()?;
        let Some(duplicates) = self.duplicates.take() else { unreachable!("a pass is finished once") };
        self.remove(&duplicates.finish()?)?;
        if self.writer.rows(Part::Training) == 0 && self.report.preferences == 0 {
            let (read, limit) = (self.read as usize, self.plan.sequence_length);
            return Err(DataError::NothingToTrain { read, dropped: self.report.dropped as usize, limit });
        }
        let facts = serde_json::to_value(&self.report)
            .map_err(|error| DataError::Cache { reason: format!("the report cannot be written as JSON: {error}") })?;
        Ok(self.writer.finish(facts)?)
    }

    fn check_lengths(&self) -> Result<(), DataError> {
        match (self.plan.too_long, self.first_too_long) {
            (TooLong::Error, Some(place)) => Err(DataError::TooLong {
                count: self.too_long as usize,
                limit: self.plan.sequence_length,
                longest: self.report.longest as usize,
                path: self.report.files[place.file as usize].clone(),
                line: place.line,
            }),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, repeats: &Repeats) -> Result<(), DataError> {
        let report = &mut self.report;
        report.exact_duplicates = repeats.exact_rows;
        let near = self.plan.clean.deduplicate == Deduplicate::Near;
        report.near_duplicates = near.then_some(repeats.near_rows);
        for repeat in repeats.exact_examples.iter().chain(&repeats.near_examples).take(FIRST_PLACES * 2) {
            let similarity = match repeat.likeness {
                Likeness::Exact => 1.0,
                Likeness::Near(similarity) => similarity,
            };
            let mut place = |record| {
                let Place { file, line } = self.writer.place(Part::Training, self.records.first_row(record))?;
                Ok::<_, DataError>((file, line))
            };
            let (row, earlier) = (place(repeat.row)?, place(repeat.earlier)?);
            report.duplicate_examples.push(Duplicate { row, earlier, similarity });
        }
        if self.plan.clean.deduplicate == Deduplicate::None
            || repeats.exact_rows + report.near_duplicates.unwrap_or(0) == 0
        {
            return Ok(());
        }
        report.removed.push(Count {
            what: "exact duplicates".to_owned(),
            count: repeats.exact_rows,
            first: Vec::new(),
        });
        if near {
            report.removed.push(Count {
                what: "near duplicates".to_owned(),
                count: repeats.near_rows,
                first: Vec::new(),
            });
        }
        let records = &self.records;
        let keep = |row: u64| {
            let record = records.record(row);
            !(repeats.is_exact(record) || near && repeats.is_near(record))
        };
        Ok(self.writer.retain(Part::Training, &keep)?)
    }
}

/// Which record each row comes from: the same number, but where documents became several rows.
#[derive(Debug, Default)]
struct Records {
    records: u64,
    /// Documents of several rows: first row, rows, number of the record.
    splits: Vec<(u64, u64, u64)>,
}

impl Records {
    fn add(&mut self, first_row: u64, rows: u64) {
        if rows > 1 {
            self.splits.push((first_row, rows, self.records));
        }
        self.records += 1;
    }

    fn record(&self, row: u64) -> u64 {
        match self.splits[..self.splits.partition_point(|(first, ..)| *first <= row)].last() {
            None => row,
            Some((first, rows, record)) if row < first + rows => *record,
            Some((first, rows, record)) => record + 1 + (row - first - rows),
        }
    }

    fn first_row(&self, record: u64) -> u64 {
        match self.splits[..self.splits.partition_point(|(.., of)| *of <= record)].last() {
            None => record,
            Some((first, _, of)) if *of == record => *first,
            Some((first, rows, of)) => first + rows + (record - of - 1),
        }
    }
}

/// What is searched for among the rows to train on.
fn search(rules: &CleanRules) -> Result<Search, DataError> {
    Ok(match rules.deduplicate {
        Deduplicate::Near => Search::Near(similarity(rules)?),
        _ => Search::Exact,
    })
}

/// From where on rows are nearly the same.
fn similarity(rules: &CleanRules) -> Result<Similarity, DataError> {
    Ok(rules.near_similarity.map_or(Ok(Similarity::DEFAULT), Similarity::new)?)
}

/// A folder beside the caches for what does not fit memory; it goes with the pass.
fn scratch_folder(cache: &Path) -> Result<tempfile::TempDir, DataError> {
    let named = |source| DataError::Read { path: cache.to_path_buf(), source };
    std::fs::create_dir_all(cache).map_err(named)?;
    tempfile::Builder::new().prefix(".scratch-").tempdir_in(cache).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_record_and_records_their_first_row() {
        let mut records = Records::default();
        let rows_of = [1, 3, 1, 1, 2, 4, 1];
        let mut row = 0;
        for rows in rows_of {
            records.add(row, rows);
            row += rows;
        }
        let mut row = 0;
        for (record, rows) in rows_of.into_iter().enumerate() {
            assert_eq!(records.first_row(record as u64), row);
            assert!((row..row + rows).all(|row| records.record(row) == record as u64), "record {record}");
            row += rows;
        }
    }
}
