//! The chance in the numbers of the shop, the same for the same seed.

use crate::random::Random;

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Noise(Random);

/// The spread of the logarithm of response times.
const SPREAD: f64 = 0.42;
/// The mean of the logarithm, over that of the mean response time.
const MIDDLE: f64 = -0.09;

impl Noise {
    /// The noise that begins with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x9e37_79b9_7f4a_7c15);
        random.number();
        Self(random)
    }

    /// The noise of one series at one timestamp.
    pub(super) fn of(name: &str, at: i64) -> Self {
        let named = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(named ^ (at as u64).wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    /// A uniform number from 0 to 1.
    pub(super) fn even(&mut self) -> f64 {
        self.0.even()
    }

    /// A number with the mean 0 and the deviation 1, about normal.
    pub(super) fn bell(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }

    /// `mean` with the deviation of a Poisson distribution.
    fn around(&mut self, mean: f64) -> f64 {
        mean + mean.sqrt() * self.bell()
    }

    /// A Poisson number with the mean `mean`; of large means about one.
    pub(super) fn poisson(&mut self, mean: f64) -> f64 {
        if mean < 25.0 {
            f64::from(self.count(mean))
        } else {
            self.around(mean).round().max(0.0)
        }
    }

    /// The largest of `n` numbers of [`Self::bell`].
    pub(super) fn largest(&mut self, n: f64) -> f64 {
        // The share of numbers above it, and where a normal distribution has that share: Abramowitz and Stegun,
        // 26.2.23.
        let above = 1.0 - self.even().max(1e-12).powf(1.0 / n.max(1.0));
        let t = (-2.0 * above.clamp(1e-15, 0.5).ln()).sqrt();
        let over = 2.515_517 + t * (0.802_853 + t * 0.010_328);
        let under = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
        let normal = t - over / under;
        // A sum of twelve has thinner tails.
        normal - 0.1 / 24.0 * (normal.powi(3) - 3.0 * normal)
    }

    /// A Poisson number with the mean `mean`.
    pub(super) fn count(&mut self, mean: f64) -> u32 {
        let mut product = self.even();
        let limit = (-mean.min(500.0)).exp();
        let mut count = 0;
        while product > limit {
            product *= self.even();
            count += 1;
        }
        count
    }

    /// One response time as a multiple of the mean: usually a little below 1, sometimes far above.
    pub(super) fn spread(&mut self) -> f64 {
        response(self.bell())
    }
}

/// The response time that lies `deviations` above the middle, as a multiple of the mean.
pub(super) fn response(deviations: f64) -> f64 {
    (SPREAD * deviations + MIDDLE).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_many_is_as_large_as_if_all_were_drawn() {
        let mut noise = Noise::new(1);
        for n in [20, 300] {
            let mut mean = |draw: &mut dyn FnMut(&mut Noise) -> f64| {
                (0..400).map(|_| draw(&mut noise)).sum::<f64>() / 400.0
            };
            let drawn = mean(&mut |noise| (0..n).map(|_| noise.bell()).fold(f64::MIN, f64::max));
            let limit = mean(&mut |noise| noise.largest(f64::from(n)));
            assert!((drawn - limit).abs() < 0.2, "{n}: {drawn} {limit}");
        }
    }
}
