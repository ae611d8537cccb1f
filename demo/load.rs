//! The small service: waves of work, and two leaks.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::TaskExt;
use tokio::time::{interval, sleep};

/// The memory leak: a cache that is never emptied.
static CACHE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Starts everything. Returns at once.
pub(crate) fn start() {
    tokio::spawn(requests().with_task_name("accept"));
    tokio::spawn(fill_cache().with_task_name("cache"));
    tokio::spawn(subscribe().with_task_name("subscribe"));
    tokio::spawn(report().with_task_name("report"));
}

/// Makes waves of requests with a period of twenty seconds. Each request is a task.
async fn requests() {
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let wave = (start.elapsed().as_secs_f64() * std::f64::consts::TAU / 20.0).sin();
        for id in 0..(20.0 + 18.0 * wave) as u32 {
            tokio::spawn(request(id).with_task_name("request"));
        }
    }
}

/// Builds a document, waits as if for a database, answers.
async fn request(id: u32) {
    let mut document: BTreeMap<String, String> =
        (0..50).map(|field| (format!("field-{field}"), format!("{id}:{}", field * 7919))).collect();
    sleep(Duration::from_millis(20 + u64::from(id) * 10)).await;
    document.retain(|_, value| value.len() % 2 == 0);
    black_box(document.into_values().collect::<Vec<_>>().join(","));
}

/// Leaks 256 kB a second.
async fn fill_cache() {
    let mut ticks = interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        if let Ok(mut cache) = CACHE.lock() {
            cache.push(vec![1; 64_000]);
        }
    }
}

/// Leaks two tasks a second: subscribers whose publisher will never speak.
async fn subscribe() {
    let mut ticks = interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        tokio::spawn(std::future::pending::<()>().with_task_name("subscriber"));
    }
}

/// Stalls a worker every five seconds: computes for 500 ms without a yield.
async fn report() {
    let mut ticks = interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        let start = Instant::now();
        let mut sum = 0_u64;
        while start.elapsed() < Duration::from_millis(500) {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
    }
}
