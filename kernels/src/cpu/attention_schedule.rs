//! How the attention backward is cut into tasks.
//!
//! In:    the segments, the shape, the number of threads.
//! Out:   tasks that together cover every gradient once, large ones first.
//! Never: a choice that reaches the results: both kinds of schedule sum the same tiles in the same order.

use super::attention::{AttentionShape, KEY_TILE, QUERY_TILE, TokenTile, token_tiles};

/// A unit of work that no other unit shares an output with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// All gradients of one key-value head and its query heads in the segment `start .. end`.
    Whole { kv_head: usize, start: usize, end: usize },
    /// Key and value gradients of one tile of keys; the segment ends at `segment_end`.
    Keys { kv_head: usize, tile: TokenTile, segment_end: usize },
    /// The query gradient of one tile of queries.
    Queries { head: usize, tile: TokenTile },
}

/// Chooses whole tasks while one is no larger than a thread's fair share of what is left, and tiles for the rest.
pub(super) fn plan_tasks(segments: &[u32], shape: &AttentionShape, threads: usize) -> Vec<Task> {
    let mut spans: Vec<_> = segments.windows(2).map(|b| (b[0], b[1])).filter(|(start, end)| start < end).collect();
    spans.sort_by_key(|&(start, end)| std::cmp::Reverse(end - start));
    let work = |(start, end): (u32, u32)| {
        let length = (end - start) as usize as f64;
        length * length.min(shape.window.unwrap_or(usize::MAX) as f64)
    };
    let mut left: f64 = spans.iter().map(|&span| work(span)).sum::<f64>() * shape.n_kv_heads as f64;
    let (mut tasks, mut tiles) = (Vec::new(), Vec::new());
    for span in spans {
        for kv_head in 0..shape.n_kv_heads {
            if work(span) * threads as f64 <= left {
                tasks.push(Task::Whole { kv_head, start: span.0 as usize, end: span.1 as usize });
                left -= work(span);
            } else {
                push_tiles(span, kv_head, shape, &mut tiles);
            }
        }
    }
    tasks.extend(tiles);
    tasks
}

fn push_tiles(span: (u32, u32), kv_head: usize, shape: &AttentionShape, tasks: &mut Vec<Task>) {
    let group = shape.n_heads / shape.n_kv_heads;
    let segment_end = span.1 as usize;
    let shift = |tile: TokenTile| TokenTile {
        segment_start: span.0 as usize,
        first: tile.first + span.0 as usize,
        end: tile.end + span.0 as usize,
    };
    let local = [0, span.1 - span.0];
    // Early keys are seen by most queries, so the largest come first here too.
    let key_tiles = token_tiles(&local, KEY_TILE).into_iter().rev();
    tasks.extend(key_tiles.map(|tile| Task::Keys { kv_head, tile: shift(tile), segment_end }));
    for tile in token_tiles(&local, QUERY_TILE) {
        tasks.extend((0..group).map(|h| Task::Queries { head: kv_head * group + h, tile: shift(tile) }));
    }
}
