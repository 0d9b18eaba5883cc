//! Cases in a file, and the file again.

/// A case.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Which rule it is about, and why: lines with `#`.
    comments: Vec<String>,
    /// The question's words.
    pub question: Vec<String>,
    /// The input's lines.
    pub input: Vec<String>,
    /// What must come out.
    pub expected: String,
}

/// What stands before the first case, and the cases.
pub fn parse(text: &str) -> (String, Vec<Case>) {
    let mut parts = text.split("=== ");
    let head = parts.next().unwrap_or_default().to_owned();
    (head, parts.map(case).collect())
}

fn case(text: &str) -> Case {
    let (given, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
    let mut lines = given.lines();
    let name = lines.next().unwrap_or_default().to_owned();
    let mut case = Case {
        name,
        comments: Vec::new(),
        question: Vec::new(),
        input: Vec::new(),
        expected: expected.trim_end_matches('\n').to_owned() + "\n",
    };
    for line in lines {
        if line.starts_with('#') && case.question.is_empty() {
            case.comments.push(line.to_owned());
        } else if case.question.is_empty() {
            case.question = line.split_whitespace().map(str::to_owned).collect();
        } else {
            case.input.push(line.to_owned());
        }
    }
    case
}

/// The file with these cases.
pub fn print(head: &str, cases: &[Case]) -> String {
    let mut text = head.to_owned();
    let cases = cases.iter().map(|case| {
        let mut lines = vec![format!("=== {}", case.name)];
        lines.extend(case.comments.iter().cloned());
        lines.push(case.question.join(" "));
        lines.extend(case.input.iter().cloned());
        lines.push("---".to_owned());
        lines.push(case.expected.clone());
        lines.join("\n")
    });
    text += &cases.collect::<Vec<_>>().join("\n");
    text
}
