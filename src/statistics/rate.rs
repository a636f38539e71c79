//! Rates and their intervals: Wilson's score interval for proportions, the exact Poisson interval for events.
//!
//! Confidence is two-sided and given as a fraction, e.g. `0.95`.

/// Iterations of the bisection that inverts a distribution; more than an `f64` has bits.
const BISECTIONS_MAX: usize = 200;
/// Terms of the series and the continued fraction of the incomplete gamma function.
const TERMS_MAX: usize = 10_000;

/// An estimate between its bounds, in the unit of the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Wilson's score interval (1927) of `events` among `of`; `None` when `of` is zero or less than `events`,
/// or the confidence is not between 0 and 1.
///
/// ```
/// use watershed::statistics::rate::wilson;
///
/// let rate = wilson(84, 114, 0.95).unwrap();
/// assert_eq!(format!("{:.1} ({:.1} to {:.1})", rate.value * 100.0, rate.low * 100.0, rate.high * 100.0), "73.7 (64.9 to 80.9)");
/// assert_eq!(wilson(0, 0, 0.95), None, "nobody to count among is no rate of zero");
/// ```
pub fn wilson(events: u64, of: u64, confidence: f64) -> Option<Interval> {
    if of == 0 || events > of || !valid(confidence) {
        return None;
    }
    let (x, n) = (events as f64, of as f64);
    let (p, z) = (x / n, normal_quantile(1.0 - (1.0 - confidence) / 2.0));
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let low = if events == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if events == of { 1.0 } else { (centre + half).min(1.0) };
    Some(Interval { value: p, low, high })
}

/// The exact (Garwood, 1936) interval of `events` in `exposure`, times `per`: for 9 infections in 6,200 line
/// days, `per` 1,000 gives the rate per 1,000 line days. `None` without exposure.
///
/// ```
/// use watershed::statistics::rate::poisson_rate;
///
/// let rate = poisson_rate(9, 6_200.0, 1_000.0, 0.95).unwrap();
/// assert_eq!(format!("{:.2} ({:.2} to {:.2})", rate.value, rate.low, rate.high), "1.45 (0.66 to 2.76)");
/// ```
pub fn poisson_rate(events: u64, exposure: f64, per: f64, confidence: f64) -> Option<Interval> {
    if !(exposure > 0.0 && exposure.is_finite() && per.is_finite() && valid(confidence)) {
        return None;
    }
    let tail = (1.0 - confidence) / 2.0;
    let x = events as f64;
    let low = if events == 0 { 0.0 } else { gamma_quantile(tail, x) };
    let high = gamma_quantile(1.0 - tail, x + 1.0);
    Some(Interval { value: x / exposure * per, low: low / exposure * per, high: high / exposure * per })
}

fn valid(confidence: f64) -> bool {
    confidence > 0.0 && confidence < 1.0
}

/// Quantile of the standard normal distribution, `p` in (0, 1).
fn normal_quantile(p: f64) -> f64 {
    bisect(-40.0, 40.0, |z| normal_below(z) < p)
}

/// Probability that a standard normal variable is below `z`.
fn normal_below(z: f64) -> f64 {
    let tail = (1.0 - lower_gamma(0.5, z * z / 2.0)) / 2.0;
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// Quantile of the gamma distribution with the given shape and scale 1.
fn gamma_quantile(p: f64, shape: f64) -> f64 {
    bisect(0.0, shape + 40.0 * (shape.sqrt() + 1.0), |x| lower_gamma(shape, x) < p)
}

fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..BISECTIONS_MAX {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if is_below(middle) { low = middle } else { high = middle }
    }
    low + (high - low) / 2.0
}

/// Regularised lower incomplete gamma function P(a, x): series below a + 1, continued fraction above.
fn lower_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..TERMS_MAX {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * f64::EPSILON {
                break;
            }
        }
        return front * sum;
    }
    // Lentz's method for the continued fraction of the upper function.
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut h = d;
    for i in 1..TERMS_MAX {
        let an = -(i as f64) * (i as f64 - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b, tiny);
        c = nonzero(b + an / c, tiny);
        h *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    1.0 - front * h
}

fn nonzero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// Logarithm of the gamma function for positive arguments: Stirling's series, shifted to where it is exact
/// to the last digits.
pub(super) fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 15.0 {
        shift += x.ln();
        x += 1.0;
    }
    let i = 1.0 / (x * x);
    let series = (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i * (1.0 / 1680.0 - i / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn wilson_intervals() {
        // Computed independently from the published formula.
        let cases = [
            (45, 60, 0.627_679_299_229_521_8, 0.842_234_774_694_433_3),
            (120, 140, 0.789_629_769_380_117_4, 0.905_580_087_498_873_2),
            (0, 20, 0.0, 0.161_125_158_052_819_38),
            (20, 20, 0.838_874_841_947_180_6, 1.0),
        ];
        for (x, n, low, high) in cases {
            let interval = wilson(x, n, 0.95).unwrap();
            near(interval.low, low);
            near(interval.high, high);
        }
        assert_eq!(wilson(1, 0, 0.95), None);
        assert_eq!(wilson(2, 1, 0.95), None);
        assert_eq!(wilson(1, 2, 1.0), None);
    }

    #[test]
    fn exact_poisson_rates_per_thousand() {
        let nine = poisson_rate(9, 6200.0, 1000.0, 0.95).unwrap();
        near(nine.value, 1.451_612_903_225_806_5);
        near(nine.low, 0.663_769_854_415_860_2);
        near(nine.high, 2.755_613_459_906_317);
        let none = poisson_rate(0, 1500.0, 1000.0, 0.95).unwrap();
        assert_eq!((none.value, none.low), (0.0, 0.0));
        near(none.high, 2.459_252_969_409_29);
        assert_eq!(poisson_rate(1, 0.0, 1000.0, 0.95), None);
        assert_eq!(poisson_rate(1, f64::NAN, 1000.0, 0.95), None);
    }

    #[test]
    fn exact_limits_of_a_standardised_ratio() {
        // Exact Poisson limits of O/E with O = E, as published test values of a funnel-plot package have them.
        let cases = [
            (15, 0.95, 0.559_692_408_852_221, 1.649_347_924_765_723),
            (20, 0.95, 0.610_825_979_270_197_2, 1.544_418_895_133_729_9),
            (30, 0.998, 0.528_972_359_904_678_4, 1.702_770_805_530_813_3),
        ];
        for (events, confidence, low, high) in cases {
            let interval = poisson_rate(events, events as f64, 1.0, confidence).unwrap();
            near(interval.low, low);
            near(interval.high, high);
        }
    }

    #[test]
    fn large_counts_stay_finite() {
        let huge = poisson_rate(1_000_000_000, 1e9, 1.0, 0.95).unwrap();
        assert!(huge.low < 1.0 && huge.high > 1.0 && huge.high < 1.001, "{huge:?}");
        assert!(wilson(u64::MAX, u64::MAX, 0.95).unwrap().low > 0.999);
    }
}
