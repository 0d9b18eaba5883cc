//! The rows of a table: a list of numbers by one program, and a text for each by another of the
//! same pack.

use engine::{Departures, Run, Text, Value};

use crate::asked::{Answered, guest_error};
use crate::failure::Failure;
use crate::packs::Member;
use crate::processes::Process;
use crate::{departures, format, report};

/// A list of numbers by one program, and a text for each by another of the same pack.
pub struct Table {
    /// The name of the whole table in JSON.
    pub name: &'static str,
    /// The program of the list, and its output.
    pub list: (&'static str, &'static str),
    /// The program of the texts, its input for the number, and its output; both are names in JSON,
    /// too.
    pub texts: (&'static str, &'static str, &'static str),
    /// The return code by which the program of the texts says that a number has none; any other
    /// negative one is a failure.
    pub none: Option<i128>,
    pub heads: (&'static str, &'static str),
    /// Writes the number as people read it.
    pub show: fn(u64) -> String,
    /// What the list always has.
    pub always: Option<Always>,
}

/// An entry without which a list is not to be trusted, and the program that is asked then.
pub struct Always {
    pub number: u64,
    /// What its absence means.
    pub absent: &'static str,
    /// Another program of the pack that makes such a list in another way: its name, its input, the
    /// number at which it ends, and its output.
    pub other: (&'static str, &'static str, &'static str),
}

/// A row of a table.
pub struct Row {
    /// The number.
    pub number: u64,
    /// Nothing where the guest says that there is none.
    pub text: Result<Option<Text>, Failure>,
    /// Whether the text is full, so that there may be more.
    pub full: bool,
    /// What procfs says of it, where it was asked.
    pub process: Option<Result<Process, Failure>>,
}

impl Row {
    fn new(number: u64) -> Self {
        Self { number, text: Ok(None), full: false, process: None }
    }

    /// What has no answer in it, the first.
    pub fn failure(&self) -> Option<&Failure> {
        let more = || self.process.as_ref().and_then(|process| process.as_ref().err());
        self.text.as_ref().err().or_else(more)
    }
}

/// The text of each row, and whether all of them are verified.
pub fn texts(
    member: &Member,
    run: &Run<'_>,
    table: &Table,
    numbers: Vec<u64>,
    remarks: &mut Vec<String>,
) -> Result<(Vec<Row>, bool), Failure> {
    let (name, input, output) = table.texts;
    let Some(other) = member.other(name)? else {
        remarks.push(format!("without {name}.prog in the pack no {output} is told"));
        return Ok((numbers.into_iter().map(Row::new).collect(), true));
    };
    let session = other.session(run).ok();
    let query = other.query(run, session.as_ref())?;
    let (mut rows, mut unverified, mut departures) = (Vec::new(), Vec::new(), Departures::default());
    for number in numbers {
        let mut row = Row::new(number);
        match query.ask(&[(input.to_string(), number.to_string())]) {
            Ok(answered) => {
                row.text = text(&other, &answered, table);
                row.full = row.text.is_ok() && answered.full.iter().any(|name| name == output);
                unverified.extend(answered.unverified.map(|why| (number, why)));
                departures = departures.and(answered.departures);
            }
            Err(failure) => row.text = Err(failure),
        }
        row.text = row.text.map_err(|failure| short(&failure, &other));
        rows.push(row);
    }
    let file = other.path().display();
    let all = rows.len();
    if let Some((number, why)) = unverified.first() {
        let number = (table.show)(*number);
        let count = unverified.len();
        remarks.push(format!(
            "{file}: not verified: {count} of {}; the first is that of {number}: {why}",
            format::counted(all, "row")
        ));
    }
    let full: Vec<String> = rows.iter().filter(|row| row.full).map(|row| (table.show)(row.number)).collect();
    if !full.is_empty() {
        remarks.push(format!("{file}: of {}: {}", full.join(" "), report::full(&other.program, output)));
    }
    for remark in departures::remarks(&departures) {
        // The list's own may be the same.
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
    let verified = unverified.is_empty() && rows.iter().all(|row| row.text.is_ok());
    Ok((rows, verified))
}

/// A failure without the name of the program, which is that of all rows.
fn short(failure: &Failure, member: &Member) -> Failure {
    let text = failure.to_string();
    let file = format!("{}: ", member.path().display());
    Failure::new(failure.exit, text.strip_prefix(&file).unwrap_or(&text))
}

/// The text of a row, nothing where the guest says that there is none.
fn text(member: &Member, answered: &Answered, table: &Table) -> Result<Option<Text>, Failure> {
    let (values, output) = (&answered.values, table.texts.2);
    match (guest_error(values), values.get(output)) {
        (Some(_), _) if table.none.is_some() && values.number("rc") == table.none => Ok(None),
        (Some(error), _) => Err(Failure::input(error)),
        (None, Some(Value::Text(text))) => Ok(Some(text.clone())),
        (None, _) => Err(no_output(member, output)),
    }
}

/// Where the list lacks what it always has: what another program of the pack sees beside it. `None`
/// if it is not asked or has no answer.
pub fn unlisted(
    member: &Member,
    run: &Run<'_>,
    table: &Table,
    numbers: &[u64],
    remarks: &mut Vec<String>,
) -> Option<Vec<u64>> {
    let always = table.always.as_ref().filter(|always| !numbers.contains(&always.number))?;
    remarks.push(always.absent.to_string());
    let name = always.other.0;
    let limit = limit(numbers);
    match list_of_another(member, run, always.other, limit, remarks) {
        Ok(Some(mut seen)) => {
            seen.retain(|number| !numbers.contains(number));
            let only: Vec<String> = seen.iter().map(|&number| (table.show)(number)).collect();
            let only = if only.is_empty() { "nothing".to_string() } else { only.join(" ") };
            remarks.push(format!("below {limit} only {name} sees: {only}"));
            Some(seen)
        }
        Ok(None) => {
            remarks.push(format!("with {name}.prog in the pack, it would be asked too"));
            None
        }
        Err(failure) => {
            remarks.push(format!("{name} has no answer either: {failure}"));
            None
        }
    }
}

/// How far another program has to look for what these numbers lack.
pub fn limit(numbers: &[u64]) -> u64 {
    numbers.iter().max().map_or(0, |most| most.saturating_add(1)).clamp(LEAST, MOST)
}

/// The list of another program, up to `limit`, by its name, input and output; `None` if the pack
/// has no such program.
///
/// # Errors
/// It has no answer, or says that it failed.
pub fn list_of_another(
    member: &Member,
    run: &Run<'_>,
    (name, input, output): (&str, &str, &str),
    limit: u64,
    remarks: &mut Vec<String>,
) -> Result<Option<Vec<u64>>, Failure> {
    let Some(other) = member.other(name)? else { return Ok(None) };
    let answered = answer(&other, run, &[(input.to_string(), limit.to_string())], remarks)?;
    numbers(&answered, output).map(Some).ok_or_else(|| no_output(&other, output))
}

/// The number at which another program's list ends, at least and at most: it tries all below.
const LEAST: u64 = 4096;
const MOST: u64 = 65536;

/// An answer whose own return code tells no failure.
pub fn answer(
    member: &Member,
    run: &Run<'_>,
    inputs: &[(String, String)],
    remarks: &mut Vec<String>,
) -> Result<Answered, Failure> {
    let session = member.session(run).ok();
    let answered = member.query(run, session.as_ref())?.ask(inputs)?;
    if let Some(error) = guest_error(&answered.values) {
        return Err(Failure::file(member.path(), error));
    }
    let file = member.path().display();
    remarks.extend(answered.unverified.iter().map(|why| format!("{file}: not verified: {why}")));
    remarks.extend(departures::remarks(&answered.departures));
    remarks
        .extend(answered.full.iter().map(|name| format!("{file}: {}", report::full(&member.program, name))));
    Ok(answered)
}

/// The numbers in a list; `None` if the output is not there or holds something else.
pub fn numbers(answered: &Answered, name: &str) -> Option<Vec<u64>> {
    let Some(Value::List(items)) = answered.values.get(name) else { return None };
    items.iter().map(number).collect()
}

/// A number that is not negative; `None` for whatever else.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(*number),
        Value::Signed(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The failure of a program that lacks an output.
pub fn no_output(member: &Member, name: &str) -> Failure {
    Failure::file(
        member.path(),
        format!("it has no output {name} of the expected type; docs/packs.md says what packs hold"),
    )
}
