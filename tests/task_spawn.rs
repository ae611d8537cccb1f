//! Tasks named by the line that spawns them, and closures on the blocking pool.

use std::panic::Location;
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_instrumentation_runtime::{
    CountingAllocator, TaskExt, spawn, spawn_blocking, spawn_blocking_named,
};
use support::tasks::{Fates, busy, fates, metrics, value};

#[global_allocator]
static ALLOC: CountingAllocator = CountingAllocator::system();

fn of(name: &str) -> Fates {
    fates(&metrics().snapshot(), name)
}

/// Returns the name of the calling line.
#[track_caller]
fn here() -> String {
    // The path is relative, as it is for any program of a workspace.
    format!("{}:{}", file!(), Location::caller().line())
}

#[tokio::test]
async fn a_task_is_named_by_the_line_that_spawns_it() {
    for count in [1.0, 2.0] {
        let (task, line) = (spawn(async { 7 }), here());
        assert_eq!(task.await.unwrap(), 7);
        assert_eq!(of(&line), Fates { spawned: count, completed: count, ..Fates::default() });
        let (task, line) = (tokio::spawn(std::future::pending::<()>().with_task_location()), here());
        task.abort();
        task.await.unwrap_err();
        assert_eq!(of(&line), Fates { spawned: count, cancelled: count, ..Fates::default() });
    }
}

#[tokio::test]
async fn a_blocking_closure_is_live_until_it_has_run_and_is_no_slow_poll() {
    let (start, started) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let run = move || {
        start.send(()).unwrap();
        gone.recv().unwrap();
        busy(Duration::from_millis(30));
        std::hint::black_box(vec![0_u8; 1 << 20]).len()
    };
    let (task, line) = (spawn_blocking(run), here());
    started.recv().unwrap();
    assert_eq!(of(&line), Fates { spawned: 1.0, alive: 1.0, ..Fates::default() });
    go.send(()).unwrap();
    assert_eq!(task.await.unwrap(), 1 << 20);
    assert_eq!(of(&line), Fates { spawned: 1.0, completed: 1.0, ..Fates::default() });
    let snapshot = metrics().snapshot();
    let read = |metric: &str| value(&snapshot, metric, &line).unwrap();
    assert!(read("busy.time") >= 0.0299);
    assert!(read("memory.allocated") >= f64::from(1 << 20));
    assert_eq!((read("polls"), read("slow_polls")), (1.0, 0.0));
}

#[test]
fn a_blocking_closure_that_panics_or_never_runs_has_that_outcome() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let panics = || {
        if true {
            panic!("as it should")
        }
    };
    runtime.block_on(async { spawn_blocking_named("spawn: panics", panics).await.unwrap_err() });
    assert_eq!(of("spawn: panics"), Fates { spawned: 1.0, panicked: 1.0, ..Fates::default() });

    let (go, gone) = mpsc::channel::<()>();
    let entered = runtime.enter();
    drop(spawn_blocking_named("spawn: runs", move || gone.recv().unwrap_err()));
    let waits = spawn_blocking_named("spawn: never runs", || ());
    drop(entered);
    assert_eq!(of("spawn: never runs"), Fates { spawned: 1.0, alive: 1.0, ..Fates::default() });
    waits.abort();
    drop(go);
    runtime.block_on(waits).unwrap_err();
    drop(runtime);
    let cancelled = Fates { spawned: 1.0, cancelled: 1.0, ..Fates::default() };
    assert_eq!(of("spawn: never runs"), cancelled);
}
