//! What the outputs of a program depend on, in words and as JSON.

use ir::Program;
use ir::program::Dependence;
use serde_json::{Map, Value as Json, json};

/// Whether any output depends on the target. A program that does not know what its outputs depend
/// on is taken at its word.
#[must_use]
pub fn is_of_target(program: &Program) -> bool {
    let outputs = &program.dependences;
    outputs.is_empty() || outputs.iter().any(|it| it.on.iter().any(Dependence::is_of_target))
}

/// The outputs that depend on nothing, not even on an input: training's values.
#[must_use]
pub fn constant(program: &Program) -> Vec<&str> {
    let outputs = program.dependences.iter().filter(|it| it.on.is_empty());
    outputs.map(|it| it.output.as_str()).collect()
}

/// What there is to say of them: they stand beside answers that are the target's.
#[must_use]
pub fn remark(program: &Program) -> Option<String> {
    let names = constant(program);
    (!names.is_empty()).then(|| {
        let names: Vec<_> = names.into_iter().map(crate::format::plain).collect();
        let (verb, value) = if names.len() == 1 { ("depends", "value") } else { ("depend", "values") };
        format!("{} {verb} on nothing of the target: training's {value}, whatever it is", names.join(", "))
    })
}

/// One line for each output of which it is known.
#[must_use]
pub fn lines(program: &Program) -> Vec<String> {
    let line = |output: &ir::program::OutputDependences| {
        let words: Vec<String> = output.on.iter().map(words).collect();
        let on = match words.split_last() {
            None => "is constant".to_owned(),
            Some((only, [])) => format!("depends on {only}"),
            Some((last, before)) => format!("depends on {} and {last}", before.join(", ")),
        };
        format!("{} {on}", output.output)
    };
    program.dependences.iter().map(line).collect()
}

/// By output, what it depends on; nothing where that is not known.
#[must_use]
pub fn json(program: &Program) -> Json {
    if program.dependences.is_empty() {
        return Json::Null;
    }
    let of = |on: &[Dependence]| json!(on.iter().map(ToString::to_string).collect::<Vec<_>>());
    let outputs: Map<String, Json> =
        program.dependences.iter().map(|output| (output.output.clone(), of(&output.on))).collect();
    outputs.into()
}

fn words(dependence: &Dependence) -> String {
    match dependence {
        Dependence::Memory => "the target's memory".to_owned(),
        Dependence::Registers => "the target's registers".to_owned(),
        Dependence::Counter => "the target's time stamp counter".to_owned(),
        Dependence::Device => "a device of the target's".to_owned(),
        Dependence::Input(name) => format!("the input {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_of_the_target_if_any_output_is() {
        let program = |depends: &str| {
            let text = format!(
                "program \"test\"\ninput \"n\" u32 @0x1000\noutput \"rc\" i32 @0x2000\n\
                 output \"pid\" u32 @0x2004\n{depends}"
            );
            ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses")
        };
        let read = program("depends \"rc\"\ndepends \"pid\" memory registers input \"n\"\n");
        assert!(is_of_target(&read) && is_of_target(&program("")));
        assert_eq!(
            lines(&read),
            ["rc is constant", "pid depends on the target's memory, the target's registers and the input n"]
        );
        assert_eq!(json(&read), json!({"rc": [], "pid": ["memory", "registers", "input n"]}));
        assert_eq!(json(&program("")), Json::Null);
        assert_eq!((constant(&read), constant(&program(""))), (vec!["rc"], vec![]));
        assert_eq!(remark(&program("")), None);
        let said = remark(&read).expect("there is one");
        assert!(said.starts_with("rc depends on nothing of the target"), "{said}");
        let constant = program("depends \"rc\"\ndepends \"pid\" input \"n\"\n");
        assert!(!is_of_target(&constant));
        assert!(remark(&constant).is_some_and(|it| it.starts_with("rc depends on nothing")));
        let both = program("depends \"rc\"\ndepends \"pid\"\n");
        assert!(remark(&both).is_some_and(|it| it.starts_with("rc, pid depend on nothing")));
        assert_eq!(lines(&constant)[1], "pid depends on the input n");
    }
}
