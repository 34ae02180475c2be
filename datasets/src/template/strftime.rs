//! The day that `strftime_now` tells.
//!
//! In:    `YYYY-MM-DD`; a format as of Python's `datetime.strftime` in the C locale.
//! Out:   the day at midnight, formatted.
//! Never: reads the clock.

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    year: i64,
    month: usize,
    day: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Day {
    /// Reads `YYYY-MM-DD`; `None` where there is no such day.
    pub(crate) fn parse(text: &str) -> Option<Day> {
        let mut parts = text.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let month = usize::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
        let found = Day { year, month, day };
        let fits = (1..=9999).contains(&year) && (1..=found.days_of(month)).contains(&day);
        (fits && parts.next().is_none()).then_some(found)
    }

    /// Formats; a letter that C does not know is kept with its percent sign, as glibc does.
    pub(crate) fn format(self, format: &str) -> String {
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            match (letter, letters.clone().next()) {
                ('%', Some('-')) => {
                    letters.next();
                    let field = letters.next().map(|letter| self.field(letter)).unwrap_or_default();
                    let plain = field.trim_start_matches(['0', ' ']);
                    out.push_str(if plain.is_empty() { "0" } else { plain });
                }
                ('%', Some(field)) => {
                    letters.next();
                    out.push_str(&self.field(field));
                }
                _ => out.push(letter),
            }
        }
        out
    }

    fn field(self, letter: char) -> String {
        let (month, weekday) = (MONTHS[self.month - 1], WEEKDAYS[self.weekday()]);
        let (year, number, day) = (self.year, self.month, self.day);
        match letter {
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'm' => format!("{number:02}"),
            'b' | 'h' => month[..3].to_owned(),
            'B' => month.to_owned(),
            'Y' => year.to_string(),
            'y' => format!("{:02}", year % 100),
            'C' => format!("{:02}", year / 100),
            'a' => weekday[..3].to_owned(),
            'A' => weekday.to_owned(),
            'w' => ((self.weekday() + 1) % 7).to_string(),
            'u' => (self.weekday() + 1).to_string(),
            'j' => format!("{:03}", self.day_of_year()),
            'U' => format!("{:02}", self.week(6)),
            'W' => format!("{:02}", self.week(0)),
            'G' => self.iso_week().0.to_string(),
            'V' => format!("{:02}", self.iso_week().1),
            'H' | 'M' | 'S' => "00".to_owned(),
            'k' => " 0".to_owned(),
            'I' | 'l' => "12".to_owned(),
            'f' => "000000".to_owned(),
            'p' => "AM".to_owned(),
            'P' => "am".to_owned(),
            'F' => format!("{year}-{number:02}-{day:02}"),
            'D' | 'x' => format!("{number:02}/{day:02}/{:02}", year % 100),
            'T' | 'X' => "00:00:00".to_owned(),
            'R' => "00:00".to_owned(),
            'r' => "12:00:00 AM".to_owned(),
            'c' => format!("{} {} {day:2} 00:00:00 {year}", &weekday[..3], &month[..3]),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            'z' | 'Z' => String::new(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }

    fn is_leap(year: i64) -> bool {
        (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
    }

    fn days_of(self, month: usize) -> i64 {
        match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + i64::from(Day::is_leap(self.year)),
            _ => 31,
        }
    }

    fn day_of_year(self) -> i64 {
        (1..self.month).map(|month| self.days_of(month)).sum::<i64>() + self.day
    }

    /// Days since Monday.
    fn weekday(self) -> usize {
        let before = self.year - 1;
        let days = before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() - 1;
        usize::try_from(days.rem_euclid(7)).unwrap_or(0)
    }

    /// Week of the year, weeks beginning `first` days after Monday.
    fn week(self, first: i64) -> i64 {
        let weekday = (self.weekday() as i64 - first).rem_euclid(7);
        (self.day_of_year() + 6 - weekday) / 7
    }

    /// Year and week of ISO 8601.
    fn iso_week(self) -> (i64, i64) {
        let week = (self.day_of_year() - self.weekday() as i64 + 9) / 7;
        let weeks_of = |year: i64| {
            let first = Day { year, month: 1, day: 1 }.weekday();
            52 + i64::from(first == 3 || (first == 2 && Day::is_leap(year)))
        };
        match week {
            0 => (self.year - 1, weeks_of(self.year - 1)),
            week if week > weeks_of(self.year) => (self.year + 1, 1),
            week => (self.year, week),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in
            ["2024-02-30", "2023-02-29", "2024-13-01", "2024-00-01", "2024-1", "today", "", "2024-01-01-01", "0-1-1"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        assert!(Day::parse("2024-02-29").is_some());
    }

    #[test]
    fn weeks_and_weekdays_follow_the_calendar() {
        // From Python: datetime(y, m, d).strftime("%a %j %G-%V %U %W").
        for (day, told) in [
            ("2024-07-26", "Fri 208 2024-30 29 30"),
            ("2021-01-03", "Sun 003 2020-53 01 00"),
            ("2024-12-30", "Mon 365 2025-01 52 53"),
            ("2000-02-29", "Tue 060 2000-09 09 09"),
        ] {
            assert_eq!(Day::parse(day).unwrap().format("%a %j %G-%V %U %W"), told);
        }
    }
}
