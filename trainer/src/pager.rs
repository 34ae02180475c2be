//! Blocks that are not on the device: brought there by a thread, one ahead of the engine.
//!
//! In:    the number of a block, and the one that will be wanted after it.
//! Out:   the block, on the device when [`Pager::get`] returns.
//! Never: has more than two blocks on the device: the last handed out and the one on its way.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use models::Block;

use crate::blocks::{BlockStore, Uploader};
use crate::error::TrainError;
use crate::stalls::{Cause, Stalls};

type Loaded = (usize, Result<Block, TrainError>);

/// The thread's handle.
#[derive(Debug)]
pub(crate) struct Pager {
    wanted: Option<Sender<usize>>,
    state: Mutex<State>,
    thread: Option<JoinHandle<()>>,
    stalls: Arc<Stalls>,
}

#[derive(Debug)]
struct State {
    loaded: Receiver<Loaded>,
    /// The last block handed out.
    last: Option<(usize, Block)>,
    /// The one on its way.
    on_its_way: Option<usize>,
}

impl Pager {
    /// Starts the thread.
    pub(crate) fn start(store: BlockStore, uploader: Uploader, stalls: Arc<Stalls>) -> Result<Pager, TrainError> {
        let (wanted, asked) = channel();
        let (report, loaded) = channel();
        let work = move || serve(&store, &uploader, &asked, &report);
        let thread = std::thread::Builder::new().name("pager".into()).spawn(work);
        let thread = thread.map_err(|error| TrainError::Thread { reason: error.to_string() })?;
        let state = Mutex::new(State { loaded, last: None, on_its_way: None });
        Ok(Pager { wanted: Some(wanted), state, thread: Some(thread), stalls })
    }

    /// Block `index`; `next` is brought meanwhile.
    pub(crate) fn get(&self, index: usize, next: Option<usize>) -> Result<Block, TrainError> {
        let state = &mut *self.state();
        let block = match &state.last {
            Some((known, block)) if *known == index => block.clone(),
            _ => {
                // Its memory goes back before another block arrives.
                state.last = None;
                let block = self.stalls.time(Cause::Weights, || self.receive(state, index))?;
                state.last = Some((index, block.clone()));
                block
            }
        };
        if let Some(next) = next.filter(|&next| next != index) {
            self.ask(state, next);
        }
        Ok(block)
    }

    /// Forgets what is on the device: the blocks have been updated. Begins to bring `next`.
    pub(crate) fn renew(&self, next: usize) {
        let state = &mut *self.state();
        state.last = None;
        if state.on_its_way.take().is_some() {
            let _ = state.loaded.recv();
        }
        self.ask(state, next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, state: &mut State, index: usize) {
        if state.on_its_way.is_none() {
            state.on_its_way = Some(index);
            // A thread that is gone is noticed by the next receive.
            let _ = self.wanted.as_ref().map(|wanted| wanted.send(index));
        }
    }

    fn receive(&self, state: &mut State, index: usize) -> Result<Block, TrainError> {
        let lost = |_| TrainError::Thread { reason: "the thread that pages weights ended early".to_string() };
        loop {
            self.ask(state, index);
            let (found, block) = state.loaded.recv().map_err(lost)?;
            state.on_its_way = None;
            if found == index {
                return block;
            }
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(store: &BlockStore, uploader: &Uploader, asked: &Receiver<usize>, report: &Sender<Loaded>) {
    while let Ok(index) = asked.recv() {
        let _ = report.send((index, store.load(index, uploader)));
    }
}
