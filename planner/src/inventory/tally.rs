//! Adds up tensors while a description is read.
//!
//! In:    shapes and how often each occurs.
//! Out:   an [`Inventory`] without a [`crate::architecture::DecoderSpec`].
//! Never: overflows; sums are kept in 128 bits and saturate at 64.

use super::{Inventory, LeftOut, Matrices, MatrixKind};

/// What the key/value cache keeps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cache {
    /// Numbers for one token and one layer.
    pub elements: u64,
    /// Layers that see a window only.
    pub windowed_layers: u64,
    /// That window, tokens.
    pub window: u64,
}

/// Tensors of one model so far.
pub(super) struct Tally {
    name: String,
    vocabulary: u64,
    hidden: u64,
    layers: u64,
    matrices: Vec<Matrices>,
    head: bool,
    rest: u128,
    idle_rest: u128,
    /// Longest position.
    pub max_positions: u64,
    /// Routed experts a layer and how many of them a token uses.
    pub experts: (u64, u64),
    /// Cache of one layer.
    pub cache: Cache,
    /// Parts that are not counted.
    pub left_out: Vec<LeftOut>,
}

impl Tally {
    /// A model of `layers` blocks with an embedding, its head tied until [`Tally::untied_head`].
    pub fn new(name: &str, vocabulary: u64, hidden: u64, layers: u64) -> Tally {
        Tally {
            name: name.to_string(),
            vocabulary,
            hidden,
            layers,
            matrices: Vec::new(),
            head: false,
            rest: 0,
            idle_rest: 0,
            max_positions: 0,
            experts: (0, 0),
            cache: Cache::default(),
            left_out: Vec::new(),
        }
    }

    /// A matrix that every block has once.
    pub fn every_layer(&mut self, kind: MatrixKind, inputs: u64, outputs: u64) {
        self.some_layers(kind, inputs, outputs, self.layers);
    }

    /// A matrix that `layers` blocks have once.
    pub fn some_layers(&mut self, kind: MatrixKind, inputs: u64, outputs: u64, layers: u64) {
        self.push(Matrices { kind, inputs, outputs, count: layers, active: layers });
    }

    /// A matrix that each routed expert of `layers` blocks has once.
    pub fn experts(&mut self, kind: MatrixKind, inputs: u64, outputs: u64, layers: u64) {
        let (all, used) = self.experts;
        let (count, active) = (layers.saturating_mul(all), layers.saturating_mul(used));
        self.push(Matrices { kind, inputs, outputs, count, active });
    }

    fn push(&mut self, matrices: Matrices) {
        if matrices.count == 0 {
            return;
        }
        let same = |known: &&mut Matrices| {
            (known.kind, known.inputs, known.outputs) == (matrices.kind, matrices.inputs, matrices.outputs)
        };
        match self.matrices.iter_mut().find(same) {
            Some(known) => {
                known.count = known.count.saturating_add(matrices.count);
                known.active = known.active.saturating_add(matrices.active);
            }
            None => self.matrices.push(matrices),
        }
    }

    /// `count` vectors or small tensors of `size` numbers that every token uses: norms, biases, routers.
    pub fn rest(&mut self, count: u64, size: u64) {
        self.rest = self.rest.saturating_add(u128::from(count) * u128::from(size));
    }

    /// A vector of `size` numbers that each routed expert of `layers` blocks has once.
    pub fn expert_rest(&mut self, layers: u64, size: u64) {
        let (all, used) = self.experts;
        let of = |experts: u64| (u128::from(layers) * u128::from(size)).saturating_mul(u128::from(experts));
        self.rest = self.rest.saturating_add(of(all));
        self.idle_rest = self.idle_rest.saturating_add(of(all.saturating_sub(used)));
    }

    /// The head is a tensor of its own.
    pub fn untied_head(&mut self) {
        self.head = true;
    }

    /// Sums.
    pub fn inventory(self) -> Inventory {
        let embedding = u128::from(self.vocabulary) * u128::from(self.hidden);
        let head = if self.head { embedding } else { 0 };
        let sum = |part: &dyn Fn(&Matrices) -> u128| self.matrices.iter().map(part).fold(0, u128::saturating_add);
        let linear = sum(&|group| group.wide(group.count));
        let idle = sum(&|group| group.wide(group.count - group.active)).saturating_add(self.idle_rest);
        let parameters = [embedding, head, self.rest].into_iter().fold(linear, u128::saturating_add);
        // A window on every layer is not used by servers; see `Inventory::cache_elements_per_token`.
        let windowed = if self.cache.windowed_layers == self.layers { 0 } else { self.cache.windowed_layers };
        let kept = self.cache.elements.saturating_mul(windowed).saturating_mul(self.cache.window);
        Inventory {
            name: self.name,
            repository: None,
            parameters: narrow(parameters),
            active_parameters: narrow(parameters - idle.min(parameters)),
            linear_parameters: narrow(linear),
            embedding_parameters: narrow(embedding),
            head_parameters: narrow(head),
            layers: u32::try_from(self.layers).unwrap_or(u32::MAX),
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            max_positions: self.max_positions,
            experts: self.experts.0,
            experts_per_token: self.experts.1,
            matrices: self.matrices,
            cache_elements_per_token: self.cache.elements.saturating_mul(self.layers - windowed),
            cache_elements_windowed: kept,
            window_tokens: if windowed == 0 { 0 } else { self.cache.window },
            stored_format: None,
            left_out: self.left_out,
            spec: None,
            untrainable: None,
        }
    }
}

fn narrow(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}
