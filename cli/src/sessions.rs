//! `sessions.jsonl`: a line for every process that trained in a run directory: when, where, on what rows.
//!
//! In:    what the process knows when its first step begins.
//! Out:   the line, and all lines on the way back.
//! Never: decides anything about training; a line that cannot be read is passed over.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use offload::durable::publish_file;
use recipes::DeviceName;
use serde::{Deserialize, Serialize};

use crate::doctor;

const FILE: &str = "sessions.jsonl";
/// A file that is longer was not written here.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Seconds since 1970 when its first step began.
    pub started_unix_seconds: u64,
    /// Version of this program.
    pub version: String,
    /// Number of its first update, from 1.
    pub first_step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// What the machine was: titles, each with names and values.
    pub machine: Vec<(String, Vec<(String, String)>)>,
    /// What the rows were, a line each.
    pub data: Vec<String>,
}

impl Session {
    /// This process, now, on this machine, computing on `device`.
    pub fn now(device: DeviceName, first_step: u64, steps: u64, data: Vec<String>) -> Session {
        let started_unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let version = env!("CARGO_PKG_VERSION").to_string();
        Session { started_unix_seconds, version, first_step, steps, machine: doctor::machine_facts(device), data }
    }

    /// Adds the line to a run directory.
    pub fn keep(&self, run: &Path) -> anyhow::Result<()> {
        let path = run.join(FILE);
        let mut text = text_of(&path);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", serde_json::to_string(self)?));
        Ok(publish_file(&path, text.as_bytes())?)
    }

    /// `2026-03-01 14:05 UTC`; nothing where the clock was not known.
    pub fn started(&self) -> Option<String> {
        let seconds = Some(self.started_unix_seconds).filter(|&seconds| seconds > 0)?;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        Some(format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60))
    }
}

/// Every process that trained there, in order.
pub fn of_run(run: &Path) -> Vec<Session> {
    text_of(&run.join(FILE)).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn text_of(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) if found.len() <= FILE_BYTES_MAX => std::fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Year, month and day of so many days after 1970-01-01.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_become_dates_also_on_leap_days() {
        assert_eq!(
            [0, 59, 60, 11_016, 19_782, 20_454].map(date),
            [(1970, 1, 1), (1970, 3, 1), (1970, 3, 2), (2000, 2, 29), (2024, 2, 29), (2026, 1, 1)]
        );
        let session = Session { started_unix_seconds: 20_454 * 86_400 + 3_660, ..Session::default() };
        assert_eq!(session.started().as_deref(), Some("2026-01-01 01:01 UTC"));
        assert_eq!(Session::default().started(), None);
    }

    #[test]
    fn every_process_has_its_line_and_a_damaged_one_is_passed_over() {
        let run = tempfile::tempdir().unwrap();
        Session::now(DeviceName::Cpu, 1, 10, vec!["data: 40 rows".into()]).keep(run.path()).unwrap();
        let path = run.path().join(FILE);
        std::fs::write(&path, format!("{}{{\"cut", std::fs::read_to_string(&path).unwrap())).unwrap();
        Session::now(DeviceName::Cpu, 6, 10, Vec::new()).keep(run.path()).unwrap();
        let sessions = of_run(run.path());
        assert_eq!(sessions.iter().map(|session| session.first_step).collect::<Vec<_>>(), [1, 6]);
        assert!(sessions[0].machine.iter().any(|(title, _)| title == "Processor") && sessions[0].started().is_some());
    }
}
