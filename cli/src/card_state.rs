//! How the card fares during a run, for people.
//!
//! In:    what a step's metrics say of the card.
//! Out:   a few words for the step's line; a warning when the card begins to slow down.
//! Never: asks the card.

use kernels::devices::Throttle;
use trainer::CardMetrics;

/// Warns once for each reason, and again when the reason had gone.
#[derive(Debug, Default)]
pub struct CardWarnings {
    now: Vec<Throttle>,
}

impl CardWarnings {
    /// What people should be told of this step's readings.
    pub fn of(&mut self, step: u64, card: &CardMetrics) -> Option<String> {
        let new: Vec<Throttle> = card.throttle.iter().copied().filter(|reason| !self.now.contains(reason)).collect();
        self.now.clone_from(&card.throttle);
        if new.is_empty() {
            return None;
        }
        let reasons: Vec<&str> = new.iter().copied().map(reason).collect();
        let words = words(card);
        let at = if words.is_empty() { String::new() } else { format!(" ({words})") };
        Some(format!("warning: step {step}: the card lowers its clocks{at}: {}", reasons.join("; ")))
    }
}

fn reason(throttle: Throttle) -> &'static str {
    match throttle {
        Throttle::Heat => {
            "it is too hot; clean its filters and fans, leave a slot free beside it, raise its fan curve, or lower its power cap"
        }
        Throttle::PowerCap => "it is at its power cap, which is usual under full load",
        Throttle::PowerBrake => {
            "the power supply signals overload; give each power connector of the card a cable of its own"
        }
        Throttle::Clocks => "application clocks were set; `sudo nvidia-smi -rac` resets them",
    }
}

/// `71 °C 250 W 1740 MHz`, as far as the card tells.
pub fn words(card: &CardMetrics) -> String {
    let parts = [
        card.gpu_celsius.map(|celsius| format!("{celsius:.0} °C")),
        card.gpu_watts.map(|watts| format!("{watts:.0} W")),
        card.gpu_mhz.map(|mhz| format!("{mhz} MHz")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn card(throttle: &[Throttle]) -> CardMetrics {
        CardMetrics { gpu_celsius: Some(84.0), gpu_watts: Some(298.7), gpu_mhz: None, throttle: throttle.to_vec() }
    }

    #[test]
    fn a_reason_is_told_once_and_again_after_it_had_gone() {
        let mut warnings = CardWarnings::default();
        assert_eq!(warnings.of(1, &card(&[])), None);
        let first = warnings.of(2, &card(&[Throttle::Heat])).unwrap();
        assert!(first.contains("step 2") && first.contains("84 °C 299 W") && first.contains("too hot"), "{first}");
        assert_eq!(warnings.of(3, &card(&[Throttle::Heat])), None);
        let second = warnings.of(4, &card(&[Throttle::Heat, Throttle::PowerBrake])).unwrap();
        assert!(second.contains("overload") && !second.contains("too hot"), "{second}");
        assert_eq!(warnings.of(5, &card(&[])), None);
        assert!(warnings.of(6, &card(&[Throttle::Heat])).is_some());
    }

    #[test]
    fn a_card_that_tells_nothing_has_no_words() {
        let silent = CardMetrics { gpu_celsius: None, gpu_watts: None, gpu_mhz: None, throttle: Vec::new() };
        assert_eq!(words(&silent), "");
        let told =
            CardWarnings::default().of(1, &CardMetrics { throttle: vec![Throttle::PowerCap], ..silent }).unwrap();
        assert!(told.contains("clocks: it is at its power cap"), "{told}");
    }
}
