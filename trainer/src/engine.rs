//! One micro-batch through the network and back, block by block.
//!
//! In:    a batch, the adapters on the device, which blocks keep their graph.
//! Out:   the loss; gradients added to the adapter store.
//! Never: holds a graph longer than its block's backward pass, or the logits of more than one chunk.

use burn::tensor::Tensor;
use checkpoints::peft::Factor;
use datasets::Batch;
use models::{AdapterPair, BlockAdapters, RowContext};
use planner::architecture::Linear;
use planner::plan::Keep;

use crate::adapters::AdapterStore;
use crate::residency::Residency;

/// Walks blocks.
#[derive(Debug)]
pub struct Engine {
    /// Where blocks come from.
    pub residency: Residency,
    /// Per block: graph or input.
    pub keep: Vec<Keep>,
    /// Dropout on adapter inputs: probability and seed.
    pub dropout: Option<(f32, u64)>,
}

/// Loss of one micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MicroLoss {
    /// Sum over trained tokens.
    pub sum: f64,
    /// How many there are.
    pub trained_tokens: usize,
}

/// What the forward pass leaves behind for one block.
enum Kept {
    Graph(Box<Graph>),
    Input(Box<Tensor<2>>),
}

/// A block's own autodiff graph.
struct Graph {
    input: Tensor<2>,
    output: Tensor<2>,
    adapters: BlockAdapters,
}

impl Engine {
    /// Loss without gradients. `adapters` has an entry a block.
    pub fn loss(&self, batch: &Batch, adapters: &[BlockAdapters]) -> MicroLoss {
        let decoder = self.residency.decoder();
        let context = RowContext::packed(&decoder.spec, &batch.segments, 0, &decoder.device);
        let x_td = self.hidden(batch, adapters, &context);
        let loss = decoder.loss(x_td, &batch.loss_rows, &batch.targets, None);
        MicroLoss { sum: loss.sum, trained_tokens: batch.targets.len() }
    }

    /// Residual stream after the last block, `[t, d]`, without gradients.
    pub fn hidden(&self, batch: &Batch, adapters: &[BlockAdapters], context: &RowContext) -> Tensor<2> {
        let decoder = self.residency.decoder();
        let mut x_td = decoder.embed(&batch.tokens);
        for (index, adapters) in adapters.iter().enumerate() {
            x_td = self.residency.block(index).forward(&decoder.spec, x_td, context, adapters);
        }
        x_td
    }

    /// Loss of a micro-batch; adds the gradient of `gradient_scale * sum` to the store. `stream` tells micro-batches
    /// of a run apart (dropout).
    pub fn train(
        &self,
        batch: &Batch,
        (adapters, store): (&[BlockAdapters], &mut AdapterStore),
        gradient_scale: f32,
        stream: u64,
    ) -> MicroLoss {
        let decoder = self.residency.decoder();
        let context = RowContext::packed(&decoder.spec, &batch.segments, stream, &decoder.device);
        let mut x_td = decoder.embed(&batch.tokens);
        let mut kept = Vec::with_capacity(adapters.len());
        for (index, adapters) in adapters.iter().enumerate() {
            let (next, left) = self.forward(index, x_td, &context, adapters);
            kept.push(left);
            x_td = next;
        }
        let loss = decoder.loss(x_td, &batch.loss_rows, &batch.targets, Some(gradient_scale));
        let micro = MicroLoss { sum: loss.sum, trained_tokens: batch.targets.len() };
        let mut gradient = loss.dx_rd;
        for (index, left) in kept.into_iter().enumerate().rev() {
            let Some(incoming) = gradient.take() else { break };
            let graph = match left {
                Kept::Graph(graph) => *graph,
                Kept::Input(x_td) => self.graph(index, *x_td, &context, &adapters[index]),
            };
            gradient = backward(index, graph, incoming, store);
        }
        micro
    }

    fn forward(
        &self,
        index: usize,
        x_td: Tensor<2>,
        context: &RowContext,
        adapters: &BlockAdapters,
    ) -> (Tensor<2>, Kept) {
        match self.keep[index] {
            Keep::Retain => {
                let graph = self.graph(index, x_td, context, adapters);
                (graph.output.clone().inner(), Kept::Graph(Box::new(graph)))
            }
            Keep::Recompute => {
                let adapters = BlockAdapters { dropout: self.dropout, ..adapters.clone() };
                let spec = &self.residency.decoder().spec;
                let y = self.residency.block(index).forward(spec, x_td.clone(), context, &adapters);
                (y, Kept::Input(Box::new(x_td)))
            }
        }
    }

    /// Runs the block on its own graph. The first block's input needs no gradient: nothing before it is trained.
    fn graph(&self, index: usize, x_td: Tensor<2>, context: &RowContext, adapters: &BlockAdapters) -> Graph {
        let input = Tensor::<2>::from_inner(x_td);
        let input = if index > 0 { input.require_grad() } else { input };
        let tracked = |tensor: &Tensor<2>| Tensor::<2>::from_inner(tensor.clone()).require_grad();
        let pairs = adapters
            .pairs
            .each_ref()
            .map(|pair| pair.as_ref().map(|pair| AdapterPair { a: tracked(&pair.a), b: tracked(&pair.b) }));
        let adapters = BlockAdapters { pairs, scale: adapters.scale, dropout: self.dropout };
        let spec = &self.residency.decoder().spec;
        let output = self.residency.block(index).forward(spec, input.clone(), context, &adapters);
        Graph { input, output, adapters }
    }
}

/// Sends `incoming` through one block's graph; its factors' gradients leave at once. Returns the gradient for the
/// block before.
fn backward(index: usize, graph: Graph, incoming: Tensor<2>, store: &mut AdapterStore) -> Option<Tensor<2>> {
    let Graph { input, output, adapters } = graph;
    let mut gradients = kernels::seed_gradient(output, incoming).backward();
    for (linear, pair) in Linear::ALL.into_iter().zip(adapters.pairs) {
        let Some(pair) = pair else { continue };
        for (factor, tensor) in [(Factor::A, pair.a), (Factor::B, pair.b)] {
            if let Some(gradient) = tensor.grad_remove(&mut gradients) {
                store.accumulate(index, linear, factor, gradient);
            }
        }
    }
    input.grad_remove(&mut gradients)
}
