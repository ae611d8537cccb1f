//! A layer that names the handling of each request: see [`TaskNameLayer`].
//!
//! A server such as axum or tonic handles requests in tasks that it spawns itself, one for a connection or a stream. A name
//! on those tasks would say nothing. This layer counts each request as a task instead, under its route:
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # {
//! use axum::{Router, routing::get};
//! use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
//!
//! let app: Router = Router::new()
//!     .route("/order/{id}", get(async || "one order"))
//!     .layer(TaskNameLayer::new());
//! # }
//! ```
//!
//! The metrics `rust.task.*` then have the name `GET /order/{id}`: how many such requests are being handled, how long they
//! kept a worker busy, how much memory they allocated, which of them blocked.

mod body;
mod layer;
mod name;
mod response;

pub use body::NamedBody;
pub use layer::{TaskNameLayer, TaskNameService};
pub use name::{By, Grpc, NameRequest, Route};
pub use response::ResponseFuture;
