//! Draws the bytes that the heap profile samples.

// Not the model checker's: only the owner uses them, and each one would multiply the orders to try.
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The process of samples along one total of one thread: on average one sample in `mean` units, with distances that are
/// exponentially distributed. Only the thread that owns the slot uses it.
pub(super) struct Sampler {
    /// The mean that `next` was drawn for. 0 while nothing is sampled.
    mean: AtomicU64,
    /// The total at which the next sample is due.
    next: AtomicU64,
}

impl Sampler {
    pub(super) const fn new() -> Self {
        Sampler { mean: AtomicU64::new(0), next: AtomicU64::new(u64::MAX) }
    }

    /// Returns the weight of a sample, if one is due in an allocation that raises the total from `start` by `units`.
    ///
    /// The weight is one over the probability that an allocation of this size is sampled, so that the sum of the weights of
    /// sampled allocations estimates the number of all allocations without bias for any mix of sizes.
    #[inline]
    pub(super) fn draw(&self, random: &Random, start: u64, units: u64, mean: u64) -> Option<f64> {
        if mean == 0 && self.mean.load(Relaxed) == 0 {
            return None;
        }
        self.draw_next(random, start, units, mean)
    }

    fn draw_next(&self, random: &Random, start: u64, units: u64, mean: u64) -> Option<f64> {
        // Redrawn where the mean has changed, and where an allocator that takes no samples has passed the next one.
        // Nothing is lost by that: exponential distances have no memory.
        if self.mean.load(Relaxed) != mean || self.next.load(Relaxed) <= start {
            self.mean.store(mean, Relaxed);
            self.next.store(random.after(start, mean), Relaxed);
        }
        let end = start.saturating_add(units);
        if self.next.load(Relaxed) > end {
            return None;
        }
        self.next.store(random.after(end, mean), Relaxed);
        Some(-1.0 / (-(units as f64) / mean as f64).exp_m1())
    }

    /// Returns how much may be added to a total while no sample is due, at most `most`.
    pub(super) fn grant(&self, total: u64, most: usize) -> usize {
        match self.next.load(Relaxed).checked_sub(total) {
            // An allocator that takes no samples has passed the next one.
            None | Some(0) => most,
            Some(distance) => most.min(usize::try_from(distance - 1).unwrap_or(most)),
        }
    }
}

/// A thread's source of random numbers: xorshift64*.
pub(super) struct Random(AtomicU64);

impl Random {
    pub(super) const fn new() -> Self {
        Random(AtomicU64::new(0))
    }

    /// Draws the total at which the sample after `start` is due. Never, if the mean is zero.
    fn after(&self, start: u64, mean: u64) -> u64 {
        if mean == 0 {
            return u64::MAX;
        }
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let distance = (-uniform.ln() * mean as f64).ceil().max(1.0);
        start.saturating_add(distance as u64)
    }

    fn next(&self) -> u64 {
        let mut state = self.0.load(Relaxed);
        if state == 0 {
            // The address differs from thread to thread and, as systems place memory at random, from run to run.
            state = (std::ptr::from_ref(self).addr() as u64 | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.store(state, Relaxed);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    /// Lets allocations of one size pass, and returns the sum of the weights and their variance.
    fn estimate(sampler: &Sampler, random: &Random, start: &mut u64, units: u64, count: u64) -> (f64, f64) {
        let (mut sum, mut variance) = (0.0, 0.0);
        for _ in 0..count {
            if let Some(weight) = sampler.draw(random, *start, units, 1000) {
                sum += weight;
                variance += weight * (weight - 1.0);
            }
            *start += units;
        }
        (sum, variance)
    }

    #[test]
    fn weights_add_up_to_the_number_of_allocations() {
        let (sampler, random, mut start) = (Sampler::new(), Random::new(), 0);
        for units in [1, 100, 1000, 3000, 50_000] {
            let count = 200_000;
            let (sum, variance) = estimate(&sampler, &random, &mut start, units, count);
            let error = (sum - count as f64).abs();
            assert!(error <= 5.0 * variance.sqrt(), "{sum} of {count} with {units} units");
        }
    }

    #[test]
    fn a_grant_ends_at_the_next_sample() {
        let (sampler, random) = (Sampler::new(), Random::new());
        assert_eq!(sampler.grant(7, 100), 100, "nothing is sampled");
        let mut total = 0;
        let mut samples = 0;
        for _ in 0..10_000 {
            let grant = sampler.grant(total, 100) as u64;
            assert!(grant <= 100);
            total += grant;
            assert!(sampler.draw(&random, total, 0, 50).is_none(), "before the end of the grant");
            samples += u32::from(sampler.draw(&random, total, 1, 50).is_some());
            total += 1;
        }
        assert!(samples > 1_000);
    }

    #[test]
    fn stops_and_starts_with_the_mean() {
        let (sampler, random) = (Sampler::new(), Random::new());
        assert!(sampler.draw(&random, 0, 1 << 40, 1).is_some());
        assert!(sampler.draw(&random, 0, u64::MAX / 2, 0).is_none());
        assert_eq!(sampler.grant(0, 100), 100);
        // An allocator without samples has passed the one that was due.
        assert!(sampler.draw(&random, 0, 0, 10).is_none());
        assert_eq!(sampler.grant(1 << 40, 100), 100);
        assert!(sampler.draw(&random, 1 << 40, 1000, 10).is_some());
    }
}
