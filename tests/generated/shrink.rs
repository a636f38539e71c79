//! Makes a library and a record that show a fault smaller, as long as they show it: statements and lines left out, expressions
//! in parentheses replaced by a part of them or by null. What is defined as `Law` stays as it is.

/// Most trials of one shrinking.
const TRIALS_MAX: usize = 3_000;

/// What is left of the text and the lines when nothing more can go.
pub(super) fn shrink(text: &str, lines: &[Vec<u8>], fails: impl Fn(&str, &[Vec<u8>]) -> bool) -> (String, Vec<Vec<u8>>) {
    let (mut text, mut lines) = (text.to_owned(), lines.to_vec());
    let mut trials = 0;
    loop {
        let fewer = (0..lines.len()).map(|at| lines.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, line)| line.clone()).collect());
        let less = smaller(&text).into_iter().map(|text| (text, lines.clone()));
        let candidates: Vec<(String, Vec<Vec<u8>>)> = fewer.map(|lines| (text.clone(), lines)).chain(less).collect();
        let found = candidates.into_iter().find(|(text, lines)| {
            trials += 1;
            trials < TRIALS_MAX && fails(text, lines)
        });
        match found {
            Some(found) => (text, lines) = found,
            None => return (text, lines),
        }
    }
}

/// Texts with one statement less, then with one expression replaced wherever it stands, the longest first.
fn smaller(text: &str) -> Vec<String> {
    let starts: Vec<usize> = text.match_indices("\ndefine ").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.trim_end().len()]);
    let mut found: Vec<String> = starts.iter().zip(ends).map(|(start, end)| format!("{}{}", &text[..*start], &text[end..])).collect();
    let (body, law) = (starts.first().copied().unwrap_or(text.len()), text.find("\ndefine Law:").unwrap_or(text.len()));
    found.retain(|shorter| shorter.contains("\ndefine Law:") == (law < text.len()));
    let mut groups: Vec<&str> = groups(&text[body..law]);
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups.dedup();
    for group in groups.into_iter().filter(|group| *group != "(null)") {
        let inner = self::groups(&group[1..group.len() - 1]);
        let parts = inner.into_iter().chain(["(null)", "(true)", "(0)"]).filter(|part| part.len() < group.len());
        found.extend(parts.map(|part| format!("{}{}{}", &text[..body], text[body..law].replace(group, part), &text[law..])));
    }
    found
}

/// What stands in parentheses, texts and quoted names apart.
fn groups(text: &str) -> Vec<&str> {
    let (mut open, mut found, mut quote, mut escaped) = (Vec::new(), Vec::new(), None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(own), _) if own == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => open.push(at),
            (None, ')') => found.extend(open.pop().map(|start| &text[start..=at])),
            _ => {}
        }
    }
    found
}
