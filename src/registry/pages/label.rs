//! Labels of lines beside a chart: none covers another, nor the axis.

/// Lines of text: what the line is, and its value below.
pub struct Label {
    /// Which line: `goal` or `median`.
    pub line: &'static str,
    /// Between the two lines of text, down.
    pub y: f64,
    /// Its value.
    pub value: String,
}

/// What a label takes, down.
const HEIGHT: f64 = 34.0;
/// Where one may stand, without covering what is above and the axis below.
const TOP: f64 = 15.0;
const BOTTOM: f64 = 243.0;

/// The labels of a median and a goal, by how far down their lines are: each beside its line, but where the two would cover each other the
/// goal's makes room, on its own side if there is room.
pub fn beside(median: Option<(f64, String)>, goal: Option<(f64, String)>) -> Vec<Label> {
    let within = |y: f64| y.clamp(TOP, BOTTOM);
    let middle = median.as_ref().map(|(y, _)| within(*y));
    let free = |y: f64| match middle {
        Some(middle) if (y - middle).abs() < HEIGHT => {
            let (above, below) = (middle - HEIGHT, middle + HEIGHT);
            let is_above = if y < middle { above >= TOP } else { below > BOTTOM };
            if is_above { above } else { below }
        }
        _ => y,
    };
    let goal = goal.map(|(y, value)| Label { line: "goal", y: free(within(y)), value });
    let median = median.map(|(y, value)| Label { line: "median", y: within(y), value });
    median.into_iter().chain(goal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_covers_another_or_the_axis() {
        let at = |median: f64, goal: f64| {
            let labels = beside(Some((median, String::new())), Some((goal, String::new())));
            labels.iter().map(|label| label.y).collect::<Vec<_>>()
        };
        for (median, goal, expected) in [
            (150.0, 100.0, [150.0, 100.0]),
            (150.0, 140.0, [150.0, 116.0]),
            (150.0, 160.0, [150.0, 184.0]),
            (256.0, 256.0, [243.0, 209.0]),
            (46.0, 46.0, [46.0, 80.0]),
            (46.0, 45.0, [46.0, 80.0]),
        ] {
            assert_eq!(at(median, goal), expected, "{median} {goal}");
        }
        assert_eq!(beside(None, Some((50.0, String::new())))[0].y, 50.0);
    }
}
