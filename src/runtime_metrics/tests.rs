//! A meter without a provider that lives on.

use std::sync::Arc;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};

#[test]
fn everything_is_freed_with_the_provider_and_the_last_clone() {
    let provider = SdkMeterProvider::builder().with_reader(ManualReader::default()).build();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let metrics = crate::init_runtime_metrics(&provider.meter("test"));
    let shared = Arc::downgrade(&metrics.shared);
    drop(metrics);
    assert!(shared.upgrade().is_some(), "the callbacks keep it");
    drop(provider);
    assert!(shared.upgrade().is_none());
}
