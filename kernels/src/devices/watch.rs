//! What a card tells while it works: how hot it is, what it draws, how fast its clocks run and why no faster.
//!
//! In:    NVIDIA's `libnvidia-ml.so.1`, which comes with the driver.
//! Out:   a [`Reading`] for each stretch of time.
//! Never: changes a setting; delays who asks: a thread of its own reads the card.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use serde::Serialize;

/// The name that comes with the driver; the one without a number is for development only.
pub const LIBRARY: &str = "libnvidia-ml.so.1";
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a card's clocks are lower than they could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// Too hot.
    Heat,
    /// At its power cap.
    PowerCap,
    /// The power supply asked for less.
    PowerBrake,
    /// Someone set lower clocks.
    Clocks,
}

impl Throttle {
    /// The reasons among NVIDIA's bits; idling is none.
    pub fn of(reasons: ThrottleReasons) -> Vec<Throttle> {
        let heat = ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        let table = [
            (heat, Throttle::Heat),
            (ThrottleReasons::SW_POWER_CAP, Throttle::PowerCap),
            (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::PowerBrake),
            (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, Throttle::Clocks),
        ];
        table.into_iter().filter(|(bits, _)| reasons.intersects(*bits)).map(|(_, reason)| reason).collect()
    }
}

/// What a card told over a stretch of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// The hottest it was, degrees Celsius.
    pub celsius: Option<f64>,
    /// What it drew on average, W.
    pub watts: Option<f64>,
    /// The slowest that its arithmetic ran, MHz.
    pub mhz: Option<u32>,
    /// Every reason there was for lower clocks.
    pub throttle: Vec<Throttle>,
}

/// Something that can be read again and again.
pub trait Sensor: Send + 'static {
    /// The state now; a figure that is not told is `None`.
    fn read(&mut self) -> Reading;
}

/// Readings since they were last taken.
#[derive(Default)]
struct Gathered {
    sum: Reading,
    /// Readings that told watts.
    watts_told: u32,
    last: Reading,
    is_new: bool,
}

impl Gathered {
    fn add(&mut self, reading: Reading) {
        let sum = &mut self.sum;
        sum.celsius = [sum.celsius, reading.celsius].into_iter().flatten().reduce(f64::max);
        sum.mhz = [sum.mhz, reading.mhz].into_iter().flatten().min();
        if let Some(watts) = reading.watts {
            *sum.watts.get_or_insert(0.0) += watts;
            self.watts_told += 1;
        }
        sum.throttle.extend(&reading.throttle);
        self.last = reading;
        self.is_new = true;
    }

    fn take(&mut self) -> Reading {
        let Gathered { mut sum, watts_told, last, is_new } = std::mem::take(self);
        self.last = last;
        if !is_new {
            return self.last.clone();
        }
        sum.watts = sum.watts.map(|watts| watts / f64::from(watts_told));
        sum.throttle.sort_unstable();
        sum.throttle.dedup();
        sum
    }
}

/// Reads a card in the background until it is dropped.
pub struct Watch {
    gathered: Arc<Mutex<Gathered>>,
    /// Dropped, it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches NVIDIA's card at a place on the bus; `None` where its library or the card is not there.
    pub fn nvidia(address: &str) -> Option<Watch> {
        Watch::start(NvidiaSensor::at(address)?, PAUSE)
    }

    /// Watches `sensor`; `None` where the system gives no thread.
    fn start(mut sensor: impl Sensor, pause: Duration) -> Option<Watch> {
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        let (end, ended) = channel::<()>();
        let into = gathered.clone();
        let watch = move || {
            loop {
                let reading = sensor.read();
                into.lock().unwrap_or_else(PoisonError::into_inner).add(reading);
                if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("card".to_string()).spawn(watch).ok()?;
        Some(Watch { gathered, end: Some(end), thread: Some(thread) })
    }

    /// What the card told since the last call; what it told before where the stretch was too short for a look.
    pub fn take(&self) -> Reading {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A sensor that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

/// NVIDIA's library and one card of it.
struct NvidiaSensor {
    nvml: Nvml,
    address: String,
}

impl NvidiaSensor {
    fn at(address: &str) -> Option<NvidiaSensor> {
        let nvml = library()?;
        nvml.device_by_pci_bus_id(address).ok()?;
        Some(NvidiaSensor { nvml, address: address.to_string() })
    }
}

impl Sensor for NvidiaSensor {
    fn read(&mut self) -> Reading {
        let Ok(card) = self.nvml.device_by_pci_bus_id(self.address.as_str()) else { return Reading::default() };
        Reading {
            celsius: card.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            watts: card.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            mhz: card.clock_info(Clock::SM).ok(),
            throttle: card.current_throttle_reasons().map(Throttle::of).unwrap_or_default(),
        }
    }
}

fn library() -> Option<Nvml> {
    Nvml::builder().lib_path(std::ffi::OsStr::new(LIBRARY)).init().ok()
}

/// Free memory of NVIDIA's cards at these places on the bus, bytes; `None` where the library does not tell.
#[cfg(feature = "cuda")]
pub(super) fn nvidia_free_bytes(addresses: &[Option<&str>]) -> Vec<Option<u64>> {
    let Some(nvml) = library() else { return vec![None; addresses.len()] };
    let free = |address: &Option<&str>| {
        let card = nvml.device_by_pci_bus_id((*address)?).ok()?;
        Some(card.memory_info().ok()?.free)
    };
    addresses.iter().map(free).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reading(celsius: f64, watts: f64, mhz: u32, throttle: &[Throttle]) -> Reading {
        Reading { celsius: Some(celsius), watts: Some(watts), mhz: Some(mhz), throttle: throttle.to_vec() }
    }

    #[test]
    fn a_stretch_has_the_hottest_the_slowest_the_mean_and_every_reason() {
        let mut gathered = Gathered::default();
        gathered.add(reading(60.0, 200.0, 1800, &[]));
        gathered.add(reading(84.0, 300.0, 1200, &[Throttle::PowerCap, Throttle::Heat]));
        gathered.add(reading(70.0, 100.0, 1500, &[Throttle::Heat]));
        assert_eq!(gathered.take(), reading(84.0, 200.0, 1200, &[Throttle::Heat, Throttle::PowerCap]));
        // Too short for a look: what was told last, not what was worst.
        assert_eq!(gathered.take(), reading(70.0, 100.0, 1500, &[Throttle::Heat]));
        gathered.add(Reading { watts: None, ..reading(50.0, 0.0, 900, &[]) });
        assert_eq!(gathered.take(), Reading { watts: None, ..reading(50.0, 0.0, 900, &[]) });
    }

    #[test]
    fn heat_and_power_are_told_apart_and_idling_is_no_reason() {
        assert_eq!(Throttle::of(ThrottleReasons::GPU_IDLE), []);
        let both = ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::SW_POWER_CAP;
        assert_eq!(Throttle::of(both), [Throttle::Heat, Throttle::PowerCap]);
    }

    struct Counter(Arc<Mutex<u32>>);

    impl Sensor for Counter {
        fn read(&mut self) -> Reading {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Reading { mhz: Some(*count), ..Reading::default() }
        }
    }

    #[test]
    fn a_watch_looks_until_it_is_dropped() {
        let count = Arc::new(Mutex::new(0));
        let watch = Watch::start(Counter(count.clone()), Duration::from_millis(1)).unwrap();
        while *count.lock().unwrap() < 3 {
            std::thread::yield_now();
        }
        assert!(watch.take().mhz.is_some());
        drop(watch);
        assert_eq!(Arc::strong_count(&count), 1, "the thread is gone, and its sensor with it");
    }
}
