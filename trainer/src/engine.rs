//! One micro-batch through the network and back, block by block.
//!
//! In:    a batch, the network's parts from the residency, which blocks keep their graph.
//! Out:   the loss; each group's gradient handed to the optimizer's thread as soon as it is complete.
//! Never: holds a graph longer than its block's backward pass, or the logits of more than one chunk.

use std::sync::Arc;

use burn::tensor::{Gradients, Tensor};
use datasets::{Batch, Tokenizer};
use models::{
    AdapterPair, Block, BlockAdapters, Decoder, NormTraining, OuterGradients, RowContext, Stack, TrainingLoss,
};
use planner::architecture::{EMBEDDING, FINAL_NORM, HEAD};
use planner::plan::{Keep, MethodPlan};

use crate::activations::{Activations, KeptInput};
use crate::error::{TrainError, fetched};
use crate::evaluate::HeldOut;
use crate::events::EvaluationReport;
use crate::layout::GroupLayout;
use crate::network::Forward;
use crate::optimizer::{Finish, Optimizer};
use crate::parameters::SharedParameters;
use crate::residency::Residency;
use crate::run::Listener;
use crate::samples::Sample;

/// Walks blocks.
#[derive(Debug)]
pub struct Engine {
    /// Where the network's parts come from.
    pub residency: Residency,
    /// Where block inputs wait for the backward pass.
    pub activations: Activations,
    /// Places of gradients.
    pub parameters: SharedParameters,
    /// Per block: graph or input.
    pub keep: Vec<Keep>,
    /// What is trained.
    pub method: MethodPlan,
    /// Seed of dropout.
    pub seed: u64,
}

/// Loss of one micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MicroLoss {
    /// Sum over trained tokens.
    pub sum: f64,
    /// How many there are.
    pub trained_tokens: usize,
}

impl MicroLoss {
    /// Mean over trained tokens; 0 without any.
    pub fn mean(&self) -> f64 {
        self.sum / self.trained_tokens.max(1) as f64
    }
}

/// How one micro-batch is trained on.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Gradients are those of the summed loss times this.
    pub gradient_scale: f32,
    /// Tells micro-batches of a run apart (dropout).
    pub stream: u64,
    /// What becomes of the gradients.
    pub finish: Finish,
}

/// What the forward pass leaves behind for one block.
enum Kept {
    Graph(Box<Graph>),
    Input(KeptInput),
}

/// A block's own autodiff graph.
struct Graph {
    input: Tensor<2>,
    output: Tensor<2>,
    trained: Trained,
}

/// The leaves of a block's graph that want a gradient.
enum Trained {
    Factors(Box<BlockAdapters>),
    Weights(Block),
}

/// One forward and backward pass.
struct Walk<'a> {
    engine: &'a Engine,
    optimizer: &'a Optimizer,
    outer: Arc<Decoder>,
    adapters: Arc<Vec<BlockAdapters>>,
    context: RowContext,
    pass: Pass,
}

impl Engine {
    /// Loss without gradients.
    pub fn loss(&self, batch: &Batch) -> Result<MicroLoss, TrainError> {
        let adapters = self.residency.adapters();
        let stack = Stack { blocks: &self.residency, adapters: &adapters };
        Forward { outer: &self.residency.outer(), stack }.loss(batch)
    }

    /// Figures of held-out rows. The adapters of the moment are made ready for many tokens: results have the same bits.
    pub(crate) fn evaluate(
        &self,
        rows: &HeldOut,
        tokenizer: Option<&Tokenizer>,
        events: &mut Listener<'_>,
    ) -> Result<(EvaluationReport, Vec<Sample>), TrainError> {
        let dtype = self.residency.dtype();
        let adapters: Vec<BlockAdapters> = self.residency.adapters().iter().map(|block| block.ready(dtype)).collect();
        let stack = Stack { blocks: &self.residency, adapters: &adapters };
        rows.measure(Forward { outer: &self.residency.outer(), stack }, tokenizer, events)
    }

    /// Residual stream after the last block, `[t, d]`, without gradients.
    pub fn hidden(&self, batch: &Batch) -> Result<Tensor<2>, TrainError> {
        let (outer, adapters) = (self.residency.outer(), self.residency.adapters());
        let stack = Stack { blocks: &self.residency, adapters: &adapters };
        outer.hidden(stack, &batch.tokens, &batch.segments).map_err(fetched)
    }

    /// Loss of a micro-batch; hands every group's gradient to `optimizer`, the last block's first. A loss that is not
    /// a number ends the pass before the first gradient.
    pub fn train(&self, batch: &Batch, pass: Pass, optimizer: &Optimizer) -> Result<MicroLoss, TrainError> {
        let outer = self.residency.outer();
        let context = RowContext::packed(&outer.spec, &batch.segments, pass.stream, &outer.device);
        let adapters = self.residency.adapters();
        Walk { engine: self, optimizer, outer, adapters, context, pass }.there_and_back(batch)
    }

    /// The highest recomputed block below `index`: the next whose weights the backward pass wants.
    fn recomputed_below(&self, index: usize) -> Option<usize> {
        (0..index).rev().find(|&below| self.keep[below] == Keep::Recompute)
    }
}

impl Walk<'_> {
    fn there_and_back(&self, batch: &Batch) -> Result<MicroLoss, TrainError> {
        let n_layers = self.outer.spec.n_layers();
        let mut x_td = self.outer.embed(&batch.tokens);
        let mut kept = Vec::with_capacity(n_layers);
        for index in 0..n_layers {
            let (next, left) = self.forward(index, x_td)?;
            kept.push(left);
            x_td = next;
        }
        let mut flat = self.outer_gradients();
        let loss = self.head(x_td, batch, &mut flat);
        let micro = MicroLoss { sum: loss.sum, trained_tokens: batch.targets.len() };
        if !micro.sum.is_finite() {
            return Ok(micro);
        }
        let incoming = self.backward_through_blocks(kept, loss.dx_td)?;
        let embedding = flat.as_mut().and_then(|flat| self.outer_slice(flat, EMBEDDING));
        if let (Some(incoming), Some(embedding)) = (incoming, embedding) {
            self.outer.embedding_gradient(incoming, &batch.tokens, embedding);
        }
        if let Some(flat) = flat {
            self.optimizer.gradient(n_layers, flat, self.pass.finish);
        }
        Ok(micro)
    }

    fn forward(&self, index: usize, x_td: Tensor<2>) -> Result<(Tensor<2>, Kept), TrainError> {
        let last = index + 1 == self.outer.spec.n_layers();
        let next = if last { self.engine.recomputed_below(index) } else { Some(index + 1) };
        let block = self.engine.residency.block(index, next)?;
        match self.engine.keep[index] {
            Keep::Retain => {
                let graph = self.graph(&block, x_td);
                Ok((graph.output.clone().inner(), Kept::Graph(Box::new(graph))))
            }
            Keep::Recompute => {
                let adapters = BlockAdapters { dropout: self.dropout(), ..self.adapters[index].clone() };
                let y = block.forward(&self.outer.spec, x_td.clone(), &self.context, &adapters);
                Ok((y, Kept::Input(self.engine.activations.put(index, x_td))))
            }
        }
    }

    fn backward_through_blocks(&self, mut kept: Vec<Kept>, dx_td: Tensor<2>) -> Result<Option<Tensor<2>>, TrainError> {
        let mut gradient = Some(dx_td);
        while let Some(left) = kept.pop() {
            let Some(incoming) = gradient.take() else { break };
            let index = kept.len();
            let graph = match left {
                Kept::Graph(graph) => *graph,
                Kept::Input(input) => {
                    let x_td = self.engine.activations.take(input)?;
                    if let Some(Kept::Input(below)) = kept.iter().rev().find(|left| matches!(left, Kept::Input(_))) {
                        self.engine.activations.prefetch(below);
                    }
                    let block = self.engine.residency.block(index, self.engine.recomputed_below(index))?;
                    self.graph(&block, x_td)
                }
            };
            gradient = self.backward(index, graph, incoming);
        }
        Ok(gradient)
    }

    /// Runs the block on its own graph. The first block's input needs a gradient only if the embedding is trained.
    fn graph(&self, block: &Block, x_td: Tensor<2>) -> Graph {
        let spec = &self.outer.spec;
        let input = Tensor::<2>::from_inner(x_td).set_require_grad(block.index > 0 || self.trains_embedding());
        match &self.engine.method {
            MethodPlan::Full(_) => {
                let block = block.tracked();
                let output = block.forward(spec, input.clone(), &self.context, &BlockAdapters::default());
                Graph { input, output, trained: Trained::Weights(block) }
            }
            MethodPlan::Lora(_) => {
                let tracked = |tensor: &Tensor<2>| Tensor::<2>::from_inner(tensor.clone()).require_grad();
                let adapters = &self.adapters[block.index];
                let pair = |pair: &AdapterPair| AdapterPair { a: tracked(&pair.a), b: tracked(&pair.b) };
                let pairs = adapters.pairs.each_ref().map(|known| known.as_ref().map(pair));
                let adapters =
                    BlockAdapters { pairs, scale: adapters.scale, dropout: self.dropout(), ..BlockAdapters::default() };
                let output = block.forward(spec, input.clone(), &self.context, &adapters);
                Graph { input, output, trained: Trained::Factors(Box::new(adapters)) }
            }
        }
    }

    /// Sends `incoming` through one block's graph; its gradients leave at once. Returns the gradient for the block before.
    fn backward(&self, index: usize, graph: Graph, incoming: Tensor<2>) -> Option<Tensor<2>> {
        let Graph { input, output, trained } = graph;
        let mut gradients = kernels::seed_gradient(output, incoming).backward();
        let layout = &self.engine.parameters.layout()[index];
        self.optimizer.wait_for_room();
        let flat = match trained {
            Trained::Factors(adapters) => factor_gradients(*adapters, layout, &mut gradients),
            Trained::Weights(block) => weight_gradients(block, layout, &mut gradients),
        };
        let before = input.grad_remove(&mut gradients);
        drop(gradients);
        self.optimizer.gradient(index, flat, self.pass.finish);
        before
    }

    fn head(&self, x_td: Tensor<2>, batch: &Batch, flat: &mut Option<Vec<f32>>) -> TrainingLoss {
        let scale = self.pass.gradient_scale;
        let final_norm = if flat.is_some() { NormTraining::Trained } else { NormTraining::Frozen };
        let tied = self.outer.spec.tied_head;
        let name = if tied { EMBEDDING } else { HEAD };
        let head_vd = flat.as_mut().and_then(|flat| self.outer_slice(flat, name));
        let wanted = OuterGradients { scale, head_vd, final_norm };
        let loss = self.outer.loss_training(x_td, &batch.loss_rows, &batch.targets, wanted);
        if let (Some(gradient), Some(flat)) = (&loss.final_norm_d, flat) {
            let slice = self.outer_slice(flat, FINAL_NORM).expect("the final norm is always trained");
            slice.copy_from_slice(gradient);
        }
        loss
    }

    /// The flat gradient of the tensors around the blocks, at zero; `None` where they are frozen.
    fn outer_gradients(&self) -> Option<Vec<f32>> {
        let layout = self.engine.parameters.layout().get(self.outer.spec.n_layers())?;
        Some(vec![0.0; layout.elements as usize])
    }

    fn outer_slice<'a>(&self, flat: &'a mut [f32], name: &str) -> Option<&'a mut [f32]> {
        let layout = self.engine.parameters.layout().get(self.outer.spec.n_layers())?;
        let slot = layout.slots.iter().find(|slot| slot.name == name)?;
        Some(&mut flat[slot.range()])
    }

    fn trains_embedding(&self) -> bool {
        matches!(&self.engine.method, MethodPlan::Full(plan) if plan.embeddings)
    }

    fn dropout(&self) -> Option<(f32, u64)> {
        let plan = self.engine.method.lora()?;
        (plan.dropout > 0.0).then_some((plan.dropout as f32, self.engine.seed))
    }
}

/// Gradients of a block's factors in their group's layout: A and B of each target in turn.
fn factor_gradients(adapters: BlockAdapters, layout: &GroupLayout, gradients: &mut Gradients) -> Vec<f32> {
    let mut flat = vec![0.0; layout.elements as usize];
    let mut slots = layout.slots.iter();
    for pair in adapters.pairs.into_iter().flatten() {
        for factor in [pair.a, pair.b] {
            let slot = slots.next().expect("a slot for each factor");
            if let Some(gradient) = factor.grad_remove(gradients) {
                let values = gradient.into_data().convert::<f32>();
                values.iter::<f32>().zip(&mut flat[slot.range()]).for_each(|(value, place)| *place = value);
            }
        }
    }
    flat
}

/// Gradients of a block's weights in their group's layout.
fn weight_gradients(block: Block, layout: &GroupLayout, gradients: &mut Gradients) -> Vec<f32> {
    let mut flat = vec![0.0; layout.elements as usize];
    let copied = block.take_gradients(gradients, |at, values| {
        flat[layout.slots[at].range()].copy_from_slice(values);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(()) = copied;
    flat
}
