//! Run charts: the median, and the rules that tell a signal from chance.
//!
//! Sources: Perla, Provost and Murray, *BMJ Qual Saf* 2011;20:46-51 (median, shift, trend, runs); Anhøj and
//! Olesen, *PLoS ONE* 2014;9:e113825 (longest run, crossings); Wald and Wolfowitz, 1940 (distribution of the
//! number of runs). The number of runs is judged by the exact distribution, not by a printed table: the two
//! differ for some lengths, so the rule says its name.

use std::ops::Range;

/// Points on one side of the median, in sequence, that make a shift.
pub const SHIFT_POINTS_MIN: usize = 6;
/// Points in sequence, all rising or all falling, that make a trend.
pub const TREND_POINTS_MIN: usize = 5;
/// Off-median points below which the number of runs and of crossings is not judged.
pub const USEFUL_POINTS_MIN: usize = 10;
/// Points below which there is no median: of a few it is hardly more than one of them, and moves with each that is added. It is as many as
/// the rules about it take.
pub const MEDIAN_POINTS_MIN: usize = USEFUL_POINTS_MIN;
/// Points beyond which a series is not charted.
pub const POINTS_MAX: usize = 10_000;
/// Chance, on both sides together, of an ordinary series being called unusual by its number of runs.
const RUNS_ALPHA: f64 = 0.05;

/// Which way a trend goes, or on which side of the median a shift is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Rising, or above.
    Up,
    /// Falling, or below.
    Down,
}

/// A signal of special cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Indexes into the series, from the first to after the last point that the rule speaks of.
    pub points: Range<usize>,
    /// The rule, and what it found.
    pub rule: Rule,
}

/// A rule, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// [`SHIFT_POINTS_MIN`] or more points in sequence on one side; points on the median neither count nor interrupt.
    Shift {
        /// The side.
        side: Side,
        /// Points off the median among them.
        count: usize,
    },
    /// [`TREND_POINTS_MIN`] or more points in sequence going one way; equal neighbours count once.
    Trend {
        /// The direction.
        side: Side,
        /// Different values among them.
        count: usize,
    },
    /// Fewer runs about the median than chance gives (rule `exact`, Wald-Wolfowitz, 5 % two-sided).
    TooFewRuns {
        /// Runs found.
        runs: usize,
        /// The fewest that chance gives.
        expected_min: usize,
    },
    /// More runs about the median than chance gives (rule `exact`).
    TooManyRuns {
        /// Runs found.
        runs: usize,
        /// The most that chance gives.
        expected_max: usize,
    },
    /// A run about the median longer than chance gives (rule `anhoej`).
    LongestRun {
        /// Points of the longest run.
        length: usize,
        /// The longest that chance gives.
        expected_max: usize,
    },
    /// Fewer crossings of the median than chance gives (rule `anhoej`).
    FewCrossings {
        /// Crossings found.
        crossings: usize,
        /// The fewest that chance gives.
        expected_min: usize,
    },
}

/// Why a series in which no rule found a signal may hold one nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Nowhere [`USEFUL_POINTS_MIN`] points off the median in sequence, only so many.
    TooFew(usize),
    /// Half of the points or more are the median, and all others lie on one side of it, as where most months have no event: neither
    /// sides nor runs mean anything then.
    Alike,
}

/// A run chart of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct RunChart {
    /// The centre line; `None` below [`MEDIAN_POINTS_MIN`] values.
    pub median: Option<f64>,
    /// Every signal, in the order of the stretches in which they were found, shifts first.
    pub signals: Vec<Signal>,
    /// Why there may be more.
    pub untold: Option<Untold>,
}

/// Charts a series in time order. `None` is a month that does not count - it is missing, has no value, or its data are partial. It
/// breaks what is in sequence: nobody knows on which side it would lie. Only the first [`POINTS_MAX`] points count.
///
/// ```
/// use watershed::statistics::run_chart::{Rule, Side, Signal, Untold, run_chart};
///
/// let months = [60.0, 61.0, 59.0, 60.0, 62.0, 61.0, 70.0, 71.0, 73.0, 72.0, 74.0, 73.0];
/// let chart = run_chart(&months.map(Some));
/// assert_eq!(chart.median, Some(66.0));
/// assert!(chart.signals.contains(&Signal { points: 6..12, rule: Rule::Shift { side: Side::Up, count: 6 } }));
/// assert_eq!(run_chart(&[Some(60.0), None, Some(61.0), Some(62.0)]).untold, Some(Untold::TooFew(1)));
/// ```
pub fn run_chart(series: &[Option<f64>]) -> RunChart {
    let stretches = stretches(series);
    match median(&stretches.concat()) {
        None => RunChart { median: None, signals: vec![], untold: Some(Untold::TooFew(0)) },
        Some(centre) => about(&stretches, centre),
    }
}

/// Values in sequence, with their indexes.
type Stretch = Vec<(usize, f64)>;

fn stretches(series: &[Option<f64>]) -> Vec<Stretch> {
    let values: Vec<(usize, Option<f64>)> = series.iter().take(POINTS_MAX).map(|value| value.filter(|value| value.is_finite())).enumerate().collect();
    let known = |part: &[(usize, Option<f64>)]| part.iter().filter_map(|(index, value)| Some((*index, (*value)?))).collect::<Stretch>();
    values.chunk_by(|a, b| a.1.is_some() == b.1.is_some()).map(known).filter(|stretch| !stretch.is_empty()).collect()
}

/// The rules about a given centre line (a frozen median, or a mean where the source uses one).
fn about(stretches: &[Stretch], centre: f64) -> RunChart {
    let points: usize = stretches.iter().map(Vec::len).sum();
    let [above, below] = sides(stretches.iter().flatten(), centre);
    let is_alike = points >= USEFUL_POINTS_MIN && (above == 0 || below == 0);
    let useful = |stretch: &Stretch| sides(stretch.iter(), centre).iter().sum();
    let most = stretches.iter().map(useful).max().unwrap_or(0);
    let mut signals = Vec::new();
    for stretch in stretches {
        let runs = if is_alike { Vec::new() } else { runs(stretch, centre) };
        let shifts = runs.iter().filter(|run| run.count >= SHIFT_POINTS_MIN);
        signals.extend(shifts.map(|run| Signal { points: run.first..run.last + 1, rule: Rule::Shift { side: run.side, count: run.count } }));
        signals.extend(trends(stretch));
        let points = stretch.first().map_or(0, |first| first.0)..stretch.last().map_or(0, |last| last.0 + 1);
        signals.extend(unusual(&runs).into_iter().map(|rule| Signal { points: points.clone(), rule }));
    }
    let untold = match (is_alike, most) {
        (true, _) => Some(Untold::Alike),
        (false, ..USEFUL_POINTS_MIN) => Some(Untold::TooFew(most)),
        _ => None,
    };
    RunChart { median: (points >= MEDIAN_POINTS_MIN).then_some(centre), signals, untold }
}

/// Points above and below the centre.
fn sides<'a>(values: impl Iterator<Item = &'a (usize, f64)>, centre: f64) -> [usize; 2] {
    values.fold([0, 0], |[above, below], (_, value)| [above + usize::from(*value > centre), below + usize::from(*value < centre)])
}

/// What is unusual of the runs of a stretch as a whole.
fn unusual(runs: &[Run]) -> Vec<Rule> {
    let on = |side: Side| runs.iter().filter(|run| run.side == side).map(|run| run.count).sum();
    let (above, below): (usize, usize) = (on(Side::Up), on(Side::Down));
    if above + below < USEFUL_POINTS_MIN {
        return Vec::new();
    }
    let mut found = Vec::new();
    let expected = expected_runs(above, below);
    if runs.len() < expected.start {
        found.push(Rule::TooFewRuns { runs: runs.len(), expected_min: expected.start });
    } else if runs.len() >= expected.end {
        found.push(Rule::TooManyRuns { runs: runs.len(), expected_max: expected.end - 1 });
    }
    let (length_max, crossings_min) = anhoej_limits(above + below);
    let longest = runs.iter().map(|run| run.count).max().unwrap_or(0);
    if longest > length_max {
        found.push(Rule::LongestRun { length: longest, expected_max: length_max });
    }
    let crossings = runs.len().saturating_sub(1);
    if crossings < crossings_min {
        found.push(Rule::FewCrossings { crossings, expected_min: crossings_min });
    }
    found
}

fn median(values: &[(usize, f64)]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { sorted.get(middle.checked_sub(1)?).map(|lower| lower + (upper - lower) / 2.0) }
}

/// Points in sequence on one side of the centre.
struct Run {
    side: Side,
    first: usize,
    last: usize,
    count: usize,
}

fn runs(values: &[(usize, f64)], centre: f64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &(index, value) in values.iter().filter(|(_, value)| *value != centre) {
        let side = if value > centre { Side::Up } else { Side::Down };
        match runs.last_mut() {
            Some(run) if run.side == side => {
                run.last = index;
                run.count += 1;
            }
            _ => runs.push(Run { side, first: index, last: index, count: 1 }),
        }
    }
    runs
}

fn trends(values: &[(usize, f64)]) -> Vec<Signal> {
    let mut found = Vec::new();
    let mut distinct: Vec<(usize, f64)> = values.to_vec();
    distinct.dedup_by(|later, earlier| later.1 == earlier.1);
    let mut current: Option<(Side, usize, usize, usize)> = None; // side, first, last, count
    let mut finish = |trend: Option<(Side, usize, usize, usize)>| {
        if let Some((side, first, last, count)) = trend.filter(|trend| trend.3 >= TREND_POINTS_MIN) {
            found.push(Signal { points: first..last + 1, rule: Rule::Trend { side, count } });
        }
    };
    for (before, after) in distinct.iter().zip(distinct.iter().skip(1)) {
        let side = if after.1 > before.1 { Side::Up } else { Side::Down };
        current = match current {
            Some((going, first, _, count)) if going == side => Some((side, first, after.0, count + 1)),
            other => {
                finish(other);
                Some((side, before.0, after.0, 2))
            }
        };
    }
    finish(current);
    found
}

/// Numbers of runs that chance gives in a series with so many points above and below the centre: the exact
/// distribution under random order, cut so that each tail outside keeps at most half of 5 %. From the fewest
/// to after the most.
pub fn expected_runs(above: usize, below: usize) -> Range<usize> {
    let useful = above + below;
    if above == 0 || below == 0 {
        return 0..useful + 1;
    }
    let chance: Vec<f64> = (0..=useful).map(|runs| chance_of_runs(runs, above, below)).collect();
    let tail = RUNS_ALPHA / 2.0;
    let mut low = 0;
    let mut sum = 0.0;
    while let Some(p) = chance.get(low) {
        sum += p;
        if sum > tail {
            break;
        }
        low += 1;
    }
    let mut high = useful;
    sum = 0.0;
    while let Some(p) = chance.get(high) {
        sum += p;
        if sum > tail || high == 0 {
            break;
        }
        high -= 1;
    }
    low..high + 1
}

/// Chance of exactly this number of runs among `a` points of one kind and `b` of the other.
fn chance_of_runs(runs: usize, a: usize, b: usize) -> f64 {
    if runs < 2 {
        return 0.0;
    }
    let k = runs / 2;
    let all = ln_choose(a + b, a);
    let ways = |i: usize, j: usize| (ln_choose(a - 1, i) + ln_choose(b - 1, j) - all).exp();
    if runs.is_multiple_of(2) { 2.0 * ways(k - 1, k - 1) } else { ways(k - 1, k) + ways(k, k - 1) }
}

fn ln_choose(n: usize, k: usize) -> f64 {
    if k > n {
        return f64::NEG_INFINITY;
    }
    let ln_factorial = |n: usize| super::rate::ln_gamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Anhøj's limits for `useful` points: the longest run that chance gives, round(log2 n) + 3, and the fewest
/// crossings, the 5 % quantile of a binomial with n - 1 trials and probability one half.
pub fn anhoej_limits(useful: usize) -> (usize, usize) {
    if useful == 0 {
        return (0, 0);
    }
    let longest = ((useful as f64).log2()).round_ties_even() as usize + 3;
    let trials = useful - 1;
    let mut sum = 0.0;
    let ln_half = trials as f64 * 0.5f64.ln();
    let crossings = (0..=trials).find(|&crossings| {
        sum += (ln_choose(trials, crossings) + ln_half).exp();
        sum >= 0.05
    });
    (longest, crossings.unwrap_or(trials))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> RunChart {
        run_chart(&values.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn expected_numbers_of_runs_follow_the_exact_distribution() {
        // Acceptable ranges at 5 % two-sided, computed independently: n, fewest, most.
        let table = [
            (10, 3, 9),
            (11, 4, 9),
            (12, 4, 10),
            (13, 4, 11),
            (14, 4, 12),
            (15, 5, 12),
            (16, 5, 13),
            (17, 6, 13),
            (18, 6, 14),
            (19, 6, 15),
            (20, 7, 15),
            (21, 7, 16),
            (22, 8, 16),
            (23, 8, 17),
            (24, 8, 18),
            (25, 9, 18),
            (26, 9, 19),
            (27, 10, 19),
            (28, 10, 20),
            (29, 10, 21),
            (30, 11, 21),
            (40, 15, 27),
            (50, 19, 33),
            (60, 24, 38),
            (70, 28, 44),
            (80, 32, 50),
            (90, 37, 55),
            (100, 41, 61),
        ];
        for (n, fewest, most) in table {
            assert_eq!(expected_runs(n / 2, n - n / 2), fewest..most + 1, "{n} points");
        }
        for (n, p) in [(10, 10), (24, 24), (100, 100)] {
            let sum: f64 = (0..=n).map(|runs| chance_of_runs(runs, p / 2, p - p / 2)).sum();
            assert!((sum - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn limits_of_longest_run_and_crossings() {
        let table = [(10, 6, 2), (11, 6, 2), (12, 7, 3), (16, 7, 4), (20, 7, 6), (22, 7, 7), (23, 8, 7), (24, 8, 8), (30, 8, 10), (36, 8, 13), (40, 8, 14), (44, 8, 16)];
        for (n, longest, crossings) in table {
            assert_eq!(anhoej_limits(n), (longest, crossings), "{n} points");
        }
    }

    #[test]
    fn a_published_series_signals_by_its_crossings() {
        // Montgomery, Introduction to Statistical Quality Control, table 7.3; centre line from the first 26
        // points without 6 and 20, as the textbook draws it.
        let x = [
            21., 24., 16., 12., 15., 5., 28., 20., 31., 25., 20., 24., 16., 19., 10., 17., 13., 22., 18., 39., 30., 24., 16., 19., 17., 15., 16., 18., 12., 15., 24., 21., 28.,
            20., 25., 19., 18., 21., 16., 22., 19., 12., 14., 9., 16., 21.,
        ];
        let values: Vec<(usize, f64)> = x.into_iter().enumerate().filter(|(i, _)| ![5, 19].contains(i)).collect();
        let centre = 19.666_666_666_666_668;
        let longest = runs(&values, centre).iter().map(|run| run.count).max();
        assert_eq!((sides(values.iter(), centre).iter().sum::<usize>(), longest), (44, Some(8)));
        let found = about(&[values], centre);
        assert!(found.signals.contains(&Signal { points: 0..46, rule: Rule::FewCrossings { crossings: 14, expected_min: 16 } }));
        assert!(!found.signals.iter().any(|signal| matches!(signal.rule, Rule::LongestRun { .. })));
    }

    #[test]
    fn six_points_on_one_side_shift_and_those_on_the_median_do_not_interrupt() {
        let found = chart(&[1., 2., 1., 2., 1., 3., 5., 6., 3., 5., 7., 6., 5., 1.]);
        assert_eq!(found.median, Some(3.0));
        assert_eq!(found.signals[0], Signal { points: 6..13, rule: Rule::Shift { side: Side::Up, count: 6 } });
        let five = chart(&[1., 2., 1., 2., 1., 3., 5., 6., 3., 5., 7., 6.]);
        assert!(five.signals.iter().all(|signal| !matches!(signal.rule, Rule::Shift { .. })), "{five:?}");
    }

    #[test]
    fn five_points_one_way_trend_and_equal_neighbours_count_once() {
        let trend = |values: &[f64]| {
            chart(values).signals.into_iter().find_map(|Signal { points, rule }| match rule {
                Rule::Trend { side, count } => Some((side, points, count)),
                _ => None,
            })
        };
        assert_eq!(trend(&[5., 1., 2., 2., 3., 4., 5., 2.]), Some((Side::Up, 1..7, 5)));
        assert_eq!(trend(&[5., 1., 2., 2., 3., 4., 4., 2.]), None);
        assert_eq!(trend(&[9., 7., 5., 4., 3.]), Some((Side::Down, 0..5, 5)));
        assert_eq!(trend(&[1., 2., 3., 4.]), None);
    }

    #[test]
    fn a_month_that_does_not_count_breaks_what_is_in_sequence() {
        let months = |text: &str| run_chart(&text.split(' ').map(|value| value.parse().ok()).collect::<Vec<Option<f64>>>());
        let is_shift = |signal: &Signal| matches!(signal.rule, Rule::Shift { .. });
        let is_trend = |signal: &Signal| matches!(signal.rule, Rule::Trend { .. });
        assert!(months("1 2 1 2 1 2 8 7 8 7 8 7").signals.iter().any(is_shift));
        let broken = months("1 2 1 2 1 2 8 7 8 - 7 8 7");
        assert!(!broken.signals[1..].iter().any(is_shift) && broken.signals[0].points == (0..6), "{broken:?}");
        assert!(months("9 1 2 3 4 5 0").signals.iter().any(is_trend));
        assert!(!months("9 1 2 3 - 4 5 0").signals.iter().any(is_trend));
        // The whole is judged stretch by stretch, each about the median of all: twelve months that cross it once, then others.
        let found = months("1 1 1 1 1 1 9 9 9 9 9 9 - 1 9 1 9");
        let expected = Signal { points: 0..12, rule: Rule::TooFewRuns { runs: 2, expected_min: 4 } };
        assert!(found.signals.contains(&expected), "{found:?}");
        assert_eq!((found.median, found.untold), (Some(5.0), None));
    }

    #[test]
    fn the_median_is_one_of_ten_points_or_more() {
        let of = |count: usize| run_chart(&[1., 2., 3.].into_iter().cycle().take(count).map(Some).collect::<Vec<_>>()).median;
        assert_eq!([1, 2, 9, 10, 12].map(of), [None, None, None, Some(2.0), Some(2.0)]);
        // A trend is told without one.
        assert!(matches!(chart(&[1., 2., 3., 4., 5.]), RunChart { median: None, ref signals, .. } if signals.len() == 1));
    }

    #[test]
    fn where_nothing_can_be_told_it_is_said_why() {
        let told = |values: &[f64]| chart(values).untold;
        assert_eq!(told(&[]), Some(Untold::TooFew(0)));
        assert_eq!(run_chart(&[None, Some(f64::NAN)]), RunChart { median: None, signals: vec![], untold: Some(Untold::TooFew(0)) });
        assert_eq!(told(&[1., 2., 1., 2., 3.]), Some(Untold::TooFew(3)), "the median itself is on no side");
        assert_eq!(told(&[1., 3., 1., 3., 1., 3., 1., 3., 1., 3.]), None);
        // Ten, but not in sequence.
        let mut broken = [1., 3., 1., 3., 1., 3., 1., 3., 1., 3.].map(Some).to_vec();
        broken.insert(6, None);
        assert_eq!(run_chart(&broken).untold, Some(Untold::TooFew(6)));
        // Eight infections in two years: each is above the median of none, which is no shift.
        let rare = [0., 1., 0., 0., 2., 0., 0., 1., 0., 1., 0., 0., 0., 3., 0., 1., 0., 0., 1., 0., 0., 1., 0., 0.];
        assert_eq!(chart(&rare), RunChart { median: Some(0.0), signals: vec![], untold: Some(Untold::Alike) });
        assert_eq!(told(&[4.0; 30]), Some(Untold::Alike));
    }
}
