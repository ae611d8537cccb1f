//! The view that limits the memory of the instruments.

use opentelemetry_sdk::metrics::{Instrument, Stream};

use crate::{count::task, source};

/// A view that limits the memory of this crate's instruments.
///
/// Add it to a meter provider that you build yourself. The provider of the module `otlp` has it already. Without it
/// the SDK allocates some 130 kB for each instrument, room for 2000 series. The view leaves room for 64 runtimes, 256
/// workers, and as many task names as [`task_name_limit`](crate::Builder::task_name_limit) allows when the instruments
/// are registered. It does not affect the instruments of other crates.
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
        source::catalogue().iter().any(|group| group.metrics.iter().any(|metric| metric.name() == name));
    if !ours {
        return None;
    }
    Stream::builder().with_cardinality_limit(limit(name)).build().ok()
}

/// Returns the number of series that a metric may have. The SDK sums all further ones in one overflow series.
fn limit(name: &str) -> usize {
    match name {
        // Each task name has up to three outcomes.
        name if name.starts_with("rust.task.") => 3 * task::max_names(),
        // One series for each worker of a large machine, with `per_worker(true)`.
        name if name.starts_with("tokio.worker.") => 256,
        // One series for each runtime.
        _ => 64,
    }
}
