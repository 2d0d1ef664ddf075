//! A controller with a proportional and an integral part.
//!
//! While the output is out of range, the integral part is wound back so that it does not run away
//! (Go runtime, `mgcpacer.go`). The output is in range for all inputs.

/// The constants, and the sum so far.
#[derive(Clone, Debug)]
pub(crate) struct PiController {
    /// How much of the error goes into the output at once.
    gain: f64,
    /// The time in which the integral part adds as much again, in the unit of the period.
    integral_time: f64,
    /// The time in which the integral part is wound back.
    reset_time: f64,
    least: f64,
    most: f64,
    integral: f64,
}

impl PiController {
    /// Makes a controller whose output is in `least ..= most`. The times are above 0; everything is
    /// finite.
    pub(crate) fn new(
        gain: f64,
        integral_time: f64,
        reset_time: f64,
        least: f64,
        most: f64,
    ) -> Self {
        Self {
            gain,
            integral_time,
            reset_time,
            least,
            most,
            integral: 0.0,
        }
    }

    /// Returns the output for the next period, from the result of the last `period` and its target.
    /// If the numbers have left the range of a float, the controller starts again, and the result
    /// is `None`.
    pub(crate) fn next(&mut self, input: f64, target: f64, period: f64) -> Option<f64> {
        let error = target - input;
        let raw = self.gain * error + self.integral;
        if !raw.is_finite() {
            self.integral = 0.0;
            return None;
        }
        let output = raw.clamp(self.least, self.most);
        self.integral += self.gain * period / self.integral_time * error;
        self.integral += period / self.reset_time * (output - raw);
        if !self.integral.is_finite() {
            self.integral = 0.0;
            return None;
        }
        Some(output)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

    #[test]
    fn it_finds_the_target() {
        let mut controller = PiController::new(0.5, 4.0, 10.0, 0.0, 10.0);
        let mut output = 0.0;
        for _ in 0..200 {
            output = controller.next(output * 2.0, 3.0, 1.0).unwrap();
        }
        assert!((output - 1.5).abs() < 0.01, "{output}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Follows Go's `FuzzPIController`.
        #[test]
        fn the_output_is_in_range(
            gain in 1e-300..1e300_f64,
            integral_time in 1e-300..1e300_f64,
            reset_time in 1e-300..1e300_f64,
            least in -1e300..0.0_f64,
            most in 0.0..1e300_f64,
            target in -1e300..1e300_f64,
            inputs in proptest::collection::vec((any::<f64>(), any::<f64>()), 1..50),
        ) {
            let mut controller = PiController::new(gain, integral_time, reset_time, least, most);
            for (input, period) in inputs {
                if let Some(output) = controller.next(input, target, period) {
                    prop_assert!((least..=most).contains(&output));
                }
            }
        }
    }
}
