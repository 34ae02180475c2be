//! Block inputs between forward and backward pass, each in its planned tier.
//!
//! In:    the input of a recomputed block; later the block's number.
//! Out:   the same bits.
//! Never: holds more than two inputs in memory besides those whose tier is memory.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::bf16;
use offload::array::{Array, Tiers};
use planner::plan::{Keep, Plan, Precision, Tier};

use crate::error::TrainError;
use crate::parameters::place;
use crate::stalls::{Cause, Stalls};

/// What an engine keeps of a recomputed block.
#[derive(Debug)]
pub enum KeptInput {
    /// The tensor, on the device.
    Here(Box<Tensor<2>>),
    /// In its tier, under the block's number.
    Away(usize),
}

enum Job {
    Put(usize, Box<Tensor<2>>),
    Fetch(usize),
}

/// The store of kept inputs.
#[derive(Debug)]
pub struct Activations {
    mover: Option<Mover>,
    stalls: Arc<Stalls>,
}

#[derive(Debug)]
struct Mover {
    jobs: Option<SyncSender<Job>>,
    fetched: Receiver<(usize, Result<Tensor<2>, TrainError>)>,
    asked: std::sync::Mutex<Option<usize>>,
    thread: Option<JoinHandle<()>>,
}

impl Activations {
    /// Space for the inputs of all recomputed blocks, where their tier is not the device.
    pub fn new(plan: &Plan, tiers: &Tiers, device: &Device, stalls: Arc<Stalls>) -> Result<Activations, TrainError> {
        if plan.offload.activations == Tier::Device {
            return Ok(Activations { mover: None, stalls });
        }
        let tokens = plan.train.micro_batch * plan.data.sequence_length;
        let elements = ((tokens * plan.model.spec.hidden) as u64).next_multiple_of(256);
        let bytes_per_256 = 256 * plan.model.precision.bytes() as usize;
        let mut arrays = Vec::new();
        for (index, keep) in plan.model.keep.iter().enumerate() {
            let name = format!("block.{index:03}.input");
            let array = |_| {
                let place = place(plan.offload.activations);
                tiers.array(place, &name, elements, bytes_per_256, plan.offload.span_elements)
            };
            arrays.push((*keep == Keep::Recompute).then_some(()).map(array).transpose()?);
        }
        let shape = Shape { hidden: plan.model.spec.hidden, precision: plan.model.precision, device: device.clone() };
        Ok(Activations { mover: Some(Mover::start(arrays, shape)?), stalls })
    }

    /// Keeps the input of block `index`.
    pub fn put(&self, index: usize, x_td: Tensor<2>) -> KeptInput {
        match &self.mover {
            None => KeptInput::Here(Box::new(x_td)),
            Some(mover) => {
                self.stalls.time(Cause::Activations, || mover.send(Job::Put(index, Box::new(x_td))));
                KeptInput::Away(index)
            }
        }
    }

    /// Begins to bring an input back.
    pub fn prefetch(&self, kept: &KeptInput) {
        if let (KeptInput::Away(index), Some(mover)) = (kept, &self.mover) {
            mover.ask(*index);
        }
    }

    /// The input again.
    pub fn take(&self, kept: KeptInput) -> Result<Tensor<2>, TrainError> {
        match (kept, &self.mover) {
            (KeptInput::Here(x_td), _) => Ok(*x_td),
            (KeptInput::Away(index), Some(mover)) => self.stalls.time(Cause::Activations, || mover.receive(index)),
            (KeptInput::Away(_), None) => unreachable!("only a mover sends inputs away"),
        }
    }
}

/// How inputs look.
struct Shape {
    hidden: usize,
    precision: Precision,
    device: Device,
}

impl Mover {
    fn start(arrays: Vec<Option<Array>>, shape: Shape) -> Result<Mover, TrainError> {
        let (jobs, todo) = sync_channel(1);
        let (report, fetched) = channel();
        let work = move || serve(arrays, &shape, &todo, &report);
        let thread = std::thread::Builder::new().name("activations".into()).spawn(work);
        let thread = thread.map_err(|error| TrainError::Thread { reason: error.to_string() })?;
        Ok(Mover { jobs: Some(jobs), fetched, asked: std::sync::Mutex::new(None), thread: Some(thread) })
    }

    fn send(&self, job: Job) {
        // A thread that is gone is noticed by the next receive.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    fn ask(&self, index: usize) {
        let mut asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if asked.is_none() {
            *asked = Some(index);
            self.send(Job::Fetch(index));
        }
    }

    fn receive(&self, index: usize) -> Result<Tensor<2>, TrainError> {
        let lost = |_| TrainError::Thread { reason: "the thread that moves activations ended early".to_string() };
        loop {
            self.ask(index);
            let (found, result) = self.fetched.recv().map_err(lost)?;
            *self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
            if found == index {
                return result;
            }
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Fetched = (usize, Result<Tensor<2>, TrainError>);

fn serve(mut arrays: Vec<Option<Array>>, shape: &Shape, todo: &Receiver<Job>, report: &Sender<Fetched>) {
    let mut rows = vec![0usize; arrays.len()];
    let mut failed: Vec<Option<TrainError>> = arrays.iter().map(|_| None).collect();
    while let Ok(job) = todo.recv() {
        match job {
            Job::Put(index, x_td) => {
                rows[index] = x_td.dims()[0];
                let array = arrays[index].as_mut().expect("recomputed blocks have a place");
                failed[index] = put(array, *x_td, shape).err();
            }
            Job::Fetch(index) => {
                let array = arrays[index].as_ref().expect("recomputed blocks have a place");
                let result = match failed[index].take() {
                    Some(error) => Err(error),
                    None => fetch(array, rows[index], shape),
                };
                let _ = report.send((index, result));
            }
        }
    }
}

fn put(array: &mut Array, x_td: Tensor<2>, shape: &Shape) -> Result<(), TrainError> {
    let data = x_td.into_data();
    let failed = |error| TrainError::Thread { reason: format!("a block's input cannot be read back: {error:?}") };
    match shape.precision {
        Precision::F32 => array.write(0, bytemuck::cast_slice(data.as_slice::<f32>().map_err(failed)?))?,
        Precision::Bf16 => array.write(0, bytemuck::cast_slice(data.as_slice::<bf16>().map_err(failed)?))?,
    }
    Ok(())
}

fn fetch(array: &Array, rows: usize, shape: &Shape) -> Result<Tensor<2>, TrainError> {
    let (elements, dims) = (rows * shape.hidden, [rows, shape.hidden]);
    Ok(match shape.precision {
        Precision::F32 => {
            let mut values = vec![0.0f32; elements];
            array.read(0, bytemuck::cast_slice_mut(&mut values))?;
            Tensor::from_data(TensorData::new(values, dims), (&shape.device, DType::F32))
        }
        Precision::Bf16 => {
            let mut values = vec![bf16::ZERO; elements];
            array.read(0, bytemuck::cast_slice_mut(&mut values))?;
            Tensor::from_data(TensorData::new(values, dims), (&shape.device, DType::BF16))
        }
    })
}
