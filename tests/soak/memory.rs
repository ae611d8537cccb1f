//! Allocates: blocks of many sizes on threads that come and go, freed on the same thread, on another one, or by the
//! destructor of a thread-local.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use support::random::Random;

use crate::soak::{Soak, more};

const THREADS: u64 = 4;
const ROUNDS: u64 = 2_000;
/// The most blocks that a thread keeps, and the most that wait for another thread.
const KEPT: usize = 50;

/// A block of memory.
#[allow(dead_code, reason = "only held and dropped")]
enum Block {
    Bytes(Vec<u8>),
    Aligned(Box<Aligned>),
    Page(Box<Page>),
}

#[allow(dead_code, reason = "only held and dropped")]
#[repr(align(64))]
struct Aligned([u8; 192]);

#[allow(dead_code, reason = "only held and dropped")]
#[repr(align(4096))]
struct Page([u8; 4096]);

thread_local! {
    /// Freed by a destructor, which may run after the allocator's.
    static LAST: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

pub fn run(soak: &Soak) {
    let passed_on: &Mutex<Vec<Block>> = &Mutex::new(Vec::new());
    let mut generation = 0;
    while soak.goes_on() {
        generation += 1;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let random = Random(0x9E37_79B9_7F4A_7C15 ^ (generation * THREADS + thread + 1));
                    let work = move || churn(soak, passed_on, random);
                    thread::Builder::new().name("allocating".into()).spawn_scoped(scope, work)
                })
                .collect();
            for thread in threads {
                // Joined, since a scope does not wait for the destructors of thread-locals.
                match thread {
                    Ok(thread) => drop(thread.join()),
                    Err(error) => soak.fail(format!("no thread: {error}")),
                }
                more(&soak.done.threads);
            }
        });
        soak.pause(Duration::from_millis(30));
    }
}

fn churn(soak: &Soak, passed_on: &Mutex<Vec<Block>>, mut random: Random) {
    let passed_on = || passed_on.lock().unwrap_or_else(PoisonError::into_inner);
    LAST.with_borrow_mut(|last| last.push(block(&mut random)));
    let mut own: Vec<Block> = Vec::new();
    for _ in 0..ROUNDS {
        let index = random.below(own.len().max(1) as u64) as usize;
        match random.below(8) {
            0..3 => own.push(block(&mut random)),
            3 => {
                if let Some(Block::Bytes(bytes)) = own.get_mut(index) {
                    bytes.reserve_exact(size(&mut random));
                    bytes.shrink_to(size(&mut random));
                }
            }
            4 if !own.is_empty() => {
                let block = own.swap_remove(index);
                let mut waiting = passed_on();
                if waiting.len() < KEPT {
                    waiting.push(block);
                }
            }
            5 => {
                let taken = passed_on().pop();
                own.extend(taken);
            }
            6 if random.below(200) == 0 => {
                // Fails, which is counted too.
                drop(black_box(Vec::<u8>::new().try_reserve_exact(isize::MAX as usize)));
            }
            _ if own.len() > KEPT => drop(own.swap_remove(index)),
            _ => {}
        }
    }
    soak.done.blocks.fetch_add(ROUNDS * 3 / 8, Relaxed);
}

fn block(random: &mut Random) -> Block {
    match random.below(16) {
        0 => Block::Aligned(Box::new(Aligned([1; 192]))),
        1 => Block::Page(Box::new(Page([1; 4096]))),
        2..6 => Block::Bytes(vec![0; size(random)]),
        _ => Block::Bytes(Vec::with_capacity(size(random))),
    }
}

/// Mostly small sizes, some around 32 KiB, where sampling changes, and some large ones.
fn size(random: &mut Random) -> usize {
    (match random.below(32) {
        0..20 => 1 + random.below(300),
        20..29 => 1 + random.below(9_000),
        29 | 30 => 32_760 + random.below(16),
        _ => 1 + random.below(600_000),
    }) as usize
}
