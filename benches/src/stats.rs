//! Median and quartiles: what is said of repetitions.

use serde::{Deserialize, Serialize};

/// Some repetitions of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Lower quartile.
    pub(crate) low: f64,
    /// Half of them are below.
    pub(crate) median: f64,
    /// Upper quartile.
    pub(crate) high: f64,
    /// How many there were.
    pub(crate) n: usize,
}

impl Spread {
    /// Of these values; `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            low: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            high: quantile(&sorted, 0.75)?,
            n: sorted.len(),
        })
    }

    /// Of the quotients of values of the same repetition: what disturbs one disturbs both.
    pub(crate) fn of_ratios(above: &[Option<f64>], below: &[Option<f64>]) -> Option<Self> {
        let pairs = above.iter().zip(below);
        Self::of(pairs.filter_map(|(above, below)| Some((*above)? / (*below)?)))
    }

    /// As in a table: `1.02 (0.98–1.10)`.
    pub(crate) fn show(&self, digits: usize) -> String {
        if self.n == 1 {
            return format!("{:.digits$}", self.median);
        }
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.low, self.high
        )
    }
}

/// Between the two nearest, as most statistics programs do by default (type 7 of Hyndman and Fan).
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = at * last as f64;
    let (floor, ceil) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[floor] + (sorted[ceil] - sorted[floor]) * (place - floor as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_nearest_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        let even = Spread::of([1.0, 2.0]).unwrap();
        assert_eq!((even.low, even.median, even.high), (1.25, 1.5, 1.75));
    }

    #[test]
    fn nothing_measured_is_nothing_and_not_zero() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of_ratios(&[Some(1.0)], &[None]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_of_the_same_repetition() {
        let ratio = Spread::of_ratios(&[Some(2.0), Some(20.0)], &[Some(1.0), Some(10.0)]);
        let ratio = ratio.unwrap();
        assert_eq!((ratio.low, ratio.high), (2.0, 2.0));
        assert_eq!(ratio.show(2), "2.00 (2.00–2.00)");
    }
}
