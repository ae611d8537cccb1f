//! The service without this crate.

use std::alloc::System;

mod app;

#[global_allocator]
static GLOBAL: System = System;

fn main() {
    app::run(
        async |listener, app| {
            tokio::spawn(async { axum::serve(listener, app).await });
        },
        |_| {},
    );
}
