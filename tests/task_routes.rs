//! Far more routes than the limit of names.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::get;
use opentelemetry_instrumentation_runtime::tower::TaskNameLayer;
use support::tasks::{fates, metrics, names, value};
use tower_service::Service;

#[tokio::test]
async fn ten_thousand_routes_end_in_other_with_exact_sums() {
    const ROUTES: usize = 10_000;
    let mut app = Router::new();
    for route in 0..ROUTES {
        app = app.route(&format!("/route{route}/{{id}}"), get(async || "ok"));
    }
    let mut app: Router = app.layer(TaskNameLayer::new());
    for round in 0..2 {
        for route in 0..ROUTES {
            let request = Request::get(format!("/route{route}/{round}")).body(Body::empty()).unwrap();
            let response = app.call(request).await.unwrap();
            assert_eq!(to_bytes(response.into_body(), 10).await.unwrap(), "ok");
        }
    }
    let snapshot = metrics().snapshot();
    let names = names(&snapshot);
    assert_eq!(names.len(), 201, "200 names and _OTHER");
    let fates: Vec<_> = names.iter().map(|name| fates(&snapshot, name)).collect();
    let sum = |of: fn(&support::tasks::Fates) -> f64| fates.iter().map(of).sum::<f64>();
    assert_eq!(sum(|fates| fates.spawned), 2.0 * ROUTES as f64);
    assert_eq!(sum(|fates| fates.completed), 2.0 * ROUTES as f64);
    assert_eq!(value(&snapshot, "spawned", "_OTHER"), Some(2.0 * (ROUTES - 200) as f64));
    assert_eq!(value(&snapshot, "spawned", "GET /route0/{id}"), Some(2.0));
}
