//! Finds out whether an amount grows for good, or rises and falls with the load.

/// The lowest and highest values of an amount over time.
pub(crate) struct Trend {
    /// Stretches of equal length, the oldest first. The last one may be shorter.
    stretches: Vec<Stretch>,
    /// How many samples a stretch has, and how many of them the last one has.
    length: usize,
    filled: usize,
}

struct Stretch {
    low: f64,
    high: f64,
}

impl Stretch {
    fn over(&self, other: &Self) -> Self {
        Stretch { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

impl Trend {
    /// Fewer samples can be the rising half of a short wave.
    const MIN_STRETCHES: usize = 12;
    /// With more stretches, each two become one.
    const MAX_STRETCHES: usize = 400;

    pub(crate) fn new() -> Self {
        Trend { stretches: Vec::new(), length: 1, filled: 1 }
    }

    pub(crate) fn add(&mut self, value: f64) {
        let sample = Stretch { low: value, high: value };
        match self.stretches.last_mut() {
            Some(last) if self.filled < self.length => {
                *last = last.over(&sample);
                self.filled += 1;
            }
            _ => {
                self.stretches.push(sample);
                self.filled = 1;
            }
        }
        if self.stretches.len() >= Self::MAX_STRETCHES && self.filled == self.length {
            let pairs = self.stretches.chunks(2);
            self.stretches = pairs.filter_map(|pair| Some(pair.first()?.over(pair.last()?))).collect();
            self.length *= 2;
            self.filled = self.length;
        }
    }

    /// Returns true if the valleys rise: the lowest value of each quarter of the time is well above that of the quarter
    /// before, and that of the last quarter is above all values of the first.
    ///
    /// A wave of load comes back to its lowest value, whatever its height. Until it has done so once, no rule can
    /// distinguish it from a leak.
    pub(crate) fn is_leak(&self) -> bool {
        let count = self.stretches.len();
        if count < Self::MIN_STRETCHES {
            return false;
        }
        let quarter = |number: usize| {
            let stretches = self.stretches.get(number * count / 4..(number + 1) * count / 4);
            let none = Stretch { low: f64::INFINITY, high: f64::NEG_INFINITY };
            stretches.unwrap_or_default().iter().fold(none, |all, stretch| all.over(stretch))
        };
        let [first, second, third, last] = [0, 1, 2, 3].map(quarter);
        let rise = last.low - first.low;
        let steps = [second.low - first.low, third.low - second.low, last.low - third.low];
        rise >= 1.0
            && rise > first.low * 0.02
            && last.low > first.high
            && steps.iter().all(|step| *step > rise / 8.0)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// Returns the sample numbers at which a series is marked as a leak.
    fn marked(samples: usize, value: impl Fn(f64) -> f64) -> Vec<usize> {
        let mut trend = Trend::new();
        let mut is_leak = |sample: usize| {
            trend.add(value(sample as f64));
            trend.is_leak()
        };
        (0..samples).filter(|sample| is_leak(*sample)).collect()
    }

    /// Noise from 0 to 1 that is the same in each run.
    fn noise(sample: f64, seed: u64) -> f64 {
        let mut state = (sample as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
        for _ in 0..3 {
            state ^= state >> 29;
            state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        }
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A wave from 0 to 1, from its middle on.
    fn wave(sample: f64, period: f64) -> f64 {
        (1.0 + (sample * TAU / period).sin()) / 2.0
    }

    #[test]
    fn a_steady_leak_is_marked_from_early_on_and_stays_marked() {
        let samples = 5_000;
        assert_eq!(marked(samples, |at| 2.0 * at), Vec::from_iter(11..samples));
        assert_eq!(marked(samples, |at| 1e6 + 5e3 * at).first(), Some(&11));
    }

    #[test]
    fn a_leak_is_marked_beneath_waves_of_any_height() {
        for height in [0.5e6, 5e6, 20e6] {
            for seed in 0..5 {
                let leak = |at| 2e6 + 256e3 * at + height * (wave(at, 20.0) + 0.2 * noise(at, seed));
                let marks = marked(500, leak);
                // Three times as long as the leak needs to outgrow the wave.
                let late = 20 + 3 * (height / 256e3) as usize;
                assert_eq!((late..500).find(|at| !marks.contains(at)), None, "{height}, seed {seed}");
            }
        }
    }

    #[test]
    fn a_wave_without_a_leak_is_not_marked_once_it_has_come_back() {
        for period in [20.0, 60.0, 1440.0] {
            for phase in 0..10 {
                for seed in 0..2 {
                    let shift = period * f64::from(phase) / 10.0;
                    let load = |at| 1e6 + 5e6 * wave(at + shift, period) + 1e5 * noise(at, seed);
                    let marks = marked(3 * period as usize + 20, load);
                    let late = marks.into_iter().find(|at| *at as f64 > period.max(12.0));
                    assert_eq!(late, None, "period {period}, phase {phase}");
                }
            }
        }
    }

    #[test]
    fn noise_and_a_level_are_not_marked() {
        assert_eq!(marked(2_000, |_| 7e6), [0_usize; 0]);
        // By chance the lowest values of four short quarters can rise.
        let of_noise = |seed| marked(500, |at| 1e6 + 3e5 * noise(at, seed));
        let all: Vec<_> = (0..50).flat_map(of_noise).collect();
        assert!(all.len() < 10 && all.iter().all(|at| *at < 30), "{all:?} of 25000");
    }

    #[test]
    fn a_cache_that_levels_off_is_not_marked_any_more() {
        let marks = marked(1_000, |at| 1e6 + 9e6 * (1.0 - (-at / 50.0).exp()));
        assert!(marks.contains(&50), "it grows at first");
        assert_eq!(marks.into_iter().find(|at| *at > 250), None);
    }
}
