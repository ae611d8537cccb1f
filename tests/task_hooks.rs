//! Tokio's hooks count tasks without names by the line that spawns them. One test after the other: the sum over all names
//! depends on all tasks of the process, and each unpolled named future can be any unpolled task.
#![cfg(tokio_unstable)]

use support::tasks;

use std::future::{pending, ready};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::{RuntimeMetrics, TaskExt, task_hooks};
use tasks::{Fates, alone, build, fates, metrics, names, points, value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Returns a runtime of each flavour with the hooks.
fn hooked() -> [Runtime; 2] {
    let mut workers = Builder::new_multi_thread();
    workers.worker_threads(2);
    [Builder::new_current_thread(), workers].map(|mut builder| {
        task_hooks(&mut builder);
        builder.enable_all().build().unwrap()
    })
}

/// Spawns the task from the calling line, and returns the name of that line.
#[track_caller]
fn spawn<F>(handle: &Handle, task: F) -> (JoinHandle<F::Output>, String)
where
    F: Future<Output: Send> + Send + 'static,
{
    (handle.spawn(task), format!("tests/task_hooks.rs:{}", Location::caller().line()))
}

/// Waits for another thread: Tokio completes a join before it calls the hook of the task's end.
#[track_caller]
fn eventually<T: PartialEq + std::fmt::Debug>(runtime: &Runtime, read: impl Fn() -> T, expected: T) {
    let start = Instant::now();
    while read() != expected && start.elapsed() < Duration::from_secs(20) {
        runtime.block_on(tokio::task::yield_now());
    }
    assert_eq!(read(), expected);
}

fn place(name: &str) -> Fates {
    fates(&metrics().snapshot(), name)
}

fn is_counted(name: &str) -> bool {
    names(&metrics().snapshot()).iter().any(|known| known == name)
}

/// Returns the sum over the tasks of all names.
fn alive() -> f64 {
    let snapshot = metrics().snapshot();
    names(&snapshot).iter().map(|name| fates(&snapshot, name).alive).sum()
}

#[test]
fn tasks_are_counted_by_the_line_that_spawns_them() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let spawn_worker = || spawn(runtime.handle(), tokio::task::yield_now());
        let spawn_sleeper = || spawn(runtime.handle(), pending::<()>()).1;
        let [sleeper, ..] = [(); 3].map(|()| spawn_sleeper());
        let worker = [(); 2].map(|()| {
            let (task, line) = spawn_worker();
            runtime.block_on(task).unwrap();
            line
        });
        let gone = Fates { spawned: 2.0 * round, ended: 2.0 * round, ..Fates::default() };
        eventually(&runtime, || place(&worker[0]), gone);
        let cancelled = 3.0 * (round - 1.0);
        let there = Fates { spawned: 3.0 * round, cancelled, alive: 3.0, ..Fates::default() };
        eventually(&runtime, || place(&sleeper), there);
        let polls = |name: &str| value(&metrics().snapshot(), "polls", name);
        eventually(&runtime, || polls(&worker[0]), Some(4.0 * round));
        eventually(&runtime, || polls(&sleeper), Some(3.0 * round));
        assert_eq!(alive(), 3.0);
        assert_eq!(runtime.metrics().num_alive_tasks(), 3);
    }
    assert_eq!(alive(), 0.0);
}

#[test]
fn tokio_reports_no_outcome_but_that_of_the_shutdown() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let handle = runtime.handle();
        let aborted = spawn(handle, pending::<()>());
        aborted.0.abort();
        let completed = spawn(handle, async {});
        let panicked = spawn(handle, async { panic!("as it should") });
        let inside = [completed, panicked, aborted];
        let (_, left) = spawn(handle, pending::<()>());
        let inside = inside.map(|(task, line)| {
            let _ = runtime.block_on(task);
            line
        });
        drop(runtime);
        for line in inside {
            assert_eq!(place(&line), Fates { spawned: round, ended: round, ..Fates::default() }, "{line}");
            let points = points(&metrics().snapshot(), "ended", &line);
            assert_eq!(points, [(String::new(), round)], "what is not known is not there");
        }
        assert_eq!(place(&left), Fates { spawned: round, cancelled: round, ..Fates::default() });
    }
}

#[test]
fn a_task_that_waits_for_its_first_poll_is_alive() {
    let _alone = alone();
    let [runtime, _] = hooked();
    let (task, line) = spawn(runtime.handle(), async {});
    assert_eq!(place(&line), Fates { spawned: 1.0, alive: 1.0, ..Fates::default() });
    assert_eq!(alive(), 1.0);
    drop((runtime, task));
    assert_eq!(place(&line), Fates { spawned: 1.0, cancelled: 1.0, ..Fates::default() });
    assert_eq!(value(&metrics().snapshot(), "polls", &line), Some(0.0));
}

#[test]
fn a_task_with_a_name_is_counted_under_that_alone() {
    let _alone = alone();
    let earlier = pending::<()>().with_task_name("hooked: earlier");
    let mut earlier = Some(earlier);
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let handle = runtime.handle();
        let batch: Vec<_> =
            (0..4).map(|_| tokio::task::yield_now().with_task_name("hooked: batch")).collect();
        let afar = std::thread::spawn(|| tokio::task::yield_now().with_task_name("hooked: from afar"));
        let within = {
            let _entered = runtime.enter();
            let named = tokio::task::yield_now().with_task_name("hooked: within");
            tokio::time::timeout(Duration::from_secs(60), named)
        };
        let mut tasks = vec![
            spawn(handle, tokio::task::yield_now().with_task_name("hooked: itself")),
            spawn(handle, async { within.await.unwrap() }),
            spawn(handle, afar.join().unwrap()),
        ];
        tasks.extend(batch.into_iter().map(|task| spawn(handle, task)));
        let mut lines = Vec::new();
        for (task, line) in tasks {
            runtime.block_on(task).unwrap();
            lines.push(line);
        }
        if let Some(earlier) = earlier.take() {
            lines.push(spawn(handle, earlier).1);
            runtime.block_on(tokio::task::yield_now());
        }
        drop(runtime);
        for line in lines {
            assert!(!is_counted(&line), "{line}");
        }
        for (name, count) in [("itself", 1.0), ("within", 1.0), ("batch", 4.0), ("from afar", 1.0)] {
            let name = format!("hooked: {name}");
            let expected = Fates { spawned: count * round, completed: count * round, ..Fates::default() };
            assert_eq!(place(&name), expected, "{name}");
            assert_eq!(value(&metrics().snapshot(), "polls", &name), Some(2.0 * count * round), "{name}");
        }
    }
    assert_eq!(place("hooked: earlier"), Fates { spawned: 1.0, cancelled: 1.0, ..Fates::default() });
}

#[test]
fn a_task_with_a_name_that_is_never_polled_is_counted_under_that_alone() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        // This thread is the only worker of the current-thread runtime, and does not drive it.
        let (abort, first) = spawn(runtime.handle(), pending::<()>().with_task_name("hooked: unpolled"));
        let (left, second) = spawn(runtime.handle(), pending::<()>().with_task_name("hooked: unpolled"));
        abort.abort();
        runtime.block_on(abort).unwrap_err();
        drop((runtime, left));
        let expected = Fates { spawned: 2.0 * round, cancelled: 2.0 * round, ..Fates::default() };
        assert_eq!(place("hooked: unpolled"), expected);
        for line in [first, second] {
            assert!(!is_counted(&line), "{line}");
        }
    }
}

#[test]
fn a_named_future_inside_a_task_is_counted_beside_it() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        // Another unpolled named future: each task could be the one with its name.
        let unpolled = ready(()).with_task_name("hooked: unrelated");
        let task = async {
            ready(()).with_task_name("hooked: part").await;
            tokio::task::yield_now().await;
            ready(()).with_task_name("hooked: part").await;
        };
        let (task, line) = spawn(runtime.handle(), task);
        runtime.block_on(task).unwrap();
        drop((runtime, unpolled));
        assert_eq!(place(&line), Fates { spawned: round, ended: round, ..Fates::default() });
        assert_eq!(value(&metrics().snapshot(), "polls", &line), Some(2.0 * round));
        let parts = Fates { spawned: 2.0 * round, completed: 2.0 * round, ..Fates::default() };
        assert_eq!(place("hooked: part"), parts);
    }
}

#[test]
fn a_task_that_outlives_its_name_is_counted_by_its_line_from_then_on() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let named = tokio::task::yield_now().with_task_name("hooked: outlived");
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let task = async {
            named.await;
            receive.await.unwrap();
        };
        let (task, line) = spawn(runtime.handle(), task);
        let before = Fates { spawned: round - 1.0, ended: round - 1.0, ..Fates::default() };
        let alive_now = Fates { spawned: round, alive: 1.0, ..before };
        eventually(&runtime, || is_counted(&line).then(|| place(&line)), Some(alive_now));
        assert_eq!(alive(), 1.0);
        let name = Fates { spawned: round, completed: round, ..Fates::default() };
        assert_eq!(place("hooked: outlived"), name);
        send.send(()).unwrap();
        runtime.block_on(task).unwrap();
        drop(runtime);
        assert_eq!(place(&line), Fates { spawned: round, ended: round, ..Fates::default() });
        assert_eq!(place("hooked: outlived"), name);
    }
}

#[test]
fn a_name_that_is_dropped_unpolled_leaves_the_task_to_its_line() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let named = ready(()).with_task_name("hooked: dropped within");
        let task = async {
            drop(named);
            pending::<()>().await;
        };
        let (_task, line) = spawn(runtime.handle(), task);
        let cancelled = round - 1.0;
        let expected = Fates { spawned: round, alive: 1.0, cancelled, ..Fates::default() };
        eventually(&runtime, || is_counted(&line).then(|| place(&line)), Some(expected));
        assert_eq!(alive(), 1.0);
    }
}

#[test]
fn blocking_tasks_and_the_workers_themselves_are_not_counted() {
    let _alone = alone();
    let before = names(&metrics().snapshot());
    for runtime in hooked() {
        for _ in 0..100 {
            runtime.block_on(runtime.spawn_blocking(|| {})).unwrap();
        }
        drop(runtime);
    }
    assert_eq!(names(&metrics().snapshot()), before);
}

#[test]
fn tasks_for_a_runtime_that_is_gone_come_and_go() {
    let _alone = alone();
    for (round, runtime) in [1.0, 2.0].into_iter().zip(hooked()) {
        let handle = runtime.handle().clone();
        drop(runtime);
        let line = spawn(&handle, async {}).1;
        assert_eq!(place(&line), Fates { spawned: round, cancelled: round, ..Fates::default() });
        let named = spawn(&handle, ready(()).with_task_name("hooked: too late")).1;
        assert!(!is_counted(&named));
        let expected = Fates { spawned: round, cancelled: round, ..Fates::default() };
        assert_eq!(place("hooked: too late"), expected);
        let unpolled = ready(()).with_task_name("hooked: unrelated");
        let line = spawn(&handle, async {}).1;
        assert_eq!(place(&line), expected);
        drop(unpolled);
    }
}

/// Spawns race with the shutdown, so that some tasks end before the hook of their spawn runs.
#[test]
fn tasks_that_race_with_the_shutdown_leave_no_count() {
    let _alone = alone();
    for round in 0..50 {
        let [_, runtime] = hooked();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let handle = runtime.handle().clone();
                scope.spawn(move || {
                    for index in 0..200 {
                        match index % 2 {
                            0 => drop(handle.spawn(pending::<()>())),
                            _ => drop(handle.spawn(pending::<()>().with_task_name("hooked: racing"))),
                        }
                    }
                });
            }
            std::thread::yield_now();
            drop(runtime);
        });
        assert_eq!(alive(), 0.0, "round {round}");
    }
    let raced = place("hooked: racing");
    assert_eq!((raced.spawned, raced.cancelled), (10_000.0, 10_000.0));
}

#[test]
fn tasks_of_other_crates_are_counted_by_their_path() {
    let _alone = alone();
    let [_, runtime] = hooked();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, _) =
            spawn(&Handle::current(), async { axum::serve(listener, axum::Router::new()).await });
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"HTTP/1.1 404");
        let snapshot = metrics().snapshot();
        let theirs: Vec<_> = names(&snapshot).into_iter().filter(|name| name.starts_with("axum-")).collect();
        let [connection] = theirs.as_slice() else { panic!("one task for the connection: {theirs:?}") };
        assert!(connection.contains("/src/serve/"), "{connection}");
        assert_eq!(fates(&snapshot, connection).alive, 1.0);
        server.abort();
    });
}

#[test]
fn the_program_s_own_hooks_run_too() {
    let _alone = alone();
    let calls: [Arc<[AtomicUsize; 2]>; 4] = Default::default();
    let mut builder = Builder::new_current_thread();
    let both = |kind: usize| {
        [0, 1].map(|which| {
            let calls = Arc::clone(&calls[kind]);
            move |_: &tokio::runtime::TaskMeta<'_>| {
                if which == 1 {
                    assert!(calls[0].load(SeqCst) > calls[1].load(SeqCst), "in the order given");
                }
                calls[which].fetch_add(1, SeqCst);
            }
        })
    };
    let ([spawned, spawned_too], [before, before_too]) = (both(0), both(1));
    let ([after, after_too], [end, end_too]) = (both(2), both(3));
    task_hooks(&mut builder)
        .on_task_spawn(spawned)
        .on_task_spawn(spawned_too)
        .on_before_task_poll(before)
        .on_before_task_poll(before_too)
        .on_after_task_poll(after)
        .on_after_task_poll(after_too)
        .on_task_terminate(end)
        .on_task_terminate(end_too);
    let runtime = builder.build().unwrap();
    let (task, line) = spawn(runtime.handle(), tokio::task::yield_now());
    runtime.block_on(task).unwrap();
    drop(runtime);
    assert_eq!(place(&line), Fates { spawned: 1.0, ended: 1.0, ..Fates::default() });
    assert_eq!(value(&metrics().snapshot(), "polls", &line), Some(2.0));
    let seen = calls.map(|calls| [0, 1].map(|which| calls[which].load(SeqCst)));
    assert_eq!(seen, [[1, 1], [2, 2], [2, 2], [1, 1]]);
}

#[test]
fn a_task_that_blocks_on_another_runtime_excludes_its_time() {
    let _alone = alone();
    let [inner, outer] = hooked();
    let work = |time| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(time) {}
    };
    let start = Instant::now();
    let outer_task = async move {
        work(20);
        let line = tokio::task::block_in_place(|| {
            let (task, line) = spawn(inner.handle(), async move { work(20) });
            inner.block_on(task).unwrap();
            drop(inner);
            line
        });
        work(20);
        line
    };
    let (task, outer_line) = spawn(outer.handle(), outer_task);
    let inner_line = outer.block_on(task).unwrap();
    drop(outer);
    let whole = start.elapsed().as_secs_f64();
    let snapshot = metrics().snapshot();
    let [outer, inner] = [&outer_line, &inner_line].map(|line| value(&snapshot, "busy.time", line).unwrap());
    assert!(inner >= 0.0199 && outer >= 0.0398, "{inner} in {outer}");
    assert!(inner + outer <= whole * 1.001, "{inner} + {outer} of {whole}");
    assert_eq!(value(&snapshot, "slow_polls", &outer_line), Some(1.0));
}

#[test]
fn the_sum_over_names_is_tokio_s_count_without_the_probe() {
    let _alone = alone();
    for runtime in hooked() {
        let metrics: RuntimeMetrics = {
            let _entered = runtime.enter();
            build(RuntimeMetrics::builder().probe_interval(Duration::from_millis(5)))
        };
        let tasks: Vec<JoinHandle<()>> = (0..300)
            .map(|index| match index % 3 {
                0 => runtime.spawn(pending::<()>()),
                1 => runtime.spawn(pending::<()>().with_task_name("hooked: summed")),
                _ => runtime.spawn(tokio::task::yield_now()),
            })
            .collect();
        tasks.iter().step_by(6).for_each(JoinHandle::abort);
        let tokio = || metrics.snapshot().get("tokio.task.count").and_then(|r| r.value()?.as_f64());
        eventually(&runtime, tokio, Some(150.0));
        eventually(&runtime, alive, 150.0);
        assert_eq!(runtime.metrics().num_alive_tasks(), 151, "with the probe");
        metrics.stop();
    }
    assert_eq!(alive(), 0.0);
}
