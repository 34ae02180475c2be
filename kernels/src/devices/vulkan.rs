//! The Vulkan loader and the drivers behind it.
//!
//! In:    `libvulkan.so.1`.
//! Out:   devices with their memory; Burn's handle of one.
//! Never: makes a logical device to look.

use std::ffi::CStr;

use ash::{Entry, Instance, ext, vk};
use burn::tensor::Device;
use burn_dispatch::devices::{WgpuBackend, WgpuDevice, WgpuDeviceKind};

use super::{Card, Missing};

/// A device, and how Burn counts it: by kind, in the loader's order.
struct Found {
    card: Card,
    kind: WgpuDeviceKind,
}

pub(super) fn cards() -> Result<Vec<Card>, Missing> {
    Ok(found()?.into_iter().map(|found| found.card).collect())
}

pub(super) fn open(index: usize) -> Result<Device, Missing> {
    let mut found = found()?;
    if index >= found.len() {
        let hint = "install the card's Vulkan driver (Debian: mesa-vulkan-drivers, which also has one in software)";
        return Err(Missing(format!("Vulkan lists {} devices; {hint}, or use \"cpu\"", found.len())));
    }
    // Pinned: by itself the library would take another interface where only that one has a card.
    Ok(Device::new(WgpuDevice::new(found.swap_remove(index).kind).on(WgpuBackend::Vulkan)))
}

/// Cards first, then what shares the host's memory, then software; within a kind as the loader lists them.
fn found() -> Result<Vec<Found>, Missing> {
    // SAFETY: loads the loader by its usual name; its initialisers are those of any program that uses Vulkan.
    let entry = unsafe { Entry::load() }.map_err(|_| {
        Missing("no Vulkan: libvulkan.so.1 is not there; install the loader (Debian: libvulkan1) and the card's driver, or use \"cpu\"".to_string())
    })?;
    let says = |error: vk::Result| Missing(format!("Vulkan says {error}; see vulkaninfo, or use \"cpu\""));
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
    let wanted = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: both structures live through the call.
    let instance = unsafe { entry.create_instance(&wanted, None) }.map_err(says)?;
    // SAFETY: the instance is alive.
    let devices = unsafe { instance.enumerate_physical_devices() };
    let mut counts = [0usize; 4];
    let listed = devices.map(|devices| {
        let of = |device: &vk::PhysicalDevice| one(&instance, *device, &mut counts);
        devices.iter().filter_map(of).collect::<Vec<(usize, Found)>>()
    });
    // SAFETY: nothing of the instance is used after this.
    unsafe { instance.destroy_instance(None) };
    let mut listed = listed.map_err(says)?;
    listed.sort_by_key(|(rank, _)| *rank);
    Ok(listed.into_iter().map(|(_, found)| found).collect())
}

/// One device with its rank; `None` for a kind that Burn cannot name, and for a second one in software.
fn one(instance: &Instance, device: vk::PhysicalDevice, counts: &mut [usize; 4]) -> Option<(usize, Found)> {
    // SAFETY: the device is the instance's.
    let properties = unsafe { instance.get_physical_device_properties(device) };
    let rank = match properties.device_type {
        vk::PhysicalDeviceType::DISCRETE_GPU => 0,
        vk::PhysicalDeviceType::INTEGRATED_GPU => 1,
        vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
        vk::PhysicalDeviceType::CPU => 3,
        _ => return None,
    };
    let index = counts[rank];
    counts[rank] += 1;
    let kind = match rank {
        0 => WgpuDeviceKind::DiscreteGpu(index),
        1 => WgpuDeviceKind::IntegratedGpu(index),
        2 => WgpuDeviceKind::VirtualGpu(index),
        _ if index == 0 => WgpuDeviceKind::Cpu,
        _ => return None,
    };
    let name = properties.device_name_as_c_str().map_or_else(|_| "unnamed".into(), CStr::to_string_lossy);
    let (memory_bytes, free_bytes, address) = memory(instance, device);
    let card = Card {
        name: name.into_owned(),
        memory_bytes,
        free_bytes,
        shares_memory: rank == 1 || rank == 3,
        is_software: rank == 3,
        fast_bf16: false,
        address,
    };
    Some((rank, Found { card, kind }))
}

/// Size of the largest memory that is local to the device, what of it may still be taken, and the place on the bus.
fn memory(instance: &Instance, device: vk::PhysicalDevice) -> (u64, Option<u64>, Option<String>) {
    // SAFETY: the device is the instance's.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
    let has = |name: &CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    let (has_budget, has_bus) = (has(ext::memory_budget::NAME), has(ext::pci_bus_info::NAME));

    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
    if has_budget {
        properties = properties.push_next(&mut budget);
    }
    // SAFETY: the device is the instance's, and the chain holds what the device knows.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut properties) };
    let heaps = properties.memory_properties;
    let count = (heaps.memory_heap_count as usize).min(heaps.memory_heaps.len());
    let local = |&heap: &usize| heaps.memory_heaps[heap].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let largest = (0..count).filter(local).max_by_key(|&heap| heaps.memory_heaps[heap].size);
    let address = has_bus.then(|| address(instance, device));
    let Some(heap) = largest else { return (0, None, address) };
    let free = has_budget.then(|| budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]));
    (heaps.memory_heaps[heap].size, free, address)
}

fn address(instance: &Instance, device: vk::PhysicalDevice) -> String {
    let mut bus = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut bus);
    // SAFETY: the device is the instance's, and said that it knows this structure.
    unsafe { instance.get_physical_device_properties2(device, &mut properties) };
    format!("{:04x}:{:02x}:{:02x}.{:x}", bus.pci_domain, bus.pci_bus, bus.pci_device, bus.pci_function)
}
