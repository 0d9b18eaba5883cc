//! Values and programs as people read them.

use std::borrow::Cow;
use std::time::Duration;

use engine::locate::Located;
use engine::{Text, Value};
use ir::program::{Callee, Count, Elem, FuncId, Function, Target, Terminator, Variable};
use ir::text::{print_op, print_terminator};
use ir::{Arg, Kind, Op, Var};
use machine::Reg;

/// The width in columns that folded lists fill.
const COLUMNS: usize = 100;
/// Numbers from here on are addresses more likely than counts.
const ADDRESS: u64 = 1 << 32;

/// A value for people: addresses in hexadecimal, lists folded under `indent` columns.
#[must_use]
pub fn value(value: &Value, indent: usize) -> String {
    match value {
        Value::Unsigned(number) if *number >= ADDRESS => format!("{number:#x}"),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| self::value(item, indent)).collect();
            format!("[{}]", fold(&items, indent + 1))
        }
    }
}

/// How a target's processors were found, and how sure that is. `named`: the target has
/// processors, and of the one that is asked too little is known.
#[must_use]
pub fn located(found: &Located, named: bool) -> String {
    let (count, (gates, all_gates), (roots, all_roots)) = (found.cpus.len(), found.gates, found.roots);
    let base = match found.signature {
        Some((least, all)) => format!("per-CPU memory by at least {least} of {all} places"),
        None => "per-CPU memory as given".to_string(),
    };
    let lack = if named { "its processor state has no kernel GS base" } else { "no processor state in it" };
    format!(
        "{lack}; found in memory: {} (interrupt table by {gates} of {all_gates} gates, \
         page tables by {roots} of {all_roots} that agree, {base})",
        counted(count, "processor")
    )
}

/// A count with its noun, which is in the plural unless the count is 1.
#[must_use]
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Items separated by spaces, broken into lines that begin under the first item.
fn fold(items: &[String], indent: usize) -> String {
    let (mut text, mut column) = (String::new(), indent);
    for (at, item) in items.iter().enumerate() {
        if at > 0 && column + 1 + item.len() > COLUMNS {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if at > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(item);
        column += item.len();
    }
    text
}

/// Text from a file, without the characters that a terminal would obey instead of showing them.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return text.into();
    }
    text.chars().map(|c| if is_obeyed(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A guest's text as it stands in tables: without quotes, and without what a terminal would obey.
#[must_use]
pub fn shown(text: &Text) -> String {
    text.shown(|text| plain(text).into_owned())
}

/// Whether a character steers what shows it: controls (C0, DEL, C1), the ends of lines and
/// paragraphs, and the marks, embeddings, overrides and isolates that change in which direction the
/// text behind them runs (Unicode Standard Annex 9).
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

/// A number of bytes in the unit that suits it: bytes, KiB, MiB or GiB.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x2800 => format!("{bytes} bytes"),
        0x2800..0xa0_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0xa0_0000..0x2_8000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Bytes in hexadecimal, two digits each, separated by spaces.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Bytes in hexadecimal without separators, as hashes are written.
#[must_use]
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An input or output as its marker declares it.
#[must_use]
pub fn variable(variable: &Variable) -> String {
    let elem = match variable.elem {
        Elem::Unsigned(bytes) => format!("u{}", 8 * u32::from(bytes)),
        Elem::Signed(bytes) => format!("i{}", 8 * u32::from(bytes)),
        Elem::Char => "cstr".to_string(),
        Elem::Byte => "bytes".to_string(),
    };
    let count = match &variable.count {
        Count::One => String::new(),
        Count::Fixed(count) => format!("[{count}]"),
        Count::Variable { name, max } => format!("[{name}<={max}]"),
    };
    plain(&format!("{}:{elem}{count}", variable.name)).into_owned()
}

/// A register's name; `?` where there is no such register.
#[must_use]
pub fn register(var: Var) -> &'static str {
    Reg::from_index(var.0.into()).map_or("?", Reg::name)
}

/// An operation: `t0 = add.64 rsp, 0x8`; an instruction that is not modelled with its name.
#[must_use]
pub fn op(op: &Op) -> String {
    let text = print_op(op, Reg::NAMES);
    match (op.kind, op.args[0]) {
        (Kind::Unsupported, Arg::Const(id)) => format!("{text}  ; {}", lift::mnemonic_name(id)),
        _ => text,
    }
}

/// A block's end; guards are marked, called functions named.
#[must_use]
pub fn terminator(term: &Terminator, functions: &[Function]) -> String {
    let mut notes: Vec<Cow<'_, str>> = called(term)
        .filter_map(|id| functions.get(id.0 as usize))
        .map(|function| plain(&function.name))
        .filter(|name| !name.is_empty())
        .collect();
    if is_guard(term) {
        notes.insert(0, "guard".into());
    }
    let text = print_terminator(term, Reg::NAMES);
    if notes.is_empty() { text } else { format!("{text}  ; {}", notes.join(", ")) }
}

/// The functions a block's end names.
fn called(term: &Terminator) -> impl Iterator<Item = FuncId> + '_ {
    let callees: Vec<FuncId> = match term {
        Terminator::Call { callee: Callee::Direct(id), .. } => vec![*id],
        Terminator::Call { callee: Callee::Indirect { arms, .. }, .. } => {
            arms.iter().filter_map(|arm| arm.target).collect()
        }
        _ => Vec::new(),
    };
    let tails = targets(term).into_iter().filter_map(|target| match target {
        Target::Tail(id) => Some(id),
        _ => None,
    });
    callees.into_iter().chain(tails)
}

/// Where a block may lead, its callees left out.
#[must_use]
pub fn targets(term: &Terminator) -> Vec<Target> {
    match term {
        Terminator::Goto(target) => vec![*target],
        Terminator::Branch { taken, otherwise, .. } => vec![*taken, *otherwise],
        Terminator::Switch { arms, .. } => arms.iter().map(|arm| arm.target).collect(),
        Terminator::Call { then, .. } => vec![*then],
        Terminator::End => Vec::new(),
    }
}

/// Whether it is a branch of which training saw one side only.
#[must_use]
pub fn is_guard(term: &Terminator) -> bool {
    let unexplored = |target: &Target| matches!(target, Target::Unexplored(_));
    matches!(term, Terminator::Branch { taken, otherwise, .. } if unexplored(taken) != unexplored(otherwise))
}

/// A number from the command line, decimal or with `0x`.
pub fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{error}; give a number such as 4096 or 0x1000"))
}

/// A time from the command line, such as 1s, 500ms or 2m; without a unit, seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err("give a time such as 1s, 500ms or 2m".to_owned()),
    };
    let seconds = digits.parse::<f64>().map(|number| number * unit).ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "give a time such as 1s, 500ms or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_fold() {
        let list = Value::List((0..60).map(Value::Unsigned).collect());
        let text = value(&list, 7);
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.len() <= COLUMNS + 1), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("        ")), "{text}");
    }

    #[test]
    fn values() {
        assert_eq!(value(&Value::Unsigned(0xffff_ffff_c000_0000), 0), "0xffffffffc0000000");
        assert_eq!(value(&Value::Signed(-2), 0), "-2");
        assert_eq!(value(&Value::Text("a\x1b\"".into()), 0), "\"a\\u{1b}\\\"\"");
    }

    #[test]
    fn ends_name_functions_and_guards() {
        let function =
            Function { pc: 0, name: "idr_find".into(), callee_saved: Vec::new(), blocks: Vec::new() };
        let call =
            Terminator::Call { callee: Callee::Direct(FuncId(0)), stack: Var(4), then: Target::Return };
        assert!(terminator(&call, std::slice::from_ref(&function)).ends_with("; idr_find"));
        let cond = Arg::Const(1);
        let guard =
            Terminator::Branch { cond, taken: Target::Unexplored(16), otherwise: Target::Tail(FuncId(0)) };
        assert!(terminator(&guard, &[function]).ends_with("; guard, idr_find"));
        assert!(is_guard(&guard));
        assert!(!is_guard(&Terminator::Branch { cond, taken: Target::Return, otherwise: Target::Return }));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a b"), "a b");
        assert_eq!(plain("a\x1b[31m"), "a\\u{1b}[31m");
        assert_eq!(plain("ä\u{9b}31m\x7f"), "ä\\u{9b}31m\\u{7f}");
        let obeyed = ('\0'..'\x20').chain('\x7f'..='\u{9f}').chain('\u{2028}'..='\u{202e}');
        for c in obeyed.chain('\u{2066}'..='\u{2069}').chain(['\u{61c}', '\u{200e}', '\u{200f}']) {
            let code = c as u32;
            for text in
                [plain(&format!("a{c}b")).into_owned(), value(&Value::Text(format!("a{c}b").into()), 0)]
            {
                assert!(!text.contains(c) && text.contains('\\'), "{code:#x}: {text:?}");
            }
        }
        assert_eq!(plain("שלום 漢字"), "שלום 漢字");
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number("0x10"), Ok(16));
        assert!(parse_number("ten").is_err());
    }

    #[test]
    fn intervals_have_units() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("3"), Ok(Duration::from_secs(3)));
        assert!(["", "s", "-1s", "1h", "nan", "infs"].iter().all(|text| parse_time(text).is_err()));
    }
}
