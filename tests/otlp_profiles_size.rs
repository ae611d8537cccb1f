//! The profile of a service with 500 stacks takes at most 64 kB over the network.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::alloc::System;
use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_instrumentation_runtime::otlp;
use opentelemetry_instrumentation_runtime::profile::HeapProfile;
use opentelemetry_instrumentation_runtime::{CountingAllocator, Sampled, TaskExt};
use support::child::{outcome, results};
use support::otlp_profile::rows;
use support::receiver::Receiver;

#[global_allocator]
static ALLOC: CountingAllocator<System, Sampled> = CountingAllocator::system().sampled();

/// What the service keeps.
type Kept = HashMap<String, Vec<u8>>;

/// Declares a module for each name, with an asynchronous function for each operation, and one that calls them all.
macro_rules! service {
    ($($module:ident)+; $operations:tt) => {
        $(service!(module $module $operations);)+

        async fn serve_everything(kept: &mut Kept) {
            $($module::serve(kept).await;)+
        }
    };
    (module $module:ident [$($operation:ident)+]) => {
        mod $module {
            use super::*;

            $(
                #[inline(never)]
                pub async fn $operation(kept: &mut Kept) {
                    let key = concat!(stringify!($module), "::", stringify!($operation));
                    kept.insert(key.to_owned(), black_box(vec![1; 16 * 1024]));
                    tokio::task::yield_now().await;
                }
            )+

            pub async fn serve(kept: &mut Kept) {
                $($operation(kept).await;)+
            }
        }
    };
}

service! {
    account_settings address_book api_gateway audit_log billing_period cart_items catalogue_search checkout_session
    customer_profile delivery_slots discount_rules email_templates fraud_detection gift_cards inventory_levels
    invoice_lines loyalty_points order_history payment_methods price_lists product_images return_requests
    shipping_labels stock_movements warehouse_bins;
    [
        authorize_request cache_response check_permissions compress_body decode_payload deserialize_rows
        encode_answer fetch_from_replica load_configuration merge_results normalize_input parse_headers
        prepare_statement publish_event record_metrics render_template resolve_references retry_on_conflict
        serialize_entity validate_schema
    ]
}

#[test]
fn a_profile_of_500_stacks_has_at_most_64_kb() {
    let receiver = Receiver::start();
    let said = results(
        support::child::child("child_with_500_stacks")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    );
    assert_eq!(said, ["delivered"]);
    let export = &receiver.profiles().exports()[0];
    let rows = rows(&export.message);
    let own = rows.iter().filter(|row| row.kind == "inuse_space/bytes");
    let stacks: BTreeSet<_> = own.map(|row| &row.functions).collect();
    let frames: usize = stacks.iter().map(|stack| stack.len()).sum();
    let functions: BTreeSet<_> = stacks.iter().flat_map(|stack| stack.iter()).collect();
    println!(
        "{} stacks, {} functions, {frames} frames: {} bytes, {} compressed",
        stacks.len(),
        functions.len(),
        export.bytes,
        export.sent
    );
    assert!(stacks.len() >= 500, "{}", stacks.len());
    assert!(export.sent > 0 && export.sent <= 64 * 1024, "{} bytes", export.sent);
}

#[test]
#[ignore = "run by the other test, in a child process"]
fn child_with_500_stacks() {
    // Each block is sampled.
    HeapProfile::start(1024).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let serving = async {
        let mut kept = Kept::new();
        serve_everything(&mut kept).await;
        kept
    };
    let kept = runtime.block_on(runtime.spawn(serving.with_task_name("service"))).unwrap();
    // Looking up names allocates a lot, which is not the subject.
    HeapProfile::running().unwrap().restart(1 << 30).unwrap();
    let hour = Duration::from_secs(3600);
    let telemetry = otlp::builder().interval(hour).shutdown_timeout(hour).build().unwrap();
    telemetry.provider().meter("app").u64_counter("orders").build().add(1, &[]);
    telemetry.force_flush().unwrap();
    telemetry.force_flush().unwrap();
    // It waits for the profile.
    println!("RESULT {}", outcome(telemetry.shutdown()));
    drop(kept);
}
