//! The view that keeps our instruments small.

use opentelemetry_sdk::metrics::{Instrument, Stream};

use crate::{count::task, source};

/// A view for a meter provider of your own, which the one of the module `otlp` has built in.
///
/// The SDK sets room for 2000 series aside for every instrument, some 130 kB, and has no way to ask for less but a
/// view. This one leaves room for 64 runtimes, 256 workers, and the names of tasks that
/// [`task_name_limit`](crate::Builder::task_name_limit) allows when the instruments are registered. It leaves all
/// instruments but ours alone.
///
/// ```
/// use opentelemetry_sdk::metrics::SdkMeterProvider;
///
/// let provider = SdkMeterProvider::builder().with_view(opentelemetry_instrumentation_runtime::view).build();
/// # drop(provider);
/// ```
pub fn view(instrument: &Instrument) -> Option<Stream> {
    let name = instrument.name();
    let ours =
        source::catalogue().iter().any(|family| family.metrics.iter().any(|metric| metric.name() == name));
    if !ours {
        return None;
    }
    Stream::builder().with_cardinality_limit(limit(name)).build().ok()
}

/// How many series the metric may come to. The rest is summed up in one that the SDK marks as overflow.
fn limit(name: &str) -> usize {
    match name {
        // A name of a task is an attribute, with up to three outcomes.
        name if name.starts_with("rust.task.") => 3 * task::most_names(),
        // Each worker of a large machine, where that is asked for.
        name if name.starts_with("tokio.worker.") => 256,
        // Above all, one for each runtime.
        _ => 64,
    }
}
