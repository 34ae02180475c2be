//! What NVIDIA's driver says about its cards.
//!
//! In:    `libnvidia-ml.so.1`, loaded while the program runs; it comes with the driver.
//! Out:   a [`Driver`], or why there is none.
//! Never: changes a setting; needs the library.

use kernels::devices::{LIBRARY, Throttle};
use nvml_wrapper::enum_wrappers::device::{TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::Serialize;

use super::fact::{Fact, clean};
use super::link::{Lanes, Link};

/// The driver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Driver {
    /// `570.86.15`.
    pub version: Fact<String>,
    /// Newest CUDA version it runs, thousands and tens: 12080 is 12.8.
    pub cuda_version: Fact<i32>,
    /// Its cards, listed with the others.
    #[serde(skip)]
    pub cards: Vec<DriverCard>,
}

/// One card.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverCard {
    /// `0000:01:00.0`.
    pub address: String,
    /// As sold.
    pub name: Fact<String>,
    /// Bytes.
    pub memory_bytes: Fact<u64>,
    /// Bytes.
    pub memory_free_bytes: Fact<u64>,
    /// Its link, without the slot.
    pub link: Fact<Link>,
    /// Degrees Celsius.
    pub celsius: Fact<f64>,
    /// Degrees Celsius.
    pub celsius_max: Option<f64>,
    /// W.
    pub watts: Fact<f64>,
    /// W.
    pub watts_cap: Fact<f64>,
    /// W.
    pub watts_default: Option<f64>,
    /// Now.
    pub throttle: Fact<Vec<Throttle>>,
}

/// Asks the driver.
pub fn driver() -> Fact<Driver> {
    let library = std::ffi::OsStr::new(LIBRARY);
    let opened = Nvml::builder().lib_path(library).init();
    match opened {
        Ok(nvml) => Fact::Known(of(&nvml)),
        Err(NvmlError::LibloadingError(_)) => Fact::unknown(format!("no NVIDIA driver library ({LIBRARY})")),
        Err(error) => Fact::unknown(format!("{LIBRARY} is there but says: {error}")),
    }
}

fn of(nvml: &Nvml) -> Driver {
    let count = nvml.device_count().unwrap_or(0);
    Driver {
        version: told(nvml.sys_driver_version()).map(|version| clean(&version)),
        cuda_version: told(nvml.sys_cuda_driver_version()),
        cards: (0..count).filter_map(|index| card(&nvml.device_by_index(index).ok()?)).collect(),
    }
}

fn card(device: &Device<'_>) -> Option<DriverCard> {
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    let memory = told(device.memory_info());
    let threshold = device.temperature_threshold(TemperatureThreshold::Slowdown);
    Some(DriverCard {
        address: address(&device.pci_info().ok()?.bus_id)?,
        name: told(device.name()).map(|name| clean(&name)),
        memory_bytes: memory.clone().map(|memory| memory.total),
        memory_free_bytes: memory.map(|memory| memory.free),
        link: told(link(device)),
        celsius: told(device.temperature(TemperatureSensor::Gpu)).map(f64::from),
        celsius_max: threshold.ok().map(f64::from),
        watts: told(device.power_usage()).map(watts),
        watts_cap: told(device.enforced_power_limit()).map(watts),
        watts_default: device.power_management_limit_default().ok().map(watts),
        throttle: told(device.current_throttle_reasons()).map(Throttle::of),
    })
}

fn link(device: &Device<'_>) -> Result<Link, NvmlError> {
    let lanes = |generation: u32, lanes: u32| Lanes { generation: generation.min(255) as u8, lanes };
    Ok(Link {
        now: lanes(device.current_pcie_link_gen()?, device.current_pcie_link_width()?),
        device_max: lanes(device.max_pcie_link_gen()?, device.max_pcie_link_width()?),
        slot_max: None,
    })
}

fn told<T>(answer: Result<T, NvmlError>) -> Fact<T> {
    answer.map_err(|error| format!("the driver says: {error}")).into()
}

/// The library writes eight digits of domain and capitals, the kernel four and small letters.
fn address(bus_id: &str) -> Option<String> {
    let (domain, rest) = bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    Some(format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_library_is_the_kernels() {
        assert_eq!(address("00000000:0A:00.0").as_deref(), Some("0000:0a:00.0"));
        assert_eq!(address("nonsense"), None);
    }

    #[test]
    fn a_machine_without_the_library_says_so() {
        if let Fact::Unknown { unknown } = driver() {
            assert!(unknown.contains("libnvidia-ml.so.1"), "{unknown}");
        }
    }
}
